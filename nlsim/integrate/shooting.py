"""Multiple shooting: the unknowns are the ends of segments, and inside a segment any explicit method runs.

The segments advance together, as the rows of one batch. Beside collocation on the same fine grid this keeps one
block a segment instead of one a step, so it is the choice when n is large and many steps are needed. Over a segment
of length Δ an error grows like e^{cΔ}: keep cΔ below about ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.integrate.boundary import Quadrature, TwoPointProblem, TwoPointSolution, row_jacobian
from nlsim.integrate.elimination import solve_separated
from nlsim.integrate.explicit import RK4, ExplicitRungeKutta
from nlsim.integrate.newton import damped_newton, default_tolerance

_NOTHING = Inputs()


@dataclass(frozen=True, eq=False)
class _Segments:
    """All segments as one system in local time τ from 0 to 1: dz/dτ = Δ f(t₀ + τΔ, z), a row each.

    ``seen`` collects, when it is a list, the local times and points at which the field was asked.
    """

    problem: TwoPointProblem
    starts: Tensor
    lengths: Tensor
    seen: list[tuple[float, Tensor]] | None = field(default=None)

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return Δ f."""
        if self.seen is not None:
            self.seen.append((t, state))
        return self.lengths[:, None] * self.problem.field(self.starts + t * self.lengths, state)


def multiple_shooting(
    problem: TwoPointProblem,
    grid: Sequence[float],
    *,
    steps: int = 10,
    stepper: ExplicitRungeKutta = RK4,
    guess: Tensor | None = None,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> TwoPointSolution:
    """Solve a two-point problem by damped Newton on the ends of segments.

    Parameters
    ----------
    problem : TwoPointProblem
        Field and boundary conditions.
    grid : sequence of float
        Ends of the segments, increasing, edges of the inputs among them.
    steps : int
        Equal steps in every segment, ≥ 1.
    stepper : ExplicitRungeKutta
        The method inside; where inputs jump, one whose nodes lie before the end of the step.
    guess : Tensor, optional
        z at the ends of the segments.
    tolerance, max_iterations
        As for :func:`~nlsim.integrate.collocation.solve_two_point`.

    Returns
    -------
    TwoPointSolution
        At the ends of the segments; ``detail`` states the largest growth over a segment. Its quadrature has the
        stages of the method.

    Raises
    ------
    NlsimError
        For a grid that does not increase or steps over an edge, or a guess of the wrong shape.
    CapabilityError
        When inputs jump inside the horizon and the stepper reads them at the end of a step.

    Notes
    -----
    Cost of one iteration: d = n + q runs over the horizon (side by side) and 3 d³ multiplications a segment; memory
    about 3 d² numbers a segment.
    """
    times = problem.nodes(grid)
    _refuse_edges(problem, grid, stepper)
    segments = _Segments(problem, times[:-1], times.diff())

    def flow(starts: Tensor, of: _Segments = segments) -> Tensor:
        return stepper.advance(of, lambda _: _NOTHING, starts, 0.0, 1 / steps, steps)

    def residual(nodes: Tensor) -> Tensor:
        return nodes[1:] - flow(nodes[:-1])

    def correction(nodes: Tensor) -> Tensor:
        growth = row_jacobian(flow, nodes[:-1])
        one = torch.eye(problem.size, dtype=nodes.dtype, device=nodes.device)
        return solve_separated(-growth, one.expand_as(growth), residual(nodes), problem.states)

    found = damped_newton(
        problem.first_guess(times, guess),
        residual,
        correction,
        tolerance=default_tolerance(times) if tolerance is None else tolerance,
        max_iterations=max_iterations,
    )
    largest = float(torch.linalg.matrix_norm(row_jacobian(flow, found.unknown[:-1]), 2).max())
    return TwoPointSolution(
        times,
        found.unknown,
        problem.states,
        _stages(segments, stepper, steps, found.unknown[:-1]),
        found.residuals,
        found.ending,
        f"{found.detail}; errors grow by up to {largest:.2g} over a segment",
    )


def _refuse_edges(problem: TwoPointProblem, grid: Sequence[float], stepper: ExplicitRungeKutta) -> None:
    edge = problem.edge_after(grid[0])
    if math.isfinite(edge) and edge < grid[-1] and max(stepper.nodes) >= 1:
        raise CapabilityError(
            f"The inputs jump at t = {edge:.9g}, and '{stepper.name}' would read them there too early.",
            where="stepper",
            given=stepper.name,
            allowed="a method whose nodes are all below 1",
            advice="Use solve_two_point, whose points lie inside the steps.",
        )


def _stages(segments: _Segments, stepper: ExplicitRungeKutta, steps: int, starts: Tensor) -> Quadrature:
    """Run once more and keep every stage with its weight."""
    recording = _Segments(segments.problem, segments.starts, segments.lengths, [])
    stepper.advance(recording, lambda _: _NOTHING, starts, 0.0, 1 / steps, steps)
    assert recording.seen is not None
    weights = [weight / steps * segments.lengths for _ in range(steps) for weight in stepper.weights]
    return Quadrature(
        torch.cat([segments.starts + tau * segments.lengths for tau, _ in recording.seen]),
        torch.cat([points for _, points in recording.seen]),
        torch.cat(weights),
    )
