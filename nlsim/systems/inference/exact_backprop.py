"""Two ways in which inference makes exactly the gradients of backpropagation.

*Zero divergence* (Z-IL): start from the forward pass, hold the output, take activity steps of length exactly 1, and
let W_l learn at time t = L − l, the very moment when the output error arrives there and before anything below moves.

*Fixed predictions*: hold predictions and slopes at the forward pass while errors settle,

    dĥ_l/dt = −(ĥ_l − h_l) + φ'(h_l) ⊙ W_{l+1}ᵀ e_{l+1},    e_l = ĥ_l − h_l,    e_L = −∂ℓ/∂h_L,

whose rest errors are −∂ℓ/∂h_l. For the squared error the e_L of both is that of a clamped output, y − p_L.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Held, Inputs, Piece
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.baselines import Descent
from nlsim.systems.inference.energy import Layers, Predictions, feedforward, predict
from nlsim.systems.inference.jumps import OnlyJumps, WeightState, no_motion, weight_observables
from nlsim.systems.inference.learning import InferenceState, require_linear_output
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork


def zero_divergence_gradients(
    network: LayeredNetwork,
    loss: Loss,
    weights: Layers,
    inputs: Inputs,
    *,
    rate: Constant = 0.0,
    step: float = 1.0,
    offset: Layers | None = None,
    delay: int = 0,
) -> Layers:
    """Return −mean(e_l ã_{l−1}ᵀ) of each layer, read at time L − l of the activity dynamics.

    With the defaults these are the gradients of backpropagation, up to round-off; every other value of ``step``,
    ``offset`` or ``delay`` breaks that.

    Parameters
    ----------
    network, loss, weights, inputs
        Any loss; ``inputs`` of shape ``(..., sample, layer)``.
    rate : float or Tensor
        Rate at which a weight learns in flight, at its time: it changes nothing, since what has learned is no longer
        listened to.
    step : float
        Length of an activity step; 1 is needed.
    offset : tuple of Tensor or None
        What is added to the feedforward start of the hidden layers; None (nothing) is needed.
    delay : int
        How many steps late every layer is read; 0 is needed.

    Returns
    -------
    tuple of Tensor
        One a layer, shape of the weights. Cost: two matrix products a layer and step, L steps.

    References
    ----------
    Song, Lukasiewicz, Xu and Bogacz, *Can the Brain Do Backpropagation? Exact Implementation of Backpropagation in
    Predictive Coding Networks*, NeurIPS 2020.
    """
    given, target = required_input(inputs), required_target(inputs)
    hidden, depth = feedforward(network, weights, given)[:-1], network.depth
    if offset is not None:
        hidden = tuple(h + o for h, o in zip(hidden, offset, strict=True))
    current = list(weights)
    gradients: list[Tensor] = [torch.empty(0)] * depth
    for t in range(depth + delay):
        made = predict(network, tuple(current), given, hidden)
        errors = (*made.errors(hidden), -loss.gradient(made.prediction[-1], target))
        layer = depth - 1 - (t - delay)
        learns = 0 <= layer < depth
        if learns:
            error, source = errors[layer] / -given.shape[-2], made.source[layer]
            gradients[layer] = network.weight_gradient(error, source, weights[layer])
        pulled = _activity_rates(network, tuple(current), hidden, made, errors)
        hidden = tuple(h + step * rate_ for h, rate_ in zip(hidden, pulled, strict=True))
        if learns:
            current[layer] = current[layer] - rate * gradients[layer]
    return tuple(gradients)


def _activity_rates(
    network: LayeredNetwork, weights: Layers, hidden: Layers, made: Predictions, errors: Layers
) -> list[Tensor]:
    """Return φ'(ĥ_l) ⊙ W_{l+1}ᵀ e_{l+1} − e_l of the hidden layers."""
    rates = []
    for layer, h in enumerate(hidden):
        pull = network.pull_back(weights[layer + 1], errors[layer + 1])
        rates.append(network.activations[layer].slope(h, made.source[layer + 1]) * pull - errors[layer])
    return rates


@dataclass(frozen=True)
class ZeroDivergence(OnlyJumps):
    """Z-IL: every layer learns when the output error comes by; L activity steps inside each jump.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    descent : Descent
        What is done with the gradients.
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
        """Return the state after a step. Cost: that of :func:`zero_divergence_gradients`."""
        gradients = zero_divergence_gradients(self.network, self.loss, state.weight, ended)
        return WeightState(*self.descent.step(state.weight, gradients, state.moment))

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss`` and ``weight/l`` of every layer."""
        return weight_observables(self.network, self.loss)


