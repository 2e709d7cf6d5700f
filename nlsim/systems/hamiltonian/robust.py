"""Hamiltonian Learning: the costate-only reversal in its own parameters, with state and output networks.

A state h and weights θ with costates z and ω follow (Melacci et al., eq. E1–E4 with s = −1)

    dh/dt = c (f̂(u, h, θ) − h)          dz/dt = +∂H'/∂h − η z
    dθ/dt = −β ω                         dω/dt = +∂H'/∂θ − η ω

with the robust Hamiltonian H' = φ (L + k|θ|²/2) + z · dh/dt (eq. 8). It is the system of
:class:`~nlsim.systems.hamiltonian.learning.CostateReversal` with β = 1/(m c), η = θ, φ = c
(:mod:`~nlsim.systems.hamiltonian.sgd_dictionary`), for networks whose state need not be all their neurons.

The state of the system is a :class:`~nlsim.systems.hamiltonian.problem.LearningState`: ``activity`` is h,
``weight`` θ = (θ^h, θ^y), ``costate`` z and ``weight_costate`` ω.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_target, weight_observable
from nlsim.systems.hamiltonian.problem import LearningState, align
from nlsim.systems.hamiltonian.schedule import Schedule, largest, value_at
from nlsim.systems.hamiltonian.state_space import StateSpaceNetwork
from nlsim.systems.hamiltonian.transition import Tensors
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant


@dataclass(frozen=True)
class LearningConstants:
    """The constants of Hamiltonian Learning, by the names of the paper.

    Parameters
    ----------
    beta : float or Tensor
        β ≥ 0, mobility of the weights: dθ/dt = −β ω; 0 holds them.
    eta : float or Tensor
        η ≥ 0, dissipation of both costates [1/time].
    phi : float, Tensor or Schedule
        φ ≥ 0, weight of the loss in the robust Hamiltonian [1/time].
    regularisation : float or Tensor
        k ≥ 0, weight of |θ|²/2 added to the loss, biases included.
    """

    beta: Constant
    eta: Constant
    phi: Constant | Schedule
    regularisation: Constant = 0.0


@dataclass(frozen=True)
class HamiltonianLearning:
    """Hamiltonian Learning of a state-space network; the sign s is −1.

    Explicit Euler is the paper's Algorithm 1 as printed: everything moves with old values, so a gradient
    comes to the weights some steps late. A step of
    :class:`~nlsim.integrate.ordered.OrderedEuler` moves h, z, ω and θ one after the other.

    Parameters
    ----------
    network : StateSpaceNetwork
        State and output networks.
    loss : Loss
        L of the output, summed over samples.
    constants : LearningConstants
        β, η, φ and k.
    speed : tuple of (float, Tensor or Schedule)
        Rate c > 0 of each part of the state [1/time]. At c τ = 1 a step τ of Euler is the residual
        transition h⁺ = f̂ (eq. 9).

    Raises
    ------
    NlsimError
        When there is not one speed a part of the state.
    """

    network: StateSpaceNetwork
    loss: Loss
    constants: LearningConstants
    speed: tuple[Constant | Schedule, ...] = ()

    def __post_init__(self) -> None:
        parts = len(self.network.widths)
        if len(self.speed) != parts:
            raise NlsimError(
                "Every part of the state needs a speed.",
                where="HamiltonianLearning.speed",
                given=f"{len(self.speed)} speeds",
                allowed=f"{parts}, one a part of the state",
                advice="Give (1/tau,) * parts for the residual transition, or take_turns(parts, tau).",
            )

    def initial_state(self, weights: Tensors, samples: int) -> LearningState:
        """Return the state at t = 0: h and all costates 0."""
        first = weights[0]
        activity = tuple(first.new_zeros((*first.shape[:-2], samples, n)) for n in self.network.widths)
        costate = tuple(torch.zeros_like(h) for h in activity)
        return LearningState(activity, weights, costate, tuple(torch.zeros_like(w) for w in weights))

    def vector_field(self, t: float, state: LearningState, inputs: Inputs) -> LearningState:
        """Return (c (f̂ − h), −β ω, ∂H'/∂h − η z, ∂H'/∂θ − η ω).

        Cost: three matrix products a layer, two for a first layer that does not read h.
        """
        beta, eta, rates = align(self.constants.beta), align(self.constants.eta), self.rates_at(t)
        passed = self.network.propose(state.weight, inputs, state.activity)
        driven = tuple(c * z for c, z in zip(rates, state.costate, strict=True))
        injected, output_gradients = self.loss_forces(t, state, inputs)
        pulled = passed.to_activity(driven)
        forces = (*passed.to_weight(driven), *output_gradients)
        forces = self.with_regulariser(t, forces, state.weight)
        return LearningState(
            tuple(c * (f - h) for c, f, h in zip(rates, passed.value, state.activity, strict=True)),
            tuple(-beta * omega for omega in state.weight_costate),
            tuple(q + b - a - eta * z for q, b, a, z in zip(injected, pulled, driven, state.costate, strict=True)),
            tuple(force - eta * omega for force, omega in zip(forces, state.weight_costate, strict=True)),
        )

    def ordered_step(
        self, t: float, state: LearningState, inputs: Inputs, dt: float, *, moves_with_old: bool
    ) -> LearningState:
        """Return the state after Euler steps of h, of z, of ω and of θ, each with what is already new.

        The state network is passed once, at the old h. The loss is that of the new h (eq. 22); z moves by
        it and by the old z pulled back; ω moves by the new z; θ moves by the new ω, or by the old one.

        Parameters
        ----------
        t, state, inputs, dt
            Where the step begins, what drives it, and its length.
        moves_with_old : bool
            Whether θ moves with the old ω.
        """
        beta, eta, rates = align(self.constants.beta), align(self.constants.eta), self.rates_at(t)
        passed = self.network.propose(state.weight, inputs, state.activity)
        activity = tuple(torch.lerp(h, f, dt * c) for c, f, h in zip(rates, passed.value, state.activity, strict=True))
        moved = LearningState(activity, state.weight, state.costate, state.weight_costate)
        injected, output_gradients = self.loss_forces(t, moved, inputs)
        pulled = passed.to_activity(tuple(c * z for c, z in zip(rates, state.costate, strict=True)))
        costate = tuple(
            (1 - dt * (c + eta)) * z + dt * (q + b)
            for c, z, q, b in zip(rates, state.costate, injected, pulled, strict=True)
        )
        forces = (*passed.to_weight(tuple(c * z for c, z in zip(rates, costate, strict=True))), *output_gradients)
        forces = self.with_regulariser(t, forces, state.weight)
        omega = tuple(
            (1 - dt * eta) * old + dt * force for old, force in zip(state.weight_costate, forces, strict=True)
        )
        moving = state.weight_costate if moves_with_old else omega
        weight = tuple(w - (dt * beta) * q for w, q in zip(state.weight, moving, strict=True))
        return LearningState(activity, weight, costate, omega)

    def hamiltonian(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        """Return the robust Hamiltonian H' = φ (L + k|θ|²/2) + z · dh/dt, summed over samples (eq. 8)."""
        phi, k = value_at(self.constants.phi, t), self.constants.regularisation
        output = self.network.read(state.weight, inputs, state.activity)
        total = phi * self.loss.value(output, required_target(inputs)).sum(-1)
        proposed = self.network.propose(state.weight, inputs, state.activity).value
        for c, f, h, z in zip(self.rates_at(t), proposed, state.activity, state.costate, strict=True):
            total = total + (z * c * (f - h)).sum((-2, -1))
        for w in state.weight:
            total = total + 0.5 * phi * k * w.square().sum((-2, -1))
        return total

    def rates_at(self, t: float) -> tuple[Constant, ...]:
        """Return c of each part in the step that begins at t, aligned with activities."""
        return tuple(align(value_at(c, t)) for c in self.speed)

    def loss_forces(self, t: float, state: LearningState, inputs: Inputs) -> tuple[Tensors, Tensors]:
        """Return φ ∂L/∂h, part by part, and φ ∂L/∂θ^y."""
        phi = align(value_at(self.constants.phi, t))
        scored = self.network.score(state.weight, inputs, state.activity, self.loss)
        output_gradients = tuple(phi * g for g in scored.weight_gradient)
        if scored.activity_gradient is None:
            return (), output_gradients
        still = tuple(torch.zeros_like(h) for h in state.activity[:-1])
        return (*still, phi * scored.activity_gradient), output_gradients

    def with_regulariser(self, t: float, forces: Tensors, weights: Tensors) -> Tensors:
        """Return the forces on ω with φ k θ added."""
        k = self.constants.regularisation
        if isinstance(k, float) and k == 0.0:
            return forces
        factor = align(value_at(self.constants.phi, t)) * align(k)
        return tuple(force + factor * w for force, w in zip(forces, weights, strict=True))

    def fastest_rate(self) -> float:
        """Return the largest c + η, or η without a state."""
        return max((largest(c) for c in self.speed), default=0.0) + largest(self.constants.eta)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss``, ``hamiltonian`` and, part by part and layer by layer, the state."""
        seen = [
            Observable("loss", (), "loss L of the output, summed over the current samples", self._loss),
            Observable(
                "hamiltonian", (), "robust Hamiltonian H', summed over the current samples", self.hamiltonian, "1/time"
            ),
        ]
        for part in range(len(self.network.widths)):
            seen.append(_part_observable("activity", part, f"states h_{part + 1}"))
            seen.append(_part_observable("costate", part, f"costates z_{part + 1}"))
        for layer in range(sum(network.depth for network in self.network.networks)):
            seen.append(weight_observable("weight", layer, f"weights θ_{layer + 1}", "1"))
            seen.append(weight_observable("weight_costate", layer, f"costates ω_{layer + 1} of the weights", "1"))
        return {each.name: each for each in seen}

    def _loss(self, t: float, state: LearningState, inputs: Inputs) -> Tensor:
        output = self.network.read(state.weight, inputs, state.activity)
        return self.loss.value(output, required_target(inputs)).sum(-1)


def _part_observable(field: str, part: int, long_name: str) -> Observable:
    return Observable(
        f"{field}/{part + 1}",
        ("sample", f"part_{part + 1}"),
        long_name,
        lambda t, state, inputs: getattr(state, field)[part],
    )
