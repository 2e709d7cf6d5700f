"""Predictions, prediction errors and the free energy of activities (Alonso et al., 2022).

The state of a layer is its **pre-activation** ĥ_l (convention A). With ã = φ(ĥ) and a constant 1 appended when the
network has biases, ĥ_0 the input:

    p_l = W_l ã_{l−1},    e_l = ĥ_l − p_l,    n_l = ‖ã_{l−1}‖²,
    F = Σ_samples [ℓ(y, ĥ_L) + Σ_l γ_l ‖e_l‖²/2 + Σ_{l<L} d_l ‖ĥ_l‖²/2].

The output is linear: what a softmax does belongs to the loss. Every function accepts leading ensemble axes, and
no sample's numbers depend on another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, LayeredNetwork

Layers = tuple[Tensor, ...]
"""One tensor a layer, shape ``(..., sample, layer)``."""


@dataclass(frozen=True)
class Predictions:
    """What the activities below each layer predict for it; entry l − 1 belongs to layer l = 1..L.

    Attributes
    ----------
    source : tuple of Tensor
        a_{l−1} = φ(ĥ_{l−1}) without the constant 1, shape ``(..., sample, sources)``; the input for l = 1.
    prediction : tuple of Tensor
        p_l, shape ``(..., sample, layer)``.
    """

    source: Layers
    prediction: Layers

    def errors(self, activity: Layers) -> Layers:
        """Return e_l = ĥ_l − p_l for the activities given: all L layers, or the first few."""
        return tuple(h - p for h, p in zip(activity, self.prediction, strict=False))


def predict(network: LayeredNetwork, weights: Layers, given: Tensor, hidden: Layers) -> Predictions:
    """Return the predictions made by an input and the activities ĥ_1 … ĥ_{L−1}.

    Cost: one matrix product a layer.
    """
    sources = (given, *(sigma.value(h) for sigma, h in zip(network.activations, hidden, strict=False)))
    made = tuple(network.pre_activation(w, a) for w, a in zip(weights, sources, strict=True))
    return Predictions(sources, made)


def feedforward(network: LayeredNetwork, weights: Layers, given: Tensor, *, first: Tensor | None = None) -> Layers:
    """Return the pre-activations h_1 … h_L of the network at its input, where every error is 0.

    Cost: one matrix product a layer, none for the first when h_1 is given.
    """
    activities, source = [network.pre_activation(weights[0], given) if first is None else first], given
    for weight, activation in zip(weights[1:], network.activations, strict=False):
        source = activation.value(activities[-1])
        activities.append(network.pre_activation(weight, source))
    return tuple(activities)


def normaliser(weight: Tensor, source: Tensor) -> Tensor:
    """Return n = ‖ã‖² of what feeds a layer, the 1 of the bias included; shape ``(..., sample, 1)``.

    The 1 is added where W has a column more than the source has entries.
    """
    return source.square().sum(-1, keepdim=True) + float(weight.shape[-1] - source.shape[-1])


def normalisers(weights: Layers, predictions: Predictions) -> Layers:
    """Return n_1 … n_L; see :func:`normaliser`."""
    return tuple(normaliser(w, source) for w, source in zip(weights, predictions.source, strict=True))


def free_energy(
    errors: Layers,
    precisions: Sequence[Constant],
    *,
    loss: Loss | None = None,
    output: Tensor | None = None,
    target: Tensor | None = None,
    hidden: Layers = (),
    decay: Sequence[Constant] = (),
) -> Tensor:
    """Return F of each sample, shape ``(..., sample)``; its sum over samples is the free energy.

    Parameters
    ----------
    errors : tuple of Tensor
        e_1 … e_L.
    precisions : sequence of float or Tensor
        γ_l, each a number or of shape ``(..., sample, 1)``, ≥ 0.
    loss, output, target : optional
        ℓ, ĥ_L and y of a soft clamp; without a loss the output is clamped and ℓ is 0.
    hidden : tuple of Tensor
        ĥ_1 … ĥ_{L−1}, looked at for the decay only.
    decay : sequence of float
        d_l, one a hidden layer.

    References
    ----------
    Alonso, Millidge, Krichmar and Neftci, *A Theoretical Framework for Inference Learning*, NeurIPS 2022.
    """
    total = torch.zeros_like(errors[0][..., 0])
    if loss is not None and output is not None and target is not None:
        total = total + loss.value(output, target)
    for gamma, e in zip(precisions, errors, strict=True):
        total = total + 0.5 * (gamma * e.square()).sum(-1)
    for d, h in zip(decay, hidden, strict=False):
        total = total + 0.5 * (d * h.square()).sum(-1)
    return total


def nlms(network: LayeredNetwork, weights: Layers, predictions: Predictions, errors: Layers) -> Layers:
    """Return W_l + e_l ã_{l−1}ᵀ/n_l of one sample: the closest weights whose forward pass gives ĥ.

    Cost: one matrix product a layer, of rank one.

    References
    ----------
    Haykin, *Adaptive Filter Theory*, on normalised least mean squares with rate 1.
    """
    return tuple(
        w + network.weight_gradient(e / normaliser(w, a), a, w)
        for w, a, e in zip(weights, predictions.source, errors, strict=True)
    )
