"""The cost functional, discretised on its own: weight velocities in, cost out, differentiable by autograd.

Nothing here knows of costates. Butcher's table of the Gauss methods is written in the usual form (the two-point
solver uses another), stages are found by fixed-point iteration, and autograd goes through all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.grid import time_grid
from nlsim.core.system import Inputs
from nlsim.integrate.boundary import TwoPointProblem, TwoPointSolution
from nlsim.integrate.collocation import GAUSS4, Collocation, solve_two_point
from nlsim.integrate.flattening import row_field, two_point_problem, unflatten
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.hamiltonian.trajectory import lagrangian
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.hamiltonian.nets import Case

Layers = tuple[Tensor, ...]

_ROOT = math.sqrt(3) / 6

TABLES = {
    "midpoint": ((0.5,), ((0.5,),), (1.0,)),
    "gauss4": ((0.5 - _ROOT, 0.5 + _ROOT), ((0.25, 0.25 - _ROOT), (0.25 + _ROOT, 0.25)), (0.5, 0.5)),
}
"""Nodes c, matrix a and weights b."""

ITERATIONS = 18
"""Fixed-point iterations for the stages. On a layered net df/dx has the eigenvalue −c alone, so they contract by h c
times the spectral radius of Butcher's matrix, ½ or 0.29: below 0.15 in every use here, and 0.15¹⁸ is 1e-15."""


@dataclass(frozen=True)
class Task:
    """A two-point learning problem: a random net under moving inputs, a mass and a horizon."""

    case: Case
    mass: float
    horizon: float
    steps: int
    frequency: float = 1.0
    regularisation: float = 0.0

    @property
    def problem(self) -> LearningProblem[LayeredNetwork]:
        """Return the learning problem."""
        return replace(self.case.problem(mass=self.mass), regularisation=self.regularisation)

    @property
    def boundary(self) -> LearningState:
        """Return activities 0 and the case's weights at the start, costates 0 at the end."""
        return self.problem.initial_state(self.case.weights(), self.case.samples)

    @property
    def grid(self) -> tuple[float, ...]:
        """Return equal steps over the horizon."""
        return time_grid(self.case.signal(self.frequency), 0.0, self.horizon, self.horizon / self.steps)

    def two_point(self) -> TwoPointProblem:
        """Return the Hamilton equations with both ends."""
        return two_point_problem(HamiltonEquations(self.problem), self.case.signal(self.frequency), self.boundary)

    def solve(self, *, method: Collocation = GAUSS4) -> TwoPointSolution:
        """Return the solution by Newton."""
        return solve_two_point(self.two_point(), self.grid, method=method)

    def velocities(self, solution: TwoPointSolution) -> Tensor:
        """Return dW/dt at the Gauss points, shape ``(steps, stages, weights)``."""
        at = unflatten(solution.quadrature.points, self.boundary)
        rows = torch.cat([q.flatten(1) for q in at.weight_costate], -1)
        inertia = self.mass * float(self.problem.mean_speed)
        return (-rows / inertia).view(self.steps, -1, rows.shape[-1])

    def cost(self, solution: TwoPointSolution) -> float:
        """Return ∫ lagrangian φ dt by the solution's own quadrature."""
        theta, problem = self.case.dissipation, self.problem
        rate = row_field(
            lambda t, state, inputs: torch.exp(torch.as_tensor(theta * t)) * lagrangian(problem, state, inputs),
            self.case.signal(self.frequency),
            self.boundary,
        )
        return float(solution.quadrature.integral(rate))

    def functional(self, velocities: Tensor, method: str) -> Tensor:
        """Return the cost of given weight velocities at the Gauss points, a 0-d tensor."""
        nodes, matrix, quadrature = TABLES[method]
        signal, c = self.case.signal(self.frequency), float(self.problem.mean_speed)
        x, w = self.boundary.activity, self.boundary.weight
        total = velocities.new_zeros(())
        for (begin, end), rows in zip(pairwise(self.grid), velocities, strict=True):
            h = end - begin
            shown = [signal.at(begin + node * h) for node in nodes]
            v = [unflatten(row, w) for row in rows]
            slots = [_mix(w, h, row, v) for row in matrix]
            slopes = [tuple(torch.zeros_like(each) for each in x) for _ in nodes]
            for _ in range(ITERATIONS):
                stages = [_mix(x, h, row, slopes) for row in matrix]
                slopes = [self._slope(*each) for each in zip(stages, slots, shown, strict=True)]
            for i, node in enumerate(nodes):
                discount = math.exp(self.case.dissipation * (begin + node * h))
                effort = 0.5 * self.mass * c * rows[i].square().sum()
                rate = effort + c * self._loss(stages[i], slots[i], shown[i])
                total = total + h * quadrature[i] * discount * rate
            x, w = _mix(x, h, quadrature, slopes), _mix(w, h, quadrature, v)
        return total

    def density(self, velocities: Tensor, method: str) -> Tensor:
        """Return the derivative of the functional by autograd, divided by h b: mcφ dW/dt + p_W in the limit."""
        own = velocities.detach().clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.functional(own, method), own)
        weights = torch.tensor(TABLES[method][2], dtype=slope.dtype)
        return slope / (torch.tensor(self.grid).diff()[:, None, None] * weights[:, None])

    def _slope(self, x: Layers, w: Layers, inputs: Inputs) -> Layers:
        network, source = self.problem.network, required_input(inputs)
        found = []
        for each, weight, activation, speed in zip(x, w, network.activations, self.problem.speed, strict=True):
            found.append(speed * (activation.value(network.pre_activation(weight, source)) - each))
            source = each
        return tuple(found)

    def _loss(self, x: Layers, w: Layers, inputs: Inputs) -> Tensor:
        loss = self.problem.loss.value(x[-1], required_target(inputs)).sum()
        return loss + sum(0.5 * self.regularisation * each.square().sum() for each in w)


def _mix(start: Layers, h: float, coefficients: tuple[float, ...], terms: Sequence[Layers]) -> Layers:
    """Return start + h Σ coefficient · term."""
    for coefficient, term in zip(coefficients, terms, strict=True):
        start = tuple(each + h * coefficient * more for each, more in zip(start, term, strict=True))
    return start


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Draw a small task: smooth activation, no discount, control dear enough for Newton to need no help."""
    depth = draw(st.integers(1, 2))
    case = Case(
        widths=tuple(draw(st.lists(st.integers(1, 3), min_size=depth + 1, max_size=depth + 1))),
        activation=draw(st.sampled_from(["tanh", "logistic", "softplus", "identity"])),
        loss=draw(st.sampled_from(["squared_error", "cross_entropy"])),
        has_bias=draw(st.booleans()),
        speed=draw(st.floats(0.5, 2.0)),
        samples=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 10**6)),
    )
    return Task(case, draw(st.floats(1.0, 10.0)), 0.8, 8, regularisation=draw(st.floats(0.0, 1.0)))
