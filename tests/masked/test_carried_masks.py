"""Masks carried upwards: unknown stays unknown through a network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nlsim.errors import NlsimError, UnknownNameError
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.propagation import MaskedStack, propagate

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda a: a, "logistic": torch.sigmoid}


def stack(carry: str, activation: str = "tanh", **options: object) -> MaskedStack:
    torch.manual_seed(0)
    widths = ((5, 7), (7, 6), (6, 3))
    return MaskedStack(
        [MaskedLinear(*each, dtype=torch.float64, **options) for each in widths], ACTIVATIONS[activation], carry=carry
    )


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("carry", ["soft", "hard"])
def test_an_all_missing_sample_gives_exactly_zero_in_every_layer(carry: str, activation: str) -> None:
    values = random(0, 4, 5)
    values[2] = math.nan
    net = stack(carry, activation)
    for each in propagate(list(net.layers), net.activation, values, carry=carry):
        assert (each[2] == 0).all()
        assert (each[[0, 1, 3]] != 0).any(-1).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_carrying_it_is_a_constant_that_is_not_zero(activation: str) -> None:
    net = stack("none", activation)
    nothing = torch.full((1, 5), math.nan, dtype=torch.float64)
    rest = torch.zeros(1, 7, dtype=torch.float64)
    for layer in list(net.layers)[1:]:
        rest = torch.nn.functional.linear(ACTIVATIONS[activation](rest), layer.weight, layer.bias)
    assert torch.equal(net(nothing), rest)
    assert net(nothing).abs().max() > 0.05


@pytest.mark.parametrize("carry", ["soft", "hard", "none"])
def test_a_complete_sample_gives_the_ordinary_network(carry: str) -> None:
    net, values = stack(carry), random(0, 4, 5)
    dense = values
    for index, layer in enumerate(net.layers):
        dense = torch.nn.functional.linear(torch.tanh(dense) if index else dense, layer.weight, layer.bias)
    assert torch.equal(net(values), dense)


def test_soft_scales_by_the_fraction_and_hard_by_whether_anything_was_seen() -> None:
    values = random(0, 1, 5)
    mask = torch.tensor([[True, False, True, False, False]])
    first, second = list(stack("soft").layers)[:2]
    hidden = torch.tanh(first(values, mask))
    soft, hard = (propagate([first, second], torch.tanh, values, mask, carry=each)[1] for each in ("soft", "hard"))
    # two of five; seven products and a bias below 1
    assert torch.allclose(
        soft, 0.4 * torch.nn.functional.linear(hidden, second.weight, second.bias), rtol=0, atol=4e-15
    )
    assert torch.equal(hard, torch.nn.functional.linear(hidden, second.weight, second.bias))


def test_compensated_layers_learn_what_to_say_instead() -> None:
    net = stack("soft", is_compensated=True)
    nothing = torch.full((1, 5), math.nan, dtype=torch.float64)
    assert (net(nothing) == 0).all()
    torch.nn.init.constant_(net.layers[2].compensation, 0.25)
    assert net(nothing).tolist() == [[0.25] * 3]


@pytest.mark.parametrize("carry", ["soft", "hard"])
def test_convolutions_carry_their_local_fraction(carry: str) -> None:
    torch.manual_seed(0)
    kernels = [
        MaskedConv2d(1, 4, 3, padding=1, padding_counts_as="missing", dtype=torch.float64),
        MaskedConv2d(4, 2, 3, padding=1, padding_counts_as="missing", dtype=torch.float64),
    ]
    image = random(0, 1, 1, 12, 12)
    image[..., 4:] = math.nan
    made = propagate(kernels, torch.relu, image, carry=carry)
    assert (made[0][..., 5:] == 0).all()
    assert (made[0][..., :5] != 0).all()
    assert (made[1][..., 6:] == 0).all()
    assert (made[1][..., :6] != 0).all()


def test_an_ordinary_layer_in_a_stack_is_refused() -> None:
    with pytest.raises(NlsimError, match=r"layers\[1\]"):
        MaskedStack([MaskedLinear(3, 2), torch.nn.Linear(2, 1)], torch.tanh)


def test_another_rule_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'soft'"):
        MaskedStack([MaskedLinear(3, 2)], torch.tanh, carry="sofd")
    with pytest.raises(UnknownNameError, match="way to carry"):
        propagate([MaskedLinear(3, 2)], torch.tanh, torch.ones(1, 3), carry="upwards")
