"""Minima of smooth functions of some hundred unknowns, to round-off: Newton's method with bent curvature.

Newton's step divides the gradient by the curvature. Where the curvature is negative its size is taken instead, so
the step leads away from saddles; far from the minimum the step is shortened until the function falls; near it,
where differences of the function are round-off, full steps are taken until the gradient stops falling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.func import grad, jacrev

SUFFICIENT_DECREASE = 1e-4
"""Armijo's constant: a step must gain this share of what the slope promises."""

LOCAL = 1e-6
"""Relative length of Newton's step below which it is taken in full."""

FLAT = 1e-15
"""Curvatures below this share of the largest are taken for 0: the function does not depend on that direction."""

NEGATIVE = 1e-10
"""Curvatures below minus this share of the largest make a rest point a saddle."""

SHORTEST = 2.0**-40
"""Below this length a direction is given up."""


class MinimumEnding(StrEnum):
    """Why a search for a minimum stopped."""

    CONVERGED = "converged"
    SADDLE = "saddle"
    STALLED = "stalled"
    BUDGET_SPENT = "budget_spent"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True, eq=False)
class Minimum:
    """The point where a search stopped, and its verdict.

    Attributes
    ----------
    point : Tensor
        Shape ``(unknown,)``.
    slope : float
        Norm of the gradient there.
    least_curvature : float
        Smallest eigenvalue of the Hessian at the last point where it was taken.
    iterations : int
        Newton steps made.
    ending : MinimumEnding
        ``converged``: gradient at round-off (or below ``tolerance``) and no negative curvature; ``saddle``: the same
        with negative curvature; ``stalled``: no shorter step lowers the function; ``budget_spent``;
        ``not_finite``: function or gradient is no number.
    """

    point: Tensor
    slope: float
    least_curvature: float
    iterations: int
    ending: MinimumEnding


def minimise(
    function: Callable[[Tensor], Tensor], start: Tensor, *, tolerance: float = 0.0, max_iterations: int = 200
) -> Minimum:
    """Return a local minimum of a twice differentiable function.

    Parameters
    ----------
    function : callable
        One number from a tensor of shape ``(unknown,)``; differentiable twice by ``torch.func``.
    start : Tensor
        Shape ``(unknown,)``; its dtype and device are those of the search.
    tolerance : float
        End when the norm of the gradient is at most this; 0 goes on to round-off.
    max_iterations : int
        Newton steps at most.

    Returns
    -------
    Minimum
        Always: that the search failed is part of the outcome.

    Notes
    -----
    Cost: one Hessian and one eigendecomposition a step, cubic in the number of unknowns.

    References
    ----------
    Nocedal and Wright, *Numerical Optimization*, sections 3.4 and 3.5.
    """
    slope_of = grad(function)
    curvature_of = jacrev(slope_of)  # reverse mode twice: no forward-mode rules needed of an activation
    point, gradient, least = start, slope_of(start), float("nan")

    def stop(iterations: int, ending: MinimumEnding) -> Minimum:
        return Minimum(point, float(gradient.norm()), least, iterations, ending)

    for iteration in range(max_iterations):
        if not bool(gradient.isfinite().all()):
            return stop(iteration, MinimumEnding.NOT_FINITE)
        values, vectors = torch.linalg.eigh(curvature_of(point))
        largest = float(values.abs().max())
        least = float(values[0])
        is_convex = least >= -NEGATIVE * largest
        rest = MinimumEnding.CONVERGED if is_convex else MinimumEnding.SADDLE
        if float(gradient.norm()) <= tolerance:
            return stop(iteration, rest)
        has_curvature = values.abs() > FLAT * largest
        share = torch.where(has_curvature, (vectors.mT @ gradient) / values.abs(), torch.zeros_like(values))
        step = -(vectors @ share)
        if is_convex and float(step.norm()) <= LOCAL * (1 + float(point.norm())):
            after = slope_of(point + step)
            # Newton squares the error: a gradient that does not even halve has reached round-off
            if not float(after.norm()) <= 0.5 * float(gradient.norm()):
                return stop(iteration, rest)
            point, gradient = point + step, after
            continue
        length = _shorten(function, point, step, float(gradient @ step))
        if length is None:
            is_at_rest = float(step.norm()) <= LOCAL * (1 + float(point.norm()))
            return stop(iteration, rest if is_at_rest else MinimumEnding.STALLED)
        point = point + length * step
        gradient = slope_of(point)
    return stop(max_iterations, MinimumEnding.BUDGET_SPENT)


def _shorten(function: Callable[[Tensor], Tensor], point: Tensor, step: Tensor, promise: float) -> float | None:
    """Return the first of 1, ½, ¼ … that lowers the function enough, or None."""
    here, length = float(function(point)), 1.0
    while length > SHORTEST:
        if float(function(point + length * step)) <= here + SUFFICIENT_DECREASE * length * promise:
            return length
        length /= 2
    return None
