"""Two-point boundary problems: the state is given at the start, the costate at the end.

Exact Hamilton equations belong here. With a state that relaxes at rate c the costate grows like e^{ct} when it is
run forward, so *single shooting* (guess p(0), integrate, correct) is not offered: an error ε in the guess arrives
as ε e^{cT}, which at cT = 40 has eaten all sixteen digits of a float64 and at cT = 700 overflows. What is offered:

* :func:`~nlsim.integrate.collocation.solve_two_point`: Newton on a whole grid at once, the default;
* :func:`~nlsim.integrate.shooting.multiple_shooting`: Newton on the ends of segments, less memory;
* :func:`~nlsim.integrate.sweep_iteration.forward_backward_sweep`: fixed-point iteration, no large matrix, converges
  only while control is dear;
* :func:`~nlsim.integrate.receding.receding_horizon`: what a causal controller makes of the same problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from nlsim.core.grid import check_grid
from nlsim.errors import NlsimError

RowField = Callable[[Tensor, Tensor], Tensor]
"""A function of times ``(rows,)`` and points ``(rows, d)`` that treats every row by itself."""

PULLED_AT_ONCE = 64
"""Rows of a Jacobian formed together: enough to keep the processor busy, few enough to bound memory."""


class TwoPointEnding(StrEnum):
    """The named ways in which the search for a two-point solution can end."""

    CONVERGED = "converged"
    DIVERGED = "diverged"
    STALLED = "stalled"
    BUDGET_SPENT = "budget_spent"

    @property
    def is_success(self) -> bool:
        """Whether the equations are solved to the tolerance."""
        return self is TwoPointEnding.CONVERGED

    @property
    def advice(self) -> str:
        """What to try next."""
        return _ADVICE[self]


_ADVICE = {
    TwoPointEnding.CONVERGED: "The equations hold to the tolerance at every step of the grid.",
    TwoPointEnding.DIVERGED: "Use solve_two_point, a smaller relaxation, a better guess, or a shorter horizon.",
    TwoPointEnding.STALLED: "Refine the grid, start from the solution of an easier problem, or loosen the tolerance.",
    TwoPointEnding.BUDGET_SPENT: "Raise max_iterations, or start from the solution of a nearby problem.",
}


def _no_edges(_: float) -> float:
    """Return infinity: the field never jumps."""
    return math.inf


@dataclass(frozen=True, eq=False)
class TwoPointProblem:
    """dz/dt = f(t, z) for z = (y, p), with y given at the start and p given at the end.

    The horizon is not part of the problem: a time grid brings it.

    Parameters
    ----------
    field : callable
        ``field(times, points) -> Tensor``, shapes ``(rows,)``, ``(rows, n + q)`` and ``(rows, n + q)``; every row by
        itself; pure, and made of operations that ``torch.func`` can differentiate unless ``jacobian`` is given.
    initial_state : Tensor
        y at the first node, shape ``(n,)``.
    terminal_costate : Tensor
        p at the last node, shape ``(q,)``. Usually q = n; q = 0 is an initial-value problem.
    jacobian : callable, optional
        ``jacobian(times, points) -> Tensor`` of shape ``(rows, n + q, n + q)``, entry (i, j) = ∂f_i/∂z_j. By default
        reverse-mode differentiation of ``field``, at the cost of about n + q fields.
    edge_after : callable
        ``edge_after(t)`` returns the first instant after t at which f jumps in t, or infinity. Edges inside the
        horizon must be nodes of the grid.
    """

    field: RowField
    initial_state: Tensor
    terminal_costate: Tensor
    jacobian: RowField | None = None
    edge_after: Callable[[float], float] = _no_edges

    @property
    def states(self) -> int:
        """Return n, the number of entries of y."""
        return self.initial_state.shape[-1]

    @property
    def size(self) -> int:
        """Return n + q."""
        return self.states + self.terminal_costate.shape[-1]

    def linearise(self, times: Tensor, points: Tensor) -> Tensor:
        """Return ∂f/∂z row by row, shape ``(rows, n + q, n + q)``."""
        if self.jacobian is not None:
            return self.jacobian(times, points)
        return row_jacobian(lambda z: self.field(times, z), points)

    def nodes(self, grid: Sequence[float]) -> Tensor:
        """Return a grid as a tensor of the problem's dtype and device.

        Raises
        ------
        NlsimError
            When it has fewer than two nodes, does not increase, or steps over an edge of the inputs.
        """
        check_grid(grid, self.edge_after)
        like = self.initial_state
        return torch.as_tensor(grid, dtype=like.dtype, device=like.device)

    def first_guess(self, times: Tensor, guess: Tensor | None) -> Tensor:
        """Return points ``(nodes, n + q)`` to start from, with both boundary conditions put in.

        Without a guess y stays where it begins and p is what it ends with.

        Raises
        ------
        NlsimError
            When the guess has another shape.
        """
        if guess is None:
            guess = torch.cat((self.initial_state, self.terminal_costate)).expand(len(times), -1)
        if guess.shape != (len(times), self.size):
            raise NlsimError(
                "The guess does not fit the grid and the problem.",
                where="guess",
                given=tuple(guess.shape),
                allowed=f"({len(times)}, {self.size})",
            )
        points = guess.clone()
        points[0, : self.states] = self.initial_state
        points[-1, self.states :] = self.terminal_costate
        return points


def row_jacobian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Return ∂f_i/∂z_j of a function that treats every row by itself, shape ``(rows, outputs, d)``.

    One pull-back of a unit vector serves all rows at once. Cost: one evaluation, and as many pull-backs as outputs.
    """
    traced: Any = torch.func.vjp(function, points)
    value, pull_back = traced
    size = value.shape[-1]
    units = torch.eye(size, dtype=value.dtype, device=value.device)

    def row(unit: Tensor) -> Tensor:
        pulled: Tensor = pull_back(unit.expand_as(value))[0]
        return pulled

    # axis 0 and moved afterwards: torch 2.13 mistakes other out_dims where the function does not depend on the points
    rows: Tensor = torch.vmap(row, chunk_size=min(size, PULLED_AT_ONCE))(units)
    return rows.movedim(0, 1)


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Points along a trajectory with weights: ∫ g dt ≈ Σ weight · g(time, point).

    Attributes
    ----------
    times, weights : Tensor
        Shape ``(rows,)``; weights are in units of time.
    points : Tensor
        Shape ``(rows, n + q)``.
    """

    times: Tensor
    points: Tensor
    weights: Tensor

    def integral(self, rate: RowField) -> Tensor:
        """Return ∫ rate dt for ``rate(times, points)`` of shape ``(rows,)``, a 0-d tensor."""
        return (self.weights * rate(self.times, self.points)).sum()


@dataclass(frozen=True, eq=False)
class TwoPointSolution:
    """A trajectory with its verdict; look at ``ending`` before at anything else.

    Attributes
    ----------
    times : Tensor
        Nodes, shape ``(nodes,)``.
    points : Tensor
        z at the nodes, shape ``(nodes, n + q)``; after a failure the best that was found.
    states : int
        n, how many entries of z are the state.
    quadrature : Quadrature
        For integrals along the trajectory, to the order of the method.
    residuals : tuple of float
        Before the first and after each iteration: the largest amount by which a step misses the equations, relative
        to the largest entry of z (at least 1).
    ending : TwoPointEnding
        How the search ended.
    detail : str
        For a person.
    """

    times: Tensor
    points: Tensor
    states: int
    quadrature: Quadrature
    residuals: tuple[float, ...]
    ending: TwoPointEnding
    detail: str

    @property
    def iterations(self) -> int:
        """Return how many iterations were made."""
        return len(self.residuals) - 1

    @property
    def state(self) -> Tensor:
        """Return y at the nodes, shape ``(nodes, n)``."""
        return self.points[:, : self.states]

    @property
    def costate(self) -> Tensor:
        """Return p at the nodes, shape ``(nodes, q)``."""
        return self.points[:, self.states :]
