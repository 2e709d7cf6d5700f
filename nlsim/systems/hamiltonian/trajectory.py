"""The functional along a trajectory: its integrand, and its exact gradient for frozen weights.

With frozen weights the terminal condition p(T) = 0 makes p_W(0) the derivative of ∫ c ℓ φ dt, at every speed c:
continuous-time backpropagation through time. The costate runs backward, along a stored forward trajectory, on the
same grid and with the partner of the same Runge–Kutta method, so that what comes out is the derivative of the
discretised integral to round-off, not an approximation of the continuous one (spec, section 7.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from nlsim.core.grid import check_grid
from nlsim.core.system import Inputs, Piece, Signal
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, align, partials
from nlsim.systems.network import Constant, LayeredNetwork

Layers = tuple[Tensor, ...]


class Tableau(Protocol):
    """Butcher's coefficients of an explicit Runge–Kutta method, such as :data:`nlsim.integrate.explicit.RK4`."""

    @property
    def nodes(self) -> tuple[float, ...]:
        """Return c."""
        ...

    @property
    def stages(self) -> tuple[tuple[float, ...], ...]:
        """Return the rows of a; row i has i entries."""
        ...

    @property
    def weights(self) -> tuple[float, ...]:
        """Return b."""
        ...


@dataclass(frozen=True, eq=False)
class TrajectoryGradient:
    """The discretised cost of a trajectory with frozen weights, and its derivatives.

    Attributes
    ----------
    cost : Tensor
        ∫ c ℓ φ dt with ℓ = L + k|W|²/2 and φ = e^{θ(t − start)}, summed over samples; shape: the ensemble axes.
    weight : tuple of Tensor
        ∂cost/∂W_l = p_{W_l} at the start, shape of W_l. Divided by c it tends to ∫ φ ∂ℓ_BP/∂W_l dt as c → ∞.
    activity : tuple of Tensor
        ∂cost/∂x_l at the start = p_{x_l} there, shape ``(..., sample, layer)``.
    """

    cost: Tensor
    weight: Layers
    activity: Layers


def lagrangian(problem: LearningProblem[LayeredNetwork], state: LearningState, inputs: Inputs) -> Tensor:
    """Return m c |dW/dt|²/2 + c ℓ at the optimal dW/dt = −π_w/(m c), summed over samples (Betti & Gori, eq. 8).

    The cost functional is ∫ lagrangian · φ dt; shape: the ensemble axes.
    """
    total = _loss_rate(problem, state.activity, state.weight, inputs)
    inertia = problem.mass * problem.mean_speed
    for pi in state.weight_costate:
        total = total + pi.square().sum((-2, -1)) / (2 * inertia)
    return total


def trajectory_gradient(
    problem: LearningProblem[LayeredNetwork],
    weights: Layers,
    signal: Signal,
    grid: Sequence[float],
    *,
    method: Tableau,
    activity: Layers | None = None,
) -> TrajectoryGradient:
    """Return ∫ c ℓ φ dt along the trajectory of frozen weights, with its exact discrete derivatives.

    Forward: x⁺ = x + h Σ_i b_i f(X_i). Backward, from p(T) = 0 and for i from the last stage to the first, with
    φ_i = φ(t + c_i h) and the normalised partial derivatives h_x, h_w of the Hamiltonian,

      π_i = (b_i p⁺ + Σ_{j>i} a_ji q_j) / (b_i φ_i),   q_i = h b_i φ_i h_x(X_i, π_i),
      p = p⁺ + Σ_i q_i,   p_W = p_W⁺ + Σ_i h b_i φ_i h_w(X_i, π_i).

    Parameters
    ----------
    problem : LearningProblem[LayeredNetwork]
        Network, loss and constants; its mass plays no part.
    weights : tuple of Tensor
        W_l; leading ensemble axes are allowed.
    signal : Signal
        Inputs and targets.
    grid : sequence of float
        Nodes, edges of the signal among them (:func:`nlsim.core.grid.time_grid`); an explicit method wants steps
        below its stability limit divided by the largest speed.
    method : Tableau
        An explicit Runge–Kutta method all of whose weights b are non-zero.
    activity : tuple of Tensor, optional
        x_l at the first node; 0 by default.

    Raises
    ------
    NlsimError
        For a weight b = 0, or a grid that does not increase or steps over an edge.

    Notes
    -----
    Cost: two forward passes and one of ``partials`` a stage; memory: the activities at every node.
    """
    if 0.0 in method.weights:
        raise NlsimError(
            "The costates' partner of this Runge–Kutta method does not exist: a weight b is 0.",
            where="method",
            given=method.weights,
            allowed="non-zero weights b, as in Euler's method, Heun's and the classical one",
        )
    check_grid(grid, signal.edge_after)
    if activity is None:
        samples = required_input(signal.piece(grid[0])(grid[0])).shape[-2]
        activity = problem.initial_state(weights, samples).activity
    walk = _Walk(problem, weights, method, grid[0])
    nodes = [activity]
    for begin, end in pairwise(grid):
        nodes.append(walk.forward(nodes[-1], signal.piece(begin), begin, end - begin))
    costate = tuple(torch.zeros_like(x) for x in nodes[0])
    total = TrajectoryGradient(costate[-1].new_zeros(()), tuple(torch.zeros_like(w) for w in weights), costate)
    for begin, end in reversed(list(pairwise(grid))):
        total = walk.backward(total, nodes.pop(-2), signal.piece(begin), begin, end - begin)
    return total


