"""Nets, samples and references of inference learning, written out apart from the package."""

from __future__ import annotations

import numpy as np
import torch

from nlsim.systems.activation import IDENTITY, SOFTPLUS, TANH, Activation
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork

SMOOTH = (TANH, IDENTITY, SOFTPLUS)
BOTH_LOSSES = (SQUARED_ERROR, CROSS_ENTROPY)
WIDTHS = (5, 7, 6, 4)


def make_net(widths=WIDTHS, activation: Activation = TANH, *, has_bias: bool = True, seed: int = 1, scale: float = 1.0):
    """Return a network and weights; the biases are drawn too."""
    network = LayeredNetwork(tuple(widths), (activation,) * (len(widths) - 1), has_bias)
    draw = np.random.default_rng([seed, 77])
    weights = network.initial_weights(seed, scale=scale, dtype=torch.float64, device="cpu")
    return network, tuple(w + 0.1 * torch.as_tensor(draw.normal(size=w.shape)) for w in weights)


def make_sample(widths=WIDTHS, *, count: int = 1, seed: int = 1, is_distribution: bool = False):
    """Return inputs and targets of unit normal entries, or targets on the simplex."""
    draw = np.random.default_rng([seed, 78])
    given = torch.as_tensor(draw.normal(size=(count, widths[0])))
    target = torch.as_tensor(draw.normal(size=(count, widths[-1])))
    return given, torch.softmax(2 * target, -1) if is_distribution else target


def stack(layers) -> torch.Tensor:
    return torch.cat([each.reshape(-1) for each in layers])


def relative(found, expected, start) -> float:
    """Return ‖found − expected‖/‖expected − start‖."""
    return float((stack(found) - stack(expected)).norm() / (stack(expected) - stack(start)).norm())


def augmented(source: torch.Tensor, has_bias: bool) -> torch.Tensor:
    """Return ã."""
    return torch.cat((source, torch.ones_like(source[..., :1])), -1) if has_bias else source


def plain_loss(network, loss, weights, given, target) -> torch.Tensor:
    """Return the mean loss, written out in plain torch with torch's own losses."""
    h = given
    for layer, w in enumerate(weights):
        h = augmented(h, network.has_bias) @ w.T
        if layer + 1 < len(weights):
            name = network.activations[layer].name
            h = {"tanh": torch.tanh, "identity": lambda a: a, "softplus": torch.nn.Softplus(threshold=50)}[name](h)
    if loss.name == "squared_error":
        return 0.5 * (h - target).square().sum(-1).mean()
    return torch.nn.functional.cross_entropy(h, target)


def autograd_certificate(network, loss, rates, weights, new, given, target) -> float:
    """Return ‖θ' − θ + α∇L(θ')‖/‖θ' − θ‖ with the gradient of autograd."""
    with torch.enable_grad():
        own = [w.detach().clone().requires_grad_() for w in new]
        slopes = torch.autograd.grad(plain_loss(network, loss, own, given, target), own)
    miss = [b - a + alpha * g for alpha, a, b, g in zip(rates, weights, new, slopes, strict=True)]
    return float(stack(miss).norm() / (stack(new) - stack(weights)).norm())
