"""Steppers for fast relaxation ẏ = r(−y + g(y)): sweeps that keep their limit as r → ∞.

In a sweep every layer closes a fraction of the gap to its target, the targets being made of neighbours
already updated. On an acyclic network that solves the implicit step exactly with one pass forward and
one pass back; at a fixed step the limit of infinite speed is backpropagation. The price: a sweep is
sequential over depth, it gives up one hop a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import clone, map_leaves
from nlsim.core.system import Piece, Relaxing
from nlsim.integrate.stepper import require_structure

S = TypeVar("S")
Value = TypeVar("Value", float, Tensor)

_ADVICE = "Use inference, or costate_reversal with layers (an order to sweep in), or an explicit or adaptive stepper."


def implicit_fraction(z: Value) -> Value:
    """Return z/(1 + z): implicit Euler of ẏ = r(g − y) closes this fraction of the gap, z = r h."""
    return z / (1 + z)


def exponential_fraction(z: Value) -> Value:
    """Return 1 − e^{−z}: the exact flow of ẏ = r(g − y) at constant g closes this fraction, z = r h."""
    if isinstance(z, Tensor):
        return -torch.expm1(-z)
    return -math.expm1(-z)


@dataclass(frozen=True)
class Sweep:
    """A sweep-ordered step; order 1, stable at every r h, asymptotic-preserving.

    The slow block takes an explicit Euler step with the new fast values, so its own rate θ must keep
    θ h < 2. Inputs are taken at the end of the step. Cost: one vector field a step; nothing is copied
    between the steps of one call.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    fraction : callable
        ``fraction(r h)``, the part of the gap that is closed.
    order : int
        Of the global error.
    stability_limit : float
        Infinite: stable at every r h.
    """

    name: str
    fraction: Callable[[Any], Any]
    order: int = 1
    stability_limit: float = math.inf

    def require(self, system: Any) -> None:
        """Need a relaxing system."""
        require_structure(system, Relaxing, self.name, _ADVICE)

    def advance(self, system: Relaxing[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        own = clone(state)
        for n in range(1, steps + 1):
            now = t + n * dt
            system.sweep_(now, own, piece(now), dt, self.fraction)
        return own


@dataclass(frozen=True)
class ExponentialEuler:
    """The classical exponential Euler step (ETD1): all parts at once, from old values; order 1.

    y⁺ = y + h φ₁(−r h) f(t, y), φ₁(z) = (e^z − 1)/z, with the rates r of a relaxing system. Stable at
    every r h, but as r → ∞ it becomes the network with unit delays, not backpropagation: it is *not*
    asymptotic-preserving and serves as a control. Cost: one vector field a step.
    """

    name: str = "exponential_euler"
    order: int = 1
    stability_limit: float = math.inf

    def require(self, system: Any) -> None:
        """Need a relaxing system, for its rates."""
        require_structure(system, Relaxing, self.name, _ADVICE)

    def advance(self, system: Relaxing[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        factors = map_leaves(lambda rate: dt * _phi1(rate * dt), system.rates(state))
        for n in range(steps):
            now = t + n * dt
            slope = system.vector_field(now, state, piece(now))
            state = map_leaves(lambda y, f, k: y + f * k, state, factors, slope)
        return state


def _phi1(z: Tensor) -> Tensor:
    """Return (1 − e^{−z})/z, and 1 at 0."""
    safe = torch.where(z == 0, torch.ones_like(z), z)
    return torch.where(z == 0, torch.ones_like(z), exponential_fraction(safe) / safe)


IMPLICIT_SWEEP = Sweep("implicit_sweep", implicit_fraction)
"""Sweep-ordered implicit Euler; at fixed h the gradient error falls like 1/(c h)."""

EXPONENTIAL_SWEEP = Sweep("exponential_sweep", exponential_fraction)
"""Sweep-ordered exponential Euler; at fixed h the gradient error falls like e^{−c h}."""

EXPONENTIAL_EULER = ExponentialEuler()
"""Simultaneous exponential Euler, the control."""
