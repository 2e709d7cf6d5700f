"""Ways to let a network have missing inputs, behind one interface, so that they can be compared.

A :class:`FirstLayerRule` is a *preparation*, which is fitted to training inputs and turns (x, m) into features, and a
first *layer*, which turns (features, m) into pre-activations. Everything above the first layer is ordinary and the
same for all. With s = Σ_j m_j w_j x_j and k of p inputs observed the pre-activations are

============  ==================================  =====================
rule          pre-activation                      all missing
============  ==================================  =====================
promissing    s + (k/p) b                         0
mpromissing   s + (k/p) b + (1 − k/p) w_c         w_c
zero, mean    s + b                               b
knn           w·x̂ + b, x̂ by neighbours            b
iterative     w·x̂ + b, x̂ by regression            b
indicator     s + b + Σ_j m_j γ_j                 b
sparsity      (p/k) s + b                         b (0 is put for 0/0)
neumiss       w·h + b, h after some iterations    b
============  ==================================  =====================

Features are standardised with mean and deviation of the *observed* entries of the training inputs, so 0 means "the
average": without it, a neutral unit says nothing of interest, and zero imputation is not mean imputation.

References
----------
Kia et al. 2022, arXiv:2206.01640 (neutralizers); Yi et al., ICLR 2020 (sparsity normalisation); Le Morvan et al.,
NeurIPS 2020 and 2021 (NeuMiss); Jäger et al. 2021 (imputation as a benchmark).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from nlsim.systems.masked.imputation import Imputed, Preparation, Standardised
from nlsim.systems.masked.layer import as_number, gate, observed_fraction
from nlsim.systems.masked.module import MaskedLinear


@final
class GatedLinear(torch.nn.Module):
    """a = W(m ⊙ x) + b: zero imputation.

    Parameters
    ----------
    in_features, out_features : int
        p and the number of neurons.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(in_features, out_features)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return a, shape ``(..., out_features)``, of x and m, shape ``(..., in_features)``."""
        answer: Tensor = self.dense(gate(values, mask))
        return answer


@final
class SparsityNormalisedLinear(torch.nn.Module):
    """a = (p/k) W(m ⊙ x) + b: what is seen is scaled up by what is not; b where nothing is.

    Parameters
    ----------
    in_features, out_features : int
        p and the number of neurons.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(in_features, out_features)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return a, shape ``(..., out_features)``, of x and m, shape ``(..., in_features)``."""
        least = 1.0 / values.shape[-1]  # k = 0 counts as 1: its numerator is 0
        fraction = observed_fraction(mask, values.dtype).clamp(min=least)
        answer: Tensor = self.dense(gate(values, mask) / fraction)
        return answer


@final
class IndicatorLinear(torch.nn.Module):
    """a = W(m ⊙ x) + Γ m + b: the mask is an input too, with 2p weights a neuron.

    Up to the name of the constant it is Σ_j (1 − m_j) γ_j, and contains PROMISSING as γ_j = b/p and b = 0.

    Parameters
    ----------
    in_features, out_features : int
        p and the number of neurons.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(2 * in_features, out_features)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return a, shape ``(..., out_features)``, of x and m, shape ``(..., in_features)``."""
        seen = gate(values, mask)
        answer: Tensor = self.dense(torch.cat((seen, as_number(mask, values.dtype).expand(seen.shape)), -1))
        return answer


@final
class NeuMissLinear(torch.nn.Module):
    """a = W h + b with h ← m ⊙ (S h) + m ⊙ (x − x̄), some iterations of one shared S (the block of 2021).

    S and x̄ are trained. See :class:`~nlsim.systems.masked.neumiss.NeuMissFlow` for the flow behind the iteration.

    Parameters
    ----------
    in_features, out_features : int
        p and the number of neurons.
    iterations : int
        How many, from 0, where h = m ⊙ (x − x̄).
    """

    def __init__(self, in_features: int, out_features: int, iterations: int = 5) -> None:
        super().__init__()
        self.iterations = iterations
        self.mean = torch.nn.Parameter(torch.randn(in_features))
        self.coupling = torch.nn.Parameter(torch.empty(in_features, in_features))
        torch.nn.init.xavier_uniform_(self.coupling, gain=0.5)
        self.dense = torch.nn.Linear(in_features, out_features)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return a, shape ``(..., out_features)``, of x and m, shape ``(..., in_features)``.

        Cost: a product with S an iteration.
        """
        start = gate(values - self.mean, mask)
        state = start
        for _ in range(self.iterations):
            state = gate(state @ self.coupling.mT, mask) + start
        answer: Tensor = self.dense(state)
        return answer


Layer = Callable[[int, int], torch.nn.Module]
"""``layer(in_features, out_features)`` is a module with ``forward(features, mask) -> pre-activation``."""


@dataclass(frozen=True)
class FirstLayerRule:
    """One way to let a network have missing inputs.

    Attributes
    ----------
    name, summary : str
        For tables.
    prepare : callable
        ``prepare(inputs, mask) -> Preparation``, fitted to training inputs as numpy arrays of shape
        ``(sample, input)``. Calling the result with (inputs, mask) gives features of the same shape without NaN.
    layer : callable
        ``layer(in_features, out_features)`` is the first layer, drawn from torch's generator.
    """

    name: str
    summary: str
    prepare: Callable[..., Preparation]
    layer: Layer


def compensated(in_features: int, out_features: int) -> torch.nn.Module:
    """Return the layer of mPROMISSING."""
    return MaskedLinear(in_features, out_features, is_compensated=True)


RULES: dict[str, FirstLayerRule] = {
    each.name: each
    for each in (
        FirstLayerRule("promissing", "missing inputs take their share of the bias", Standardised.fit, MaskedLinear),
        FirstLayerRule("mpromissing", "… and put a share of a trained constant", Standardised.fit, compensated),
        FirstLayerRule("zero", "0 in standard units", Standardised.fit, GatedLinear),
        FirstLayerRule("mean", "mean of what training observed", Imputed.fit_mean, GatedLinear),
        FirstLayerRule("knn", "mean of the five nearest neighbours", Imputed.fit_neighbours, GatedLinear),
        FirstLayerRule("iterative", "ridge regression on the others, in turns", Imputed.fit_iterative, GatedLinear),
        FirstLayerRule("indicator", "the mask as further inputs", Standardised.fit, IndicatorLinear),
        FirstLayerRule("sparsity", "scaled up by p/k", Standardised.fit, SparsityNormalisedLinear),
        FirstLayerRule("neumiss", "five masked iterations of a trained matrix", Standardised.fit, NeuMissLinear),
    )
}
"""The rules by name: the only list of them."""
