"""Groups, dilation, padding to the same size, single images and autocast: loops over neutralizers, and the bits of
``torch.nn.Conv2d`` where nothing is missing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw
from torch import Tensor

from nlsim.errors import NlsimError, UnknownNameError
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.layer import observed_fraction
from nlsim.systems.masked.propagation import MaskedStack
from nlsim.systems.masked.window import is_whole, window_fraction

F64 = torch.float64
POLICIES = ["observed", "missing"]
FORMS = {
    "dilation": {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (1, 2)},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even window": {"kernel_size": (2, 4), "padding": "same", "dilation": (3, 1)},
    "valid": {"kernel_size": 2, "padding": "valid", "stride": 2},
    "groups": {"kernel_size": (3, 2), "groups": 2, "padding": 1},
    "a group for each channel": {"kernel_size": 2, "groups": 4, "stride": (1, 2)},
    "all at once": {"kernel_size": (2, 3), "groups": 2, "padding": "same", "dilation": (1, 2)},
}

# (6 + padding of both sides − dilation (k − 1) − 1)/stride + 1, and 7 alike
SHAPES = {
    "dilation": (6, 9),
    "same": (6, 7),
    "same, even window": (6, 7),
    "valid": (3, 3),
    "groups": (6, 8),
    "a group for each channel": (5, 3),
    "all at once": (6, 7),
}


def values_and_mask(seed: int = 1) -> tuple[Tensor, Tensor]:
    return draw(seed, 2, 4, 6, 7, low=-2.0, high=2.0), draw(seed + 1, 2, 4, 6, 7) > 0.5


def built(form: dict[str, Any], **more: Any) -> MaskedConv2d:
    torch.manual_seed(0)
    return MaskedConv2d(4, 4, **form, dtype=torch.float64, **more)


def around(layer: MaskedConv2d) -> list[int]:
    """Rows above and columns left of the image: half of what the window spans beyond one place, rounded down."""
    if layer.padding == "same":
        return [d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return [0, 0] if layer.padding == "valid" else list(layer.padding)


def neutralized(layer: MaskedConv2d, values: Tensor, mask: Tensor, high: int, wide: int) -> Tensor:
    """An ordinary convolution, place by place and tap by tap, of inputs of which missing ones are −b/(p w)."""
    inputs, outputs = 4 // layer.groups, 4 // layer.groups
    top, left = around(layer)
    made = torch.zeros(len(values), 4, high, wide, dtype=torch.float64)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    taps = inputs * layer.kernel_size[0] * layer.kernel_size[1]
    for s, h, r, c in itertools.product(range(len(values)), range(4), range(high), range(wide)):
        total = float(bias[h])
        for k, i, j in itertools.product(range(inputs), *map(range, layer.kernel_size)):
            y = r * layer.stride[0] + i * layer.dilation[0] - top
            x = c * layer.stride[1] + j * layer.dilation[1] - left
            channel, w = (h // outputs) * inputs + k, float(weight[h, k, i, j])
            is_inside = 0 <= y < values.shape[2] and 0 <= x < values.shape[3]
            if is_inside and mask[s, channel, y, x]:
                total += w * float(values[s, channel, y, x])
            elif is_inside or layer.padding_counts_as == "missing":
                total += w * (-float(bias[h]) / (taps * w))
        made[s, h, r, c] = total
    return made


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", list(FORMS))
def test_it_is_a_convolution_of_neutralizers(form: str, policy: str) -> None:
    layer = built(FORMS[form], padding_counts_as=policy)
    values, mask = values_and_mask()
    found = layer(values.masked_fill(~mask, math.nan))
    shape = SHAPES[form]
    assert found.shape == (2, 4, *shape)
    # up to 25 numbers below 2: 2 · 25 · 1.1e-16 · 25 · 2
    assert torch.allclose(found, neutralized(layer, values, mask, *shape), rtol=0, atol=3e-13)
    assert torch.equal(found, layer(values, mask))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's own layer, for even windows
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_compensated", [False, True])
@pytest.mark.parametrize("form", list(FORMS))
def test_complete_images_give_the_bits_of_the_ordinary_convolution(form: str, is_compensated: bool, dtype) -> None:
    torch.manual_seed(0)
    dense = torch.nn.Conv2d(4, 4, **FORMS[form], dtype=dtype)
    layer = MaskedConv2d(4, 4, **FORMS[form], padding_counts_as="observed", is_compensated=is_compensated, dtype=dtype)
    layer.load_state_dict(dense.state_dict(), strict=not is_compensated)
    if is_compensated:
        torch.nn.init.normal_(layer.compensation)
    values = values_and_mask()[0].to(dtype)
    everything = torch.ones(values.shape, dtype=torch.bool)
    found = []
    for each, mask in ((dense, ()), (layer, ()), (layer, (everything,)), (layer, (torch.ones(()),))):
        source = values.clone().requires_grad_()
        made = each(source, *mask)
        found.append([made, *torch.autograd.grad(made.pow(3).sum(), [source, each.weight, each.bias])])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_derivatives_by_a_mask_of_ones_are_not_lost() -> None:
    """The short way for complete images has none; they are the contribution of each input, summed over windows."""
    layer = built(FORMS["same"], padding_counts_as="observed")
    values = values_and_mask()[0]
    ones = torch.ones_like(values).requires_grad_()
    (found,) = torch.autograd.grad(layer(values, ones)[0, 0, 3, 3], ones)
    expected = torch.zeros_like(values)
    expected[0, :, 2:5, 2:5] = layer.weight.detach()[0] * values[0, :, 2:5, 2:5] + layer.bias.detach()[0] / 36
    assert torch.allclose(found, expected, rtol=0, atol=1e-15)
    assert not is_whole(ones)
    assert is_whole(ones.detach())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", ["same", "groups"])
def test_one_image_is_a_batch_of_one(form: str, policy: str) -> None:
    layer = built(FORMS[form], padding_counts_as=policy, is_compensated=True)
    torch.nn.init.normal_(layer.compensation)
    values, mask = values_and_mask()
    together, fractions = layer.with_fraction(values, mask)
    for s in range(2):
        alone, fraction = layer.with_fraction(values[s], mask[s])
        # the library may choose another kernel for another batch: 25 numbers below 2
        assert torch.allclose(alone, together[s], rtol=0, atol=3e-13)
        assert torch.equal(fraction, fractions[s])
    pixels = mask[0, 0]
    assert torch.equal(layer(values[0], pixels), layer(values[0], pixels.expand(4, 6, 7).clone()))


def test_each_group_counts_its_own_channels() -> None:
    mask = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    mask[0, 0, 0, 0], mask[0, 2:] = 1.0, 1.0
    found = window_fraction(mask, (2, 2), groups=2, padding_counts_as="missing")
    assert found[0].tolist() == [[[1 / 8, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
    layer = built({"kernel_size": 2, "groups": 2}, padding_counts_as="missing")
    values = torch.ones(1, 4, 3, 3, dtype=torch.float64)
    made, fraction = layer.with_fraction(values, mask)
    assert fraction.shape == made.shape
    assert torch.equal(fraction[:, [0, 2]], found)
    assert layer.with_fraction(values, mask[:, :1])[1].shape == (1, 1, 2, 2)


@pytest.mark.parametrize("carry", ["soft", "hard"])
def test_stacks_carry_the_mask_of_each_group_upwards(carry: str) -> None:
    """What the channels of one group make is unknown as long as they are, whatever the other group sees."""
    layers = [built({"kernel_size": 2, "groups": 2}, padding_counts_as="missing") for _ in range(2)]
    values = values_and_mask()[0]
    values[:, :2] = math.nan
    made = MaskedStack(layers, torch.tanh, carry=carry)(values)
    assert (made[:, :2] == 0).all()
    assert (made[:, 2:] != 0).all()


@pytest.mark.parametrize("is_compensated", [False, True])
def test_autocast_decides_the_dtype_and_counts_exactly(is_compensated: bool) -> None:
    layer = MaskedConv2d(40, 3, 3, padding=1, padding_counts_as="observed", is_compensated=is_compensated)
    values = draw(1, 2, 40, 6, 6).float()
    holed = values.masked_fill(draw(2, 2, 40, 6, 6) < 0.5, math.nan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, fraction = layer.with_fraction(holed)
        assert layer(holed.bfloat16()).dtype == torch.bfloat16
    whole, exact = layer.with_fraction(holed)
    assert found.dtype == torch.bfloat16
    assert torch.equal(fraction, exact)
    # about 180 products below 0.06, each factor rounded to eight bits; and the sum of size 3 in the end
    assert (found - whole).abs().max() <= 180 * 0.06 * 2**-8
    found.sum().backward()
    assert layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [301, 2049])
def test_complete_is_exactly_complete_in_few_bits(dtype: torch.dtype, count: int) -> None:
    """301 is no number of eight bits, nor 2049 one of eleven."""
    assert (observed_fraction(torch.ones(2, count, dtype=torch.bool), dtype) == 1).all()
    number = torch.ones(1, count, 2, 2, dtype=dtype)
    found = window_fraction(number, (1, 1), padding_counts_as="missing")
    assert found.dtype == dtype
    assert (found == 1).all()


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"groups": 3}, "groups"),
        ({"groups": 0}, "groups"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"dilation": (1, 0)}, "dilation"),
        ({"padding": -1}, "padding"),
        ({"padding": 0.5}, "padding"),
        ({"padding": "same", "stride": 2}, "padding"),
        ({"padding_mode": "reflect"}, "padding_mode"),
    ],
)
def test_what_is_not_supported_is_refused(given: dict[str, Any], where: str) -> None:
    with pytest.raises(NlsimError) as caught:
        MaskedConv2d(4, 4, **{"kernel_size": 3, **given}, padding_counts_as="observed")
    assert caught.value.where == where
    assert caught.value.allowed


def test_a_misspelt_padding_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'same'"):
        MaskedConv2d(4, 4, 3, padding="sane", padding_counts_as="observed")


@pytest.mark.parametrize(
    ("shape", "mask", "where"),
    [
        ((2, 3, 6, 6), None, "values"),
        ((6, 6), None, "values"),
        ((1, 2, 4, 6, 6), None, "values"),
        ((2, 4, 2, 6), None, "values"),
        ((2, 4, 6, 6), (2, 3, 6, 6), "mask"),
        ((4, 6, 6), (1, 4, 6, 6), "mask"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], mask: tuple[int, ...] | None, where: str) -> None:
    layer = MaskedConv2d(4, 4, 3, padding_counts_as="observed")
    with pytest.raises(NlsimError) as caught:
        layer(torch.ones(shape), None if mask is None else torch.ones(mask))
    assert caught.value.where == where


@pytest.mark.parametrize("policy", ["observed", "missing"])
@pytest.mark.parametrize("kind", ["complete", "pixels by NaN", "pixels by a mask", "soft pixels"])
def test_channels_that_miss_the_same_are_counted_once_and_give_the_same(policy: Any, kind: str) -> None:
    layer = MaskedConv2d(4, 8, 3, padding=1, groups=4, padding_counts_as=policy, is_compensated=True, dtype=F64)
    torch.nn.init.normal_(layer.compensation)
    values = draw(81, 2, 4, 6, 7)
    soft = draw(82, 2, 1, 6, 7, low=0.0)
    holes = {"complete": torch.ones_like(soft), "soft pixels": soft * (soft > 0.4)}.get(kind, (soft > 0.4).to(F64))
    holed = values.masked_fill(holes == 0, torch.nan)
    mask = None if kind in ("complete", "pixels by NaN") else holes.expand(2, 4, 6, 7).clone()
    made, fraction = layer.with_fraction(holed, mask)
    assert fraction.shape == (2, 1, 6, 7)
    # every channel by itself, where there is nothing to share
    for c in range(4):
        alone = MaskedConv2d(1, 2, 3, padding=1, padding_counts_as=policy, is_compensated=True, dtype=F64)
        part = slice(2 * c, 2 * c + 2)
        alone.load_state_dict({name: each[part] for name, each in layer.state_dict().items()})
        expected, known = alone.with_fraction(holed[:, c : c + 1], holes)
        assert_round_off(made[:, part].detach(), expected.detach(), 20)
        assert_round_off(fraction, known, 20)


def test_a_soft_mask_that_learns_keeps_a_derivative_for_every_channel() -> None:
    layer = MaskedConv2d(2, 2, 3, groups=2, padding_counts_as="missing", dtype=F64)
    mask = torch.full((1, 2, 3, 3), 0.5, dtype=F64, requires_grad=True)
    values = torch.zeros(1, 2, 3, 3, dtype=F64)
    layer(values, mask)[0, 1].sum().backward()
    # μ b of the second channel alone: b/9 each
    assert layer.bias is not None
    assert bool((mask.grad[0, 0] == 0).all())
    assert_round_off(mask.grad[0, 1], (layer.bias.detach()[1] / 9).expand(3, 3), 4)


@pytest.mark.parametrize("groups", [1, 2])
def test_shapes_are_found_without_memory(groups: int) -> None:
    layer = MaskedConv2d(4, 6, 3, groups=groups, padding_counts_as="missing", device="meta")
    values = torch.empty(2, 4, 5, 5, device="meta")
    assert layer(values).shape == (2, 6, 3, 3)
    assert layer(values, torch.empty(2, 1, 5, 5, device="meta")).shape == (2, 6, 3, 3)
