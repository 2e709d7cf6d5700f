"""What must be true of the pre-activation of neurons with missing inputs, number by number."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from nlsim.systems.masked.layer import as_number, gate, masked_affine, observed, observed_fraction

WEIGHT = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
BIAS = torch.tensor([0.6], dtype=torch.float64)
VALUES = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
LEVEL = torch.tensor([-0.3], dtype=torch.float64)

# mask: PROMISSING, mPROMISSING, zero imputation, sparsity normalisation
GOLDEN = {
    "111": (9.1, 9.1, 9.1, 9.1),
    "110": (2.9, 2.8, 3.1, 4.35),
    "101": (6.9, 6.8, 7.1, 10.35),
    "011": (8.4, 8.3, 8.6, 12.6),
    "100": (0.7, 0.5, 1.1, 2.1),
    "010": (2.2, 2.0, 2.6, 6.6),
    "001": (6.2, 6.0, 6.6, 18.6),
    "000": (0.0, -0.3, 0.6, math.nan),
}
# four numbers of size up to 6, four roundings of a sum up to 9.1, and the decimals of the table: 10 · 1.1e-16 · 10
TABLE = 1.2e-14


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chance(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.5


def explicit(values: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """An ordinary layer fed, neuron by neuron and input by input, with neutralizers."""
    made = bias.repeat(len(values), 1).clone()
    for r, h, j in itertools.product(range(len(values)), range(len(weight)), range(weight.shape[1])):
        fill = -bias[h] / (weight.shape[1] * weight[h, j])
        made[r, h] += weight[h, j] * (values[r, j] if mask[r, j] else fill)
    return made


@pytest.mark.parametrize("mask", GOLDEN)
def test_golden_table(mask: str) -> None:
    seen = torch.tensor([[each == "1" for each in mask]])
    zeros = VALUES.masked_fill(~seen, 0.0)
    boosted = 3 / seen.sum() * linear(zeros, WEIGHT) + BIAS
    found = (
        masked_affine(VALUES, seen, WEIGHT, BIAS),
        masked_affine(VALUES, seen, WEIGHT, BIAS, compensation=LEVEL),
        masked_affine(VALUES, seen, WEIGHT, BIAS, compensation=BIAS),
        boosted,
    )
    assert [float(each) for each in found] == pytest.approx(GOLDEN[mask], abs=TABLE, nan_ok=True)
    assert float(explicit(VALUES, seen, WEIGHT, BIAS)) == pytest.approx(GOLDEN[mask][0], abs=TABLE)


def test_golden_neutralizers() -> None:
    assert (-BIAS / (3 * WEIGHT))[0].tolist() == pytest.approx([-0.4, 0.2, -0.1], abs=1e-16)


def test_every_mask_of_a_random_layer_against_neutralizers() -> None:
    p = 6
    weight, bias = random(0, 4, p), random(1, 4)
    weight = weight + 0.1 * weight.sign()
    masks = torch.tensor(list(itertools.product((False, True), repeat=p)))
    values = random(2, len(masks), p)
    ours = masked_affine(values, masks, weight, bias)
    # 2 · 13 roundings of partial sums below Σ|wx| + 2|b| < 30
    assert torch.allclose(ours, explicit(values, masks, weight, bias), rtol=0, atol=2 * 13 * 1.1e-16 * 30)


@pytest.mark.parametrize("slot", [math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.float64])
def test_nothing_observed_is_exactly_zero_and_exactly_w_c(slot: float, mask_dtype: torch.dtype) -> None:
    values, nothing = torch.full((2, 5), slot, dtype=torch.float64), torch.zeros(2, 5, dtype=mask_dtype)
    weight = random(0, 3, 5) * torch.tensor([0.0, 1.0, 0.0, 1e300, 1.0], dtype=torch.float64)
    bias, level = 1e300 * random(1, 3), random(2, 3)
    assert (masked_affine(values, nothing, weight, bias) == 0).all()
    assert torch.equal(masked_affine(values, nothing, weight, bias, compensation=level), level.expand(2, 3))


@pytest.mark.parametrize("slot", [math.nan, math.inf, -math.inf, -3.0])
@pytest.mark.parametrize("is_soft", [False, True])
def test_what_a_missing_slot_holds_is_without_effect(slot: float, is_soft: bool) -> None:
    mask = chance(0, 6, 5)
    degree = mask * random(5, 6, 5).sigmoid() if is_soft else mask
    leaves = random(1, 6, 5), random(2, 4, 5), random(3, 4), random(4, 4)

    def run(values: Tensor) -> list[Tensor]:
        x, w, b, c = (each.clone().requires_grad_() for each in (values, *leaves[1:]))
        made = masked_affine(x, degree, w, b, compensation=c)
        return [made, *torch.autograd.grad(made.sum() + made.square().sum(), (x, w, b, c))]

    clean, holed = run(leaves[0]), run(leaves[0].masked_fill(~mask, slot))
    assert all(torch.equal(one, other) for one, other in zip(clean, holed, strict=True))
    assert (holed[1][~mask] == 0).all()


def test_gradients_of_a_sample() -> None:
    mask = torch.tensor([[True, False, True]])
    x, w, b, c = (each.clone().requires_grad_() for each in (VALUES, WEIGHT, BIAS, LEVEL))
    made = masked_affine(x, mask, w, b, compensation=c)
    dx, dw, db, dc = torch.autograd.grad(2.0 * made.sum(), (x, w, b, c))
    assert dw.tolist() == [[2.0, 0.0, 6.0]]
    assert dx.tolist() == [[1.0, 0.0, 4.0]]
    assert float(db) == 2.0 * (2.0 / 3.0)
    assert float(dc) == 2.0 * (1.0 - 2.0 / 3.0)


def test_gradients_against_differences() -> None:
    mask = chance(0, 5, 4)
    degree = (0.2 + 0.7 * random(9, 5, 4).sigmoid()).requires_grad_()
    leaves = [each.requires_grad_() for each in (random(1, 5, 4), random(2, 3, 4), random(3, 3), random(4, 3))]

    def hard(x: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return masked_affine(x, mask, w, b, compensation=c)

    def soft(x: Tensor, w: Tensor, b: Tensor, c: Tensor, m: Tensor) -> Tensor:
        return masked_affine(x, m, w, b, compensation=c)

    assert torch.autograd.gradcheck(hard, leaves)
    assert torch.autograd.gradcheck(soft, [*leaves, degree])
    assert torch.autograd.gradgradcheck(soft, [*leaves, degree])


def test_a_weight_of_zero_with_nothing_missing_has_finite_gradients() -> None:
    w, b = torch.tensor([[0.5, 0.0]], requires_grad=True), torch.ones(1, requires_grad=True)
    made = masked_affine(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool), w, b)
    dw, db = torch.autograd.grad(made.sum(), (w, b))
    assert (dw.tolist(), db.tolist()) == ([[1.0, 2.0]], [1.0])


def test_w_c_leads_from_promissing_to_zero_imputation() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    plain = masked_affine(values, mask, weight, bias)
    assert torch.equal(masked_affine(values, mask, weight, bias, compensation=torch.zeros(3).double()), plain)
    zeros = linear(values.masked_fill(~mask, 0.0), weight, bias)
    alike = masked_affine(values, mask, weight, bias, compensation=bias)
    assert torch.allclose(alike, zeros, rtol=0, atol=4 * 1.1e-16 * 10)  # μb + (1 − μ)b: four roundings, |a| < 10
    assert (plain - zeros).abs().max() > 0.1


def test_a_dense_layer_without_bias_on_one_feature_more() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    features = torch.cat([values * mask, mask.double().mean(-1, keepdim=True)], -1)
    wider = torch.cat([weight, bias[:, None]], -1)
    assert torch.allclose(masked_affine(values, mask, weight, bias), linear(features, wider), rtol=0, atol=1e-14)


def test_a_missing_indicator_layer_with_tied_coefficients() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    features = torch.cat([values * mask, 1.0 - mask.double()], -1)
    tied = torch.cat([weight, (-bias / 5)[:, None].expand(3, 5)], -1)
    assert torch.allclose(masked_affine(values, mask, weight, bias), linear(features, tied, bias), rtol=0, atol=1e-14)


def test_sparsity_normalisation_shrunk_by_the_fraction() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    mask[:, 2] = True
    count = mask.double().sum(-1, keepdim=True)
    boosted = 5 / count * linear(values * mask, weight) + bias
    assert torch.allclose(masked_affine(values, mask, weight, bias), count / 5 * boosted, rtol=0, atol=1e-14)


def test_scales_do_not_matter_shifts_do_by_the_closed_form() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    plain = masked_affine(values, mask, weight, bias)
    scale = torch.tensor([2.0, 0.5, 8.0, 1.0, 0.125], dtype=torch.float64)
    assert torch.equal(masked_affine(values * scale, mask, weight / scale, bias), plain)
    shift = random(4, 5)
    moved = masked_affine(values + shift, mask, weight, bias - weight @ shift)
    expected = ((mask.double() - mask.double().mean(-1, keepdim=True)) * shift) @ weight.T
    assert torch.allclose(moved - plain, expected, rtol=0, atol=3e-14)
    assert expected.abs().max() > 0.5


def test_the_order_of_inputs_does_not_matter() -> None:
    mask, values, weight, bias = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5), random(3, 3)
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = masked_affine(values[:, order], mask[:, order], weight[:, order], bias)
    assert torch.allclose(permuted, masked_affine(values, mask, weight, bias), rtol=0, atol=1e-14)


def test_contributions_add_up_also_for_soft_masks() -> None:
    values, weight, bias = random(1, 4, 5), random(2, 3, 5), random(3, 3)
    contributions = values[:, None, :] * weight + bias[:, None] / 5
    for mask in (chance(0, 4, 5), random(5, 4, 5).sigmoid()):
        expected = (mask.double()[:, None, :] * contributions).sum(-1)
        assert torch.allclose(masked_affine(values, mask, weight, bias), expected, rtol=0, atol=1e-14)


def test_masks_belong_to_rows_and_p_to_the_layer() -> None:
    values, weight, bias, mask = random(1, 6, 5), random(2, 3, 5), random(3, 3), chance(0, 6, 5)
    mask[:, 4] = False  # a column that no row of the batch observes counts all the same
    together = masked_affine(values, mask, weight, bias)
    for r in range(6):
        alone = masked_affine(values[r : r + 1], mask[r : r + 1], weight, bias)
        assert torch.allclose(alone[0], together[r], rtol=0, atol=1e-14)
    signal = linear(values * mask, weight)
    assert torch.allclose(together - signal, mask.sum(-1, keepdim=True) * bias / 5, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("is_seen", "expected"), [(True, 2.0 * 3.0 + 0.5), (False, 0.0)])
def test_one_input(is_seen: bool, expected: float) -> None:
    made = masked_affine(torch.tensor([[3.0]]), torch.tensor([[is_seen]]), torch.tensor([[2.0]]), torch.tensor([0.5]))
    assert made.tolist() == [[expected]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_mask_does_not_matter(dtype: torch.dtype) -> None:
    mask, values = chance(0, 8, 7), random(1, 8, 7).to(dtype)
    weight, bias, level = random(2, 3, 7).to(dtype), random(3, 3).to(dtype), random(4, 3).to(dtype)
    kinds = (torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32, torch.float64)
    reference = masked_affine(values, mask, weight, bias, compensation=level)
    for kind in kinds:
        assert torch.equal(masked_affine(values, mask.to(kind), weight, bias, compensation=level), reference)
    assert observed_fraction(mask, dtype).dtype == reference.dtype == dtype
    assert torch.equal(observed_fraction(mask, dtype), (mask.sum(-1, keepdim=True).double() / 7).to(dtype))


def test_what_is_nan_is_missing_and_infinities_are_not() -> None:
    values = torch.tensor([math.nan, -math.inf, 0.0, -math.nan, math.inf, 1e-320], dtype=torch.float64)
    assert observed(values).tolist() == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert observed(values.requires_grad_()).requires_grad is False


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (4, 1), (4, 5), (3, 1, 5)])
def test_a_mask_broadcasts(shape: tuple[int, ...]) -> None:
    values, weight, bias = random(1, 4, 5).requires_grad_(), random(2, 3, 5), random(3, 3)
    mask = random(4, *shape).sigmoid()
    whole = torch.broadcast_shapes(shape, (4, 5))
    found = masked_affine(values, mask, weight, bias)
    expected = masked_affine(values, mask.expand(whole).clone(), weight, bias)
    assert found.shape == expected.shape == (*whole[:-1], 3)
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)
    one, other = (torch.autograd.grad(each.square().sum(), values)[0] for each in (found, expected))
    assert torch.allclose(one, other, rtol=0, atol=1e-12)  # Σ of up to 9 products of size 100


def test_leading_axes_are_members() -> None:
    weight, bias, level = random(1, 2, 6, 3, 5), random(2, 2, 6, 3), random(3, 6, 3)
    values, mask = random(4, 6, 4, 5), chance(0, 2, 6, 4, 5)
    found = masked_affine(values, mask, weight, bias, compensation=level)
    for a, e in itertools.product(range(2), range(6)):
        alone = masked_affine(values[e], mask[a, e], weight[a, e], bias[a, e], compensation=level[e])
        assert torch.allclose(found[a, e], alone, rtol=0, atol=1e-14)


def test_functions_transform() -> None:
    weight, bias, values, mask = random(1, 6, 3, 5), random(2, 6, 3), random(3, 4, 5), chance(0, 4, 5)
    holed = values.masked_fill(~mask, math.nan)

    def energy(w: Tensor, b: Tensor, x: Tensor) -> Tensor:
        return masked_affine(x, observed(x), w, b).square().sum()

    each = torch.func.vmap(torch.func.grad(energy), (0, 0, None))(weight, bias, holed)
    for e in range(6):
        leaf = weight[e].clone().requires_grad_()
        (alone,) = torch.autograd.grad(masked_affine(values, mask, leaf, bias[e]).square().sum(), leaf)
        assert torch.allclose(each[e], alone, rtol=0, atol=1e-12)
    hard = torch.func.vmap(lambda m: masked_affine(values[0], m, weight[0], bias[0]))(mask)
    assert torch.allclose(hard, masked_affine(values[0].expand(4, 5), mask, weight[0], bias[0]), rtol=0, atol=1e-14)


def test_shares_are_exact_at_both_ends_whatever_their_rounding() -> None:
    shares = torch.full((14,), 1 / 14)
    ends = torch.stack([torch.ones(14), torch.zeros(14)])
    assert float(shares.sum()) != 1.0  # else this would show nothing
    assert observed_fraction(ends, torch.float32, shares).flatten().tolist() == [1.0, 0.0]


def test_without_bias_it_is_zero_imputation() -> None:
    mask, values, weight = chance(0, 8, 5), random(1, 8, 5), random(2, 3, 5)
    assert torch.equal(masked_affine(values, mask, weight), linear(values.masked_fill(~mask, 0.0), weight))
    assert torch.equal(gate(values, mask), values.masked_fill(~mask, 0.0))


def test_a_mask_as_number_is_a_copy_only_where_it_has_to_be() -> None:
    mask = random(0, 3)
    assert as_number(mask, torch.float64) is mask
    assert as_number(torch.tensor([True, False]), torch.float32).tolist() == [1.0, 0.0]
