"""Receding horizon: a two-point problem over a sliding window, its first piece applied, and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.integrate.boundary import Quadrature, TwoPointEnding, TwoPointProblem
from nlsim.integrate.collocation import GAUSS4, Collocation, solve_two_point


@dataclass(frozen=True, eq=False)
class RecedingHorizon:
    """What was applied, piece by piece.

    Attributes
    ----------
    times : Tensor
        Nodes up to which pieces were applied, shape ``(nodes,)``.
    points : Tensor
        z at those nodes, shape ``(nodes, n + q)``: y as applied, p as planned last; a good guess for
        :func:`~nlsim.integrate.collocation.solve_two_point` where no other is.
    states : int
        n.
    quadrature : Quadrature
        Points of all applied pieces, for integrals along the trajectory.
    iterations : tuple of int
        Newton steps of every plan; the warm starts show here.
    ending : TwoPointEnding
        ``converged`` when every plan was found; else how the last one ended.
    detail : str
        For a person.
    """

    times: Tensor
    points: Tensor
    states: int
    quadrature: Quadrature
    iterations: tuple[int, ...]
    ending: TwoPointEnding
    detail: str

    @property
    def state(self) -> Tensor:
        """Return y at the nodes, shape ``(nodes, n)``; continuous, whereas p jumps from plan to plan."""
        return self.points[:, : self.states]


def receding_horizon(
    problem: TwoPointProblem,
    grid: Sequence[float],
    *,
    window: int,
    advance: int = 1,
    method: Collocation = GAUSS4,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> RecedingHorizon:
    """Plan over a window, apply the beginning of the plan, move the window, plan anew from the old plan.

    This is model-predictive control, and the fair online baseline for causal learning rules: it knows the inputs of
    the window ahead and nothing beyond. Windows are cut at the end of the grid, so once they cover it the result is
    the two-point solution (Bellman's principle holds for the discretised problem too).

    Parameters
    ----------
    problem : TwoPointProblem
        The costate prescribed at the end of the grid is prescribed at the end of every window.
    grid : sequence of float
        Nodes over the whole horizon.
    window : int
        Steps of the grid that are looked ahead, ≥ 1.
    advance : int
        Steps applied before the next plan, from 1 to ``window``.
    method, tolerance, max_iterations
        As for :func:`~nlsim.integrate.collocation.solve_two_point`.

    Raises
    ------
    NlsimError
        When ``window`` or ``advance`` is out of range, or the grid does not fit the problem.

    Notes
    -----
    Cost: (steps of the grid / advance) two-point problems of ``window`` steps.
    """
    if not 1 <= advance <= window:
        raise NlsimError(
            "A plan must reach at least as far as it is applied.",
            where="window, advance",
            given=(window, advance),
            allowed="1 ≤ advance ≤ window",
        )
    total, stages = len(grid) - 1, len(method.points)
    plan: Tensor | None = None
    current = problem.initial_state
    points = [torch.cat((current, problem.terminal_costate)).unsqueeze(0)]
    pieces, iterations = list[Quadrature](), list[int]()
    ending, detail, done = TwoPointEnding.CONVERGED, "", 0
    while done < total:
        last = min(done + window, total)
        guess = None if plan is None else _extended(plan[advance:], last - done + 1)
        found = solve_two_point(
            replace(problem, initial_state=current),
            grid[done : last + 1],
            method=method,
            guess=guess,
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        iterations.append(found.iterations)
        if not found.ending.is_success:
            ending, detail = found.ending, f"plan from t = {grid[done]:.9g}: {found.detail}"
            break
        applied = min(advance, last - done)
        plan = found.points
        points[-1][-1] = plan[0]
        points.append(plan[1 : applied + 1].clone())
        rows = slice(0, applied * stages)
        pieces.append(
            Quadrature(found.quadrature.times[rows], found.quadrature.points[rows], found.quadrature.weights[rows])
        )
        done += applied
        current = found.state[applied]
    return RecedingHorizon(
        problem.nodes(grid)[: done + 1],
        torch.cat(points),
        problem.states,
        _joined(pieces, problem),
        tuple(iterations),
        ending,
        detail or f"{len(iterations)} plans, {sum(iterations)} Newton steps",
    )


def _extended(points: Tensor, count: int) -> Tensor:
    """Return the first points of a plan, the last one repeated where the plan is too short."""
    return torch.cat((points[:count], points[-1:].expand(max(0, count - len(points)), -1)))


def _joined(pieces: list[Quadrature], problem: TwoPointProblem) -> Quadrature:
    if not pieces:
        nothing = problem.initial_state.new_zeros(0)
        return Quadrature(nothing, problem.initial_state.new_zeros(0, problem.size), nothing)
    return Quadrature(
        torch.cat([piece.times for piece in pieces]),
        torch.cat([piece.points for piece in pieces]),
        torch.cat([piece.weights for piece in pieces]),
    )
