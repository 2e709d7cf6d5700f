"""Implicit steps of one layer in closed form or up to one root: linear, generalised linear, cross-entropy.

With sources ã (the constant 1 of a bias included), n = ‖ã‖² and the learning rate α:

    squared error, B samples, summed:  W' = W + α Rᵀ (I + α A Aᵀ)⁻¹ A,   rows R = Y − A Wᵀ
    one output y with mean g(η):       Δw = ξ ã,   ξ = α (y − g(η + ξ n))
    cross-entropy:                     ĥ = p + α n (y − softmax ĥ),   ΔW = (ĥ − p) ãᵀ/n

Every function accepts leading ensemble axes and runs a fixed number of operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nlsim.systems.activation import Activation
from nlsim.systems.network import Constant

HALVINGS = 60
"""Rounds of bisection, each with a Newton step: 2⁻⁶⁰ of the bracket is below the unit round-off of float64."""

ROUNDS = 60
"""Newton steps towards the cross-entropy target; from any start fewer than 20 were seen to be needed."""


def linear_step(weight: Tensor, source: Tensor, target: Tensor, rate: float) -> Tensor:
    """Return the implicit step of a linear model under ½ Σ_samples ‖y − W ã‖².

    Parameters
    ----------
    weight : Tensor
        W, shape ``(..., out, in)``; the bias, if any, is its last column.
    source : Tensor
        ã of each sample, shape ``(..., sample, in)``; with a bias its last entry is 1.
    target : Tensor
        y, shape ``(..., sample, out)``.
    rate : float
        α > 0.

    Returns
    -------
    Tensor
        W', shape of ``weight``. For one sample W + α/(1 + αn) (y − W ã) ãᵀ.

    Notes
    -----
    Cost: cubic in the number of samples.

    References
    ----------
    Toulis and Airoldi, *Asymptotic and finite-sample properties of estimators based on stochastic gradients*,
    Annals of Statistics 45(4), 2017; for one sample, the normalised least mean squares filter.
    """
    residual = target - source @ weight.mT
    gram = source @ source.mT
    one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    moved: Tensor = rate * residual.mT @ torch.linalg.solve(one + rate * gram, source)
    return weight + moved


def generalised_linear_root(
    drive: Tensor, normaliser: Tensor, target: Tensor, rate: Constant, mean: Activation
) -> Tensor:
    """Return ξ = α (y − g(η + ξ n)), the implicit step Δw = ξ ã of a generalised linear model.

    Parameters
    ----------
    drive, normaliser, target : Tensor
        η = w·ã, n = ‖ã‖² ≥ 0 and y, of shapes that broadcast.
    rate : float or Tensor
        α > 0.
    mean : Activation
        g, the inverse of the link: increasing, with its slope.

    Returns
    -------
    Tensor
        ξ, to round-off; between 0 and α (y − g(η)), the explicit step.

    Notes
    -----
    The root is unique, as ξ − α (y − g(η + ξn)) increases with slope at least 1. Newton's step and bisection in turn,
    always inside the bracket. Cost: 120 evaluations of g.

    References
    ----------
    Toulis and Airoldi (2017), on implicit updates of generalised linear models.
    """
    explicit = rate * (target - mean.value(drive)) + 0 * normaliser
    low, high = explicit.clamp_max(0.0), explicit.clamp_min(0.0)
    root = 0.5 * (low + high)
    for _ in range(HALVINGS):
        root, low, high = _halve(0.5 * (low + high), low, high, drive, normaliser, target, rate, mean)
        root, low, high = _halve(root, low, high, drive, normaliser, target, rate, mean)
    return root


def _halve(
    at: Tensor,
    low: Tensor,
    high: Tensor,
    drive: Tensor,
    normaliser: Tensor,
    target: Tensor,
    rate: Constant,
    mean: Activation,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Newton's step from a point, kept in the bracket that the point narrows."""
    shifted = drive + at * normaliser
    value = mean.value(shifted)
    gap = at - rate * (target - value)
    low, high = torch.where(gap <= 0, at, low), torch.where(gap >= 0, at, high)
    newton = at - gap / (1 + rate * normaliser * mean.slope(shifted, value))
    return newton.clamp(low, high), low, high


def cross_entropy_target(prediction: Tensor, pull: Constant, target: Tensor) -> Tensor:
    """Return ĥ = p + αn (z − s softmax ĥ), s = Σ z: what a cross-entropy output settles at, exactly.

    Parameters
    ----------
    prediction : Tensor
        p, shape ``(..., class)``.
    pull : float or Tensor
        αn > 0, a number or of shape ``(..., 1)``.
    target : Tensor
        z ≥ 0, shape ``(..., class)``; a distribution or one-hot when s = 1.

    Returns
    -------
    Tensor
        ĥ, shape of the prediction, with a residual of round-off.

    Notes
    -----
    ĥ minimises the strongly convex ‖ĥ − p‖²/(2αn) + ℓ(z, ĥ), so it is unique. Newton's method in the classes, each
    member taking the best of the lengths 1, ½ … 2⁻⁹; Newton's direction always lowers the norm of the residual.
    Cost: 60 systems of the size of the classes.
    """
    sum_of_target = target.sum(-1, keepdim=True)
    one = torch.eye(target.shape[-1], dtype=prediction.dtype, device=prediction.device)
    pull = torch.as_tensor(pull, dtype=prediction.dtype, device=prediction.device)
    lengths = 0.5 ** torch.arange(10, dtype=prediction.dtype, device=prediction.device)
    lengths = lengths.reshape(-1, *(1 for _ in prediction.shape))

    def residual(h: Tensor) -> Tensor:
        return h - prediction - pull * (target - sum_of_target * torch.softmax(h, -1))

    h = prediction + 0 * pull
    for _ in range(ROUNDS):
        q = torch.softmax(h, -1)
        jacobian = one + (pull * sum_of_target).unsqueeze(-1) * (
            torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)
        )
        step = torch.linalg.solve(jacobian, residual(h).unsqueeze(-1)).squeeze(-1)
        trials = torch.cat((h.unsqueeze(0), h - lengths * step))
        best = residual(trials).square().sum(-1).argmin(0, keepdim=True).unsqueeze(-1)
        h = trials.gather(0, best.expand(1, *h.shape)).squeeze(0)
    return h
