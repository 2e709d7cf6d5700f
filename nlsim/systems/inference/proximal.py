"""Implicit SGD, the proximal step of the weights: the problem, its two energies and its certificate.

    θ' = argmin J(θ'),   J(θ') = L(θ') + Σ_l ‖W'_l − W_l‖²/(2α_l),   so   W'_l = W_l − α_l ∂L/∂W_l (θ').

For one sample the weights can be eliminated: among all weights that give the activities ĥ the closest are those of
:func:`~nlsim.systems.inference.energy.nlms`, at the cost

    G(ĥ) = ℓ(y, ĥ_L) + Σ_l ‖e_l‖²/(2α_l (n_l + ε)),   e_l = ĥ_l − W_l ã_{l−1},   n_l = ‖ã_{l−1}‖²,

and min J = min G at ε = 0. With ε > 0 the minimiser of G, with the step e ãᵀ/(n + ε), is that of the quadratic
penalty ℓ + Σ ‖ĥ − W'ã‖²/(2αε) + Σ ‖W' − W‖²/(2α). Solvers are in :mod:`nlsim.systems.inference.implicit_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers, feedforward, normalisers, predict
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork


@dataclass(frozen=True)
class ProximalProblem:
    """A network, its loss and the learning rates of an implicit step.

    Parameters
    ----------
    network : LayeredNetwork
        The network; its output is linear, so the activation of its last layer is not looked at.
    loss : Loss
        ℓ; a softmax is part of it.
    rate : float or tuple of float
        α > 0, one number or one a layer.
    penalty : float
        ε ≥ 0, added to every normaliser.

    Raises
    ------
    NlsimError
        For a rate that is not positive, a wrong number of rates, or ε < 0.
    """

    network: LayeredNetwork
    loss: Loss
    rate: float | tuple[float, ...]
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if len(self.rates) != self.network.depth or not all(alpha > 0 for alpha in self.rates):
            raise NlsimError(
                "An implicit step needs positive learning rates.",
                where="rate",
                given=self.rate,
                allowed=f"one number > 0, or {self.network.depth} of them",
                advice="Give one rate for all layers, or one a layer.",
            )
        if not self.penalty >= 0:
            raise NlsimError(
                "The constant in the normaliser cannot be negative.",
                where="penalty",
                given=self.penalty,
                allowed="≥ 0",
                advice="Use 0 for the implicit step itself.",
            )

    @property
    def rates(self) -> tuple[float, ...]:
        """Return α_1 … α_L."""
        return self.rate if isinstance(self.rate, tuple) else (self.rate,) * self.network.depth

    def objective(self, weights: Layers, new: Layers, given: Tensor, target: Tensor) -> Tensor:
        """Return J(θ'), the loss averaged over the samples; shape: the ensemble axes.

        Cost: one matrix product a layer.
        """
        output = feedforward(self.network, new, given)[-1]
        total = self.loss.value(output, target).mean(-1)
        for alpha, w, other in zip(self.rates, weights, new, strict=True):
            total = total + (other - w).square().sum((-2, -1)) / (2 * alpha)
        return total

    def energy(self, weights: Layers, given: Tensor, target: Tensor, activity: Layers) -> Tensor:
        """Return G(ĥ) of each sample on its own, shape ``(..., sample)``.

        Cost: one matrix product a layer.
        """
        made = predict(self.network, weights, given, activity[:-1])
        total = self.loss.value(activity[-1], target)
        terms = zip(self.rates, made.errors(activity), normalisers(weights, made), strict=True)
        for alpha, e, n in terms:
            total = total + (e.square() / (2 * alpha * (n + self.penalty))).sum(-1)
        return total

    def update(self, weights: Layers, given: Tensor, activity: Layers) -> Layers:
        """Return W_l + e_l ã_{l−1}ᵀ/(n_l + ε) of one sample, shape of the weights. Cost: a rank-one product a layer.

        At ε = 0 the forward pass of these weights is ĥ, whether or not ĥ minimises anything.
        """
        made = predict(self.network, weights, given, activity[:-1])
        parts = zip(weights, made.source, made.errors(activity), normalisers(weights, made), strict=True)
        return tuple(w + self.network.weight_gradient(e / (n + self.penalty), a, w) for w, a, e, n in parts)

    def gradient(self, weights: Layers, given: Tensor, target: Tensor) -> Layers:
        """Return ∂L/∂W_l of the mean loss, by back-propagation in closed form.

        Cost: three matrix products a layer.
        """
        activity = feedforward(self.network, weights, given)
        made = predict(self.network, weights, given, activity[:-1])
        delta = self.loss.gradient(activity[-1], target) / given.shape[-2]
        gradients: list[Tensor] = []
        for layer in reversed(range(self.network.depth)):
            gradients.append(self.network.weight_gradient(delta, made.source[layer], weights[layer]))
            if layer:
                slope = self.network.activations[layer - 1].slope(activity[layer - 1], made.source[layer])
                delta = slope * self.network.pull_back(weights[layer], delta)
        return tuple(reversed(gradients))

    def penalised(self, weights: Layers, new: Layers, given: Tensor, target: Tensor, activity: Layers) -> Tensor:
        """Return ℓ + Σ ‖ĥ_l − W'_l ã_{l−1}‖²/(2α_l ε) + Σ ‖W'_l − W_l‖²/(2α_l), shape ``(..., sample)``; ε > 0."""
        made = predict(self.network, new, given, activity[:-1])
        total = self.loss.value(activity[-1], target)
        for alpha, e, w, other in zip(self.rates, made.errors(activity), weights, new, strict=True):
            near = (other - w).square().sum((-2, -1)).unsqueeze(-1)
            total = total + (e.square().sum(-1) / self.penalty + near) / (2 * alpha)
        return total


def certificate(problem: ProximalProblem, weights: Layers, new: Layers, given: Tensor, target: Tensor) -> Tensor:
    """Return ‖θ' − θ + α ∇L(θ')‖/‖θ' − θ‖: how far a step is from being an implicit one; shape: the ensemble axes.

    It is 0 at every stationary point of J, and so tells an implicit step whichever minimum it belongs to, where the
    distance to one particular minimum does not. 0 when nothing moves and nothing should.

    Parameters
    ----------
    problem : ProximalProblem
        Network, loss and rates α_l; ε is not looked at.
    weights, new : tuple of Tensor
        θ and θ', shapes ``(..., neurons, sources + bias)``.
    given, target : Tensor
        Shapes ``(..., sample, input)`` and ``(..., sample, output)``; the loss is averaged over samples.

    Notes
    -----
    Cost: one forward and one backward pass. Round-off limits it to about α ε ‖∂²L‖ in arithmetic of unit ε.

    References
    ----------
    Toulis and Airoldi, *Asymptotic and finite-sample properties of estimators based on stochastic gradients*,
    Annals of Statistics 45(4), 2017.
    """
    slopes = problem.gradient(new, given, target)
    missed, moved = [], []
    for alpha, w, other, slope in zip(problem.rates, weights, new, slopes, strict=True):
        missed.append((other - w + alpha * slope).square().sum((-2, -1)))
        moved.append((other - w).square().sum((-2, -1)))
    miss, move = sum(missed).sqrt(), sum(moved).sqrt()  # type: ignore[union-attr]
    return torch.where(miss == 0, torch.zeros_like(miss), miss / move)