@dataclass(frozen=True)
class _Walk:
    """One step of the trajectory, either way."""

    problem: LearningProblem[LayeredNetwork]
    weights: Layers
    method: Tableau
    start: float

    def stages(self, x: Layers, piece: Piece, t: float, h: float) -> tuple[list[Layers], list[Layers], list[Inputs]]:
        """Return the stages X_i, their velocities and the inputs there."""
        points: list[Layers] = []
        velocities: list[Layers] = []
        shown: list[Inputs] = []
        for node, row in zip(self.method.nodes, self.method.stages, strict=True):
            inputs = piece(t + node * h)
            point = _add(x, [a * h for a in row], velocities)
            points.append(point)
            velocities.append(_velocity(self.problem, point, self.weights, inputs))
            shown.append(inputs)
        return points, velocities, shown

    def forward(self, x: Layers, piece: Piece, t: float, h: float) -> Layers:
        """Return the activities after the step."""
        _, velocities, _ = self.stages(x, piece, t, h)
        return _add(x, [b * h for b in self.method.weights], velocities)

    def backward(self, after: TrajectoryGradient, x: Layers, piece: Piece, t: float, h: float) -> TrajectoryGradient:
        """Return cost and costates before the step, from those after it."""
        points, _, shown = self.stages(x, piece, t, h)
        count = len(points)
        shares: list[Layers] = [()] * count
        cost, weight, activity = after.cost, after.weight, after.activity
        for i in reversed(range(count)):
            b = self.method.weights[i]
            discount = self._discount(t + self.method.nodes[i] * h)
            later = range(i + 1, count)
            pulled = _add(
                tuple(b * p for p in after.activity),
                [self.method.stages[j][i] for j in later],
                [shares[j] for j in later],
            )
            pi = tuple(q / (b * align(discount)) for q in pulled)
            parts = partials(self.problem, LearningState(points[i], self.weights, pi, ()), shown[i])
            factor = h * b * discount
            shares[i] = tuple(align(factor) * each for each in parts.h_activity)
            weight = _add(weight, [align(factor)], [parts.h_weight])
            cost = cost + factor * _loss_rate(self.problem, points[i], self.weights, shown[i])
        return TrajectoryGradient(cost, weight, _add(activity, [1.0] * count, shares))

    def _discount(self, t: float) -> Constant:
        like = self.weights[0]
        theta = torch.as_tensor(self.problem.dissipation, dtype=like.dtype, device=like.device)
        return torch.exp(theta * (t - self.start))


def _velocity(problem: LearningProblem[LayeredNetwork], activity: Layers, weights: Layers, inputs: Inputs) -> Layers:
    """Return dx_l/dt = c_l (σ(W_l x̃_{l−1}) − x_l)."""
    network, source = problem.network, required_input(inputs)
    found = []
    for layer, x in enumerate(activity):
        y = network.activations[layer].value(network.pre_activation(weights[layer], source))
        found.append(align(problem.speed[layer]) * (y - x))
        source = x
    return tuple(found)


def _loss_rate(problem: LearningProblem[LayeredNetwork], activity: Layers, weights: Layers, inputs: Inputs) -> Tensor:
    """Return c (L + k|W|²/2), summed over samples; shape: the ensemble axes."""
    loss = problem.loss.value(activity[-1], required_target(inputs)).sum(-1)
    for w in weights:
        loss = loss + 0.5 * problem.regularisation * w.square().sum((-2, -1))
    return problem.mean_speed * loss


def _add(start: Layers, factors: Sequence[Constant], terms: Sequence[Layers]) -> Layers:
    """Return start + Σ factor · term, layer by layer."""
    total = start
    for factor, term in zip(factors, terms, strict=True):
        total = tuple(each + factor * more for each, more in zip(total, term, strict=True))
    return total
