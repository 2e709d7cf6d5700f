"""Dissipation done exactly: a symplectic step between two halves of e^{−θh}.

States and normalised costates π = p/φ, φ = e^{θt}, move by Hamilton's equations and −θπ. The second part is
solved by scaling the costates; put symmetrically around a symplectic step of the first it gives a map whose
symplectic form shrinks by exactly e^{−θh} a step, as that of the true flow does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import clone, leaves
from nlsim.core.system import Conformal, Piece
from nlsim.integrate.gauss import IMPLICIT_MIDPOINT
from nlsim.integrate.stepper import Iterative, Stepper, require_structure
from nlsim.integrate.symplectic import STORMER_VERLET

S = TypeVar("S")

_ADVICE = "Use a system of states and normalised costates such as hamilton_equations, or another stepper."


@dataclass(frozen=True)
class ConformalSplitting:
    """A conformally symplectic step: MᵀJM = e^{−θh} J, at any h for which the inner step is symplectic.

    Φ_h = D_{h/2} ∘ Ψ_h ∘ D_{h/2}, D the scaling of the costates by e^{−θh/2} and Ψ a symplectic step of the
    system without dissipation. Time-symmetric when Ψ is; volume shrinks by e^{−θh dim y} a step. Of order two at
    most: the splitting's own error is O(h²). At θ = 0 it is Ψ. Cost: that of Ψ.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    inner : Stepper
        Ψ, a symplectic stepper.

    References
    ----------
    McLachlan and Quispel, *Splitting methods*, Acta Numerica 2002, on conformal symplectic flows.
    """

    name: str
    inner: Stepper

    @property
    def order(self) -> int:
        """Return the order of Ψ, at most 2."""
        return min(2, self.inner.order)

    @property
    def stability_limit(self) -> float:
        """Return that of Ψ; the scaling is stable at every step."""
        return self.inner.stability_limit

    def require(self, system: Any) -> None:
        """Need a system that knows its dissipation, and of the rest what Ψ needs."""
        require_structure(system, Conformal, self.name, _ADVICE)
        self.inner.require(system.conservative())

    @property
    def tolerance(self) -> float:
        """Return that of Ψ; infinite when Ψ has no equations to solve."""
        return self.inner.tolerance if isinstance(self.inner, Iterative) else math.inf

    def advance(self, system: Conformal[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        return self.advance_judged(system, piece, state, t, dt, steps)[0]

    def advance_judged(
        self, system: Conformal[S], piece: Piece, state: S, t: float, dt: float, steps: int
    ) -> tuple[S, Tensor]:
        """Return the state after ``steps`` steps, and the largest residual of a step of Ψ; 0 where it has none."""
        conservative = system.conservative()
        own = clone(state)
        residuals = [torch.zeros((), device=leaves(state)[0].device)]
        for n in range(steps):
            system.dissipate_(own, dt / 2)
            if isinstance(self.inner, Iterative):
                own, residual = self.inner.advance_judged(conservative, piece, own, t + n * dt, dt, 1)
                residuals.append(residual)
            else:
                own = self.inner.advance(conservative, piece, own, t + n * dt, dt, 1)
            system.dissipate_(own, dt / 2)
        return own, torch.stack([each.to(torch.float32) for each in residuals]).max()


CONFORMAL_MIDPOINT = ConformalSplitting("conformal_midpoint", IMPLICIT_MIDPOINT)
"""For any system of states and costates."""

CONFORMAL_VERLET = ConformalSplitting("conformal_verlet", STORMER_VERLET)
"""For one whose conservative part splits; explicit."""
