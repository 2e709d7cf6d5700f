"""Inference in the errors themselves: ε_l are the state, activities follow from them by one forward pass.

With z_0 = x and z_l = W_l φ̃(z_{l−1}) + ε_l,

    E(ε) = Σ_l γ_l ‖ε_l‖²/2 + ℓ,    dε_l/dt = −γ_l ε_l − λ_l,    λ_l = φ'(z_l) ⊙ W_{l+1}ᵀ λ_{l+1},

where λ_L = ∂ℓ/∂z_L when the output is free, and −γ_L e_L with e_L = ĥ_L − p_L when it is clamped or settled. It is the
same energy in other coordinates, so it has the same rest states; but every layer hears the output at once, and the
conditioning does not grow like the square of the depth. It is not local: λ is backpropagation through z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Inputs, Piece
from nlsim.errors import unknown_name
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.energy import Layers, Predictions, free_energy, normalisers
from nlsim.systems.inference.flow import Settling
from nlsim.systems.inference.jumps import weight_observables
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.target import settle_rule
from nlsim.systems.inference.update import Update
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork

OUTPUTS = ("clamped", "free", "settled")


@state_class
class ErrorState:
    """Errors, weights and what the update remembers.

    Attributes
    ----------
    error : tuple of Tensor
        ε_1 … ε_{L−1}, and ε_L when the output is free; shape ``(..., sample, layer)``.
    weight : tuple of Tensor
        W_l, shape ``(..., layer, sources [+ 1])``.
    moment : tuple of Tensor
        Moments of the update; empty for rules without memory.
    """

    error: Layers
    weight: Layers
    moment: Layers


@dataclass(frozen=True)
class ErrorFlow:
    """The flow of the errors at weights that stand still.

    Parameters
    ----------
    network, loss
        Linear output.
    precision : ConstantPrecision
        γ_l.
    output : str
        ``clamped``, ``free`` or ``settled``.
    weights : tuple of Tensor
        W_l.
    """

    network: LayeredNetwork
    loss: Loss
    precision: ConstantPrecision
    output: str
    weights: Layers

    def settling(self, moving: Layers, inputs: Inputs) -> Settling:
        """Return predictions, activities, errors, normalisers and precisions. Cost: a matrix product a layer."""
        source = required_input(inputs)
        sources, made, activity = [], [], []
        for layer, weight in enumerate(self.weights):
            sources.append(source)
            made.append(self.network.pre_activation(weight, source))
            if layer < len(moving):
                activity.append(made[-1] + moving[layer])
                source = self.network.activations[layer].value(activity[-1])
        predictions = Predictions(tuple(sources), tuple(made))
        norms = normalisers(self.weights, predictions)
        gammas = self.precision.values(norms, None)
        errors = moving
        if self.output != "free":
            top = settle_rule(self.output, self.loss)(made[-1], gammas[-1], required_target(inputs))
            activity.append(top)
            errors = (*moving, top - made[-1])
        return Settling(predictions, tuple(activity), errors, norms, gammas)

    def vector_field(self, t: float, moving: Layers, inputs: Inputs) -> Layers:
        """Return dε/dt. Cost: two matrix products a layer."""
        seen = self.settling(moving, inputs)
        gammas = seen.precisions
        if self.output == "free":
            costate = self.loss.gradient(seen.activity[-1], required_target(inputs))
            rates = [-gammas[-1] * moving[-1] - costate]
        else:
            costate, rates = -gammas[-1] * seen.errors[-1], []
        for layer in reversed(range(self.network.depth - 1)):
            slope = self.network.activations[layer].slope(seen.activity[layer], seen.predictions.source[layer + 1])
            costate = slope * self.network.pull_back(self.weights[layer + 1], costate)
            rates.insert(0, -gammas[layer] * moving[layer] - costate)
        return tuple(rates)

    def energy(self, t: float, moving: Layers, inputs: Inputs) -> Tensor:
        """Return E of each sample, shape ``(..., sample)``; the flow decreases it."""
        seen = self.settling(moving, inputs)
        return free_energy(
            seen.errors,
            seen.precisions,
            loss=None if self.output == "clamped" else self.loss,
            output=seen.activity[-1],
            target=inputs.target,
        )


@dataclass(frozen=True)
class ErrorFormLearning:
    """Settle in the errors, then update the weights (ePC).

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    loss : Loss
        ℓ.
    precision : ConstantPrecision
        γ_l; precisions that depend on the activities have further terms in these coordinates.
    output : str
        ``clamped``, ``free`` or ``settled``; see :mod:`nlsim.systems.inference.target`.
    update : Update
        The jump of the weights.

    Raises
    ------
    CapabilityError, UnknownNameError
        For an output that is not linear, and an output of another name.

    References
    ----------
    Goemaere et al., *ePC: overcoming exponential signal decay in deep predictive coding networks*, 2025.
    """

    network: LayeredNetwork
    loss: Loss
    precision: ConstantPrecision
    output: str
    update: Update

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise unknown_name("output", self.output, OUTPUTS, where="output")
        require_linear_output(self.network)

    def initial_state(self, weights: Layers, inputs: Inputs) -> ErrorState:
        """Return errors 0, the given weights and empty moments."""
        return ErrorState(self.begin(weights, inputs), weights, self.update.moments(weights))

    def begin(self, weights: Layers, inputs: Inputs) -> Layers:
        """Return zeros: the forward pass."""
        given = required_input(inputs)
        ensemble = (given[..., 0, 0] + weights[0][..., 0, 0]).shape
        count = self.network.depth - (self.output != "free")
        shapes = ((*ensemble, given.shape[-2], n) for n in self.network.sizes[:count])
        return tuple(given.new_zeros(shape) for shape in shapes)

    def flow(self, weights: Layers) -> ErrorFlow:
        """Return the flow of the errors at these weights."""
        return ErrorFlow(self.network, self.loss, self.precision, self.output, weights)

    def moving(self, state: ErrorState, piece: Piece) -> tuple[ErrorFlow, Layers]:
        """Return the flow of the errors and the errors."""
        return self.flow(state.weight), state.error

    def whole(self, state: ErrorState, moved: Layers) -> ErrorState:
        """Return the state with other errors."""
        return replace(state, error=moved)

    def vector_field(self, t: float, state: ErrorState, inputs: Inputs) -> ErrorState:
        """Return the flow of the errors, and zeros for what stands still."""
        return ErrorState(
            self.flow(state.weight).vector_field(t, state.error, inputs),
            tuple(torch.zeros_like(w) for w in state.weight),
            tuple(torch.zeros_like(m) for m in state.moment),
        )

    def jump(self, t: float, state: ErrorState, ended: Inputs, begun: Inputs) -> ErrorState:
        """Return the state with updated weights, and errors 0."""
        seen = self.flow(state.weight).settling(state.error, ended)
        weights, moments = self.update.apply(self.network, state.weight, state.moment, seen)
        return ErrorState(self.begin(weights, begun), weights, moments)

    def energy(self, t: float, state: ErrorState, inputs: Inputs) -> Tensor:
        """Return the free energy summed over samples; shape: the ensemble axes."""
        return self.flow(state.weight).energy(t, state.error, inputs).sum(-1)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``free_energy``, ``loss``, and ``error/l`` and ``weight/l`` of every layer."""
        seen = dict(weight_observables(self.network, self.loss))
        seen["free_energy"] = Observable("free_energy", (), "free energy F, summed over samples", self.energy)
        for layer in range(self.network.depth):

            def error(t: float, state: ErrorState, inputs: Inputs, layer: int = layer) -> Tensor:
                return self.flow(state.weight).settling(state.error, inputs).errors[layer]

            name = f"error/{layer + 1}"
            dims = ("sample", f"layer_{layer + 1}")
            seen[name] = Observable(name, dims, f"prediction error ε of layer {layer + 1}", error)
        return seen
