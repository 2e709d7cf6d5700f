"""The pre-activation of neurons some of whose inputs are missing, as pure functions.

A neuron has p inputs and a mask m, 1 where an input is observed. A missing input is replaced by a *neutralizer*
u_j = −b/(p w_j), which takes its own share b/p of the bias away and adds nothing else. Summed up,

    a = Σ_j m_j w_j x_j + μ(m) b,    μ(m) = Σ_j m_j / p,

so no neutralizer is ever formed and no weight is divided by. With a compensatory weight w_c (mPROMISSING)
a = Σ_j m_j w_j x_j + μ b + (1 − μ) w_c. Shares π_j ≥ 0 with Σ π_j = 1 replace 1/p where inputs are not alike.

Slots of missing inputs may hold anything, NaN and infinities included: they are selected away before any product.

References
----------
Kia et al., *PROMISSING: Pruning Missing Values in Neural Networks*, 2022, arXiv:2206.01640.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gate(values: Tensor, mask: Tensor) -> Tensor:
    """Return m ⊙ x where what a missing slot holds is without effect on value and gradient.

    Parameters
    ----------
    values : Tensor
        x, shape ``(..., input)``; missing slots may hold anything.
    mask : Tensor
        m of a shape that broadcasts to it: boolean, integer, or floating in [0, 1] for soft masks.
    """
    seen = torch.where(mask > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return seen if mask.dtype == torch.bool else seen * mask.to(values.dtype)


def observed_fraction(mask: Tensor, dtype: torch.dtype, shares: Tensor | None = None) -> Tensor:
    """Return μ(m) = Σ_j π_j m_j, shape ``(..., 1)``; π_j = 1/p without shares.

    The mask is cast to ``dtype`` before it is averaged, so a boolean and a floating mask give the same bits.
    """
    cast = mask.to(dtype)
    return cast.mean(-1, keepdim=True) if shares is None else (cast * shares).sum(-1, keepdim=True)


def masked_affine(
    values: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    compensation: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """Return W(m ⊙ x) + μ(m) b + (1 − μ(m)) w_c.

    Parameters
    ----------
    values : Tensor
        x, shape ``(..., sample, input)``.
    mask : Tensor
        m, of the same shape or one that broadcasts to it.
    weight : Tensor
        W, shape ``(..., neuron, input)``.
    bias : Tensor or None
        b, shape ``(..., neuron)``.
    compensation : Tensor or None
        w_c, shape ``(..., neuron)``.
    shares : Tensor or None
        π, shape ``(input,)``, non-negative with sum 1; 1/p each by default.

    Returns
    -------
    Tensor
        a, shape ``(..., sample, neuron)``. Cost: one matrix product.
    """
    gated = gate(values, mask)
    if bias is None and compensation is None:
        return gated @ weight.mT
    fraction = observed_fraction(mask.expand(gated.shape), gated.dtype, shares)
    level: Tensor | None = None if bias is None else fraction * bias.unsqueeze(-2)
    if compensation is not None:
        unknown = (1.0 - fraction) * compensation.unsqueeze(-2)
        level = unknown if level is None else level + unknown
    assert level is not None
    if gated.ndim == 2 and weight.ndim == 2:
        # the same call as a dense layer makes, so a complete input gives its very bits
        return torch.addmm(level, gated, weight.mT)
    return gated @ weight.mT + level
