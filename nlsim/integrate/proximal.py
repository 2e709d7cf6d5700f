"""Proximal descent: two-point problems whose cost is not convex, by way of a sequence that is.

Newton finds the extremal that is near, a saddle as readily as a minimum, and loses its way where two extremals have
annihilated each other. Where weights are the control that is the rule, not the exception: x' = c(−x + σ(Wx)) is
bilinear in what is steered. The remedy is the proximal step, implicit gradient descent on whole trajectories:

  y_{k+1} = argmin  cost(y) + (ρ/2) ∫ |y − y_k|² dt,

whose Hamilton equations are the given ones with ρ (y − y_k) taken from dp/dt. With ρ above the most negative curvature
of the cost every step is a convex problem, at which Newton is at home, and the cost falls from step to step; only a
minimum attracts such a descent. As it settles, ρ is let go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.integrate.boundary import TwoPointEnding, TwoPointProblem, TwoPointSolution
from nlsim.integrate.collocation import GAUSS4, Collocation, Equations
from nlsim.integrate.newton import NewtonOutcome, default_tolerance

_Unknown = tuple[Tensor, Tensor]

ATTEMPT = 10
"""Newton steps after which a proximal step is given up and tried again with a larger ρ."""

ROUGH = 1e-6
"""Relative residual to which a proximal step is solved; only the last problem needs more."""

FACTOR = 4.0
"""By which ρ falls after a step and rises after a failure."""

NEAR = 1e-3
"""The steps end when the pull ρ |y_{k+1} − y_k| is below this fraction of the largest entry of z (at least 1)."""


def proximal_descent(
    problem: TwoPointProblem,
    grid: Sequence[float],
    *,
    strength: float = 1.0,
    method: Collocation = GAUSS4,
    guess: Tensor | None = None,
    tolerance: float | None = None,
    max_steps: int = 100,
) -> TwoPointSolution:
    """Solve the two-point problem of a minimisation by proximal steps, then by Newton without the proximal term.

    Parameters
    ----------
    problem : TwoPointProblem
        Hamilton equations of a minimum: dp/dt = −∂H/∂y with p = ∂(cost to go)/∂y, as many costates as states.
    grid, method, guess, tolerance
        As for :func:`~nlsim.integrate.collocation.solve_two_point`.
    strength : float
        ρ of the first step, > 0, in units of cost/(state² time): the size of the most negative curvature of the cost,
        or more. Too large costs steps; too small costs attempts, and may end in a saddle as Newton does.
    max_steps : int
        Proximal steps tried before ``budget_spent``.

    Returns
    -------
    TwoPointSolution
        Its residuals are those of the given equations: at the guess, after each proximal step that succeeded, and
        during the final Newton iteration, whose ending it carries.

    Raises
    ------
    NlsimError
        When ρ is not positive or costates and states differ in number; for grid and guess as elsewhere.

    Notes
    -----
    Cost: some three to five Newton steps a proximal step, and some ten to thirty of these.
    """
    n, size = problem.states, problem.size
    if size != 2 * n:
        raise NlsimError(
            "Proximal descent needs as many costates as states.",
            where="problem",
            given=f"{n} states, {size - n} costates",
            advice="Use solve_two_point.",
        )
    if not strength > 0:
        raise NlsimError("The proximal term must be positive.", where="strength", given=strength, allowed="> 0")
    times = problem.nodes(grid)
    plain = Equations(problem, times, method)
    nodes = problem.first_guess(times, guess)
    current: _Unknown = (nodes, nodes.new_zeros(len(times) - 1, len(method.points) - 1, size))
    residuals = [plain.relative(current)]
    pull = strength
    for _ in range(max_steps):
        step = _proximal_step(plain, current, pull)
        if not step.ending.is_success:
            pull *= FACTOR
            continue
        moved = float((step.unknown[0] - current[0])[:, :n].abs().max())
        current = step.unknown
        residuals.append(plain.relative(current))
        if pull * moved <= NEAR * max(1.0, float(current[0].abs().max())):
            limit = default_tolerance(times) if tolerance is None else tolerance
            last = plain.solve(current, tolerance=limit, max_iterations=2 * ATTEMPT)
            return _solution(plain, last.unknown, residuals + list(last.residuals[1:]), last.ending, last.detail)
        pull /= FACTOR
    detail = f"max_steps = {max_steps} proximal steps tried, of which {len(residuals) - 1} succeeded"
    return _solution(plain, current, residuals, TwoPointEnding.BUDGET_SPENT, detail)


def _proximal_step(plain: Equations, current: _Unknown, pull: float) -> NewtonOutcome[_Unknown]:
    """Solve the equations with ρ (y − y_k) taken from dp/dt."""
    problem, n = plain.problem, plain.problem.states
    centre = plain.stages(current).flatten(0, 1)[:, :n]  # rows in the order in which the equations ask for them

    def field(times: Tensor, points: Tensor) -> Tensor:
        velocity = problem.field(times, points)
        return torch.cat((velocity[:, :n], velocity[:, n:] - pull * (points[:, :n] - centre)), -1)

    def jacobian(times: Tensor, points: Tensor) -> Tensor:
        slope = problem.linearise(times, points).clone()
        slope[:, n:, :n].diagonal(dim1=-2, dim2=-1).sub_(pull)
        return slope

    equations = plain.of(replace(problem, field=field, jacobian=jacobian))
    return equations.solve(current, tolerance=ROUGH, max_iterations=ATTEMPT)


def _solution(
    plain: Equations, found: _Unknown, residuals: list[float], ending: TwoPointEnding, detail: str
) -> TwoPointSolution:
    states = plain.problem.states
    return TwoPointSolution(plain.nodes, found[0], states, plain.quadrature(found), tuple(residuals), ending, detail)
