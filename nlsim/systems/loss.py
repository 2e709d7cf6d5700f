"""Losses L(x, z) of the output neurons, summed over outputs; energies are sums over samples too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss of output x and target z with its gradient in closed form.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    value : callable
        ``value(x, z) -> L``, shape of x without the last axis: one number a sample.
    gradient : callable
        ``gradient(x, z) -> ∂L/∂x``, shape of x.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(x: Tensor, z: Tensor) -> Tensor:
    return torch.logsumexp(x, -1) * z.sum(-1) - (x * z).sum(-1)


def _cross_entropy_gradient(x: Tensor, z: Tensor) -> Tensor:
    return torch.softmax(x, -1) * z.sum(-1, keepdim=True) - z


SQUARED_ERROR = Loss("squared_error", lambda x, z: 0.5 * (x - z).square().sum(-1), lambda x, z: x - z)
CROSS_ENTROPY = Loss("cross_entropy", _cross_entropy, _cross_entropy_gradient)

LOSSES = {each.name: each for each in (SQUARED_ERROR, CROSS_ENTROPY)}
"""``squared_error``: ½‖x − z‖². ``cross_entropy``: −Σ z log softmax(x), the softmax being part of the loss."""
