"""Gauss collocation: implicit midpoint and the two-stage method of order four, by fixed-point iteration.

The stages solve k_i = f(t + c_i h, y + h Σ_j a_ij k_j). The iteration starts at k_i = f(t + c_i h, y) and is
applied a fixed number of times, so a step has no branches, reads nothing back and is one and the same map
at every state.

**When it converges.** With J the Jacobian of f, h|J| < 1 in any norm is enough for both methods. The error of the
stages then shrinks, after the first iterations, by ``contraction`` · h|J| each time: h|J|/2 for the midpoint,
h|J|/√12 for Gauss-4. After N = 10 iterations and at h|J| = 0.2 it is down by 0.1¹⁰ and 0.06¹⁰, and so are the
defects of symplecticity, time symmetry and energy.

**Beyond.** When the factor reaches 1 the iteration no longer converges, and the step is the explicit
Runge–Kutta method of N + 1 sweeps that it is anyway: consistent, but neither symplectic nor stable. Just below 1
nothing blows up, but the structure would be lost silently. So every step says what its last iteration still
changed, and a run in which that is more than ``tolerance`` ends as ``not_converged``; with ``stability_limit`` a
system that knows its fastest rate is refused before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import map_leaves, norm
from nlsim.core.system import Inputs, Piece

S = TypeVar("S")


@dataclass(frozen=True)
class GaussCollocation:
    """A Gauss method with a fixed number of fixed-point iterations; symplectic and time-symmetric.

    Quadratic invariants are kept, energy does not drift. Accepts any system with a vector field, separable
    or not. Inputs are taken inside the step, never on an edge. Cost: (iterations + 1) vector fields a stage.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    order : int
        Order of the global error; needs iterations ≥ order − 1.
    nodes, stages, weights
        Butcher's c, rows of a, and b.
    contraction : float
        Spectral radius of a: an iteration shrinks the error by this times h|J|, in the long run.
    iterations : int
        N ≥ 1.
    tolerance : float
        Largest last change h‖k⁽ᴺ⁾ − k⁽ᴺ⁻¹⁾‖/max(1, ‖y‖) of a step that counts as solved. Ten roundings of float32;
        one more iteration would change ``contraction`` · h|J| times as much.

    References
    ----------
    Hairer, Lubich and Wanner, *Geometric Numerical Integration*, sections II.1.3, VI.4 and VIII.6.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    contraction: float
    iterations: int = 10
    tolerance: float = 1e-6

    @property
    def stability_limit(self) -> float:
        """Return the largest stable r·h on ẏ = −r y with this number of iterations."""
        return _stability_limit(self.stages, self.weights, self.iterations)

    def require(self, system: Any) -> None:
        """Need nothing but a vector field."""

    def advance(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps; dt may be negative."""
        return self.advance_judged(system, piece, state, t, dt, steps)[0]

    def advance_judged(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> tuple[S, Tensor]:
        """Return the state after ``steps`` steps, and the largest of their last changes (see ``tolerance``)."""
        changes = []
        for n in range(steps):
            times, inputs = self._instants(piece, t + n * dt, dt)
            slopes = self._first(system, state, times, inputs)
            before = slopes
            for _ in range(self.iterations):
                before, slopes = slopes, self._again(system, state, times, inputs, slopes, dt)
            changes.append(abs(dt) * _distance(slopes, before) / norm(state).clamp(min=1.0))
            state = _moved(state, self.weights, slopes, dt)
        return state, torch.stack(changes).max()

    def _instants(self, piece: Piece, t: float, dt: float) -> tuple[list[float], list[Inputs]]:
        times = [t + node * dt for node in self.nodes]
        return times, [piece(time) for time in times]

    def _first(self, system: Any, state: S, times: list[float], inputs: list[Inputs]) -> list[S]:
        return [system.vector_field(time, state, each) for time, each in zip(times, inputs, strict=True)]

    def _again(
        self, system: Any, state: S, times: list[float], inputs: list[Inputs], slopes: list[S], dt: float
    ) -> list[S]:
        """Return the next iterate; all stages from the old ones, which keeps the method time-symmetric."""
        return [
            system.vector_field(time, _moved(state, row, slopes, dt), each)
            for time, each, row in zip(times, inputs, self.stages, strict=True)
        ]


def _moved(state: S, coefficients: tuple[float, ...], slopes: list[S], dt: float) -> S:
    """Return y + h Σ coefficient · slope."""

    def add(leaf: Tensor, *ks: Tensor) -> Tensor:
        total = leaf.add(ks[0], alpha=coefficients[0] * dt)
        for coefficient, k in zip(coefficients[1:], ks[1:], strict=True):
            total.add_(k, alpha=coefficient * dt)
        return total

    return map_leaves(add, state, *slopes)


def _distance(found: list[S], expected: list[S]) -> Tensor:
    """Return the largest Euclidean distance of any stage."""
    return torch.stack([norm(map_leaves(torch.sub, f, e)) for f, e in zip(found, expected, strict=True)]).max()


@lru_cache
def _stability_limit(stages: tuple[tuple[float, ...], ...], weights: tuple[float, ...], iterations: int) -> float:
    """Return the first x > 0 at which |R(−x)| exceeds 1, R being the polynomial of that many iterations."""

    def growth(x: float) -> float:
        k = [1.0 for _ in weights]
        for _ in range(iterations):
            k = [1.0 - x * sum(a * each for a, each in zip(row, k, strict=True)) for row in stages]
        return abs(1.0 - x * sum(b * each for b, each in zip(weights, k, strict=True)))

    # |R| is a polynomial of degree below 20 on each side of its zeros: no excursion is narrower than this
    step = 1e-2
    stable = step
    while growth(stable + step) <= 1.0:
        stable += step
    unstable = stable + step
    while unstable - stable > 1e-15 * unstable:
        middle = (stable + unstable) / 2
        if middle in (stable, unstable):
            break
        stable, unstable = (middle, unstable) if growth(middle) <= 1.0 else (stable, middle)
    return stable


_R = math.sqrt(3) / 6

IMPLICIT_MIDPOINT = GaussCollocation("implicit_midpoint", 2, (0.5,), ((0.5,),), (1.0,), 0.5)
"""y + h f(t + h/2, (y + y⁺)/2)."""

GAUSS4 = GaussCollocation(
    "gauss4",
    4,
    (0.5 - _R, 0.5 + _R),
    ((0.25, 0.25 - _R), (0.25 + _R, 0.25)),
    (0.5, 0.5),
    1 / math.sqrt(12),
)
"""The two-stage Gauss–Legendre method (Hammer and Hollingsworth)."""
