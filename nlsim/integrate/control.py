"""How long a step is: what the loop asks to reach the next instant that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from nlsim.core.ending import Ending
from nlsim.core.system import Piece
from nlsim.integrate.stepper import Stepper

S = TypeVar("S")


@dataclass(frozen=True)
class Reached(Generic[S]):
    """Outcome of advancing a state over a smooth stretch of time.

    Attributes
    ----------
    state : S
        The state at ``t``.
    t : float
        The end of the stretch, or how far the stepper came.
    steps : int
        Steps taken.
    ending : Ending or None
        Why the end was not reached, or None when it was.
    detail : str
        For a person.
    """

    state: S
    t: float
    steps: int
    ending: Ending | None = None
    detail: str = ""


class Control(Protocol):
    """A way of choosing steps that lands exactly on given instants."""

    def require(self, system: Any, /) -> None:
        """Raise CapabilityError when the system lacks a structure that is needed."""
        ...

    def horizon(self, t: float, steps: int, /) -> float:
        """Return how far one call may go if the loop wants to look after about this many steps."""
        ...

    def reach(
        self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int, /
    ) -> Reached[S]:
        """Advance from t exactly to ``until``; the state given is never written to."""
        ...


@dataclass(frozen=True)
class FixedStep:
    """Equal steps of one stepper.

    Parameters
    ----------
    stepper : Stepper
        The method.
    dt : float
        Step h > 0. A stretch that is not a multiple of dt is divided evenly into steps not longer
        than dt.
    """

    stepper: Stepper
    dt: float

    def require(self, system: Any) -> None:
        """Pass on what the stepper needs."""
        self.stepper.require(system)

    def horizon(self, t: float, steps: int) -> float:
        """Return the time after so many steps."""
        return t + steps * self.dt

    def reach(
        self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int
    ) -> Reached[S]:
        """Take equal steps from t to ``until``."""
        steps, length = step_count(t, until, self.dt)
        if steps > max_steps:
            within = self.stepper.advance(system, piece, state, t, length, max_steps)
            stopped = t + max_steps * length
            return Reached(within, stopped, max_steps, Ending.BUDGET_SPENT, "max_steps reached")
        return Reached(self.stepper.advance(system, piece, state, t, length, steps), until, steps)


def step_count(t: float, until: float, dt: float) -> tuple[int, float]:
    """Return how many equal steps lead from t exactly to ``until``, and their length.

    The length is dt itself when the stretch is a multiple of dt to nine digits (so that rounding of
    times never changes the arithmetic of a step), else the stretch divided evenly.
    """
    quotient = (until - t) / dt
    nearest = round(quotient)
    if nearest >= 1 and abs(quotient - nearest) <= 1e-9 * nearest:
        return nearest, dt
    steps = max(1, math.ceil(quotient))
    return steps, (until - t) / steps
