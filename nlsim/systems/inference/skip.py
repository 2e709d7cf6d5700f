"""Inference in residual networks with multipliers inside the energy (μPC).

A layer's prediction is made of the activation of the layer below, and of that layer itself where there is a skip:

    p_l = a_l W_l φ̃(ĥ_{l−1}) + s_l ĥ_{l−1},    e_l = ĥ_l − p_l,    F = Σ_l γ_l ‖e_l‖²/2 (output clamped),

φ being absent at the input. The multipliers of μPC keep activities, and the energy at rest, of order 1 at any width
and depth when weights are unit normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.energy import Layers, Predictions, normalisers
from nlsim.systems.inference.flow import Settling
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.network import LayeredNetwork


@dataclass(frozen=True)
class ResidualFlow:
    """The flow of hidden activities in a residual network, the output clamped and precisions 1.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity.
    weights : tuple of Tensor
        W_l.
    multipliers : tuple of float
        a_l > 0, one a layer.
    skips : tuple of bool
        s_l, one a layer; a skip joins layers of one width.

    Raises
    ------
    CapabilityError, NlsimError
        For an output that is not linear, counts that differ, and skips between layers of different width.
    """

    network: LayeredNetwork
    weights: Layers
    multipliers: tuple[float, ...]
    skips: tuple[bool, ...]

    def __post_init__(self) -> None:
        require_linear_output(self.network)
        if not len(self.multipliers) == len(self.skips) == self.network.depth:
            raise NlsimError(
                "There must be one multiplier and one skip a layer.",
                where="multipliers, skips",
                given=f"{len(self.multipliers)} and {len(self.skips)}",
                allowed=f"{self.network.depth} each",
            )
        for layer, has_skip in enumerate(self.skips):
            if has_skip and self.network.widths[layer] != self.network.widths[layer + 1]:
                raise NlsimError(
                    "A skip joins layers of one width.",
                    where=f"layer {layer + 1}",
                    given=f"{self.network.widths[layer]} and {self.network.widths[layer + 1]} neurons",
                )

    def settling(self, hidden: Layers, inputs: Inputs) -> Settling:
        """Return what an :class:`~nlsim.systems.inference.update.Update` looks at, in units of the weights.

        Errors are e/a and precisions a², so that a local gradient −a e ãᵀ, and a normalised step after which the
        forward pass is ĥ, come out of the rules that know nothing of multipliers. One matrix product a layer.
        """
        given = required_input(inputs)
        states = (given, *hidden)
        sources = (given, *(s.value(h) for s, h in zip(self.network.activations, hidden, strict=False)))
        made = []
        for layer, (w, source) in enumerate(zip(self.weights, sources, strict=True)):
            p = self.multipliers[layer] * self.network.pre_activation(w, source)
            made.append(p + states[layer] if self.skips[layer] else p)
        activity = (*hidden, required_target(inputs))
        predictions = Predictions(sources, tuple(made))
        errors = tuple(e / a for e, a in zip(predictions.errors(activity), self.multipliers, strict=True))
        precisions = tuple(a * a for a in self.multipliers)
        return Settling(predictions, activity, errors, normalisers(self.weights, predictions), precisions)

    def forward(self, given: Tensor) -> Layers:
        """Return h_1 … h_L, where every error is 0. Cost: one matrix product a layer."""
        state, source, activity = given, given, []
        for layer, w in enumerate(self.weights):
            p = self.multipliers[layer] * self.network.pre_activation(w, source)
            state = p + state if self.skips[layer] else p
            activity.append(state)
            source = self.network.activations[layer].value(state)
        return tuple(activity)

    def vector_field(self, t: float, moving: Layers, inputs: Inputs) -> Layers:
        """Return dĥ_l/dt = −e_l + a_{l+1} φ'(ĥ_l) ⊙ W_{l+1}ᵀ e_{l+1} + s_{l+1} e_{l+1}. Two products a layer."""
        seen = self.settling(moving, inputs)
        errors = [a * e for a, e in zip(self.multipliers, seen.errors, strict=True)]
        rates = []
        for layer, h in enumerate(moving):
            slope = self.network.activations[layer].slope(h, seen.predictions.source[layer + 1])
            pull = self.network.pull_back(self.weights[layer + 1], errors[layer + 1])
            rate = self.multipliers[layer + 1] * slope * pull - errors[layer]
            rates.append(rate + errors[layer + 1] if self.skips[layer + 1] else rate)
        return tuple(rates)

    def energy(self, t: float, moving: Layers, inputs: Inputs) -> Tensor:
        """Return F of each sample, shape ``(..., sample)``; the flow decreases it."""
        seen = self.settling(moving, inputs)
        parts = [0.5 * (g * e.square()).sum(-1) for g, e in zip(seen.precisions, seen.errors, strict=True)]
        return torch.stack(parts).sum(0)


def depth_scaling(network: LayeredNetwork) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Return the multipliers and skips of μPC: D^−½, (N L)^−½ between hidden layers with skips, and 1/N.

    D is the number of inputs, N the width of the hidden layers, L the depth. Weights are to be unit normal.

    Raises
    ------
    NlsimError
        When hidden layers differ in width, or there is none.

    References
    ----------
    Innocenti, Achour and Buckley, *μPC: Scaling Predictive Coding to 100+ Layer Networks*, NeurIPS 2025.
    """
    hidden = set(network.widths[1:-1])
    if len(hidden) != 1:
        raise NlsimError(
            "Depth scaling needs hidden layers of one width.",
            where="network",
            given=str(network.widths),
            allowed="inputs, N, …, N, outputs",
        )
    (width,) = hidden
    depth = network.depth
    middle = depth - 2
    multipliers = (network.widths[0] ** -0.5, *(middle * ((width * depth) ** -0.5,)), 1.0 / width)
    return multipliers, (False, *(middle * (True,)), False)


def output_covariance(
    network: LayeredNetwork, weights: Layers, multipliers: Layers | tuple[float, ...], skips: tuple[bool, ...]
) -> Tensor:
    """Return S = 1 + Σ_{l=2..L} M_{L:l} M_{L:l}ᵀ of a linear net, M_l = a_l W_l + s_l 1, shape ``(..., L, L)``.

    The clamped energy at rest is rᵀ S⁻¹ r/2 for a residual r: the closer S is to 1, the closer inference learning is
    to backpropagation. Cost: one matrix product a layer.
    """
    outputs = network.widths[-1]
    eye = torch.eye(outputs, dtype=weights[0].dtype, device=weights[0].device)
    total, product = eye, eye
    for layer in reversed(range(1, network.depth)):
        w = weights[layer][..., :-1] if network.has_bias else weights[layer]
        moved = multipliers[layer] * (product @ w)
        product = moved + product if skips[layer] else moved
        total = total + product @ product.mT
    return total
