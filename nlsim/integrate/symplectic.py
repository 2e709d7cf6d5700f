"""Symplectic steps by splitting: kicks and drifts that are each exact, one after the other.

For H = T(p, t) + V(q, t) a kick and a drift are symplectic maps, and so is every sequence of them. The
method then follows a nearby Hamiltonian exactly: its energy oscillates by O(h^p) and does not drift, however
long the run. What the positions do in a kick is nothing, and what the momenta do in a drift is nothing: a
drift that used momenta of before the last kick would be another, wrong method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from nlsim.core.state import clone
from nlsim.core.system import Inputs, Piece, Splittable
from nlsim.integrate.stepper import require_structure

S = TypeVar("S")
Part = Callable[[Splittable[S], float, S, Inputs, float], None]

_ADVICE = "Use a system that splits, or gauss4 or implicit_midpoint, which need nothing but a vector field."


def kick(system: Splittable[S], t: float, state: S, inputs: Inputs, dt: float) -> None:
    """Move the momenta in place."""
    system.kick_(t, state, inputs, dt)


def drift(system: Splittable[S], t: float, state: S, inputs: Inputs, dt: float) -> None:
    """Move the positions in place."""
    system.drift_(t, state, inputs, dt)


@dataclass(frozen=True)
class Stage:
    """One kick or drift of a step.

    Parameters
    ----------
    part : callable
        :func:`kick` or :func:`drift`.
    share : float
        Its length in units of h; the shares of the kicks add up to 1, and so do those of the drifts.
    node : float
        Where in the step time and inputs are taken, from 0 to 1.
    """

    part: Part[Any]
    share: float
    node: float


@dataclass(frozen=True)
class Splitting:
    """A composition of exact kicks and drifts; symplectic, explicit. Cost: one force for each kick.

    A step of −h that begins where a step of h ended undoes it, to rounding, when the stages read the same
    from both ends.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    order : int
        Order of the global error.
    stages : tuple of Stage
        What is done, in order.
    stability_limit : float
        Largest stable ω·h on the harmonic oscillator q̈ = −ω² q, which is what splits; it is used as the
        limit of r·h for a system that names its fastest rate r.

    References
    ----------
    Hairer, Lubich and Wanner, *Geometric Numerical Integration*, sections I.1.4 and VI.3.
    """

    name: str
    order: int
    stages: tuple[Stage, ...]
    stability_limit: float = 2.0

    def require(self, system: Any) -> None:
        """Need exact kicks and drifts."""
        require_structure(system, Splittable, self.name, _ADVICE)

    def advance(self, system: Splittable[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        own = clone(state)
        for n in range(steps):
            now = t + n * dt
            for stage in self.stages:
                time = now + stage.node * dt
                stage.part(system, time, own, piece(time), stage.share * dt)
        return own


SYMPLECTIC_EULER = Splitting("symplectic_euler", 1, (Stage(kick, 1.0, 0.0), Stage(drift, 1.0, 0.5)))
"""Kick with the old positions, then drift with the new momenta."""

SYMPLECTIC_EULER_ADJOINT = Splitting("symplectic_euler_adjoint", 1, (Stage(drift, 1.0, 0.5), Stage(kick, 1.0, 1.0)))
"""Drift with the old momenta, then kick with the new positions: the other one of the pair. Either undoes the
other's step when run back, and a half step of each in turn is Störmer–Verlet."""

STORMER_VERLET = Splitting("stormer_verlet", 2, (Stage(drift, 0.5, 0.0), Stage(kick, 1.0, 0.5), Stage(drift, 0.5, 1.0)))
"""Drift half a step, kick a whole one, drift the other half; time-symmetric. In this form a step costs one
force, and takes its inputs in the middle of the step, never on an edge."""
