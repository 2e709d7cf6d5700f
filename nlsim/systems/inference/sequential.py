"""Sequential inference: layers settle one after another, the output's neighbour first, inside a jump.

In sweep t = 0, 1, … every hidden layer from L − 1 down to 1 moves by

    ĥ_l ← ĥ_l + γ/(1 + t) (φ'(ĥ_l) ⊙ W_{l+1}ᵀ e_{l+1} − e_l),

where e_{l+1} holds the activity that was moved a moment ago and the prediction from before; then the predictions and
the output are made anew. One sweep brings the output's error to every layer, where simultaneous steps bring it one
layer further each. The weights learn by *MQ*, a step that divides by a running mean size of each layer's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError, unknown_name
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.baselines import require_positive
from nlsim.systems.inference.energy import Layers, feedforward, normalisers, predict
from nlsim.systems.inference.flow import Settling
from nlsim.systems.inference.jumps import OnlyJumps, WeightState, weight_observables
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.inference.target import settle_rule
from nlsim.systems.inference.update import Update, energy_gradient
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork

OUTPUTS = ("clamped", "settled")


@dataclass(frozen=True)
class MeanSizeUpdate:
    """W_l ← W_l + (α/(v_l + 10⁻⁶) + 10⁻³) G_l with v_l a running mean of mean|G_l| (MQ).

    G_l = mean(γ_l e_l ã_{l−1}ᵀ). v_l begins at α; the step takes it before it is refreshed by
    v_l ← ρ v_l + (1 − ρ) mean|G_l|, ρ = min(N/(N + 1), 0.9999), N the count of updates, this one included.

    Parameters
    ----------
    rate : float
        α > 0.
    floor, least, memory : float
        10⁻⁶, 10⁻³ and 0.9999.

    References
    ----------
    Alonso, Krichmar and Neftci, *Understanding and Improving Optimization in Predictive Coding Networks*, AAAI 2024.
    """

    rate: float
    floor: float = 1e-6
    least: float = 1e-3
    memory: float = 0.9999

    def __post_init__(self) -> None:
        require_positive("rate", self.rate)

    def moments(self, weights: Layers) -> Layers:
        """Return v_l = α, one number a layer (and member), and the count 0."""
        sizes = tuple(torch.full_like(w[..., :1, :1], self.rate) for w in weights)
        return (*sizes, torch.zeros_like(weights[0][..., :1, :1]))

    def apply(self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling) -> tuple[Layers, Layers]:
        """Return the new weights and moments."""
        *sizes, count = moments
        count = count + 1
        keep = torch.clamp(count / (count + 1), max=self.memory)
        changed, refreshed = [], []
        for w, v, g in zip(weights, sizes, energy_gradient(network, weights, seen), strict=True):
            changed.append(w - (self.rate / (v + self.floor) + self.least) * g)
            refreshed.append(keep * v + (1 - keep) * g.abs().mean((-2, -1), keepdim=True))
        return tuple(changed), (*refreshed, count)


@dataclass(frozen=True)
class SequentialLearning(OnlyJumps):
    """Settle by sweeps from the output to the input, then update; all of it in the jump.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    update : Update
        The rule of the weights, :class:`MeanSizeUpdate` in the reference.
    step : float
        γ > 0, the length of the first sweep's steps; 0.05 in the reference.
    sweeps : int
        T ≥ 1; 3 in the reference.
    output : str
        ``clamped``, or ``settled``: the compromise with the prediction of the moment.
    strength : float
        β > 0 of a settled output: 1/β is its precision; 100 in the reference, which settles probabilities.
    is_cooling : bool
        Whether the step falls like 1/(1 + t).

    Raises
    ------
    CapabilityError, NlsimError, UnknownNameError
        For an output that is not linear, values out of range, and an output of another name.

    References
    ----------
    Alonso, Krichmar and Neftci, *Understanding and Improving Optimization in Predictive Coding Networks*, AAAI 2024.
    """

    network: LayeredNetwork
    loss: Loss
    update: Update = field(default_factory=lambda: MeanSizeUpdate(1e-4))
    step: float = 0.05
    sweeps: int = 3
    output: str = "settled"
    strength: float = 100.0
    is_cooling: bool = True

    def __post_init__(self) -> None:
        require_linear_output(self.network)
        if self.output not in OUTPUTS:
            raise unknown_name("output", self.output, OUTPUTS, where="output")
        require_positive("step", self.step)
        require_positive("strength", self.strength)
        if self.sweeps < 1:
            raise NlsimError("Inference takes a sweep or more.", where="sweeps", given=self.sweeps, allowed="≥ 1")

    def initial_state(self, weights: Layers, inputs: Inputs) -> WeightState:
        """Return the weights and the update's moments."""
        return WeightState(weights, self.update.moments(weights))

    def settling(self, weights: Layers, hidden: Layers, inputs: Inputs) -> Settling:
        """Return what is seen at hidden activities. Cost: one matrix product a layer."""
        made = predict(self.network, weights, required_input(inputs), hidden)
        gamma = 1.0 if self.output == "clamped" else 1.0 / self.strength
        top = settle_rule(self.output, self.loss)(made.prediction[-1], gamma, required_target(inputs))
        activity = (*hidden, top)
        unit = (1.0,) * self.network.depth
        return Settling(made, activity, made.errors(activity), normalisers(weights, made), unit)

    def sweep(self, weights: Layers, hidden: Layers, inputs: Inputs, step: float) -> Layers:
        """Return the hidden activities after one sweep. Cost: two matrix products a layer."""
        seen = self.settling(weights, hidden, inputs)
        moved = list(hidden)
        above = seen.errors[-1]
        for layer in reversed(range(self.network.depth - 1)):
            h = hidden[layer]
            slope = self.network.activations[layer].slope(h, seen.predictions.source[layer + 1])
            pull = slope * self.network.pull_back(weights[layer + 1], above)
            moved[layer] = h + step * (pull - seen.errors[layer])
            above = moved[layer] - seen.predictions.prediction[layer]
        return tuple(moved)

    def infer(self, weights: Layers, inputs: Inputs) -> Settling:
        """Return what is seen after all sweeps, begun at the forward pass."""
        hidden = feedforward(self.network, weights, required_input(inputs))[:-1]
        for t in range(self.sweeps):
            hidden = self.sweep(weights, hidden, inputs, self.step / (1 + t) if self.is_cooling else self.step)
        return self.settling(weights, hidden, inputs)

    def jump(self, t: float, state: WeightState, ended: Inputs, begun: Inputs) -> WeightState:
        """Return the state after an update. Cost: two matrix products a layer and sweep, and two more."""
        seen = self.infer(state.weight, ended)
        return WeightState(*self.update.apply(self.network, state.weight, state.moment, seen))

    def observables(self) -> Mapping[str, Observable]:
        """Return ``loss``, ``weight/l`` of every layer, and ``error/l`` after the sweeps."""
        seen = dict(weight_observables(self.network, self.loss))
        for layer in range(self.network.depth):

            def error(t: float, state: WeightState, inputs: Inputs, layer: int = layer) -> Tensor:
                return self.infer(state.weight, inputs).errors[layer]

            name = f"error/{layer + 1}"
            dims = ("sample", f"layer_{layer + 1}")
            seen[name] = Observable(name, dims, f"prediction error e of layer {layer + 1} after the sweeps", error)
        return seen
