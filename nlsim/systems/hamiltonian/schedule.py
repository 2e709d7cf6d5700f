"""Constants that change from step to step: the first step's loss weight, and layers that take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nlsim.systems.network import Constant


class Schedule(Protocol):
    """A constant as a function of time, constant over each step; asked at the time where a step begins."""

    @property
    def largest(self) -> float:
        """Return its largest value."""
        ...

    def __call__(self, t: float, /) -> Constant:
        """Return its value in the step that begins at t."""
        ...


@dataclass(frozen=True)
class FirstStep:
    """One value in the first step, another ever after.

    Parameters
    ----------
    first, later : float
        The two values.
    tau : float
        Length τ of the first step, > 0 [time].
    """

    first: float
    later: float
    tau: float

    @property
    def largest(self) -> float:
        """Return the larger of the two."""
        return max(self.first, self.later)

    def __call__(self, t: float) -> float:
        """Return ``first`` in the step that begins at 0."""
        return self.first if t < 0.5 * self.tau else self.later


@dataclass(frozen=True)
class Turn:
    """A value that is only there in every ``period``-th step, else 0.

    Parameters
    ----------
    value : float
        The value when it is there.
    index, period : int
        It is there in the steps κ with κ mod period = index.
    tau : float
        Length τ of a step, > 0 [time].
    """

    value: float
    index: int
    period: int
    tau: float

    @property
    def largest(self) -> float:
        """Return the value when it is there."""
        return self.value

    def __call__(self, t: float) -> float:
        """Return the value in its own steps; κ is the number of whole steps before t."""
        return self.value if round(t / self.tau) % self.period == self.index else 0.0


def take_turns(layers: int, tau: float, *, period: int | None = None) -> tuple[Turn, ...]:
    """Return speeds with which one layer is passed a step (Melacci et al., eq. 10).

    Layer κ mod period has the speed 1/τ of the residual transition, so its gap is closed in its step; all
    others stand still. With each input held for a period, outputs have no delay; costates come back one
    layer a period or so, and weight changes are that late.

    Parameters
    ----------
    layers : int
        Number of parts of the state.
    tau : float
        Length of a step, > 0 [time].
    period : int, optional
        Steps from a layer's turn to its next, ≥ layers (by default equal); a longer one leaves turns in
        which only the output network and the loss act.
    """
    return tuple(Turn(1.0 / tau, layer, period or layers, tau) for layer in range(layers))


def value_at(constant: Constant | Schedule, t: float) -> Constant:
    """Return a constant's value in the step that begins at t."""
    return constant if isinstance(constant, float | int | Tensor) else constant(t)


def largest(constant: Constant | Schedule) -> float:
    """Return the largest value, over time and over an ensemble."""
    if isinstance(constant, Tensor):
        return float(constant.max())
    return float(constant) if isinstance(constant, float | int) else constant.largest
