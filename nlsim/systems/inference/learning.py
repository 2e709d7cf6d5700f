"""Inference learning as one system: activities settle while a sample is shown, then the weights jump.

While an interval lasts the activities follow the flow of the free energy and the weights stand still; at its end the
weights jump by a local rule, and the activities of the next sample begin where the network's forward pass puts them,
with all errors 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Held, Inputs, Piece
from nlsim.errors import CapabilityError, NlsimError, unknown_name
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.inference.flow import ActivityFlow, Gains, Settling
from nlsim.systems.inference.precision import Precision
from nlsim.systems.inference.target import OUTPUTS
from nlsim.systems.inference.update import Update
from nlsim.systems.loss import CROSS_ENTROPY, Loss
from nlsim.systems.network import LayeredNetwork


@state_class
class InferenceState:
    """Activities, weights and what the update remembers.

    Attributes
    ----------
    activity : tuple of Tensor
        ĥ_1 … ĥ_{L−1}, and ĥ_L when the output is free; shape ``(..., sample, layer)``.
    weight : tuple of Tensor
        W_l, shape ``(..., layer, sources [+ 1])``.
    moment : tuple of Tensor
        Moments of the update; empty for rules without memory.
    """

    activity: Layers
    weight: Layers
    moment: Layers


@dataclass(frozen=True)
class InferenceLearning:
    """Settle, then update (Alonso et al. 2022, in convention A: the state of a layer is its pre-activation).

    Parameters
    ----------
    network : LayeredNetwork
        At least one layer; the last activation must be the identity.
    loss : Loss
        ℓ.
    precision : Precision
        γ_l.
    output : str
        ``clamped``, ``free``, ``settled`` or ``heuristic``; see :mod:`nlsim.systems.inference.target`.
    update : Update
        The jump of the weights.
    is_scaled : bool
        Whether the flow is divided by γ_l, so that its stiffness does not depend on α.
    decay : tuple of float
        d_l of the hidden layers (empty: none).
    gains : Gains or None
        Couplings given by hand.

    Raises
    ------
    CapabilityError, UnknownNameError
        For an output that is not linear, a heuristic without a softmax, and an output of another name.
    NlsimError
        For decays that are not one a hidden layer, and for gains together with decay or scaling.
    """

    network: LayeredNetwork
    loss: Loss
    precision: Precision
    output: str
    update: Update
    is_scaled: bool = False
    decay: tuple[float, ...] = ()
    gains: Gains | None = None
    _first: dict[str, tuple[Tensor, Tensor, tuple[int, int], Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise unknown_name("output", self.output, OUTPUTS, where="output")
        require_linear_output(self.network)
        hidden = self.network.depth - 1
        if self.decay and len(self.decay) != hidden:
            raise NlsimError(
                "There must be one decay for each hidden layer.",
                where="decay",
                given=f"{len(self.decay)} numbers",
                allowed=f"{hidden}, or none",
            )
        if self.gains is not None and (self.decay or self.is_scaled):
            raise NlsimError(
                "Couplings given by hand leave nothing to scale and have a decay of their own.",
                where="gains",
                given="gains together with decay or is_scaled",
                allowed="gains alone",
                advice="Put the decay into the gains, and leave is_scaled out.",
            )
        if self.output == "heuristic" and self.loss is not CROSS_ENTROPY:
            raise CapabilityError(
                "The heuristic target is made of softmax probabilities.",
                given=self.loss.name,
                allowed=CROSS_ENTROPY.name,
                advice="With the squared error, 'settled' is the closed form.",
            )

    def initial_state(self, weights: Layers, inputs: Inputs) -> InferenceState:
        """Return the given weights, activities of the forward pass, and empty moments."""
        return InferenceState(self.begin(weights, inputs), weights, self.update.moments(weights))

    def begin(self, weights: Layers, inputs: Inputs) -> Layers:
        """Return the activities at the start of an interval: those of the forward pass, where all errors are 0."""
        given = required_input(inputs)
        activity = feedforward(self.network, weights, given, first=self._first_prediction(weights[0], given))
        return activity if self.output == "free" else activity[:-1]

    def flow(self, weights: Layers, given: Tensor | None = None) -> ActivityFlow:
        """Return the flow of the activities at these weights; what depends on a held input alone is computed once."""
        bare = ActivityFlow(
            self.network, self.loss, self.precision, self.output, weights, self.is_scaled, self.decay, self.gains
        )
        if given is None:
            return bare
        norms = bare.feedforward_normalisers(given) if self.precision.needs_feedforward else None
        return replace(bare, first=self._first_prediction(weights[0], given), feedforward=norms, held=given)

    def _first_prediction(self, weight: Tensor, given: Tensor) -> Tensor:
        """Return p_1, computed once for each mini-batch: a cache of these very tensors, never a memory."""
        if torch.is_grad_enabled() or weight.is_inference() or given.is_inference():
            return self.network.pre_activation(weight, given)  # a derivative must not meet what was made without one
        kept, versions = self._first.get("last"), (weight._version, given._version)
        if kept is None or kept[0] is not weight or kept[1] is not given or kept[2] != versions:
            kept = (weight, given, versions, self.network.pre_activation(weight, given))
            self._first["last"] = kept
        return kept[3]

    def moving(self, state: InferenceState, piece: Piece) -> tuple[ActivityFlow, Layers]:
        """Return the flow of the activities and the activities."""
        held = required_input(piece.inputs) if isinstance(piece, Held) else None
        return self.flow(state.weight, held), state.activity

    def whole(self, state: InferenceState, moved: Layers) -> InferenceState:
        """Return the state with other activities."""
        return replace(state, activity=moved)

    def vector_field(self, t: float, state: InferenceState, inputs: Inputs) -> InferenceState:
        """Return the flow of the activities, and zeros for what stands still."""
        return InferenceState(
            self.flow(state.weight).vector_field(t, state.activity, inputs),
            tuple(torch.zeros_like(w) for w in state.weight),
            tuple(torch.zeros_like(m) for m in state.moment),
        )

    def settling(self, state: InferenceState, inputs: Inputs) -> Settling:
        """Return predictions, errors, normalisers and precisions of a state."""
        return self.flow(state.weight).settling(state.activity, inputs)

    def jump(self, t: float, state: InferenceState, ended: Inputs, begun: Inputs) -> InferenceState:
        """Return the state with updated weights, and the next sample's feedforward activities."""
        seen = self.flow(state.weight, required_input(ended)).settling(state.activity, ended)
        weights, moments = self.update.apply(self.network, state.weight, state.moment, seen)
        return InferenceState(self.begin(weights, begun), weights, moments)

    def energy(self, t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        """Return the free energy summed over samples; shape: the ensemble axes."""
        return self.flow(state.weight).energy(t, state.activity, inputs).sum(-1)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``free_energy``, ``loss``, and ``activity/l``, ``error/l`` and ``weight/l`` of every layer."""
        return inference_observables(self)


def require_linear_output(network: LayeredNetwork) -> None:
    """Refuse a network whose output is not linear: what a softmax does belongs to the loss."""
    last = network.activations[-1]
    if last.name != "identity":
        raise CapabilityError(
            "Inference learning has a linear output.",
            where="network, output_activation",
            given=last.name,
            allowed="identity",
            advice="A softmax is part of the loss cross_entropy.",
        )


def inference_observables(system: InferenceLearning) -> Mapping[str, Observable]:
    """Return the channels of a system whose state has activities and weights."""

    def loss(t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        made = feedforward(system.network, state.weight, required_input(inputs))[-1]
        return system.loss.value(made, required_target(inputs)).sum(-1)

    seen = [
        Observable("free_energy", (), "free energy F, summed over samples", system.energy),
        Observable("loss", (), "loss of the network's own output, summed over samples", loss),
    ]
    for layer in range(system.network.depth):
        seen += _layer_observables(system, layer)
    return {each.name: each for each in seen}


def _layer_observables(system: InferenceLearning, layer: int) -> list[Observable]:
    name = layer + 1

    def error(t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        return system.settling(state, inputs).errors[layer]

    def activity(t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        return system.settling(state, inputs).activity[layer]

    def weight(t: float, state: InferenceState, inputs: Inputs) -> Tensor:
        return state.weight[layer]

    dims, square = ("sample", f"layer_{name}"), (f"layer_{name}", f"source_{name}")
    return [
        Observable(f"error/{name}", dims, f"prediction error e of layer {name}", error),
        Observable(f"activity/{name}", dims, f"activity ĥ of layer {name}, before its activation function", activity),
        Observable(f"weight/{name}", square, f"weights into layer {name}, the bias last", weight),
    ]
