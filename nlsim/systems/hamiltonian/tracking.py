"""A recurrent network that learns to track a signal: dense weights, no inputs, Hamilton equations.

Neurons dx/dt = c (σ(W x) − x); the first outputs follow z(t). Minimise over dW/dt

    ∫ [q/2 |x_out − z|² + r/2 |dW/dt|² + r_w |W|²] φ dt,

r = m c in the words of the learning problem (Betti & Gori, section 5: five neurons, one output). With
d = c σ′(W x) π the normalised Hamiltonian
H/φ = q/2 |x_out − z|² + r_w |W|² − |π_W|²/(2r) + π·c (σ(Wx) − x) gives

    dπ/dt = −(Wᵀd − c π + q (x − z)_out) − θ π,    dπ_W/dt = −(d xᵀ + 2 r_w W) − θ π_W,    dW/dt = −π_W/r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.randomness import generator
from nlsim.core.state import state_class
from nlsim.core.system import Inputs
from nlsim.systems.activation import TANH, Activation
from nlsim.systems.backprop import required_target
from nlsim.systems.hamiltonian.problem import align, largest
from nlsim.systems.network import Constant


@state_class
class TrackingState:
    """Activities, weights and their normalised costates.

    Attributes
    ----------
    activity : Tensor
        x, shape ``(..., sample, n)``.
    weight : Tensor
        W, shape ``(..., n, n)``: row i holds the weights into neuron i, self-loops included.
    costate : Tensor
        π, shape of x.
    weight_costate : Tensor
        π_W, shape of W.
    """

    activity: Tensor
    weight: Tensor
    costate: Tensor
    weight_costate: Tensor


@dataclass(frozen=True)
class TrackingProblem:
    """The constants of the problem; each may be a tensor with the ensemble axes.

    Parameters
    ----------
    tracking_weight : float or Tensor
        q ≥ 0.
    control_weight : float or Tensor
        r = m c > 0, the cost of moving the weights.
    regularisation : float or Tensor
        r_w ≥ 0, the cost of |W|², without a factor ½.
    speed : float or Tensor
        c > 0, in 1/time.
    dissipation : float or Tensor
        θ = φ̇/φ, in 1/time.
    activation : Activation
        σ.
    """

    tracking_weight: Constant
    control_weight: Constant = 0.1
    regularisation: Constant = 1.0
    speed: Constant = 1.0
    dissipation: Constant = 0.0
    activation: Activation = TANH

    def initial_state(self, activity: Tensor, weight: Tensor) -> TrackingState:
        """Return Cauchy data: the given activities and weights, costates 0."""
        return TrackingState(activity, weight, torch.zeros_like(activity), torch.zeros_like(weight))


def random_network(seed: int, neurons: int = 5) -> tuple[Tensor, Tensor]:
    """Return activities ``(1, n)`` and weights ``(n, n)`` uniform in ±1, in float64."""
    draw = generator(seed, "tracking network")
    activity, weight = draw.uniform(-1, 1, (1, neurons)), draw.uniform(-1, 1, (neurons, neurons))
    return torch.as_tensor(activity), torch.as_tensor(weight)


@dataclass(frozen=True)
class _Partials:
    """f = ∂H/∂π, ∂H/∂x and ∂H/∂W of the normalised Hamiltonian."""

    rate: Tensor
    by_activity: Tensor
    by_weight: Tensor


def _partials(problem: TrackingProblem, state: TrackingState, inputs: Inputs) -> _Partials:
    """Cost: three products with n × n matrices."""
    c, x, pi = align(problem.speed), state.activity, state.costate
    a = x @ state.weight.mT
    y = problem.activation.value(a)
    cotangent = c * problem.activation.slope(a, y) * pi
    by_activity = cotangent @ state.weight - c * pi
    target = required_target(inputs)
    outputs = target.shape[-1]
    pull = align(problem.tracking_weight) * (x[..., :outputs] - target)
    by_activity = torch.cat((by_activity[..., :outputs] + pull, by_activity[..., outputs:]), -1)
    by_weight = cotangent.mT @ x + 2 * align(problem.regularisation) * state.weight
    return _Partials(c * (y - x), by_activity, by_weight)


def _assemble(problem: TrackingProblem, state: TrackingState, inputs: Inputs, sign: int) -> TrackingState:
    parts = _partials(problem, state, inputs)
    theta = align(problem.dissipation)
    return TrackingState(
        parts.rate,
        -state.weight_costate / align(problem.control_weight),
        -sign * parts.by_activity - theta * state.costate,
        -sign * parts.by_weight - theta * state.weight_costate,
    )


def tracking_error(state: TrackingState, inputs: Inputs) -> Tensor:
    """Return x_out − z, shape of the target (with the ensemble axes)."""
    target = required_target(inputs)
    return state.activity[..., : target.shape[-1]] - target


def _potential(problem: TrackingProblem, state: TrackingState, inputs: Inputs) -> Tensor:
    tracked = 0.5 * problem.tracking_weight * tracking_error(state, inputs).square().sum((-2, -1))
    return tracked + problem.regularisation * state.weight.square().sum((-2, -1))


def hamiltonian(problem: TrackingProblem, state: TrackingState, inputs: Inputs) -> Tensor:
    """Return H/φ, summed over samples; shape: the ensemble axes."""
    motion = (state.costate * _partials(problem, state, inputs).rate).sum((-2, -1))
    kinetic = state.weight_costate.square().sum((-2, -1)) / (2 * problem.control_weight)
    return _potential(problem, state, inputs) - kinetic + motion


def lagrangian(problem: TrackingProblem, state: TrackingState, inputs: Inputs) -> Tensor:
    """Return q/2 |x_out − z|² + r/2 |dW/dt|² + r_w |W|² at dW/dt = −π_W/r, without φ; the ensemble axes."""
    kinetic = state.weight_costate.square().sum((-2, -1)) / (2 * problem.control_weight)
    return _potential(problem, state, inputs) + kinetic


@dataclass(frozen=True)
class TrackingEquations:
    """The exact Hamilton equations; inputs.target is z(t), shape ``(..., sample, output)``.

    Parameters
    ----------
    problem : TrackingProblem
        The constants.
    """

    problem: TrackingProblem

    def vector_field(self, t: float, state: TrackingState, inputs: Inputs) -> TrackingState:
        """Return (f, −π_W/r, −∂H/∂x − θπ, −∂H/∂W − θπ_W)."""
        return _assemble(self.problem, state, inputs, sign=+1)

    def hamiltonian(self, t: float, state: TrackingState, inputs: Inputs) -> Tensor:
        """Return H/φ, summed over samples."""
        return hamiltonian(self.problem, state, inputs)

    def fastest_rate(self) -> float:
        """Return the largest c, the rate at which neurons relax; what the loss adds depends on the state."""
        return largest(self.problem.speed)

    def discount(self, state: TrackingState) -> TrackingState | None:
        """Return the part −θπ of the field that normalising the costates brought in; None when θ is 0."""
        if isinstance(self.problem.dissipation, float) and self.problem.dissipation == 0.0:
            return None
        theta = align(self.problem.dissipation)
        return TrackingState(
            torch.zeros_like(state.activity),
            torch.zeros_like(state.weight),
            -theta * state.costate,
            -theta * state.weight_costate,
        )

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`tracking_observables`."""
        return tracking_observables(self.problem)


