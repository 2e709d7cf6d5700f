"""The reference that every limit is compared with: instantaneous backpropagation and its flows.

Everything here is the c → ∞ limit of :mod:`nlsim.systems.hamiltonian`: costates are the derivatives of
the loss at the current input and the current weights (Betti & Gori, eq. 17), and the weights follow the
heavy-ball flow (eq. 20).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Fraction, Inputs
from nlsim.errors import CapabilityError
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork, Network


@dataclass(frozen=True)
class Backpropagation:
    """Outcome of one forward and one backward pass.

    Attributes
    ----------
    activity : tuple of Tensor
        x_l, shape ``(..., sample, layer)``.
    costate : tuple of Tensor
        ∂L/∂x_l, same shapes: the limit of the normalised costate π_l.
    gradient : tuple of Tensor
        ∂L/∂W_l summed over samples, shape of W_l, without the regulariser.
    """

    activity: tuple[Tensor, ...]
    costate: tuple[Tensor, ...]
    gradient: tuple[Tensor, ...]


@singledispatch
def backpropagate(network: Any, loss: Loss, weights: tuple[Tensor, ...], inputs: Inputs) -> Backpropagation:
    """Return activities, ∂L/∂x and ∂L/∂W of the summed loss at the given input and target.

    Equations (Betti & Gori, eq. 17, with λ = σ' π): π_D = L_x, π_l = Wᵀ_{l+1}(σ'(a_{l+1}) π_{l+1}) and
    ∂L/∂W_l = Σ_samples σ'(a_l) π_l x̃ᵀ_{l−1}. On a digraph the derivative goes through the fixed point
    (:func:`nlsim.systems.digraph.recurrent_backpropagate`).

    Cost on layers: three matrix products a layer (two for the first).

    Raises
    ------
    CapabilityError
        For a network of an unknown kind.
    """
    raise CapabilityError(
        "There is no backpropagation for this network.",
        given=type(network).__name__,
        allowed="LayeredNetwork, Digraph",
    )


@backpropagate.register
def _(network: LayeredNetwork, loss: Loss, weights: tuple[Tensor, ...], inputs: Inputs) -> Backpropagation:
    source = required_input(inputs)
    slopes, activities = [], []
    x = source
    for weight, activation in zip(weights, network.activations, strict=True):
        a = network.pre_activation(weight, x)
        x = activation.value(a)
        slopes.append(activation.slope(a, x))
        activities.append(x)
    costate = loss.gradient(x, required_target(inputs))
    costates: list[Tensor] = []
    gradients: list[Tensor] = []
    for layer in reversed(range(network.depth)):
        costates.insert(0, costate)
        cotangent = costate * slopes[layer]
        feed = activities[layer - 1] if layer else source
        gradients.insert(0, network.weight_gradient(cotangent, feed, weights[layer]))
        if layer:
            costate = network.pull_back(weights[layer], cotangent)
    return Backpropagation(tuple(activities), tuple(costates), tuple(gradients))


def required_input(inputs: Inputs) -> Tensor:
    """Return u(t); a network cannot run without one."""
    if inputs.input is None:
        raise CapabilityError(
            "The system needs an input u(t) and the signal gives none.",
            advice="Use a signal that has an input, for example HeldSamples.",
        )
    return inputs.input


def required_target(inputs: Inputs) -> Tensor:
    """Return z(t); learning needs one."""
    if inputs.target is None:
        raise CapabilityError(
            "The system needs a target z(t) and the signal gives none.",
            advice="Use a signal that has a target, for example HeldSamples.",
        )
    return inputs.target


@state_class
class HeavyBallState:
    """Weights and their velocities.

    Attributes
    ----------
    weight : tuple of Tensor
        W_l.
    velocity : tuple of Tensor
        dW_l/dt, same shapes.
    """

    weight: tuple[Tensor, ...]
    velocity: tuple[Tensor, ...]


@dataclass(frozen=True)
class HeavyBall:
    """Gradient flow with inertia: the limit c → ∞ of the costate-only reversal.

    dW/dt = v,  m dv/dt = −m θ v − ∂/∂W (L + k |W|²/2)   (Betti & Gori, eq. 20).

    Under the sweep steppers its step is SGD with momentum: learning rate dt²/m, momentum 1 − θ dt.

    Parameters
    ----------
    network, loss
        What is learned, and how badly it does.
    mass : float
        m > 0.
    dissipation : float
        θ ≥ 0, in 1/time.
    regularisation : float
        k ≥ 0, weight of the regulariser V = |W|²/2 (biases included).
    """

    network: Network
    loss: Loss
    mass: float
    dissipation: float = 0.0
    regularisation: float = 0.0

    def force(self, weights: tuple[Tensor, ...], inputs: Inputs) -> tuple[Tensor, ...]:
        """Return −∂(L + kV)/∂W."""
        gradients = backpropagate(self.network, self.loss, weights, inputs).gradient
        return tuple(-(g + self.regularisation * w) for g, w in zip(gradients, weights, strict=True))

    def vector_field(self, t: float, state: HeavyBallState, inputs: Inputs) -> HeavyBallState:
        """Return (v, −θ v − ∇(L + kV)/m)."""
        force = self.force(state.weight, inputs)
        acceleration = tuple(f / self.mass - self.dissipation * v for f, v in zip(force, state.velocity, strict=True))
        return HeavyBallState(state.velocity, acceleration)

    def rates(self, state: HeavyBallState) -> HeavyBallState:
        """Return zeros: nothing here is fast."""
        return HeavyBallState(
            tuple(torch.zeros_like(w) for w in state.weight),
            tuple(torch.zeros_like(v) for v in state.velocity),
        )

    def sweep_(self, t: float, state: HeavyBallState, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Advance in place: v by explicit Euler at the old weights, then W with the new v."""
        for weight, velocity, force in zip(state.weight, state.velocity, self.force(state.weight, inputs), strict=True):
            velocity.mul_(1 - dt * self.dissipation).add_(force, alpha=dt / self.mass)
            weight.add_(velocity, alpha=dt)

    def kick_(self, t: float, state: HeavyBallState, inputs: Inputs, dt: float) -> None:
        """Move the velocities in place at fixed weights: the exact flow of dv/dt = F/m − θ v."""
        decay = math.exp(-self.dissipation * dt)
        gain = -math.expm1(-self.dissipation * dt) / self.dissipation if self.dissipation else dt
        for velocity, force in zip(state.velocity, self.force(state.weight, inputs), strict=True):
            velocity.mul_(decay).add_(force, alpha=gain / self.mass)

    def drift_(self, t: float, state: HeavyBallState, inputs: Inputs, dt: float) -> None:
        """Move the weights in place at fixed velocities."""
        for weight, velocity in zip(state.weight, state.velocity, strict=True):
            weight.add_(velocity, alpha=dt)

    def conservative(self) -> HeavyBall:
        """Return the ball without dissipation, whose energy is conserved."""
        return replace(self, dissipation=0.0)

    def dissipate_(self, state: HeavyBallState, dt: float) -> None:
        """Multiply the velocities by e^{−θ dt} in place."""
        for velocity in state.velocity:
            velocity.mul_(math.exp(-self.dissipation * dt))

    def slow_rate(self) -> float:
        """Return θ, the decay rate that the sweep steppers treat explicitly."""
        return self.dissipation

    def fastest_rate(self) -> float:
        """Return θ."""
        return self.dissipation

    def energy(self, state: HeavyBallState, inputs: Inputs) -> Tensor:
        """Return m|v|²/2 + L + kV summed over samples; it falls at the rate m θ |v|²."""
        output = self.network.rest_output(state.weight, required_input(inputs))
        total = self.loss.value(output, required_target(inputs)).sum(-1)
        for weight, velocity in zip(state.weight, state.velocity, strict=True):
            total = total + 0.5 * self.mass * velocity.square().sum((-2, -1))
            total = total + 0.5 * self.regularisation * weight.square().sum((-2, -1))
        return total

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss``, ``energy``, ``weight/l`` and ``velocity/l``."""

        def loss(t: float, state: HeavyBallState, inputs: Inputs) -> Tensor:
            output = self.network.rest_output(state.weight, required_input(inputs))
            return self.loss.value(output, required_target(inputs)).sum(-1)

        seen = [
            Observable("loss", (), "loss L summed over the current samples", loss),
            Observable("energy", (), "kinetic energy plus loss plus regulariser", lambda t, y, u: self.energy(y, u)),
        ]
        for layer in range(len(self.network.sizes)):
            seen.append(weight_observable("weight", layer, f"weights W_{layer + 1}", "1"))
            seen.append(weight_observable("velocity", layer, f"velocities of the weights W_{layer + 1}", "1/time"))
        return {each.name: each for each in seen}


def weight_observable(field: str, layer: int, long_name: str, units: str) -> Observable:
    """Return the observable of one layer's entry of a weight-shaped field of a state."""
    return Observable(
        f"{field}/{layer + 1}",
        (f"layer_{layer + 1}", f"source_{layer + 1}"),
        long_name,
        lambda t, state, inputs: getattr(state, field)[layer],
        units,
    )
