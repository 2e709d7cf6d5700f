"""The masked convolution: the local fraction, both readings of the padding, its dense twin."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from nlsim.errors import UnknownNameError
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.window import window_fraction

POLICIES = ["observed", "missing"]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loops(layer: MaskedConv2d, values: Tensor, mask: Tensor) -> Tensor:
    """An ordinary convolution, place by place and tap by tap, fed with neutralizers."""
    (rows, columns), stride, padding = layer.kernel_size, layer.stride, layer.padding
    taps = values.shape[1] * rows * columns
    high = (values.shape[2] + 2 * padding[0] - rows) // stride[0] + 1
    wide = (values.shape[3] + 2 * padding[1] - columns) // stride[1] + 1
    made = layer.bias.detach()[None, :, None, None].repeat(len(values), 1, high, wide)
    for s, h, r, c in itertools.product(range(len(values)), range(len(layer.bias)), range(high), range(wide)):
        for channel, i, j in itertools.product(range(values.shape[1]), range(rows), range(columns)):
            y, x = r * stride[0] + i - padding[0], c * stride[1] + j - padding[1]
            weight = layer.weight[h, channel, i, j]
            is_inside = 0 <= y < values.shape[2] and 0 <= x < values.shape[3]
            if is_inside and mask[s, channel, y, x]:
                made[s, h, r, c] += weight * values[s, channel, y, x]
            elif is_inside or layer.padding_counts_as == "missing":
                made[s, h, r, c] += weight * (-layer.bias[h] / (taps * weight))
    return made.detach()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), ((2, 1), (1, 2))])
def test_it_is_a_convolution_of_neutralizers(policy: str, stride: object, padding: object) -> None:
    torch.manual_seed(0)
    layer = MaskedConv2d(2, 2, (3, 2), stride, padding, padding_counts_as=policy, dtype=torch.float64)
    values, mask = random(1, 2, 2, 4, 5), random(2, 2, 2, 4, 5) > 0
    found = layer(values.masked_fill(~mask, math.nan))
    # 13 numbers below 2: 2 · 13 · 1.1e-16 · 13 · 2
    assert torch.allclose(found, loops(layer, values, mask), rtol=0, atol=8e-14)
    assert torch.equal(found, layer(values, mask))


def test_padding_keeps_or_loses_bias_at_the_border() -> None:
    """3×3 window: 4/9 in a corner, 6/9 at an edge where padding is missing; all of it where it is observed."""
    image = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    lost, kept = (
        MaskedConv2d(3, 1, 3, padding=1, padding_counts_as=each, dtype=torch.float64) for each in POLICIES[::-1]
    )
    at = (lost(image)[0, 0] / lost.bias).detach()
    assert [float(at[0, 0]), float(at[0, 2]), float(at[4, 4]), float(at[2, 2])] == pytest.approx(
        [4 / 9, 6 / 9, 4 / 9, 1.0], abs=1e-15
    )
    assert torch.equal(kept(image), kept.bias.expand(1, 1, 5, 5).clone())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_complete_image_gives_the_ordinary_convolution(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dense = torch.nn.Conv2d(3, 4, 3, 2, 1, 2, dtype=dtype)
    layer = MaskedConv2d(3, 4, 3, 2, 1, 2, padding_counts_as="observed", dtype=dtype)
    layer.load_state_dict(dense.state_dict())
    values = random(0, 2, 3, 12, 11).to(dtype)
    # 28 numbers below 4, the bias before or after the sum: 2 · 28 · ε · 28 in the worst case, far less as a rule
    tolerance = 28 * torch.finfo(dtype).eps
    grown = []
    for each in (dense, layer):
        source = values.clone().requires_grad_()
        made = each(source)
        grown.append([made, *torch.autograd.grad(made.sum(), [source, each.weight, each.bias])])
    for one, other in zip(*grown, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_image_gives_zero_and_w_c(policy: str) -> None:
    layer = MaskedConv2d(2, 3, 2, padding_counts_as=policy, is_compensated=True)
    nothing = torch.full((1, 2, 4, 4), math.nan)
    assert (layer(nothing) == 0).all()
    torch.nn.init.normal_(layer.compensation)
    assert torch.equal(layer(nothing), layer.compensation[None, :, None, None].expand(1, 3, 3, 3))


def test_it_is_the_fraction_times_the_partial_convolution() -> None:
    layer = MaskedConv2d(2, 3, 3, padding=1, padding_counts_as="missing", dtype=torch.float64)
    values, mask = random(1, 2, 2, 6, 6), (random(2, 2, 2, 6, 6) > 0.8).double()
    count = conv2d(mask, torch.ones(1, 2, 3, 3, dtype=torch.float64), padding=1)
    assert (count == 0).any()
    boosted = 18 / count * conv2d(mask * values, layer.weight, padding=1) + layer.bias[:, None, None]
    partial = torch.where(count > 0, boosted, 0.0)
    assert torch.allclose(layer(values, mask), count / 18 * partial, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 1, 6, 6), (1, 1, 6, 6), (6, 6), (1, 6), (3, 1, 1), ()])
def test_a_mask_broadcasts(shape: tuple[int, ...]) -> None:
    layer = MaskedConv2d(3, 2, 3, padding=1, padding_counts_as="observed", dtype=torch.float64)
    values, mask = random(1, 2, 3, 6, 6), random(2, *shape) > -0.5
    whole = mask.expand(2, 3, 6, 6).clone()
    assert torch.allclose(layer(values, mask), layer(values, whole), rtol=0, atol=1e-15)


def test_soft_masks_mix() -> None:
    layer = MaskedConv2d(2, 3, 3, padding=1, padding_counts_as="observed", dtype=torch.float64)
    values, one, other = random(1, 2, 2, 6, 6), random(2, 2, 2, 6, 6).sigmoid(), random(3, 2, 2, 6, 6) > 0
    mixed = layer(values, 0.3 * one + 0.7 * other.double())
    assert torch.allclose(mixed, 0.3 * layer(values, one) + 0.7 * layer(values, other), rtol=0, atol=1e-14)


def test_what_a_missing_slot_holds_is_without_effect() -> None:
    layer = MaskedConv2d(2, 3, 3, padding=1, padding_counts_as="missing", dtype=torch.float64)
    values, mask = random(1, 2, 2, 6, 6), random(2, 2, 2, 6, 6) > 0
    found = []
    for slot in (0.0, math.nan, -math.inf):
        source = values.masked_fill(~mask, slot).requires_grad_()
        made = layer(source, mask)
        found.append([made, *torch.autograd.grad(made.square().sum(), [source, *layer.parameters()])])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    assert (found[0][1][~mask] == 0).all()


def test_fraction_counts_channels_and_taps() -> None:
    mask = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    mask[0, 0, 0, 0] = 1.0
    found = window_fraction(mask, (2, 2), padding_counts_as="missing")
    assert found[0, 0].tolist() == [[1 / 8, 0.0], [0.0, 0.0]]


def test_weights_come_from_the_ordinary_layer() -> None:
    dense, layer = torch.nn.Conv2d(2, 3, 2), MaskedConv2d(2, 3, 2, padding_counts_as="observed")
    assert list(layer.state_dict()) == list(dense.state_dict())
    bare = MaskedConv2d(2, 3, 2, bias=False, padding_counts_as="observed")
    assert list(bare.state_dict()) == ["weight"]
    values = torch.ones(1, 2, 4, 4)
    assert torch.equal(bare(values), conv2d(values, bare.weight))


def test_padding_has_to_be_called_something() -> None:
    with pytest.raises(TypeError, match="padding_counts_as"):
        MaskedConv2d(1, 1, 3)
    with pytest.raises(UnknownNameError, match="Did you mean 'observed'"):
        MaskedConv2d(1, 1, 3, padding_counts_as="observd")
