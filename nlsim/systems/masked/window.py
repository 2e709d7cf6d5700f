"""Windows of a convolution over images with holes: what they see of the image, and what of the padding around it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from nlsim.errors import NlsimError
from nlsim.systems.masked.layer import counting_dtype, is_transformed

PaddingCountsAs = Literal["observed", "missing"]
Pair = tuple[int, int]
Border = tuple[Pair, Pair]
"""Rows above and below, and columns left and right."""


def border_of(padding: Pair | str, kernel_size: Pair, dilation: Pair) -> Border:
    """Return how much is put around an image; of ``"same"`` an odd remainder goes below and to the right."""
    if padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
        return (spans[0] // 2, spans[0] - spans[0] // 2), (spans[1] // 2, spans[1] - spans[1] // 2)
    high, wide = (0, 0) if isinstance(padding, str) else padding
    return (high, high), (wide, wide)


def window_fraction(
    number: Tensor,
    kernel_size: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Pair | Literal["same", "valid"] = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    padding_counts_as: PaddingCountsAs,
) -> Tensor:
    """Return the observed fraction of each window, shape ``(sample, group, height, width)``.

    Parameters
    ----------
    number : Tensor
        m in floating point, shape ``(sample, channel, height, width)``; one channel may speak for all, and then for
        all groups too. Counted in float32 at least, so that a complete window has exactly 1 in any dtype.
    kernel_size, stride, padding, dilation : (int, int)
        As for ``torch.nn.functional.conv2d``; padding may be ``"same"`` or ``"valid"``.
    groups : int
        Into how many groups the channels fall; a window sees the channels of one.
    padding_counts_as : {"observed", "missing"}
        What the padding is.
    """
    groups = groups if number.shape[1] > 1 else 1
    channels = number.shape[1] // groups
    with _without_autocast(number.device.type):
        exact = counting_dtype(number.dtype)
        if channels == 1:
            count = number.to(exact)
        else:
            count = number.reshape(len(number), groups, channels, *number.shape[-2:]).sum(2, dtype=exact)
        (above, below), (left, right) = border_of(padding, kernel_size, dilation)
        known = float(channels) if padding_counts_as == "observed" else 0.0
        if above or below or left or right:
            count = pad(count, (left, right, above, below), value=known)
        ones = count.new_ones(groups, 1, *kernel_size)
        taps = channels * kernel_size[0] * kernel_size[1]
        fraction = conv2d(count, ones, None, stride, 0, dilation, groups) / taps
    return fraction.to(number.dtype)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Keep autocast, which would count in eight bits, away where a device has it; ``meta`` has not."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def spoken_by_one(number: Tensor) -> Tensor:
    """Return a mask of one channel in place of one whose channels all say the same, where that is cheap to know.

    For channels in groups, whose windows are else counted one by one. Cost: a pass that stops where two differ; none
    where derivatives by the mask are asked for, on an accelerator, or while a function is traced or transformed.
    """
    is_at_hand = number.device.type == "cpu" and not (torch.compiler.is_compiling() or is_transformed())
    if number.requires_grad or not is_at_hand or number.ndim < 3 or number.shape[-3] == 1:
        return number
    first = number[..., :1, :, :]
    return first if torch.equal(number, first.expand_as(number)) else number


def is_whole(fraction: Tensor) -> bool:
    """Whether it is cheap to know, and true, that nothing is missing from any window, nor any derivative asked for."""
    if fraction.requires_grad or fraction.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed():
        return False
    return bool((fraction.detach() == 1).all())


def pair(name: str, given: int | Pair, least: int) -> Pair:
    """Return rows and columns of what may be one number for both, or refuse it."""
    found = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(found) != 2 or any(not isinstance(each, int) or each < least for each in found):
        raise NlsimError(
            "Rows and columns are counted in whole numbers.",
            where=name,
            given=given,
            allowed=f"one number from {least} up, or two",
        )
    return found[0], found[1]