@dataclass(frozen=True)
class FixedPredictionFlow:
    """The flow of the hidden activities while predictions and slopes stay those of a forward pass.

    It is affine, and its matrix is −1 plus a nilpotent one: L − 1 Euler steps of length 1 reach the rest state.

    Parameters
    ----------
    network, loss
        Linear output.
    weights : tuple of Tensor
        W_l.
    held : Predictions or None
        The forward pass, when the input is held; None: made anew at each call.
    """

    network: LayeredNetwork
    loss: Loss
    weights: Layers
    held: Predictions | None = None

    def forward(self, inputs: Inputs) -> Predictions:
        """Return sources a_{l−1} and predictions h_l of the forward pass. Cost: a matrix product a layer."""
        if self.held is not None:
            return self.held
        given = required_input(inputs)
        made = feedforward(self.network, self.weights, given)
        above = (sigma.value(h) for sigma, h in zip(self.network.activations, made[:-1], strict=False))
        return Predictions((given, *above), made)

    def errors(self, moving: Layers, inputs: Inputs) -> Layers:
        """Return e_1 … e_L. Cost: that of the forward pass."""
        made = self.forward(inputs)
        return (*made.errors(moving), -self.loss.gradient(made.prediction[-1], required_target(inputs)))

    def vector_field(self, t: float, moving: Layers, inputs: Inputs) -> Layers:
        """Return dĥ/dt. Cost: one matrix product a layer, and the forward pass where it is not held."""
        made = self.forward(inputs)
        errors = replace(self, held=made).errors(moving, inputs)
        return tuple(_activity_rates(self.network, self.weights, made.prediction[:-1], made, errors))


@dataclass(frozen=True)
class FixedPredictionLearning:
    """Inference learning under the fixed-prediction assumption: at rest its gradients are backpropagation's.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    descent : Descent
        What is done with the gradients −mean(e_l ã_{l−1}ᵀ), ã of the forward pass.

    References
    ----------
    Millidge, Tschantz and Buckley, *Predictive Coding Approximates Backprop along Arbitrary Computation Graphs*,
    Neural Computation 34, 2022.
    """

    network: LayeredNetwork
    loss: Loss
    descent: Descent

    def __post_init__(self) -> None:
        require_linear_output(self.network)

    def initial_state(self, weights: Layers, inputs: Inputs) -> InferenceState:
        """Return hidden activities of the forward pass, the weights, and empty moments."""
        return InferenceState(self.begin(weights, inputs), weights, self.descent.moments(weights))

    def begin(self, weights: Layers, inputs: Inputs) -> Layers:
        """Return h_1 … h_{L−1}."""
        return feedforward(self.network, weights, required_input(inputs))[:-1]

    def moving(self, state: InferenceState, piece: Piece) -> tuple[FixedPredictionFlow, Layers]:
        """Return the flow, its forward pass made once where the input is held, and the hidden activities."""
        flow = FixedPredictionFlow(self.network, self.loss, state.weight)
        if isinstance(piece, Held):
            flow = replace(flow, held=flow.forward(piece.inputs))
        return flow, state.activity

    def whole(self, state: InferenceState, moved: Layers) -> InferenceState:
        """Return the state with other activities."""
        return replace(state, activity=moved)

    def vector_field(self, t: float, state: InferenceState, inputs: Inputs) -> InferenceState:
        """Return the flow of the activities, and zeros for what stands still."""
        flow = FixedPredictionFlow(self.network, self.loss, state.weight)
        still = no_motion(WeightState(state.weight, state.moment))
        return InferenceState(flow.vector_field(t, state.activity, inputs), still.weight, still.moment)

    def gradients(self, state: InferenceState, inputs: Inputs) -> Layers:
        """Return −mean(e_l ã_{l−1}ᵀ). Cost: two matrix products a layer."""
        flow = FixedPredictionFlow(self.network, self.loss, state.weight)
        made = flow.forward(inputs)
        errors = replace(flow, held=made).errors(state.activity, inputs)
        parts = zip(errors, made.source, state.weight, strict=True)
        return tuple(self.network.weight_gradient(-e / e.shape[-2], a, w) for e, a, w in parts)

    def jump(self, t: float, state: InferenceState, ended: Inputs, begun: Inputs) -> InferenceState:
        """Return the state with updated weights, and the next sample's feedforward activities."""
        weights, moments = self.descent.step(state.weight, self.gradients(state, ended), state.moment)
        return InferenceState(self.begin(weights, begun), weights, moments)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss`` and ``weight/l`` of every layer, and ``error/l`` of the hidden ones and the output."""
        seen = dict(weight_observables(self.network, self.loss))
        for layer in range(self.network.depth):

            def error(t: float, state: InferenceState, inputs: Inputs, layer: int = layer) -> Tensor:
                flow = FixedPredictionFlow(self.network, self.loss, state.weight)
                return flow.errors(state.activity, inputs)[layer]

            name = f"error/{layer + 1}"
            dims = ("sample", f"layer_{layer + 1}")
            seen[name] = Observable(name, dims, f"error e of layer {layer + 1} at fixed predictions", error)
        return seen
