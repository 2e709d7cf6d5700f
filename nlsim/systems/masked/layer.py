"""The pre-activation of neurons some of whose inputs are missing, as pure functions.

A neuron has p inputs and a mask m, 1 where an input is observed. A missing input is replaced by a *neutralizer*
u_j = −b/(p w_j), which takes its own share b/p of the bias away and adds nothing else. Summed up,

    a = Σ_j m_j w_j x_j + μ(m) b,    μ(m) = Σ_j m_j / p,

so no neutralizer is ever formed and no weight is divided by. With a compensatory weight w_c (mPROMISSING)
a = Σ_j m_j w_j x_j + μ b + (1 − μ) w_c. Shares π_j ≥ 0 with Σ π_j = 1 replace 1/p where inputs are not alike.

Slots of missing inputs may hold anything, NaN and infinities included: they are selected away before any product.
Selection and count are done in floating point, where one pass over the inputs is several times cheaper than a pass
over booleans; ``tools/bench/masked.py`` measures what a layer costs in units of the dense one.

References
----------
Kia et al., *PROMISSING: Pruning Missing Values in Neural Networks*, 2022, arXiv:2206.01640.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def observed(values: Tensor) -> Tensor:
    """Return the mask of what is not NaN: 1 and 0 in the dtype of the values; infinities are observed.

    Parameters
    ----------
    values : Tensor
        x of any shape, with NaN in the slots of missing inputs.
    """
    at_hand = values.detach() if values.requires_grad else values
    if is_transformed():
        return (at_hand == at_hand).to(at_hand.dtype)
    return torch.eq(at_hand, at_hand, out=torch.empty_like(at_hand))  # the answer takes the dtype of its memory


def is_transformed() -> bool:
    """Whether a transform is at work that knows no results written into given memory.

    Those of ``torch.func``, forward-mode differentiation, and autocast, which chooses the dtype of a result itself.
    """
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )


def as_number(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask in floating point: the same numbers from boolean, integer and floating masks."""
    if mask.dtype == dtype:
        return mask
    return (mask.view(torch.uint8) if mask.dtype == torch.bool else mask).to(dtype)  # a cast from bool is slow


def counting_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return a dtype in which counts of inputs are exact: that of the values, float32 for those of 16 bits or fewer."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def select(values: Tensor, number: Tensor) -> Tensor:
    """Return x where m > 0 and 0 elsewhere, in one vectorised pass.

    Parameters
    ----------
    values : Tensor
        x, shape ``(..., input)``.
    number : Tensor
        m as :func:`as_number` returns it, of a shape that broadcasts with it. No derivative is taken by it.
    """
    if number.shape != values.shape:
        shape = torch.broadcast_shapes(values.shape, number.shape)  # type: ignore[no-untyped-call]
        values, number = values.expand(shape), number.expand(shape)
    number = number.detach() if number.requires_grad else number
    # ReLU's derivative selects by the sign of its second argument; torch.where on a boolean costs 15 times as much
    seen: Tensor = torch.ops.aten.threshold_backward(values, number, 0.0)
    return seen


def select_into(values: Tensor, number: Tensor) -> Tensor:
    """Return :func:`select` in the memory of ``number``, which is lost, where derivatives do not forbid it.

    For callers who own ``number``: one copy of the inputs less to keep in the cache beside the weights.
    """
    if number.shape != values.shape or values.requires_grad or number.requires_grad or is_transformed():
        return select(values, number)
    seen: Tensor = torch.ops.aten.threshold_backward.grad_input(values, number, 0.0, grad_input=number)
    return seen


def gate(values: Tensor, mask: Tensor) -> Tensor:
    """Return m ⊙ x where what a missing slot holds is without effect on value and gradient.

    Parameters
    ----------
    values : Tensor
        x, shape ``(..., input)``; missing slots may hold anything.
    mask : Tensor
        m of a shape that broadcasts with it: boolean, integer (0 and 1), or floating in [0, 1] for soft masks.
        The derivative by a soft m_j is x_j where m_j > 0; at m_j = 0 the slot is unknown and it is 0.
    """
    number = as_number(mask, values.dtype)
    seen = select(values, number)
    return seen * number if mask.is_floating_point() else seen


