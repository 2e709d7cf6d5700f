"""What masks and neurons may be, looked at once, when they are made or first used; never in a step."""

from __future__ import annotations

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError

_BITS = {
    torch.float64: (torch.int64, 0x3FF0000000000000),
    torch.float32: (torch.int32, 0x3F800000),
    torch.float16: (torch.int16, 0x3C00),
    torch.bfloat16: (torch.int16, 0x3F80),
}
"""Whole numbers as wide as each floating number, and the bits of 1 in them."""


def check_values(mask: Tensor, where: str = "mask") -> None:
    """Refuse a mask with a number outside [0, 1], or with NaN.

    A boolean mask has none, and costs nothing. Any other costs one pass that only reads, and a wait for the device.
    The bits of numbers from 0 to 1, read as whole numbers, lie between those of 0 and of 1, and whole numbers are
    compared in half the time (float32); what does not lie there (−0 too) is looked at again, as numbers.

    Parameters
    ----------
    mask : Tensor
        m of any shape and dtype.
    where : str
        What the error calls it.

    Raises
    ------
    NlsimError
        Saying how many entries are what, and the least and the largest of the others.
    """
    if mask.dtype == torch.bool or mask.numel() == 0:
        return
    at_hand = mask.detach() if mask.requires_grad else mask
    whole, one = _BITS.get(at_hand.dtype, (at_hand.dtype, 1))
    low, high = torch.aminmax(at_hand if whole is at_hand.dtype else at_hand.view(whole))
    if low.item() >= 0 and high.item() <= one:
        return
    least, most = torch.aminmax(at_hand)  # NaN anywhere makes both NaN, for which no comparison holds
    if least.item() >= 0 and most.item() <= 1:
        return
    empty = torch.isnan(at_hand)
    numbers = at_hand[~empty]
    found = f"{int(empty.sum())} NaN" if bool(empty.any()) else ""
    if numbers.numel() and bool(((numbers < 0) | (numbers > 1)).any()):
        stretch = f"numbers from {float(numbers.min()):g} to {float(numbers.max()):g}"
        found = f"{found}, {stretch}" if found else stretch
    raise NlsimError(
        "A mask says how far an entry is relied upon.",
        where=where,
        given=found,
        allowed="0 (missing) to 1 (observed), booleans among them",
        advice="A mask of what is not NaN in x is x == x.",
    )


def check_inputs_mask(inputs: Inputs) -> None:
    """Refuse inputs with a mask that :func:`check_values` refuses; those without a mask are complete."""
    if inputs.mask is not None:
        check_values(inputs.mask)


def check_speed(speed: float | Tensor) -> None:
    """Refuse a speed c that is not a finite number above 0, in any of its entries.

    Raises
    ------
    NlsimError
        With the least and the largest of them.
    """
    each = torch.as_tensor(speed, dtype=None if isinstance(speed, Tensor) else torch.float64)
    if each.numel() and bool((torch.isfinite(each) & (each > 0)).all()):
        return
    given = speed if not isinstance(speed, Tensor) or speed.ndim == 0 else speed.tolist()
    raise NlsimError(
        "Neurons move at a speed c above 0, the inverse of their time constant.",
        where="speed",
        given=float(given) if isinstance(given, Tensor) else given,
        allowed="finite numbers > 0",
        advice="Neurons that stand still in a blackout have outage = 'hold', not speed = 0.",
    )
