"""How the state of masked neurons depends on their weights and biases: leaky integrals over the observed past.

Without recurrence (V = 0) and in state form

    ∂x_i/∂b_i(t) = ∫₀ᵗ c e^{−c(t−τ)} φ'(a_i) μ(m(τ)) dτ,
    ∂x_i/∂W_ij(t) = ∫₀ᵗ c e^{−c(t−τ)} φ'(a_i) m_j(τ) u_j(τ) dτ,

so they are states that relax to φ'(a) μ and φ'(a) m_j u_j; in potential form the slope is 1. What is not observed adds
nothing. What was observed fades at rate c: a blackout stops the injection at once, the sensitivities themselves only
with the neuron's own memory. Neurons that hold keep their sensitivities with their state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.state import state_class
from nlsim.core.system import Fraction, Inputs
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_input
from nlsim.systems.masked.dynamics import MaskedNeuron, shown_mask
from nlsim.systems.masked.layer import gate


@state_class
class SensitivityState:
    """A state of neurons with its derivatives.

    Parameters
    ----------
    neuron : Tensor
        x (or v), shape ``(..., sample, n)``.
    bias : Tensor
        ∂x_i/∂b_i, shape ``(..., sample, n)``.
    weight : Tensor
        ∂x_i/∂W_ij, shape ``(..., sample, n, input)``.
    """

    neuron: Tensor
    bias: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class MaskedSensitivity:
    """Masked neurons together with the derivatives of their state by b and W.

    Under held inputs the exponential sweep is exact, as for the neurons.

    Parameters
    ----------
    system : MaskedNeuron
        Without recurrence.

    Raises
    ------
    NlsimError
        When neurons are coupled: then every neuron depends on every weight.
    """

    system: MaskedNeuron

    def __post_init__(self) -> None:
        if self.system.recurrent is not None:
            raise NlsimError(
                "These sensitivities are those of neurons without recurrence.",
                where="system.recurrent",
                given=tuple(self.system.recurrent.shape),
                allowed="None",
                advice="Differentiate a run of the coupled neurons numerically, or leave V out.",
            )

    def targets(self, state: Tensor, inputs: Inputs) -> SensitivityState:
        """Return what neurons and derivatives relax to. Cost: the field of the neurons, n·input products a sample."""
        a = self.system.pre_activation(state, inputs)
        value = self.system.activation.value(a)
        if self.system.form == "potential":
            value, slope = a, torch.ones_like(a)
        else:
            slope = self.system.activation.slope(a, value)
        seen = gate(required_input(inputs), shown_mask(inputs))
        return SensitivityState(value, slope * self.system.fraction(inputs), slope.unsqueeze(-1) * seen.unsqueeze(-2))

    def vector_field(self, t: float, state: SensitivityState, inputs: Inputs) -> SensitivityState:
        """Return rate · (target − state) for neurons and derivatives alike."""
        rate, goal = self._rate(state, inputs), self.targets(state.neuron, inputs)
        return SensitivityState(
            rate * (goal.neuron - state.neuron),
            rate * (goal.bias - state.bias),
            rate.unsqueeze(-1) * (goal.weight - state.weight),
        )

    def rates(self, state: SensitivityState) -> SensitivityState:
        """Return c for neurons and derivatives."""
        rate = self.system.rates(state.neuron).expand_as(state.neuron)
        return SensitivityState(rate, rate, rate.unsqueeze(-1))

    def sweep_(self, t: float, state: SensitivityState, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Let neurons and derivatives close the same fraction of their gaps."""
        part, goal = fraction(self._rate(state, inputs) * dt), self.targets(state.neuron, inputs)
        state.neuron.lerp_(goal.neuron, part)
        state.bias.lerp_(goal.bias, part)
        state.weight.lerp_(goal.weight, part.unsqueeze(-1))

    def slow_rate(self) -> float:
        """Return 0: everything is as fast as the neurons."""
        return 0.0

    def fastest_rate(self) -> float:
        """Return the largest c."""
        return self.system.fastest_rate()

    def initial_state(self, inputs: Inputs) -> SensitivityState:
        """Return the neutral state, which depends on nothing."""
        neuron = self.system.initial_state(inputs)
        inward = required_input(inputs).shape[-1]
        return SensitivityState(neuron, torch.zeros_like(neuron), neuron.new_zeros((*neuron.shape, inward)))

    def _rate(self, state: SensitivityState, inputs: Inputs) -> Tensor:
        rate = self.system.rates(state.neuron).expand_as(state.neuron)
        return rate if self.system.outage == "forget" else rate * self.system.fraction(inputs)


def gradient(state: SensitivityState, costate: Tensor) -> tuple[Tensor, Tensor]:
    """Return ∂L/∂W and ∂L/∂b, summed over samples, of a loss of the present state.

    Parameters
    ----------
    state : SensitivityState
        The derivatives of the state.
    costate : Tensor
        ∂L/∂x, shape ``(..., sample, n)``.

    Returns
    -------
    tuple of Tensor
        Shapes ``(..., n, input)`` and ``(..., n)``.
    """
    return (costate.unsqueeze(-1) * state.weight).sum(-3), (costate * state.bias).sum(-2)
