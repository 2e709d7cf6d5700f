"""Steps of backpropagation, as systems whose weights stand still while a sample is shown and jump when it ends.

They are what inference learning is compared with: SGD, Adam, and the proximal-looking rule BP-prox, which takes the
output target and the normalised update of IL-prox and puts backpropagation where inference was. Gradients are means
over the samples shown together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.backprop import backpropagate, required_input, required_target
from nlsim.systems.inference.energy import Layers, feedforward, normaliser
from nlsim.systems.inference.jumps import OnlyJumps, WeightState, weight_observables
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.inference.target import settle_rule
from nlsim.systems.inference.update import forward_directions
from nlsim.systems.loss import SQUARED_ERROR, Loss
from nlsim.systems.network import Constant, LayeredNetwork


class Descent(Protocol):
    """A rule that turns gradients into a step; :class:`~nlsim.systems.inference.update.Adam` is one."""

    def moments(self, weights: Layers, /) -> Layers:
        """Return what the rule remembers, at the start; empty for rules without memory."""
        ...

    def step(self, weights: Layers, gradients: Layers, moments: Layers, /) -> tuple[Layers, Layers]:
        """Return the new weights and moments; what is given is kept intact."""
        ...


@dataclass(frozen=True)
class GradientDescent:
    """W ← W − η ∂L/∂W.

    Parameters
    ----------
    rate : float or Tensor
        η > 0; a tensor with the ensemble axes is given two axes of size 1 at its end first.
    """

    rate: Constant

    def __post_init__(self) -> None:
        require_positive("rate", self.rate)

    def moments(self, weights: Layers) -> Layers:
        """Return nothing."""
        return ()

    def step(self, weights: Layers, gradients: Layers, moments: Layers) -> tuple[Layers, Layers]:
        """Return W − η g."""
        return tuple(w - self.rate * g for w, g in zip(weights, gradients, strict=True)), moments


@dataclass(frozen=True)
class BackpropagationSteps(OnlyJumps):
    """One step of gradient descent, or of Adam, on each batch shown.

    W ← step(W, mean over samples of ∂ℓ/∂W).

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    descent : Descent
        :class:`GradientDescent` or :class:`~nlsim.systems.inference.update.Adam`.

    Raises
    ------
    CapabilityError
        For an output that is not linear.
    """

    network: LayeredNetwork
    loss: Loss
    descent: Descent

    def __post_init__(self) -> None:
        require_linear_output(self.network)

    def initial_state(self, weights: Layers, inputs: Inputs) -> WeightState:
        """Return the weights and empty moments."""
        return WeightState(weights, self.descent.moments(weights))

    def jump(self, t: float, state: WeightState, ended: Inputs, begun: Inputs) -> WeightState:
        """Return the state after a step. Cost: three matrix products a layer."""
        gradients = mean_gradients(self.network, self.loss, state.weight, ended)
        return WeightState(*self.descent.step(state.weight, gradients, state.moment))

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss`` and ``weight/l`` of every layer."""
        return weight_observables(self.network, self.loss)


@dataclass(frozen=True)
class BackpropagationProximal(OnlyJumps):
    """BP-prox: the output error of IL-prox, back-propagated and normalised, without inference.

    With the output target ĥ_L of an implicit step of size α at the feedforward activities
    (:mod:`nlsim.systems.inference.target`; e_L = α n_L/(1 + α n_L) (y − h_L) for the squared error),

        δ_L = ĥ_L − h_L,    δ_l = φ'(h_l) ⊙ W_{l+1}ᵀ δ_{l+1},    W_l ← W_l + mean(δ_l ã_{l−1}ᵀ)/(mean(n_l) + ε).

    Here biases learn and n_l contains their 1, as everywhere in this package; the released code leaves the 1 out and
    does not touch biases. Nothing keeps the loss from rising: with more than one layer the layers overshoot together.

    Parameters
    ----------
    network, loss
        As in :class:`BackpropagationSteps`.
    rate : float or Tensor
        α > 0.
    epsilon : float
        ε ≥ 0.

    Raises
    ------
    CapabilityError, NlsimError
        For an output that is not linear, and for values out of range.

    References
    ----------
    Alonso, Millidge, Krichmar and Neftci, *A Theoretical Framework for Inference Learning*, NeurIPS 2022: a baseline
    of the released code.
    """

    network: LayeredNetwork
    loss: Loss
    rate: Constant
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        require_linear_output(self.network)
        require_positive("rate", self.rate)
        if not self.epsilon >= 0:
            raise NlsimError(
                "A normaliser is not made smaller.", where="epsilon", given=self.epsilon, allowed="epsilon ≥ 0"
            )

    def initial_state(self, weights: Layers, inputs: Inputs) -> WeightState:
        """Return the weights; there is no memory."""
        return WeightState(weights, ())

    def jump(self, t: float, state: WeightState, ended: Inputs, begun: Inputs) -> WeightState:
        """Return the state after a step. Cost: four matrix products a layer."""
        given = required_input(ended)
        made = feedforward(self.network, state.weight, given)
        above = (sigma.value(h) for sigma, h in zip(self.network.activations, made[:-1], strict=False))
        sources = (given, *above)
        gamma = 1.0 / (self.rate * normaliser(state.weight[-1], sources[-1]))
        target = settle_rule("settled", self.loss)(made[-1], gamma, required_target(ended))
        # the squared error to the output target has the derivative h_L − ĥ_L = −δ_L
        gradients = mean_gradients(self.network, SQUARED_ERROR, state.weight, Inputs(given, target))
        directions = forward_directions(gradients, sources, self.epsilon)
        return WeightState(tuple(w - d for w, d in zip(state.weight, directions, strict=True)), state.moment)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss`` and ``weight/l`` of every layer."""
        return weight_observables(self.network, self.loss)


def mean_gradients(network: LayeredNetwork, loss: Loss, weights: Layers, inputs: Inputs) -> Layers:
    """Return ∂ℓ/∂W_l averaged over samples. Cost: three matrix products a layer."""
    samples = required_input(inputs).shape[-2]
    return tuple(g / samples for g in backpropagate(network, loss, weights, inputs).gradient)


def require_positive(name: str, value: Constant) -> None:
    """Refuse a number, or a tensor with an entry, that is not above 0."""
    smallest = float(value.min()) if isinstance(value, Tensor) else value
    if not smallest > 0:
        raise NlsimError("A step has a positive size.", where=name, given=smallest, allowed="> 0")
