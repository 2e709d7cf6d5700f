"""Forward–backward sweep: the state forward with the costate held, the costate backward with the state held.

The oldest way to solve optimality systems, and the one to distrust: it is a fixed-point iteration whose factor is
roughly (gain from costate to state) × (gain from state to costate), and it diverges as soon as control is cheap or
the horizon long. Relaxation shrinks the range in which it fails, at the price of more sweeps. It is here as the named
alternative for problems without room for d × d blocks of the whole system, and it says how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlsim.core.state import map_leaves
from nlsim.errors import NlsimError
from nlsim.integrate.boundary import TwoPointEnding, TwoPointProblem, TwoPointSolution
from nlsim.integrate.collocation import GAUSS4, Collocation, Equations, _Unknown
from nlsim.integrate.newton import NewtonOutcome, default_tolerance

BLOW_UP = 1e6
"""The iteration diverges when the costate changes by this factor more than in the first sweep."""

INNER_ITERATIONS = 50
"""Newton steps for one half of a sweep."""


def forward_backward_sweep(
    problem: TwoPointProblem,
    grid: Sequence[float],
    *,
    relaxation: float = 1.0,
    method: Collocation = GAUSS4,
    guess: Tensor | None = None,
    tolerance: float | None = None,
    max_sweeps: int = 200,
) -> TwoPointSolution:
    """Alternate between state and costate until neither moves; the equations are those of ``solve_two_point``.

    p ← p + ω (p_new − p), where p_new solves the costate equation along the state that p drives.

    Parameters
    ----------
    problem : TwoPointProblem
        Field and boundary conditions.
    grid : sequence of float
        Nodes, as for :func:`~nlsim.integrate.collocation.solve_two_point`.
    relaxation : float
        ω in (0, 1].
    method : Collocation
        Discretisation of both halves.
    guess : Tensor, optional
        z at the nodes; only its costates count.
    tolerance : float, optional
        Largest relative residual of the coupled equations; by default ε^0.7.
    max_sweeps : int
        End as ``budget_spent`` after so many.

    Returns
    -------
    TwoPointSolution
        ``converged``; ``diverged`` when the changes grow a million-fold, overflow, or drive the state beyond what one
        half can be solved for; ``budget_spent``. ``detail`` states the factor by which the last sweep changed the
        change. After a failure the points are those of the sweep with the smallest residual.

    Raises
    ------
    NlsimError
        For a relaxation outside (0, 1], a grid that does not fit, or a guess of the wrong shape.

    Notes
    -----
    Cost of one sweep: two or more Newton steps for n and for q unknowns a node instead of n + q.
    """
    if not 0 < relaxation <= 1:
        raise NlsimError(
            "The relaxation must be a fraction.", where="relaxation", given=relaxation, allowed="0 < relaxation ≤ 1"
        )
    times, n = problem.nodes(grid), problem.states
    coupled = Equations(problem, times, method)
    limit = default_tolerance(times) if tolerance is None else tolerance
    nodes = problem.first_guess(times, guess)
    bubbles = nodes.new_zeros(len(times) - 1, len(method.points) - 1, problem.size)
    state, held = (nodes[:, :n], bubbles[..., :n]), (nodes[:, n:], bubbles[..., n:])
    newest = held
    best = (nodes, bubbles)
    residuals = [coupled.relative(best)]
    changes: list[float] = []

    def end(ending: TwoPointEnding, why: str) -> TwoPointSolution:
        factor = f"; the last change was {changes[-1] / changes[-2]:.3g} of the one before" if len(changes) > 1 else ""
        detail = f"{why}; smallest residual {min(residuals):.3g} in {len(changes)} sweeps{factor}"
        return TwoPointSolution(times, best[0], n, coupled.quadrature(best), tuple(residuals), ending, detail)

    for _ in range(max_sweeps):
        if residuals[-1] <= limit:
            break
        half = _half(coupled, state, held, limit, is_forward=True)
        if half.ending.is_success:
            state = half.unknown
            half = _half(coupled, newest, state, limit, is_forward=False)
        if not half.ending.is_success:
            return end(TwoPointEnding.DIVERGED, f"one half of a sweep has no solution within reach ({half.detail})")
        newest = half.unknown
        joined = _join(state, newest)
        residuals.append(coupled.relative(joined))
        changes.append(float((newest[0] - held[0]).abs().max()))
        if residuals[-1] <= min(residuals):
            best = joined
        if not changes[-1] <= BLOW_UP * changes[0]:
            return end(TwoPointEnding.DIVERGED, "the costate moves ever further")
        held = map_leaves(lambda old, new: old + relaxation * (new - old), held, newest)
    if residuals[-1] <= limit:
        return end(TwoPointEnding.CONVERGED, f"tolerance {limit:.3g} met")
    return end(TwoPointEnding.BUDGET_SPENT, "max_sweeps reached")


def _half(
    coupled: Equations, start: _Unknown, held: _Unknown, tolerance: float, *, is_forward: bool
) -> NewtonOutcome[_Unknown]:
    """Solve for the state with the costate held (an initial-value problem), or the other way round."""
    whole, nothing = coupled.problem, start[0].new_zeros(0)
    n = whole.states
    # the other half at the Gauss points: rows in the order in which the equations ask for them
    other = coupled.stages(held).flatten(0, 1)

    def field(times: Tensor, points: Tensor) -> Tensor:
        if is_forward:
            return whole.field(times, torch.cat((points, other), -1))[:, :n]
        return whole.field(times, torch.cat((other, points), -1))[:, n:]

    if is_forward:
        problem = TwoPointProblem(field, whole.initial_state, nothing)
    else:
        problem = TwoPointProblem(field, nothing, whole.terminal_costate)
    equations = coupled.of(problem)
    # tighter than the whole, or a half that is good enough already would stop moving
    return equations.solve(start, tolerance=0.1 * tolerance, max_iterations=INNER_ITERATIONS)


def _join(state: _Unknown, costate: _Unknown) -> _Unknown:
    return map_leaves(lambda y, p: torch.cat((y, p), -1), state, costate)