def observed_fraction(mask: Tensor, dtype: torch.dtype, shares: Tensor | None = None) -> Tensor:
    """Return μ(m) = Σ_j π_j m_j / Σ_j π_j, shape ``(..., 1)``; π_j = 1/p without shares.

    The mask is cast to ``dtype`` before it is summed, so a boolean and a floating mask give the same bits. Nothing
    missing gives exactly 1 and nothing observed exactly 0, whatever the rounding of the shares.
    """
    number = as_number(mask, dtype)
    if number.ndim == 0:
        return number.unsqueeze(-1)  # one number for all inputs
    if shares is None:
        # the sum is a whole number, so p/p = 1; a mean may multiply by a rounded 1/p instead
        count = number.sum(-1, keepdim=True, dtype=counting_dtype(dtype)).div_(number.shape[-1])
        return count if count.dtype == dtype else count.to(dtype)
    carried = number * shares
    seen, lost = carried.sum(-1, keepdim=True), (shares - carried).sum(-1, keepdim=True)
    return seen / (seen + lost)


def gate_and_count(values: Tensor, mask: Tensor | None, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return :func:`gate` and :func:`observed_fraction`; without a mask, what is NaN is missing."""
    number = observed(values) if mask is None else as_number(mask, values.dtype)
    fraction = observed_fraction(number, values.dtype, shares)
    if mask is not None and mask.is_floating_point():
        return select(values, number) * number, fraction
    return select_into(values, number), fraction  # the number is a copy of ours


def bias_level(fraction: Tensor, bias: Tensor | None, compensation: Tensor | None) -> Tensor:
    """Return μ b + (1 − μ) w_c without the term that is None; the arguments broadcast as they are."""
    level = torch.zeros_like(fraction) if bias is None else fraction * bias
    return level if compensation is None else torch.addcmul(level, 1.0 - fraction, compensation)


def affine(
    gated: Tensor, fraction: Tensor, weight: Tensor, bias: Tensor | None = None, compensation: Tensor | None = None
) -> Tensor:
    """Return W g + μ b + (1 − μ) w_c from inputs already gated and the fraction already counted.

    Parameters
    ----------
    gated : Tensor
        g = m ⊙ x, shape ``(..., sample, input)``; with a weight of two axes also ``(input,)``.
    fraction : Tensor
        μ, shape ``(..., sample, 1)`` or one that broadcasts to it.
    weight, bias, compensation : Tensor
        As for :func:`masked_affine`.
    """
    if bias is None and compensation is None:
        return gated @ weight.mT
    if weight.ndim > 2:
        has = [each if each is None else each.unsqueeze(-2) for each in (bias, compensation)]
        level = bias_level(fraction, *has)
        return gated @ weight.mT + level
    level = bias_level(fraction, bias, compensation)
    if gated.ndim == 2:
        if level.shape == (gated.shape[0], weight.shape[0]) and not is_transformed():
            return level.addmm_(gated, weight.mT)
        return torch.addmm(level, gated, weight.mT)
    shape = (*gated.shape[:-1], weight.shape[0])
    flat = torch.addmm(level.expand(shape).reshape(-1, shape[-1]), gated.reshape(-1, gated.shape[-1]), weight.mT)
    return flat.reshape(shape)


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
        x, shape ``(..., sample, input)``; with a weight of two axes also ``(input,)``.
    mask : Tensor
        m, of the same shape or one that broadcasts with it. A last axis of length 1 speaks for all inputs.
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
        a, shape ``(..., sample, neuron)``. With a weight of two axes a complete input gives the bits of
        ``torch.nn.functional.linear``, in value and gradients: the same product is called on the same numbers.
        Cost: one matrix product and three passes over the inputs.
    """
    gated, fraction = gate_and_count(values, mask, shares)
    return affine(gated, fraction, weight, bias, compensation)
