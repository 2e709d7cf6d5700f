"""How weights jump when an interval ends: local rules of the settled errors and what feeds them.

Every rule averages over the samples shown together, so a sample shown B times makes the step that it makes alone.
Adam is torch's own; its moments are part of the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers, normaliser
from nlsim.systems.inference.flow import Settling
from nlsim.systems.network import Constant, LayeredNetwork


class Update(Protocol):
    """A rule by which weights jump."""

    def moments(self, weights: Layers, /) -> Layers:
        """Return what the rule remembers, at the start; empty for rules without memory."""
        ...

    def apply(
        self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling, /
    ) -> tuple[Layers, Layers]:
        """Return the new weights and moments; what is given is kept intact."""
        ...


def energy_gradient(network: LayeredNetwork, weights: Layers, seen: Settling) -> Layers:
    """Return ∂F/∂W_l averaged over samples, −γ_l e_l ã_{l−1}ᵀ, at held precisions. One matrix product a layer."""
    gradients = []
    for w, gamma, error, source in zip(weights, seen.precisions, seen.errors, seen.predictions.source, strict=True):
        gradients.append(network.weight_gradient(error * (-gamma / error.shape[-2]), source, w))
    return tuple(gradients)


def normalised_gradient(network: LayeredNetwork, weights: Layers, seen: Settling, epsilon: Constant) -> Layers:
    """Return −mean(e ãᵀ)/(mean(n) + ε) of each layer: the direction of normalised least mean squares.

    With more than one sample this is the released rule, the mean of outer products over the mean of normalisers.
    """
    gradients = []
    for w, error, source in zip(weights, seen.errors, seen.predictions.source, strict=True):
        size = normaliser(w, source).mean(-2, keepdim=True) + epsilon
        gradients.append(network.weight_gradient(error / (-size * error.shape[-2]), source, w))
    return tuple(gradients)


def _check(name: str, value: float, *, may_be_zero: bool = False) -> None:
    if not (value >= 0 if may_be_zero else value > 0):
        raise NlsimError(
            f"The {name} of an update is out of range.", where=f"update, {name}", given=value, allowed="> 0"
        )


@dataclass(frozen=True)
class LeastMeanSquares:
    """W_l ← W_l − η ∂F/∂W_l = W_l + η mean(γ_l e_l ã_{l−1}ᵀ), the rule of IL-SGD.

    Parameters
    ----------
    rate : float or Tensor
        η > 0; a tensor with the ensemble axes is given two axes of size 1 at its end first.
    """

    rate: Constant

    def moments(self, weights: Layers) -> Layers:
        """Return nothing."""
        return ()

    def apply(self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling) -> tuple[Layers, Layers]:
        """Return the new weights."""
        own = tuple(w.clone() for w in weights)
        for w, gamma, error, source in zip(own, seen.precisions, seen.errors, seen.predictions.source, strict=True):
            weighted = error if isinstance(gamma, float) else error * gamma
            factor = gamma if isinstance(gamma, float) else 1.0
            network.accumulate_gradient_(w, weighted, source, keep=1.0, add=self.rate * factor / error.shape[-2])
        return own, moments


@dataclass(frozen=True)
class NormalisedLeastMeanSquares:
    """W_l ← W_l + μ mean(e_l ã_{l−1}ᵀ)/(mean(n_l) + ε), the rule of IL-prox.

    With one sample, μ = 1 and ε = 0 the new network's forward pass gives ĥ on that sample, whatever ĥ is. With
    several it does not; see :mod:`nlsim.systems.inference.batch`.

    Parameters
    ----------
    rate : float
        μ > 0. The size α of an implicit step belongs to the precisions, not here.
    epsilon : float
        ε ≥ 0.
    """

    rate: float = 1.0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        _check("rate", self.rate)
        _check("epsilon", self.epsilon, may_be_zero=True)

    def moments(self, weights: Layers) -> Layers:
        """Return nothing."""
        return ()

    def apply(self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling) -> tuple[Layers, Layers]:
        """Return the new weights."""
        own = tuple(w.clone() for w in weights)
        for w, error, source in zip(own, seen.errors, seen.predictions.source, strict=True):
            size = normaliser(w, source).mean(-2, keepdim=True) + self.epsilon
            network.accumulate_gradient_(w, error / size, source, keep=1.0, add=self.rate / error.shape[-2])
        return own, moments


@dataclass(frozen=True)
class Adam:
    """Adam along ∂F/∂W_l, or along the normalised direction: the rules of IL-Adam and IL-prox-Adam.

    Parameters
    ----------
    rate : float
        Learning rate, > 0.
    beta1, beta2, epsilon
        Adam's own, in [0, 1) and > 0.
    is_normalised : bool
        Whether the direction is that of normalised least mean squares.
    normaliser_epsilon : float
        ε ≥ 0 of the normaliser.
    """

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    is_normalised: bool = False
    normaliser_epsilon: float = 0.0

    def __post_init__(self) -> None:
        _check("rate", self.rate)

    def moments(self, weights: Layers) -> Layers:
        """Return first moments, second moments and the count of steps, all 0."""
        zeros = tuple(torch.zeros_like(w) for w in weights)
        count = torch.zeros((), dtype=torch.float32, device=weights[0].device)
        return (*zeros, *(z.clone() for z in zeros), count)

    def apply(self, network: LayeredNetwork, weights: Layers, moments: Layers, seen: Settling) -> tuple[Layers, Layers]:
        """Return the new weights and moments."""
        if self.is_normalised:
            gradients = normalised_gradient(network, weights, seen, self.normaliser_epsilon)
        else:
            gradients = energy_gradient(network, weights, seen)
        return self.step(weights, gradients, moments)

    def step(self, weights: Layers, gradients: Layers, moments: Layers) -> tuple[Layers, Layers]:
        """Return the weights and moments after one step of torch's Adam along given gradients."""
        depth = len(weights)
        own, memory = [w.clone() for w in weights], [m.clone() for m in moments]
        first, second, count = memory[:depth], memory[depth : 2 * depth], memory[-1]
        adam(
            own, list(gradients), first, second, [], [count for _ in own[:1]] + [count.clone() for _ in own[1:]],
            foreach=False, amsgrad=False, beta1=self.beta1, beta2=self.beta2, lr=self.rate, weight_decay=0.0,
            eps=self.epsilon, maximize=False,
        )  # fmt: skip
        return tuple(own), (*first, *second, count)


def forward_directions(gradients: Layers, sources: tuple[Tensor, ...], epsilon: float) -> Layers:
    """Return gradients divided by mean ‖ã‖² + ε of what feeds each layer: the BP-prox baseline's directions."""
    scaled = []
    for gradient, source in zip(gradients, sources, strict=True):
        scaled.append(gradient / (normaliser(gradient, source).mean(-2, keepdim=True) + epsilon))
    return tuple(scaled)