@dataclass(frozen=True)
class TrackingReversal:
    """Costate-only reversal of the same equations (Betti & Gori, eq. 18).

    Parameters
    ----------
    problem : TrackingProblem
        The constants.
    """

    problem: TrackingProblem

    def vector_field(self, t: float, state: TrackingState, inputs: Inputs) -> TrackingState:
        """Return (f, −π_W/r, +∂H/∂x − θπ, +∂H/∂W − θπ_W)."""
        return _assemble(self.problem, state, inputs, sign=-1)

    def hamiltonian(self, t: float, state: TrackingState, inputs: Inputs) -> Tensor:
        """Return H/φ of the exact equations, which this system does not conserve."""
        return hamiltonian(self.problem, state, inputs)

    def fastest_rate(self) -> float:
        """Return the largest c + θ, the rate at which costates relax; what the loss adds depends on the state."""
        return largest(self.problem.speed) + largest(self.problem.dissipation)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`tracking_observables`."""
        return tracking_observables(self.problem)


def tracking_observables(problem: TrackingProblem) -> Mapping[str, Observable]:
    """Return ``hamiltonian``, ``lagrangian``, ``tracking_error`` x_out − z and the four parts of the state."""
    seen = [
        Observable(
            "hamiltonian",
            (),
            "Hamiltonian H/φ, summed over samples",
            lambda t, state, inputs: hamiltonian(problem, state, inputs),
            "1/time",
        ),
        Observable(
            "lagrangian",
            (),
            "running cost of error, weights and their motion, summed over samples",
            lambda t, state, inputs: lagrangian(problem, state, inputs),
            "1/time",
        ),
        Observable(
            "tracking_error",
            ("sample", "output"),
            "output minus target, x_out − z",
            lambda t, state, inputs: tracking_error(state, inputs),
        ),
    ]
    neuron, square = ("sample", "neuron"), ("neuron", "source")
    seen += [
        _part("activity", neuron, "activities x"),
        _part("weight", square, "weights W"),
        _part("costate", neuron, "normalised costates π"),
        _part("weight_costate", square, "normalised costates of the weights"),
    ]
    return {each.name: each for each in seen}


def _part(name: str, dims: tuple[str, ...], long_name: str) -> Observable:
    return Observable(name, dims, long_name, lambda t, state, inputs: getattr(state, name))
