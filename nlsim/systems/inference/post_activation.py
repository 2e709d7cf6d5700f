"""Inference with post-activation states (convention B), and what repairs it.

The state of a hidden layer is its output, h_l = φ(W_l h̃_{l−1}), the output layer is linear, and

    F = ℓ + Σ_l Σ_j γ_lj (ĥ_l − φ(p_l))_j²/2,    p_l = W_l h̃_{l−1} with ĥ in place of h.

The cost of realising ĥ_l with new weights is ‖φ⁻¹(ĥ_l) − p_l‖²/(2 α n_l), which this energy misses at order 0 when a
layer has one precision. With γ_lj = 1/(α n_l φ'(p_l)_j²) for each *unit*, held while the energy is differentiated, and
the update W_l ← W_l + (φ⁻¹(ĥ_l) − p_l) h̃ᵀ_{l−1}/n_l, it is right to first order in the residual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, unknown_name
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.energy import Layers, normaliser
from nlsim.systems.inference.learning import require_linear_output
from nlsim.systems.inference.target import settle_rule
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork

INVERSES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.atanh,
    "logistic": torch.logit,
    "softplus": lambda y: y + torch.log(-torch.expm1(-y)),
    "identity": lambda y: y,
}
"""φ⁻¹ of the activations that have one, on their range."""

KINDS = ("unit", "layer")


@dataclass(frozen=True)
class PostActivationFlow:
    """The flow of post-activation states, with precisions of a step of size α; the output is where it settles.

    dĥ_l/dt = −γ_l ⊙ (ĥ_l − φ(p_l)) + W_{l+1}ᵀ (φ'(p_{l+1}) ⊙ γ_{l+1} ⊙ (ĥ_{l+1} − φ(p_{l+1}))), γ held.

    Parameters
    ----------
    network : LayeredNetwork
        The last activation must be the identity, the others invertible.
    loss : Loss
        ℓ.
    weights : tuple of Tensor
        W_l.
    rate : float or Tensor
        α > 0.
    kind : str
        ``unit``: γ = 1/(α n φ'²); ``layer``: γ = 1/(α n), which is wrong at order 0.

    Raises
    ------
    CapabilityError, UnknownNameError
        For an output that is not linear, an activation without an inverse, and another kind.
    """

    network: LayeredNetwork
    loss: Loss
    weights: Layers
    rate: Constant
    kind: str = "unit"

    def __post_init__(self) -> None:
        require_linear_output(self.network)
        if self.kind not in KINDS:
            raise unknown_name("kind of precision", self.kind, KINDS, where="kind")
        for activation in self.network.activations:
            if activation.name not in INVERSES:
                raise CapabilityError(
                    "Post-activation states need activations with an inverse.",
                    given=activation.name,
                    allowed=", ".join(sorted(INVERSES)),
                )

    def begin(self, given: Tensor) -> Layers:
        """Return the hidden activities of the forward pass."""
        return self.network.forward(self.weights, given)[:-1]

    def settling(self, hidden: Layers, inputs: Inputs) -> tuple[Layers, Layers, Layers, Layers, Layers]:
        """Return sources, pre-activations p, slopes φ'(p), errors and precisions. One matrix product a layer."""
        sources = (required_input(inputs), *hidden)
        made = tuple(self.network.pre_activation(w, a) for w, a in zip(self.weights, sources, strict=True))
        values = tuple(s.value(p) for s, p in zip(self.network.activations, made, strict=True))
        slopes = tuple(s.slope(p, v) for s, p, v in zip(self.network.activations, made, values, strict=True))
        gammas = []
        for w, source, slope in zip(self.weights, sources, slopes, strict=True):
            gamma = 1.0 / (self.rate * normaliser(w, source))
            gammas.append(gamma / slope.square() if self.kind == "unit" else gamma.expand_as(slope))
        # the output is linear, so its precision is that of its layer
        top = settle_rule("settled", self.loss)(made[-1], gammas[-1][..., :1], required_target(inputs))
        errors = tuple(h - v for h, v in zip((*hidden, top), values, strict=True))
        return sources, made, slopes, errors, tuple(gammas)

    def vector_field(self, t: float, moving: Layers, inputs: Inputs) -> Layers:
        """Return dĥ/dt. Cost: two matrix products a layer."""
        _, _, slopes, errors, gammas = self.settling(moving, inputs)
        rates = []
        for layer in range(self.network.depth - 1):
            above = slopes[layer + 1] * gammas[layer + 1] * errors[layer + 1]
            pull = self.network.pull_back(self.weights[layer + 1], above)
            rates.append(pull - gammas[layer] * errors[layer])
        return tuple(rates)

    def update(self, hidden: Layers, inputs: Inputs) -> Layers:
        """Return the weights after the jump, a mean over samples.

        ``unit``: W + (φ⁻¹(ĥ) − p) h̃ᵀ/n, after which one sample's forward pass is ĥ. ``layer``: the normalised local
        gradient, W + (φ'(p) ⊙ e) h̃ᵀ/n.
        """
        sources, made, slopes, errors, _ = self.settling(hidden, inputs)
        new = []
        for layer, (w, a, p) in enumerate(zip(self.weights, sources, made, strict=True)):
            if self.kind == "layer":
                change = slopes[layer] * errors[layer]
            elif layer < len(hidden):
                change = INVERSES[self.network.activations[layer].name](hidden[layer]) - p
            else:
                change = errors[layer]
            scaled = change / (normaliser(w, a) * a.shape[-2])
            new.append(w + self.network.weight_gradient(scaled, a, w))
        return tuple(new)
