"""Explicit Runge–Kutta methods with a fixed step: coefficient tables fed to one loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from nlsim.core.state import map_leaves
from nlsim.core.system import FusedEuler, Piece

S = TypeVar("S")


@dataclass(frozen=True)
class ExplicitRungeKutta:
    """An explicit Runge–Kutta method given by Butcher's coefficients.

    k_i = f(t + c_i h, y + h Σ_j a_ij k_j), y⁺ = y + h Σ_i b_i k_i. Cost: one vector field a stage.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    order : int
        Order of the global error.
    stability_limit : float
        Largest stable r·h on ẏ = −r y.
    nodes, stages, weights
        c; the rows of a (row i has i entries); b.
    """

    name: str
    order: int
    stability_limit: float
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def require(self, system: Any) -> None:
        """Need nothing but a vector field."""

    def advance(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        if self.stages == ((),) and isinstance(system, FusedEuler):
            fused: S = system.euler(piece, state, t, dt, steps)
            return fused
        for n in range(steps):
            now = t + n * dt
            slopes: list[S] = []
            for node, row in zip(self.nodes, self.stages, strict=True):
                time = now + node * dt
                slopes.append(system.vector_field(time, _combine(state, row, slopes, dt), piece(time)))
            state = _combine(state, self.weights, slopes, dt)
        return state


def _combine(state: S, coefficients: tuple[float, ...], slopes: list[S], dt: float) -> S:
    """Return y + h Σ coefficient · slope, skipping zeros."""
    used = [(a * dt, k) for a, k in zip(coefficients, slopes, strict=True) if a != 0.0]
    if not used:
        return state
    factors = [factor for factor, _ in used]

    def add(leaf: Tensor, *ks: Tensor) -> Tensor:
        total = leaf.add(ks[0], alpha=factors[0])
        for factor, k in zip(factors[1:], ks[1:], strict=True):
            total.add_(k, alpha=factor)
        return total

    return map_leaves(add, state, *(k for _, k in used))


EXPLICIT_EULER = ExplicitRungeKutta("explicit_euler", 1, 2.0, (0.0,), ((),), (1.0,))
"""y + h f(t, y). Monotone on ẏ = −r y for r h ≤ 1; at r h = 1 a relaxing network is the network with
unit delays."""

HEUN = ExplicitRungeKutta("heun", 2, 2.0, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5))
"""Heun's method, the explicit trapezoid."""

RK4 = ExplicitRungeKutta(
    "rk4",
    4,
    # the positive root of 1 − z/2 + z²/6 − z³/24 = 0, where |R(−z)| is 1 again
    2.785293563405282,
    (0.0, 0.5, 0.5, 1.0),
    ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
"""The classical Runge–Kutta method."""
