"""The dense layer as a module: the bits of ``torch.nn.Linear`` where nothing is missing, its weights, its refusals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from nlsim.errors import NlsimError
from nlsim.systems.masked import module
from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.module import MaskedLinear, is_known_complete
from nlsim.systems.masked.shares import group_shares

SHAPES = [(64, 64), (1, 7), (7,), (3, 5, 13), (2, 3, 4, 5), (50, 784)]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twins(inputs: int, outputs: int, dtype: torch.dtype, **options: object) -> tuple[torch.nn.Linear, MaskedLinear]:
    torch.manual_seed(1)
    dense = torch.nn.Linear(inputs, outputs, dtype=dtype)
    layer = MaskedLinear(inputs, outputs, dtype=dtype, **options)
    layer.load_state_dict(dense.state_dict(), strict=layer.compensation is None and layer.shares is None)
    return dense, layer


def everything(layer: torch.nn.Module, values: Tensor, *mask: Tensor) -> list[Tensor]:
    """Value, ∂x, ∂W, ∂b of a loss that is not linear."""
    source = values.clone().requires_grad_()
    made = layer(source, *mask)
    leaves = [source, layer.weight, layer.bias]
    return [made, *torch.autograd.grad(made.sum() + made.pow(3).sum(), leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["plain", "compensated", "shares"])
def test_complete_input_gives_the_bits_of_the_dense_layer(
    shape: tuple[int, ...], dtype: torch.dtype, form: str
) -> None:
    p = shape[-1]
    options = {"shares": torch.softmax(random(9, p), 0)} if form == "shares" else {"is_compensated": form != "plain"}
    dense, layer = twins(p, 33, dtype, **options)
    if layer.compensation is not None:
        torch.nn.init.normal_(layer.compensation)
    values = random(2, *shape).to(dtype)
    reference = everything(dense, values)
    masks = ((), (torch.ones(shape, dtype=torch.bool),), (torch.ones(shape, dtype=dtype),), (torch.ones(()),))
    for mask in masks:
        assert all(torch.equal(a, b) for a, b in zip(everything(layer, values, *mask), reference, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("has_slots", [True, False])
def test_complete_rows_beside_incomplete_ones_keep_their_bits(dtype: torch.dtype, has_slots: bool) -> None:
    dense, layer = twins(784, 100, dtype)
    values = random(2, 64, 784).to(dtype)
    seen = torch.rand(64, 784, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[::3] = True
    inputs = (values.masked_fill(~seen, math.nan),) if has_slots else (values, seen)
    reference, found = everything(dense, values), everything(layer, *inputs)
    for one, other in zip(reference[:2], found[:2], strict=True):
        assert torch.equal(one[::3], other[::3])
        assert not torch.equal(one[1::3], other[1::3])


def test_it_computes_the_pre_activation() -> None:
    layer = MaskedLinear(5, 3, is_compensated=True, dtype=torch.float64)
    torch.nn.init.normal_(layer.compensation)
    values, seen = random(0, 4, 5), random(1, 4, 5) > 0
    holed = values.masked_fill(~seen, math.nan)
    for inputs in ((holed,), (holed, seen), (values, seen), (holed, seen.double())):
        found = layer(*inputs)
        expected = masked_affine(values, seen, layer.weight, layer.bias, compensation=layer.compensation)
        assert torch.equal(found, expected)
    degree = seen * random(2, 4, 5).sigmoid()
    expected = masked_affine(values, degree, layer.weight, layer.bias, compensation=layer.compensation)
    assert torch.equal(layer(holed, degree), expected)


def test_a_batch_known_to_be_complete_takes_the_short_way() -> None:
    assert is_known_complete(torch.tensor([[1.0, math.inf]]))
    assert not is_known_complete(torch.tensor([[1.0, math.nan]]))
    assert not is_known_complete(torch.tensor([[-math.inf, math.inf]]))  # the long way, with the same outcome
    assert torch.func.vmap(lambda x: x * is_known_complete(x))(torch.ones(2, 3)).sum() == 0.0


def test_both_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, values = MaskedLinear(50, 20), random(0, 30, 50).float()
    short = everything(layer, values)
    monkeypatch.setattr(module, "is_known_complete", lambda values: False)
    assert all(torch.equal(a, b) for a, b in zip(everything(layer, values), short, strict=True))


@pytest.mark.parametrize("has_own_inputs", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
def test_members_are_layers_of_their_own(has_own_inputs: bool, is_masked: bool) -> None:
    """Weights of an ensemble under ``torch.func``, with inputs in common and with inputs of their own."""
    layers = [MaskedLinear(4, 3, is_compensated=True, dtype=torch.float64) for _ in range(5)]
    weights, _ = torch.func.stack_module_state(layers)
    values, mask = random(0, 5, 6, 4), random(1, 5, 6, 4) > 0
    holed = values.masked_fill(~mask, math.nan)
    given = (holed, mask) if is_masked else (holed,)
    inputs = given if has_own_inputs else tuple(each[0] for each in given)
    axes = (0, *((0 if has_own_inputs else None,) * len(inputs)))

    def loss(w: dict[str, Tensor], *x: Tensor) -> Tensor:
        return torch.func.functional_call(layers[0], w, x).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), axes)(weights, *inputs)
    for e, layer in enumerate(layers):
        mine = tuple(each[e] for each in inputs) if has_own_inputs else inputs
        alone = torch.autograd.grad(layer(*mine).square().sum(), list(layer.parameters()))
        for name, each in zip(dict(layer.named_parameters()), alone, strict=True):
            assert torch.allclose(together[name][e], each, rtol=0, atol=1e-12)  # sums of 6 products below 100


def test_masks_and_inputs_of_the_caller_are_left_alone() -> None:
    layer = MaskedLinear(4, 3)
    values = torch.tensor([[1.0, math.nan, 3.0, 4.0]])
    for mask in (
        torch.tensor([[1.0, 0.0, 1.0, 0.5]]),
        torch.tensor([[1, 0, 1, 1]]),
        torch.tensor([[True, False, True, True]]),
    ):
        before = mask.clone()
        layer(values, mask).sum().backward()
        masked_affine(values, mask, layer.weight, layer.bias).sum().backward()
        assert torch.equal(mask, before)
    layer(values)
    assert values.isnan().sum() == 1


def test_the_compensatory_weight_starts_at_zero_and_learns_from_incomplete_rows_only() -> None:
    layer = MaskedLinear(3, 2, is_compensated=True)
    assert layer.compensation.tolist() == [0.0, 0.0]
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.compensation.grad.tolist() == [0.0, 0.0]
    layer(torch.tensor([[1.0, math.nan, math.nan]])).sum().backward()
    assert layer.compensation.grad.tolist() == pytest.approx([2 / 3, 2 / 3], abs=1e-7)


def test_weights_start_as_those_of_the_dense_layer() -> None:
    torch.manual_seed(5)
    dense = torch.nn.Linear(6, 4)
    torch.manual_seed(5)
    layer = MaskedLinear(6, 4)
    assert torch.equal(dense.weight, layer.weight)
    assert torch.equal(dense.bias, layer.bias)


def test_weights_travel_both_ways() -> None:
    dense, layer = torch.nn.Linear(6, 4), MaskedLinear(6, 4)
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.load_state_dict(dense.state_dict())
    torch.nn.Linear(6, 4).load_state_dict(layer.state_dict())
    compensated = MaskedLinear(6, 4, is_compensated=True)
    assert list(compensated.state_dict()) == ["weight", "bias", "compensation"]
    assert compensated.load_state_dict(dense.state_dict(), strict=False).missing_keys == ["compensation"]


def test_shares_are_saved_with_the_weights(tmp_path) -> None:
    first = torch.nn.Sequential(MaskedLinear(6, 4, shares=group_shares([2, 1, 3])), torch.nn.Linear(4, 1))
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second = torch.nn.Sequential(MaskedLinear(6, 4, shares=group_shares([1, 5])), torch.nn.Linear(4, 1))
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(second[0].shares, group_shares([2, 1, 3]).float())
    holed = random(0, 5, 6).float().masked_fill(random(1, 5, 6) > 0, math.nan)
    assert torch.equal(first(holed), second(holed))


def test_weights_with_the_other_kind_of_shares_are_refused() -> None:
    """What was saved when shares were not kept, or for an ordinary layer, has none."""
    plain = torch.nn.Sequential(torch.nn.Linear(6, 4))
    shared = torch.nn.Sequential(MaskedLinear(6, 4, shares=group_shares([2, 1, 3])))
    before = {name: each.clone() for name, each in shared.state_dict().items()}
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0.shares"'):
        shared.load_state_dict(plain.state_dict())
    assert shared.load_state_dict(plain.state_dict(), strict=False).missing_keys == ["0.shares"]
    assert torch.equal(shared[0].weight, plain[0].weight)
    assert torch.equal(shared[0].shares, before["0.shares"])
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "0.shares"'):
        torch.nn.Sequential(MaskedLinear(6, 4)).load_state_dict(shared.state_dict())
    weight = shared[0].weight.clone()
    broken = {**before, "0.shares": torch.full((6,), 0.3)}
    with pytest.raises(NlsimError, match="sum up to 1"):
        shared.load_state_dict(broken)
    assert torch.equal(shared[0].weight, weight)


@pytest.mark.parametrize("has_bias", [False, True])
def test_with_a_bias_of_zero_training_is_that_of_zero_imputation(has_bias: bool) -> None:
    """Whole trajectories of weights, bit for bit."""
    values, target = random(0, 60, 5), random(1, 60, 1)
    seen = random(2, 60, 5) > 0
    torch.manual_seed(3)
    first = torch.nn.Linear(5, 8, has_bias, dtype=torch.float64)
    rest = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(8, 1, dtype=torch.float64))
    ours = MaskedLinear(5, 8, has_bias, dtype=torch.float64)
    if has_bias:
        torch.nn.init.zeros_(first.bias).requires_grad_(False)
        ours.bias.requires_grad_(False)
    ours.load_state_dict(first.state_dict())
    nets = [torch.nn.Sequential(first, rest), torch.nn.Sequential(ours, copy.deepcopy(rest))]
    inputs = values.masked_fill(~seen, 0.0), values.masked_fill(~seen, math.nan)
    starts = [each.clone() for each in nets[0].parameters()]
    optimisers = [
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05, momentum=0.9) for net in nets
    ]
    for _ in range(40):
        for net, optimiser, source in zip(nets, optimisers, inputs, strict=True):
            optimiser.zero_grad()
            (net(source) - target).square().mean().backward()
            optimiser.step()
        assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert not torch.equal(starts[0], first.weight)


def test_with_a_bias_training_differs_from_zero_imputation() -> None:
    values, seen = random(0, 60, 5), random(2, 60, 5) > 0
    dense, layer = twins(5, 1, torch.float64)
    dense(values.masked_fill(~seen, 0.0)).square().mean().backward()
    layer(values, seen).square().mean().backward()
    assert (dense.bias.grad - layer.bias.grad).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_works_in_the_dtype_of_its_weights(dtype: torch.dtype) -> None:
    layer = MaskedLinear(6, 4, shares=group_shares([2, 1, 3]), is_compensated=True).to(dtype)
    assert layer.shares.dtype == dtype
    assert layer(torch.full((2, 6), math.nan, dtype=dtype)).dtype == dtype


def test_group_shares() -> None:
    shares = group_shares([1, 3, 2])
    assert shares.tolist() == pytest.approx([1 / 3, *[1 / 9] * 3, *[1 / 6] * 2], abs=1e-17)
    assert torch.equal(group_shares([1] * 8), torch.full((8,), 0.125, dtype=torch.float64))


def test_shares_make_a_category_one_input() -> None:
    """A number and a category of three columns: either unknown takes half of the bias away."""
    layer = MaskedLinear(4, 2, shares=group_shares([1, 3]), dtype=torch.float64)
    number_unknown = torch.tensor([[math.nan, 0.0, 1.0, 0.0]], dtype=torch.float64)
    category_unknown = torch.tensor([[0.0, math.nan, math.nan, math.nan]], dtype=torch.float64)
    left = layer(number_unknown) - layer.weight[:, 2], layer(category_unknown)
    assert all(torch.allclose(each, layer.bias / 2, rtol=0, atol=1e-16) for each in left)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (torch.full((3,), 1 / 3), "one share for each input"),
        (torch.tensor([0.5, 0.5, 0.5, -0.5]), "numbers ≥ 0 that sum up to 1"),
        (torch.full((4,), 0.3), "numbers ≥ 0 that sum up to 1"),
        (torch.tensor([0.5, 0.5, 0.0, math.nan]), "numbers ≥ 0 that sum up to 1"),
    ],
)
def test_shares_that_are_none_are_refused(shares: Tensor, message: str) -> None:
    with pytest.raises(NlsimError, match=message):
        MaskedLinear(4, 2, shares=shares)


@pytest.mark.parametrize("columns", [[], [2, 0, 1]])
def test_variables_without_columns_are_refused(columns: list[int]) -> None:
    with pytest.raises(NlsimError, match="at least one column"):
        group_shares(columns)


def test_repr_says_what_it_is() -> None:
    assert repr(MaskedLinear(3, 2, False, is_compensated=True)) == (
        "MaskedLinear(in_features=3, out_features=2, bias=False, is_compensated=True, has_shares=False)"
    )


@pytest.mark.parametrize("kind", ["complete", "NaN", "mask"])
@pytest.mark.parametrize("leading", [(), (2,)])
def test_autocast_decides_the_dtype_whatever_the_data_are(kind, leading):
    layer = MaskedLinear(5, 3)
    values = torch.randn(*leading, 4, 5)
    holed = values if kind == "complete" else values.masked_fill(torch.arange(5) == 2, float("nan"))
    given = (torch.arange(5) != 2,) if kind == "mask" else ()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, half = layer(holed, *given), layer(holed.bfloat16(), *given)
    assert found.dtype == half.dtype == torch.bfloat16
    # sums of five products below 4, each rounded to eight bits
    torch.testing.assert_close(found.float(), layer(holed, *given), rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["NaN", "mask"])
def test_forward_mode_derivatives_are_those_of_backward_mode(kind):
    layer = MaskedLinear(5, 3, dtype=torch.float64)
    values, tangent = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    seen = torch.arange(5) != 2
    holed = values.masked_fill(~seen, float("nan"))
    given = (seen,) if kind == "mask" else ()
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(holed, tangent), *given)).tangent
    # a masked layer is affine in what is seen
    torch.testing.assert_close(found, (tangent * seen) @ layer.weight.detach().T, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("mask", "given"),
    [([1, 0, 1], "list"), (torch.ones(4), "(4,)"), (torch.ones(3, 3), "(3, 3)"), (torch.ones(1, 2, 3), "(1, 2, 3)")],
)
def test_a_mask_that_does_not_fit_is_refused(mask, given):
    with pytest.raises(NlsimError) as caught:
        MaskedLinear(3, 2)(torch.ones(2, 3), mask)
    assert caught.value.where == "mask"
    assert given in str(caught.value.given)


def test_a_layer_without_inputs_is_refused():
    with pytest.raises(NlsimError):
        MaskedLinear(0, 3)
