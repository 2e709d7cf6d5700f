"""What goes wrong otherwise: each broken variant is seen to be broken, beside ours that is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nlsim.systems.masked.layer import gate, masked_affine, observed_fraction
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.shares import group_shares


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(values: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, guard: float = 0.0, p: int = 0) -> Tensor:
    """Select between inputs and neutralizers −b/(p (w + ε))."""
    fill = -bias[:, None] / ((p or weight.shape[1]) * (weight + guard))
    return (torch.where(mask[:, None, :], values[:, None, :], fill) * weight).sum(-1) + bias


def test_a_select_hides_the_division_from_the_value_but_not_from_the_gradient() -> None:
    values, mask = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool)
    w, b = torch.tensor([[0.5, 0.0]], requires_grad=True), torch.ones(1, requires_grad=True)
    made = naive(values, mask, w, b)
    dw, db = torch.autograd.grad(made.sum(), (w, b))
    assert made.tolist() == [[1.5]]
    assert dw[0, 0] == 1.0
    assert dw[0, 1].isnan()
    assert db.isnan()
    assert masked_affine(values, mask, w, b).tolist() == [[1.5]]


def test_a_weight_of_zero_under_a_missing_input_is_nan() -> None:
    values, mask = torch.ones(1, 2), torch.tensor([[True, False]])
    weight, bias = torch.tensor([[0.5, 0.0]]), torch.ones(1)
    assert naive(values, mask, weight, bias).isnan().all()
    assert masked_affine(values, mask, weight, bias).tolist() == [[1.0]]


def test_a_guard_takes_away_a_part_of_the_share_only() -> None:
    values, mask = torch.ones(1, 2).double(), torch.tensor([[True, False]])
    weight, bias = torch.tensor([[2.0, 1e-10]], dtype=torch.float64), torch.ones(1).double()
    assert float(naive(values, mask, weight, bias, guard=1e-8)) == pytest.approx(2.995, abs=1e-4)
    assert float(masked_affine(values, mask, weight, bias)) == 2.5


@pytest.mark.parametrize(("size", "outcome"), [(1e-40, -math.inf), (1e-46, math.nan)])
def test_single_precision_overflows(size: float, outcome: float) -> None:
    values, mask = torch.ones(1, 2), torch.tensor([[True, False]])
    weight, bias = torch.tensor([[1.0, size]]), torch.ones(1)
    assert float(naive(values, mask, weight, bias)) == pytest.approx(outcome, nan_ok=True)
    assert float(masked_affine(values, mask, weight, bias)) == 1.5


def test_neutralizers_leave_round_off_where_nothing_is_seen() -> None:
    nothing = torch.zeros(500, 7, dtype=torch.bool)
    weight, bias = random(0, 200, 7), random(1, 200)
    left = naive(torch.zeros(1, 7).double(), nothing[:1], weight, bias)[0]
    assert 0.1 < float((left == 0).double().mean()) < 0.9
    assert left.abs().max() < 1e-14
    assert (masked_affine(torch.zeros(1, 7).double(), nothing[:1], weight, bias) == 0).all()


def test_a_detached_neutralizer_is_another_algorithm() -> None:
    w = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    values, mask = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64), torch.tensor([[True, False, True]])
    fill = (-b[:, None] / (3 * w)).detach()
    detached = (torch.where(mask[:, None, :], values[:, None, :], fill) * w).sum(-1) + b
    dw, db = torch.autograd.grad(detached.sum(), (w, b))
    assert dw.tolist()[0] == pytest.approx([1.0, 0.2, 3.0], abs=1e-16)
    assert db.tolist() == [1.0]
    dw, db = torch.autograd.grad(masked_affine(values, mask, w, b).sum(), (w, b))
    assert (dw.tolist(), db.tolist()) == ([[1.0, 0.0, 3.0]], [2 / 3])


@pytest.mark.parametrize("p", [2, 3, 5])
def test_a_wrong_p_leaves_bias_over(p: int) -> None:
    weight, bias, nothing = random(0, 3, 4), random(1, 3), torch.zeros(1, 4, dtype=torch.bool)
    left = naive(random(2, 1, 4), nothing, weight, bias, p=p)[0]
    assert torch.allclose(left, bias * (1 - 4 / p), rtol=0, atol=1e-14)
    assert left.abs().min() > 0.01


def test_b_of_zero_shows_no_effect() -> None:
    values, mask, weight = random(0, 9, 5), random(1, 9, 5) > 0, random(2, 3, 5)
    zeros = values.masked_fill(~mask, 0.0) @ weight.T
    assert torch.allclose(masked_affine(values, mask, weight, torch.zeros(3).double()), zeros, rtol=0, atol=1e-14)
    with_bias = masked_affine(values, mask, weight, torch.ones(3).double())
    assert (with_bias - zeros - 1.0).abs().max() > 0.1


def test_a_one_hot_of_zeros_is_not_a_missing_category() -> None:
    """Three columns for a category: coded as observed zeros they bring 3b/4, missing they bring nothing."""
    layer = MaskedLinear(4, 2, dtype=torch.float64)
    coded = torch.tensor([[math.nan, 0.0, 0.0, 0.0]], dtype=torch.float64)
    missing = torch.full((1, 4), math.nan, dtype=torch.float64)
    assert torch.allclose(layer(coded), 0.75 * layer.bias, rtol=0, atol=1e-16)
    assert (layer(missing) == 0).all()
    shared = MaskedLinear(4, 2, dtype=torch.float64, shares=group_shares([1, 3]))
    assert torch.allclose(shared(coded), 0.5 * shared.bias, rtol=0, atol=1e-16)


def test_normalising_afterwards_ends_neutrality() -> None:
    layer, normalise = MaskedLinear(4, 3, dtype=torch.float64), torch.nn.BatchNorm1d(3, dtype=torch.float64)
    values = random(0, 8, 4)
    values[0] = math.nan
    made = layer(values)
    assert (made[0] == 0).all()
    assert normalise(made)[0].abs().min() > 0.05


def test_logistic_units_send_half_their_weights_up() -> None:
    first, second = MaskedLinear(4, 5, dtype=torch.float64), MaskedLinear(5, 2, dtype=torch.float64)
    hidden = torch.sigmoid(first(torch.full((1, 4), math.nan, dtype=torch.float64)))
    expected = 0.5 * second.weight.sum(-1) + second.bias
    assert torch.allclose(second(hidden)[0], expected, rtol=0, atol=1e-15)
    assert expected.abs().max() > 0.01


def test_multiplying_by_the_mask_keeps_nan() -> None:
    holed, mask = torch.tensor([[math.nan, 2.0]]), torch.tensor([[False, True]])
    assert (holed * mask).isnan().any()
    assert gate(holed, mask).tolist() == [[0.0, 2.0]]
    assert gate(holed, torch.tensor([[0.0, 0.5]])).tolist() == [[0.0, 1.0]]


def test_a_fraction_in_single_precision_costs_eight_digits() -> None:
    mask = torch.tensor([[True, True, False]])
    careless = mask.float().mean(-1, keepdim=True).double()
    assert 1e-9 < abs(float(careless) - 2 / 3) < 6e-8
    assert float(observed_fraction(mask, torch.float64)) == 2 / 3


@pytest.mark.parametrize(("dtype", "p"), [(torch.float32, 41), (torch.float64, 49)])
def test_a_count_times_a_rounded_reciprocal_is_not_one(dtype: torch.dtype, p: int) -> None:
    """Why the fraction is a quotient: p · fl(1/p) < 1."""
    whole = torch.ones(1, p, dtype=dtype)
    assert float(whole.sum() * torch.tensor(1 / p, dtype=dtype)) < 1.0
    assert float(observed_fraction(whole, dtype)) == 1.0


def test_inputs_that_are_not_standardised() -> None:
    """Shift the data and the bias along: complete samples notice nothing, incomplete ones do."""
    values, mask, weight, bias = random(0, 9, 5), random(1, 9, 5) > 0, random(2, 3, 5), random(3, 3)
    whole = torch.ones_like(mask)
    moved = bias - weight.sum(-1)
    complete = masked_affine(values + 1, whole, weight, moved) - masked_affine(values, whole, weight, bias)
    incomplete = masked_affine(values + 1, mask, weight, moved) - masked_affine(values, mask, weight, bias)
    assert complete.abs().max() < 2e-14
    assert incomplete.abs().max() > 0.1


def fit(values: Tensor, mask: Tensor, target: Tensor) -> float:
    """Return the mean squared error left by least squares in the coefficients of one neuron."""
    p = values.shape[1]
    unit = torch.eye(p + 1, dtype=torch.float64)
    design = masked_affine(values, mask, unit[:, :p], unit[:, p])
    found = torch.linalg.lstsq(design, target).solution
    return float((design @ found - target).square().mean())


def test_masks_of_other_rows_are_worth_nothing() -> None:
    """The target is a masked neuron: its own masks fit it, permuted ones no better than another permutation."""
    values, mask = random(0, 600, 4), random(1, 600, 4) > 0
    weight, bias = random(2, 1, 4), torch.full((1,), 2.0).double()
    target = masked_affine(values, mask, weight, bias)
    spread = float(target.var())
    own = fit(values, mask, target)
    permuted = [
        fit(values, mask[torch.randperm(600, generator=torch.Generator().manual_seed(s))], target) for s in range(6)
    ]
    assert own < 1e-24
    assert min(permuted) > 0.3 * spread
    assert max(permuted) - min(permuted) < 0.2 * spread


def test_shuffled_labels_are_not_learned() -> None:
    values, mask = random(0, 600, 4), random(1, 600, 4) > 0
    target = masked_affine(values, mask, random(2, 1, 4), torch.zeros(1).double())
    shuffled = target[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    # five coefficients explain 5/600 of noise on average; 30/600 is beyond any chance
    assert fit(values, mask, shuffled) > 0.95 * float((target - target.mean()).square().mean())


@pytest.mark.parametrize(("k", "expected"), [(2, 0.273), (4, 0.352), (6, 0.411)])
def test_confidence_may_rise_when_inputs_are_removed(k: int, expected: float) -> None:
    cases, p = 20_000, 8
    contributions, mask = random(0, cases, p), (torch.arange(p) < k).expand(cases, p)
    weight, bias = torch.ones(1, p).double(), torch.zeros(1).double()
    complete = masked_affine(contributions, torch.ones(cases, p), weight, bias).abs()
    rate = float((masked_affine(contributions, mask, weight, bias).abs() > complete).double().mean())
    closed = math.atan(2 * math.sqrt(k / (p - k))) / math.pi
    assert closed == pytest.approx(expected, abs=5e-4)
    assert abs(rate - closed) < 5 * math.sqrt(closed * (1 - closed) / cases)


def test_mean_and_variance_under_random_masks() -> None:
    """ρ a(1) and ρ (1 − ρ) Σ c², within five standard errors."""
    draws, p, rho = 100_000, 5, 0.3
    values, weight, bias = random(0, 1, p), random(1, 1, p), random(2, 1)
    mask = torch.rand(draws, p, generator=torch.Generator().manual_seed(3)) < rho
    made = masked_affine(values.expand(draws, p), mask, weight, bias)[:, 0]
    contributions = values * weight + bias / p
    variance = rho * (1 - rho) * float(contributions.square().sum())
    assert abs(float(made.mean()) - rho * float(contributions.sum())) < 5 * math.sqrt(variance / draws)
    fourth = float((made - made.mean()).pow(4).mean())
    assert abs(float(made.var()) - variance) < 5 * math.sqrt((fourth - variance**2) / draws)


@pytest.mark.parametrize(("rho", "p"), [(0.5, 10), (0.25, 4)])
def test_least_squares_inflates_the_bias_and_w_c_undoes_it(rho: float, p: int) -> None:
    """b̂ = b/(ρ + (1 − ρ)/p): 3.64 for b = 2 at ρ = 1/2, p = 10; with w_c both are b."""
    draws, bias = 40_000, 2.0
    values, weight = random(0, draws, p), random(1, 1, p)
    mask = torch.rand(draws, p, generator=torch.Generator().manual_seed(2)) < rho
    target = values @ weight.T + bias
    unit = torch.eye(p + 2, dtype=torch.float64)
    design = masked_affine(values, mask, unit[:, :p], unit[:, p], compensation=unit[:, p + 1])
    plain = torch.linalg.lstsq(design[:, :-1], target).solution[:, 0]
    both = torch.linalg.lstsq(design, target).solution[:, 0]
    expected = bias / (rho + (1 - rho) / p)
    # errors of what is unexplained, Var ≤ Σ w² + b²·Var μ/E μ², over the spread of the column: below 0.03
    assert float(plain[p]) == pytest.approx(expected, abs=0.15)
    assert both[p:].tolist() == pytest.approx([bias, bias], abs=0.15)
    assert expected - bias > 1.0
