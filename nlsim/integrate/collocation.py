"""Collocation at Gauss points for two-point problems, solved by Newton on the whole grid.

On a step from t_k to t_k + h the solution is a polynomial that meets the differential equation at the Gauss points.
It is written through its two end values and its bubbles, polynomials that vanish at both ends,

  u(t_k + τh) = (1 − τ) z_k + τ z_{k+1} + Σ_j β_j(τ) d_j,

and not through its slopes: the equations of a step can then be solved for the bubbles whatever h is, while those for
the slopes are singular where h times a growth rate is a pole of the stability function (implicit midpoint: h c = 2).

Gauss collocation is symplectic: for un-normalised costates a solution is a stationary point of the discretised
functional itself, not only up to the error of the grid (spec, section 7.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.integrate.boundary import Quadrature, TwoPointProblem, TwoPointSolution
from nlsim.integrate.elimination import eliminate, solve_separated
from nlsim.integrate.newton import NewtonOutcome, damped_newton, default_tolerance, relative_residual

_Unknown = tuple[Tensor, Tensor]
"""z at the nodes ``(N + 1, d)`` and bubbles ``(N, s − 1, d)``."""

ENTRIES_AT_ONCE = 2**23
"""Entries of the stage equations that are held together while bubbles are eliminated."""


@dataclass(frozen=True)
class Collocation:
    """A collocation method at s Gauss points.

    Attributes
    ----------
    name : str
        Its name.
    order : int
        2 s, at the nodes.
    points, weights : tuple of float
        Gauss points and weights on [0, 1].
    bubbles, slopes : tuple of tuple of float
        β_j and dβ_j/dτ at the points, s rows of s − 1 entries.
    """

    name: str
    order: int
    points: tuple[float, ...]
    weights: tuple[float, ...]
    bubbles: tuple[tuple[float, ...], ...]
    slopes: tuple[tuple[float, ...], ...]


MIDPOINT = Collocation("midpoint", 2, (0.5,), (1.0,), ((),), ((),))
"""Implicit midpoint rule."""

_LOW = 0.5 - math.sqrt(3) / 6

GAUSS4 = Collocation(
    "gauss4",
    4,
    (_LOW, 1 - _LOW),
    (0.5, 0.5),
    ((1 / 6,), (1 / 6,)),
    ((1 / math.sqrt(3),), (-1 / math.sqrt(3),)),
)
"""Two Gauss points; the bubble is τ(1 − τ)."""

COLLOCATIONS = {each.name: each for each in (MIDPOINT, GAUSS4)}
"""Collocation methods by name."""


def solve_two_point(
    problem: TwoPointProblem,
    grid: Sequence[float],
    *,
    method: Collocation = GAUSS4,
    guess: Tensor | None = None,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> TwoPointSolution:
    """Solve a two-point problem by damped Newton on a collocation grid.

    Newton finds a solution near the guess. For an optimal control that is a stationary point, a saddle as readily as
    a minimum; :func:`~nlsim.integrate.proximal.proximal_descent` goes downhill.

    Parameters
    ----------
    problem : TwoPointProblem
        Field and boundary conditions.
    grid : sequence of float
        Nodes, increasing, edges of the inputs among them (:func:`nlsim.core.grid.time_grid`). Steps may differ:
        boundary layers of width 1/c want steps below about 1/c, smooth stretches do not.
    method : Collocation
        :data:`GAUSS4` or :data:`MIDPOINT`.
    guess : Tensor, optional
        z at the nodes, shape ``(nodes, n + q)``: the warm start.
    tolerance : float, optional
        Largest relative residual, see :class:`~nlsim.integrate.boundary.TwoPointSolution`; by default ε^0.7.
    max_iterations : int
        Newton steps.

    Returns
    -------
    TwoPointSolution
        Both boundary conditions hold exactly at every iteration; ``ending`` says whether the equations do.

    Raises
    ------
    NlsimError
        For a grid that does not increase or steps over an edge, or a guess of the wrong shape.

    Notes
    -----
    Cost of one iteration: one Jacobian at every Gauss point (d fields, d = n + q, unless given in closed form), N
    small LU factorisations in one batch and N in sequence, some 10 d³ N multiplications with two Gauss points and
    3 d³ N with one; memory some 10 d² N numbers with two Gauss points and 5 d² N with one. On one core at d = 220 and
    N = 50 that is 0.7 s and 0.3 s.
    """
    times = problem.nodes(grid)
    nodes = problem.first_guess(times, guess)
    start = (nodes, nodes.new_zeros(len(times) - 1, len(method.points) - 1, problem.size))
    equations = Equations(problem, times, method)
    found = equations.solve(
        start, tolerance=default_tolerance(nodes) if tolerance is None else tolerance, max_iterations=max_iterations
    )
    return TwoPointSolution(
        times,
        found.unknown[0],
        problem.states,
        equations.quadrature(found.unknown),
        found.residuals,
        found.ending,
        found.detail,
    )


class Equations:
    """The collocation equations of one problem on one grid: residual, Newton step, quadrature."""

    def __init__(self, problem: TwoPointProblem, times: Tensor, method: Collocation) -> None:
        self.problem, self.nodes, self.method = problem, times, method
        self.lengths = times.diff()  # h, (N,)
        self.points = times.new_tensor(method.points)
        self.weights = times.new_tensor(method.weights)
        self.bubbles = times.new_tensor(method.bubbles)
        self.slopes = times.new_tensor(method.slopes)
        self.times = times[:-1, None] + self.lengths[:, None] * self.points  # of the stages, (N, s)

    def of(self, problem: TwoPointProblem) -> Equations:
        """Return the equations of another problem on the same grid.

        Its field is asked at all Gauss points at once, in the order of ``stages``, so it may hold values of another
        trajectory there, row by row.
        """
        return Equations(problem, self.nodes, self.method)

    def solve(self, start: _Unknown, *, tolerance: float, max_iterations: int) -> NewtonOutcome[_Unknown]:
        """Run the damped Newton iteration."""
        return damped_newton(start, self.residual, self.correction, tolerance=tolerance, max_iterations=max_iterations)

    def stages(self, unknown: _Unknown) -> Tensor:
        """Return u at the Gauss points, shape ``(N, s, d)``."""
        nodes, bubbles = unknown
        tau = self.points[:, None]
        return (1 - tau) * nodes[:-1, None] + tau * nodes[1:, None] + self.bubbles @ bubbles

    def relative(self, unknown: _Unknown) -> float:
        """Return the largest entry of the residual, relative to the largest entry of z (at least 1)."""
        return relative_residual(self.residual(unknown), unknown)

    def residual(self, unknown: _Unknown) -> Tensor:
        """Return h (du/dt − f) at the Gauss points, shape ``(N, s, d)``: by how much a step misses."""
        nodes, bubbles = unknown
        stages = self.stages(unknown)
        field = self.problem.field(self.times.flatten(), stages.flatten(0, 1)).view_as(stages)
        return nodes.diff(dim=0)[:, None] + self.slopes @ bubbles - self.lengths[:, None, None] * field

    def correction(self, unknown: _Unknown) -> _Unknown:
        """Return Newton's step: bubbles eliminated step by step, then the chain of nodes."""
        size, stages = self.problem.size, len(self.method.points)
        inner = (stages - 1) * size
        missed = self.residual(unknown)
        jacobian = self.problem.linearise(self.times.flatten(), self.stages(unknown).flatten(0, 1))
        jacobian = jacobian.view(-1, stages, size, size)
        chains, recoveries = [], []
        portion = max(1, ENTRIES_AT_ONCE // (stages * size * (stages + 1) * size))
        for first in range(0, len(missed), portion):
            part = slice(first, first + portion)
            block, rest = self._rows(jacobian[part], self.lengths[part], missed[part])
            if inner:
                upper, solved, rest = eliminate(block, rest)
                recoveries.append((upper, solved))
            chains.append(rest)
        chain = torch.cat(chains)
        delta = solve_separated(chain[..., :size], chain[..., size:-1], chain[..., -1], self.problem.states)
        if not inner:
            return delta, torch.zeros_like(unknown[1])
        ends = torch.cat((delta[:-1], delta[1:], torch.ones_like(delta[1:, :1])), -1).unsqueeze(-1)
        upper, solved = (torch.cat(each) for each in zip(*recoveries, strict=True))
        bubbles = torch.linalg.solve_triangular(upper, -solved @ ends, upper=True)
        return delta, bubbles.view_as(unknown[1])

    def _rows(self, jacobian: Tensor, lengths: Tensor, missed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stage equations' coefficients of the bubbles, and of (z_k, z_{k+1}, 1)."""
        steps, stages, size, _ = jacobian.shape
        one = torch.eye(size, dtype=jacobian.dtype, device=jacobian.device)
        scaled = lengths[:, None, None, None] * jacobian
        tau = self.points[:, None, None]
        rest = torch.cat((-one - (1 - tau) * scaled, one - tau * scaled, missed.unsqueeze(-1)), -1)
        # entry (stage, bubble) is slope · 1 − β h J
        block = self.slopes[:, :, None, None] * one - self.bubbles[:, :, None, None] * scaled[:, :, None]
        block = block.permute(0, 1, 3, 2, 4).reshape(steps, stages * size, (stages - 1) * size)
        return block, rest.reshape(steps, stages * size, -1)

    def quadrature(self, unknown: _Unknown) -> Quadrature:
        """Return the Gauss points with their weights."""
        weights = self.lengths[:, None] * self.weights
        return Quadrature(self.times.flatten(), self.stages(unknown).flatten(0, 1), weights.flatten())
