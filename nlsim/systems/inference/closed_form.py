"""Implicit steps of one layer in closed form or up to one root: linear, generalised linear, cross-entropy.

With sources ã (the constant 1 of a bias included), n = ‖ã‖² and the learning rate α:

    squared error, B samples, summed:  W' = W + α Rᵀ (I + α A Aᵀ)⁻¹ A,   rows R = Y − A Wᵀ
    one output y with mean g(η):       Δw = ξ ã,   ξ = α (y − g(η + ξ n))
    cross-entropy:                     ĥ = p + α n (y − softmax ĥ),   ΔW = (ĥ − p) ãᵀ/n

Every function accepts leading ensemble axes and runs a fixed number of operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlsim.systems.activation import Activation
from nlsim.systems.network import Constant

HALVINGS = 60
"""Rounds of bisection, each with a Newton step: 2⁻⁶⁰ of the bracket is below the unit round-off of float64."""

OMEGA_STEPS = 8
"""Newton steps of Wright's omega function; the error squares each time from at most log d."""

POLISH_STEPS = 5
"""Newton steps that remove the rounding of the cross-entropy target."""


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
        z ≥ 0 with s > 0, shape ``(..., class)``; a distribution or one-hot when s = 1.

    Returns
    -------
    Tensor
        ĥ, shape of the prediction, with a residual of round-off.

    Notes
    -----
    ĥ minimises the strongly convex ‖ĥ − p‖²/(2αn) + ℓ(z, ĥ), so it is unique. With b = p + αn z, c = αn s and
    u = log softmax ĥ, all classes satisfy u_i + c e^{u_i} = b_i − log Σ e^{ĥ}, so the largest u, which lies between
    −log K and 0, determines the others (by Wright's omega function) and is found by bisection; Newton's method in the
    classes removes the rounding. Newton's method alone gets stuck where the softmax is saturated.
    Cost: about a thousand operations on the classes and 5 systems of their size.
    """
    sum_of_target = target.sum(-1, keepdim=True)
    pull = torch.as_tensor(pull, dtype=prediction.dtype, device=prediction.device)
    crowd, drive = pull * sum_of_target, prediction + pull * target
    behind = drive.amax(-1, keepdim=True) - drive
    high = torch.zeros_like(behind[..., :1])
    low = high - math.log(target.shape[-1])
    for _ in range(HALVINGS):
        largest = 0.5 * (low + high)
        logarithm = _log_share(largest + crowd * largest.exp() - behind, crowd)
        is_above = torch.logsumexp(logarithm, -1, keepdim=True) > 0
        low, high = torch.where(is_above, low, largest), torch.where(is_above, largest, high)
    return _polish(drive - crowd * logarithm.exp(), prediction, pull, target)


def _log_share(sums: Tensor, crowd: Tensor) -> Tensor:
    """Return u with u + c e^u = d: log ω(d + log c) − log c, ω being Wright's omega function."""
    shifted = sums + crowd.log()
    # from the right of the root of the convex e^v + v Newton's method falls towards it
    v = torch.where(shifted < 1, shifted, shifted.clamp_min(1.0).log())
    for _ in range(OMEGA_STEPS):
        raised = v.exp()
        v = v - (raised + v - shifted) / (raised + 1)
    return v - crowd.log()


def _polish(h: Tensor, prediction: Tensor, pull: Tensor, target: Tensor) -> Tensor:
    """Take some Newton steps on the cross-entropy target; a member keeps what it has unless its residual falls."""
    sum_of_target = target.sum(-1, keepdim=True)
    one = torch.eye(target.shape[-1], dtype=h.dtype, device=h.device)

    def residual(at: Tensor) -> Tensor:
        return at - prediction - pull * (target - sum_of_target * torch.softmax(at, -1))

    for _ in range(POLISH_STEPS):
        q, before = torch.softmax(h, -1), residual(h)
        jacobian = one + (pull * sum_of_target).unsqueeze(-1) * (
            torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)
        )
        trial = h - torch.linalg.solve(jacobian, before.unsqueeze(-1)).squeeze(-1)
        is_better = residual(trial).norm(dim=-1, keepdim=True) < before.norm(dim=-1, keepdim=True)
        h = torch.where(is_better, trial, h)
    return h
