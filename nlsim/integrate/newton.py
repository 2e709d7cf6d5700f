"""Damped Newton iteration: full steps when they help, shorter ones when they do not, a named ending always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, map_leaves
from nlsim.integrate.boundary import TwoPointEnding

U = TypeVar("U")

SUFFICIENT_DECREASE = 1e-4
"""Armijo's constant: a step of length λ must shrink the residual by the fraction λ · this at least."""

SHORTEST = 2.0**-20
"""Below this damping a direction is given up."""


@dataclass(frozen=True, eq=False)
class NewtonOutcome(Generic[U]):
    """Outcome of an iteration: the last unknown accepted, residuals (relative, see the solution), and the verdict."""

    unknown: U
    residuals: tuple[float, ...]
    ending: TwoPointEnding
    detail: str


def default_tolerance(like: Tensor) -> float:
    """Return ε^0.7 for the unit round-off ε of a tensor: 1.1e-11 in float64, 1.4e-5 in float32."""
    return float(torch.finfo(like.dtype).eps ** 0.7)


def damped_newton(
    unknown: U,
    residual: Callable[[U], Tensor],
    correction: Callable[[U], U],
    *,
    tolerance: float,
    max_iterations: int,
) -> NewtonOutcome[U]:
    """Solve residual(u) = 0 by u ← u + λ · correction(u), λ = 1, ½, ¼, … until Armijo's condition holds.

    Parameters
    ----------
    unknown : tree of Tensor
        Where to start.
    residual : callable
        Any shape, in the units of the unknown.
    correction : callable
        The Newton step −J⁻¹ r.
    tolerance : float
        End when the largest entry of the residual is below tolerance · max(1, largest entry of the unknown).
    max_iterations : int
        End as ``budget_spent`` after so many steps.

    Returns
    -------
    NewtonOutcome
        ``converged``; ``diverged`` when the start is not finite; ``stalled`` when no step of the direction found
        makes the residual smaller or the linearised equations are singular; ``budget_spent``.
    """
    missed = residual(unknown)
    seen = [relative_residual(missed, unknown)]

    def end(ending: TwoPointEnding, detail: str) -> NewtonOutcome[U]:
        return NewtonOutcome(
            unknown, tuple(seen), ending, f"{detail}; residual {seen[-1]:.3g} after {len(seen) - 1} steps"
        )

    if not bool(torch.isfinite(missed).all()):
        return end(TwoPointEnding.DIVERGED, "the field is not finite at the guess")
    while not seen[-1] <= tolerance:
        if len(seen) > max_iterations:
            return end(TwoPointEnding.BUDGET_SPENT, "max_iterations reached")
        step = correction(unknown)
        if not all(bool(torch.isfinite(leaf).all()) for leaf in leaves(step)):
            return end(TwoPointEnding.STALLED, "the linearised equations are singular")
        taken = _search(unknown, step, residual, missed)
        if taken is None:
            return end(TwoPointEnding.STALLED, "no step along Newton's direction makes the residual smaller")
        unknown, missed = taken
        seen.append(relative_residual(missed, unknown))
    return end(TwoPointEnding.CONVERGED, f"tolerance {tolerance:.3g} met")


def _search(unknown: U, step: U, residual: Callable[[U], Tensor], missed: Tensor) -> tuple[U, Tensor] | None:
    """Return the first of u + λ step, λ = 1, ½, …, that Armijo accepts, with its residual; None when none is."""
    size, damping = float(missed.norm()), 1.0
    while damping >= SHORTEST:
        factor = damping
        trial = map_leaves(lambda u, s: u + factor * s, unknown, step)  # noqa: B023  (used up at once)
        remaining = residual(trial)
        # false for NaN too
        if float(remaining.norm()) <= (1 - SUFFICIENT_DECREASE * damping) * size:
            return trial, remaining
        damping /= 2
    return None


def relative_residual(missed: Tensor, unknown: object) -> float:
    """Return the largest entry of a residual relative to the largest entry of the unknown, or to 1."""
    size = max(float(leaf.abs().max()) for leaf in leaves(unknown) if leaf.numel())
    return float(missed.abs().max()) / max(1.0, size)
