"""Activation functions σ with their derivative in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """A function σ applied neuron by neuron.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    value : callable
        ``value(a) -> σ(a)``.
    slope : callable
        ``slope(a, y) -> σ'(a)``, given also y = σ(a) because most slopes are cheaper from it.
    bound : float or None
        sup |σ|, or None when σ is unbounded.
    steepness : float or None
        sup |σ'|, or None when nobody says.
    curvature : float or None
        sup |σ''| where σ' is Lipschitz, or None when it is not or nobody says.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    bound: float | None
    steepness: float | None = None
    curvature: float | None = None

    def write(self, a: Tensor, value: Tensor) -> None:
        """Write σ(a) into a tensor of the shape of a; tanh allocates nothing."""
        if self.name == "tanh":
            torch.tanh(a, out=value)
        else:
            value.copy_(self.value(a))

    def pull_(self, cotangent: Tensor, a: Tensor, value: Tensor) -> None:
        """Multiply a cotangent by σ'(a) in place, given also σ(a); tanh and logistic take one pass."""
        if self.name == "tanh":
            torch.ops.aten.tanh_backward.grad_input(cotangent, value, grad_input=cotangent)
        elif self.name == "logistic":
            torch.ops.aten.sigmoid_backward.grad_input(cotangent, value, grad_input=cotangent)
        elif self.name != "identity":
            cotangent.mul_(self.slope(a, value))


def _softplus(a: Tensor) -> Tensor:
    # log(1 + e^a) without torch's switch to the identity above a threshold, so that the slope below is
    # its derivative everywhere
    return torch.logaddexp(a, torch.zeros_like(a))


TANH = Activation("tanh", torch.tanh, lambda a, y: 1 - y * y, 1.0, 1.0, 4 / 27**0.5)
LOGISTIC = Activation("logistic", torch.sigmoid, lambda a, y: y * (1 - y), 1.0, 0.25, 1 / 108**0.5)
SOFTPLUS = Activation("softplus", _softplus, lambda a, y: torch.sigmoid(a), None, 1.0, 0.25)
RELU = Activation("relu", functional.relu, lambda a, y: (a > 0).to(a.dtype), None, 1.0)
IDENTITY = Activation("identity", lambda a: a, lambda a, y: torch.ones_like(a), None, 1.0, 0.0)

ACTIVATIONS = {each.name: each for each in (TANH, LOGISTIC, SOFTPLUS, RELU, IDENTITY)}
"""Every activation by name. The slope of ReLU at 0 is 0, as in torch."""
