"""How long a step is: what the loop asks to reach the next instant that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from nlsim.core.ending import Ending
from nlsim.core.system import Coupled, Held, Piece, Relaxing, Stiff
from nlsim.integrate.stepper import Iterative, Stepper

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

    def horizon(self, t: float, until: float, steps: int, /) -> float:
        """Return how far towards ``until`` one call may go if the loop wants to look after so many steps."""
        ...

    def reach(self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int, /) -> Reached[S]:
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

    def horizon(self, t: float, until: float, steps: int) -> float:
        """Return the time after so many of the steps that lead to ``until``."""
        count, length = step_count(t, until, self.dt)
        return until if count <= steps else t + steps * length

    def reach(self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int) -> Reached[S]:
        """Take equal steps from t to ``until``; a stretch with an unsolved step gives back what it began with."""
        steps, length = step_count(t, until, self.dt)
        taken = min(steps, max_steps)
        if isinstance(self.stepper, Iterative):
            reached, residual = self.stepper.advance_judged(system, piece, state, t, length, taken)
            if not float(residual) <= self.stepper.tolerance:  # a NaN is no solution either
                detail = f"residual {float(residual):.3g} between t = {t:.9g} and {until:.9g}"
                return Reached(state, t, 0, Ending.NOT_CONVERGED, detail)
        else:
            reached = self.stepper.advance(system, piece, state, t, length, taken)
        if steps > max_steps:
            return Reached(reached, t + max_steps * length, max_steps, Ending.BUDGET_SPENT, "max_steps reached")
        return Reached(reached, until, steps)


@dataclass(frozen=True)
class StabilityLimit:
    """Why a step is too long.

    Attributes
    ----------
    rate : float
        The decay rate that decides, in 1/time.
    limit : float
        The largest stable rate·dt.
    is_slow : bool
        Whether it is the slow block, which sweeps step explicitly, that decides.
    """

    rate: float
    limit: float
    is_slow: bool

    @property
    def largest_step(self) -> float:
        """Return the dt that must not be reached."""
        return self.limit / self.rate


def beyond_stability(stepper: Stepper, system: Any, dt: float) -> StabilityLimit | None:
    """Return why dt is beyond the stability limit of a stepper on a system, or None when it is not.

    Raises
    ------
    CapabilityError
        When the system lacks a structure without which its limit cannot be asked for.
    """
    is_unlimited = math.isinf(stepper.stability_limit)
    if is_unlimited and isinstance(system, Coupled):
        return _beyond_coupling(stepper, system, dt)
    is_slow = is_unlimited and isinstance(system, Relaxing)
    if is_slow:
        rate, limit = system.slow_rate(), EXPLICIT_LIMIT
    elif isinstance(system, Stiff):
        rate, limit = system.fastest_rate(), stepper.stability_limit
    else:
        return None
    return StabilityLimit(rate, limit, is_slow) if rate * dt >= limit else None


def _beyond_coupling(stepper: Stepper, system: Coupled, dt: float) -> StabilityLimit | None:
    """Take single steps of the hardest mode, longer and longer up to dt; where one first grows, bisect.

    Cost: some tens of steps of one number.
    """
    stepper.require(system)
    mode, state, inputs = system.hardest_mode()
    rate = system.fastest_rate()

    def grows(h: float) -> bool:
        return not float(stepper.advance(mode, Held(inputs), state, 0.0, h, 1).abs().max()) < 1.0

    stable, length = 0.0, min(dt, 0.1 / rate)
    while not grows(length):
        if length == dt:
            return None
        stable, length = length, min(dt, 1.2 * length)
    for _ in range(50):
        middle = 0.5 * (stable + length)
        stable, length = (stable, middle) if grows(middle) else (middle, length)
    return StabilityLimit(rate, rate * length, is_slow=False)


EXPLICIT_LIMIT = 2.0
"""Largest stable r·h of the explicit Euler step that sweeps use on the slow block."""


def step_count(t: float, until: float, dt: float) -> tuple[int, float]:
    """Return how many equal steps lead from t exactly to ``until``, and their length.

    The length is dt itself when the stretch is a multiple of dt to nine digits (so that rounding of
    times never changes the arithmetic of a step), else the stretch divided evenly. A stretch shorter
    than a billionth of dt is no step at all: 0.3 and 3 · 0.1 are one instant.
    """
    quotient = (until - t) / dt
    nearest = round(quotient)
    if abs(quotient - nearest) <= 1e-9 * max(1, nearest):
        return nearest, dt
    steps = max(1, math.ceil(quotient))
    return steps, (until - t) / steps
