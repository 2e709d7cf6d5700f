"""Ordered Euler: the parts of a state one after the other, each with what is already new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from nlsim.core.system import Inputs, Piece
from nlsim.integrate.stepper import require_structure

S = TypeVar("S")


@runtime_checkable
class Ordered(Protocol[S]):
    """A system that knows in which order an Euler step moves its parts, its weights last."""

    def ordered_step(self, t: float, state: S, inputs: Inputs, dt: float, /, *, moves_with_old: bool) -> S:
        """Return the state after an ordered step that begins at t.

        ``moves_with_old``: whether the weights move with their costates (or velocities) before the step.
        """
        ...


@dataclass(frozen=True)
class OrderedEuler:
    """Explicit Euler part by part, order 1; inputs and schedules are those at the beginning of a step.

    For Hamiltonian Learning at c τ = 1, reset sample by sample, a step is SGD with momentum if the weights
    move with their new costates, and SGD with a gradient one step late if they move with the old ones.
    Cost: one vector field a step.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    moves_with_old : bool
        Whether weights move with their old costates.
    """

    name: str
    moves_with_old: bool
    order: int = 1
    stability_limit: float = 2.0

    def require(self, system: Any) -> None:
        """Need an ordered system."""
        advice = "Use hamiltonian_learning, or a sweep, explicit or adaptive stepper."
        require_structure(system, Ordered, self.name, advice)

    def advance(self, system: Ordered[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        for n in range(steps):
            now = t + n * dt
            state = system.ordered_step(now, state, piece(now), dt, moves_with_old=self.moves_with_old)
        return state


ORDERED_EULER = OrderedEuler("ordered_euler", moves_with_old=False)
"""Weights move with their new costates."""

ORDERED_EULER_OLD = OrderedEuler("ordered_euler_old", moves_with_old=True)
"""Weights move with their old costates: gradients act one step late."""
