"""State and costate equations of a network: exact, and with the costates reversed.

With f, h_x and h_w of :mod:`nlsim.systems.hamiltonian.problem`, dx/dt = f, dW/dt = −π_w/(m c) and
dπ/dt = −s h − θ π: s = +1 gives the exact Hamilton equations (Betti & Gori, eq. 14), s = −1 the
costate-only reversal (eq. 18).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Fraction, Inputs
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.hamiltonian.observables import learning_observables
from nlsim.systems.hamiltonian.problem import (
    LearningProblem,
    LearningState,
    align,
    hamiltonian,
    largest,
    partials,
)
from nlsim.systems.network import Constant, LayeredNetwork


def _assemble(problem: LearningProblem[Any], state: LearningState, inputs: Inputs, sign: int) -> LearningState:
    parts = partials(problem, state, inputs)
    theta, inertia = align(problem.dissipation), align(problem.mass * problem.mean_speed)

    def costate_velocity(h: tuple[Tensor, ...], costate: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(-sign * each - theta * pi for each, pi in zip(h, costate, strict=True))

    return LearningState(
        parts.rate,
        tuple(-pi / inertia for pi in state.weight_costate),
        costate_velocity(parts.h_activity, state.costate),
        costate_velocity(parts.h_weight, state.weight_costate),
    )


def _fastest(problem: LearningProblem[Any]) -> float:
    groups = range(len(problem.network.sizes))
    return max(largest(problem.speed_of(group)) for group in groups)


@dataclass(frozen=True)
class HamiltonEquations:
    """The exact Hamilton equations (Betti & Gori, eq. 12–14), in normalised costates.

    Run forward from given costates they blow up at about rate c: they belong to a two-point boundary
    problem with π(T) = 0. As an initial-value problem they serve as a negative control.

    Parameters
    ----------
    problem : LearningProblem
        Network, loss and constants.
    """

    problem: LearningProblem[Any]

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return (f, −π_w/(mc), −h_x − θπ, −h_w − θπ_w)."""
        return _assemble(self.problem, state, inputs, sign=+1)

    def hamiltonian(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        """Return H/φ, see :func:`~nlsim.systems.hamiltonian.problem.hamiltonian`."""
        return hamiltonian(self.problem, state, inputs)

    def discount(self, state: LearningState) -> LearningState | None:
        """Return the part −θπ of the field that normalising the costates brought in; None when θ is 0."""
        if isinstance(self.problem.dissipation, float) and self.problem.dissipation == 0.0:
            return None
        theta = align(self.problem.dissipation)
        return LearningState(
            tuple(torch.zeros_like(x) for x in state.activity),
            tuple(torch.zeros_like(w) for w in state.weight),
            tuple(-theta * pi for pi in state.costate),
            tuple(-theta * pi for pi in state.weight_costate),
        )

    def conservative(self) -> HamiltonEquations:
        """Return the equations with θ = 0, whose flow is symplectic in (x, W; π, π_W)."""
        return HamiltonEquations(replace(self.problem, dissipation=0.0))

    def dissipate_(self, state: LearningState, dt: float) -> None:
        """Multiply all costates by e^{−θ dt} in place, the exact flow of dπ/dt = −θπ."""
        exponent = -align(self.problem.dissipation) * dt
        factor = exponent.exp() if isinstance(exponent, Tensor) else math.exp(exponent)
        for pi in (*state.costate, *state.weight_costate):
            pi.mul_(factor)

    def fastest_rate(self) -> float:
        """Return the largest c_i."""
        return _fastest(self.problem)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`~nlsim.systems.hamiltonian.observables.learning_observables`."""
        return learning_observables(self.problem)


@dataclass(frozen=True)
class RecurrentCostateReversal:
    """Costate-only reversal on a network of any kind, cycles included (Betti & Gori, eq. 18).

    The same field as :class:`CostateReversal`, without an order of layers: no sweeps. As c → ∞ it becomes
    recurrent backpropagation where the fast dynamics are stable.

    Parameters
    ----------
    problem : LearningProblem
        Network, loss and constants.
    """

    problem: LearningProblem[Any]

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return (f, −π_w/(mc), +h_x − θπ, +h_w − θπ_w)."""
        return _assemble(self.problem, state, inputs, sign=-1)

    def hamiltonian(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        """Return H/φ; not conserved by this system."""
        return hamiltonian(self.problem, state, inputs)

    def fastest_rate(self) -> float:
        """Return the largest c_i + θ."""
        return _fastest(self.problem) + largest(self.problem.dissipation)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`~nlsim.systems.hamiltonian.observables.learning_observables`."""
        return learning_observables(self.problem)


@dataclass(frozen=True)
class CostateReversal:
    """Hamiltonian learning with the costates run forward (Betti & Gori, eq. 18–19).

    As c → ∞ it becomes backpropagation with the heavy-ball flow (eq. 20); at static input and θ = 0 its
    rest state is exact backpropagation at every c.

    Parameters
    ----------
    problem : LearningProblem
        Network, loss and constants.
    """

    problem: LearningProblem[LayeredNetwork]

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return (f, −π_w/(mc), +h_x − θπ, +h_w − θπ_w)."""
        return _assemble(self.problem, state, inputs, sign=-1)

    def hamiltonian(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        """Return H/φ, see :func:`~nlsim.systems.hamiltonian.problem.hamiltonian`; not conserved by this system."""
        return hamiltonian(self.problem, state, inputs)

    def rates(self, state: LearningState) -> LearningState:
        """Return c_l for activities, c_l + θ for their costates, 0 for the slow block."""
        like = state.weight[0]

        def rate(constant: Constant) -> Tensor:
            return torch.as_tensor(align(constant), dtype=like.dtype, device=like.device)

        still = tuple(rate(0.0) for _ in state.weight)
        return LearningState(
            tuple(rate(c) for c in self.problem.speed),
            still,
            tuple(rate(c + self.problem.dissipation) for c in self.problem.speed),
            still,
        )

    def sweep_(self, t: float, state: LearningState, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Advance in place: activities input → output, costates output → input, then the weights.

        Each layer closes a fraction of the gap to its target, computed from neighbours already updated;
        the weight costate then takes an explicit Euler step with the new activities and costates, and
        the weights move with the new weight costate. At infinite c this is SGD with momentum 1 − θ dt
        and learning rate dt²/m.

        Cost: three matrix products a layer (two for the first), as one vector field.
        """
        problem, network = self.problem, self.problem.network
        theta, k = align(problem.dissipation), align(problem.regularisation)
        c = align(problem.mean_speed)
        source = required_input(inputs)
        slopes, sources = [], []
        for layer in range(network.depth):
            x, activation = state.activity[layer], network.activations[layer]
            a = network.pre_activation(state.weight[layer], source)
            y = activation.value(a)
            slopes.append(activation.slope(a, y))
            x.lerp_(y, fraction(align(problem.speed[layer]) * dt))
            sources.append(source)
            source = x
        # the force c L_x on the output costates, then whatever the next layer pulls back
        force = c * problem.loss.gradient(source, required_target(inputs))
        decay, inertia = 1 - dt * theta, align(problem.mass * problem.mean_speed)
        for layer in reversed(range(network.depth)):
            speed = align(problem.speed[layer])
            rate = speed + theta
            pi = state.costate[layer]
            pi.lerp_(force / rate, fraction(rate * dt))
            cotangent = slopes[layer].mul_(pi).mul_(speed)
            if layer:
                force = network.pull_back(state.weight[layer], cotangent)
            weight, weight_costate = state.weight[layer], state.weight_costate[layer]
            network.accumulate_gradient_(weight_costate, cotangent, sources[layer], keep=decay, add=dt)
            if not (isinstance(k, float) and k == 0.0):
                weight_costate.add_((dt * c * k) * weight)
            if isinstance(inertia, Tensor):
                weight.sub_(weight_costate * (dt / inertia))
            else:
                weight.add_(weight_costate, alpha=-dt / inertia)

    def slow_rate(self) -> float:
        """Return θ, the decay rate that the sweep steppers treat explicitly."""
        return largest(self.problem.dissipation)

    def fastest_rate(self) -> float:
        """Return the largest c_l + θ."""
        return _fastest(self.problem) + largest(self.problem.dissipation)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`~nlsim.systems.hamiltonian.observables.learning_observables`."""
        return learning_observables(self.problem)
