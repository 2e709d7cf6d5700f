"""The mask carried upwards, so that what nothing is known about stays unknown through a whole network.

Masking the first layer alone silences that layer. An all-missing sample then leaves it at φ(0), every later bias
acts in full, and the output is some constant. Hidden layers become neutral too when each receives a mask of its
own, made from the observed fraction μ of the layer below:

* *soft*: every unit of the layer above is observed to the degree μ;
* *hard*: every unit is observed as soon as anything below was, 1[μ > 0], the rule of partial convolutions.

The mask multiplies the activity φ(a) and scales the bias. An all-missing sample has pre-activation exactly 0 in
every layer, whatever φ(0) is; its *activity* is 0 for φ(0) = 0 (odd functions, ReLU) and φ(0) otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, final, get_args

import torch
from torch import Tensor

from nlsim.errors import NlsimError, unknown_name

Carry = Literal["soft", "hard", "none"]


class MaskedLayer(Protocol):
    """What a stack needs of a layer: its pre-activation and the observed fraction it came from."""

    def with_fraction(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return a and μ, which broadcasts to it."""
        ...


def carry_soft(fraction: Tensor) -> Tensor:
    """Return the mask μ for every unit; its fraction in the layer above is μ again."""
    return fraction


def carry_hard(fraction: Tensor) -> Tensor:
    """Return the mask 1[μ > 0] in the dtype of the fraction."""
    return (fraction > 0).to(fraction.dtype)


def carry_none(fraction: Tensor) -> Tensor:
    """Return the mask 1: the layer above takes what it gets for observed."""
    return torch.ones_like(fraction)


CARRIES: dict[Carry, Callable[[Tensor], Tensor]] = {"soft": carry_soft, "hard": carry_hard, "none": carry_none}
"""The rules by name."""


def propagate(
    layers: Sequence[MaskedLayer],
    activation: Callable[[Tensor], Tensor],
    values: Tensor,
    mask: Tensor | None = None,
    *,
    carry: Carry = "soft",
) -> list[Tensor]:
    """Return the pre-activation of every layer, the last of which is the output.

    Parameters
    ----------
    layers : sequence of MaskedLayer
        From the input upwards.
    activation : callable
        φ, elementwise, between layers; not applied to the output.
    values : Tensor
        x, as the first layer takes it.
    mask : Tensor, optional
        m of the input; by default what is NaN is missing.
    carry : {"soft", "hard", "none"}
        How the mask goes up; ``"none"`` masks the first layer only.

    Returns
    -------
    list of Tensor
        a_1 … a_L. With soft or hard carrying and without compensatory weights each is exactly 0 for a sample of
        which everything is missing.

    Raises
    ------
    UnknownNameError
        For another name of a rule.
    """
    if carry not in CARRIES:
        raise unknown_name("way to carry a mask", carry, get_args(Carry), "carry")
    made: list[Tensor] = []
    for layer in layers:
        values, fraction = layer.with_fraction(activation(values) if made else values, mask)
        mask = CARRIES[carry](fraction)
        made.append(values)
    return made


@final
class MaskedStack(torch.nn.Module):
    """Masked layers above each other, with the mask carried from one to the next.

    Parameters
    ----------
    layers : sequence of Module
        :class:`~nlsim.systems.masked.module.MaskedLinear` or
        :class:`~nlsim.systems.masked.convolution.MaskedConv2d`, from the input upwards.
    activation : callable
        φ between them.
    carry : {"soft", "hard", "none"}
        How the mask goes up.

    Raises
    ------
    NlsimError
        For a layer that is not a masked one.
    UnknownNameError
        For another name of a rule.

    Examples
    --------
    >>> from nlsim.systems.masked.module import MaskedLinear
    >>> stack = MaskedStack([MaskedLinear(3, 4), MaskedLinear(4, 2)], torch.tanh)
    >>> stack(torch.full((1, 3), float("nan"))).tolist()
    [[0.0, 0.0]]
    """

    def __init__(
        self, layers: Sequence[torch.nn.Module], activation: Callable[[Tensor], Tensor], *, carry: Carry = "soft"
    ) -> None:
        super().__init__()
        for index, layer in enumerate(layers):
            if not callable(getattr(layer, "with_fraction", None)):
                raise NlsimError(
                    "A stack carries the mask from one masked layer to the next.",
                    where=f"layers[{index}]",
                    given=type(layer).__name__,
                    allowed="MaskedLinear, MaskedConv2d",
                    advice="Put ordinary layers behind the stack.",
                )
        if carry not in CARRIES:
            raise unknown_name("way to carry a mask", carry, get_args(Carry), "carry")
        self.layers = torch.nn.ModuleList(layers)
        self.activation = activation
        self.carry = carry

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the output, the last pre-activation.

        Parameters
        ----------
        values : Tensor
            x, as the first layer takes it; missing slots may hold anything.
        mask : Tensor, optional
            m; by default what is NaN is missing.
        """
        return propagate(list(self.layers), self.activation, values, mask, carry=self.carry)[-1]  # type: ignore[arg-type]
