"""Networks and systems for inference learning, and the free energy written out again in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS, IDENTITY
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.systems.loss import LOSSES, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from support.learning import draw, make_weights
from support.oracle import PLAIN_ACTIVATION

WIDTHS = (5, 7, 6, 4)


def linear_output(
    widths: tuple[int, ...] = WIDTHS, activation: str = "tanh", *, has_bias: bool = True
) -> LayeredNetwork:
    hidden = (ACTIVATIONS[activation],) * (len(widths) - 2)
    return LayeredNetwork(widths, (*hidden, IDENTITY), has_bias)


def make_system(network: LayeredNetwork | None = None, **options: Any) -> InferenceLearning:
    values = {
        "loss": SQUARED_ERROR,
        "precision": ConstantPrecision(),
        "output": "clamped",
        "update": NormalisedLeastMeanSquares(),
        **options,
    }
    return InferenceLearning(network or linear_output(), **values)


def near_target(
    network: LayeredNetwork, weights: tuple[Tensor, ...], samples: int, distance: float = 1.0, seed: int = 11
) -> Inputs:
    """Return inputs, and targets at a distance from the network's own output."""
    given = draw(seed, samples, network.widths[0])
    away = draw(seed + 1, samples, network.widths[-1])
    away = distance * away / torch.linalg.vector_norm(away, dim=-1, keepdim=True)
    return Inputs(given, feedforward(network, weights, given)[-1] + away)


def one_hot_target(network: LayeredNetwork, samples: int, seed: int = 11) -> Inputs:
    labels = torch.arange(samples) % network.widths[-1]
    return Inputs(draw(seed, samples, network.widths[0]), functional.one_hot(labels, network.widths[-1]).double())


def start(system: InferenceLearning, samples: int = 3, seed: int = 3, distance: float = 1.0) -> tuple[Any, Inputs]:
    """Return a state whose activities are away from the forward pass, and inputs."""
    weights = tuple(0.7 * w for w in make_weights(system.network, seed))
    if system.loss.name == "cross_entropy":
        inputs = one_hot_target(system.network, samples, seed + 8)
    else:
        inputs = near_target(system.network, weights, samples, distance, seed + 8)
    return system.initial_state(weights, inputs), inputs


def plain_energy(
    network: LayeredNetwork, loss: str | None, weights: Any, given: Tensor, target: Tensor, activity: Any, gamma: Any
) -> Tensor:
    """Return F summed over samples; ``gamma(l, n)`` of layer l = 1..L and the squared norm of what feeds it."""
    total, source = torch.zeros((), dtype=given.dtype), given
    for layer, (w, h) in enumerate(zip(weights, activity, strict=True), 1):
        if network.has_bias:
            source = torch.cat((source, torch.ones_like(source[..., :1])), -1)
        n = (source * source).sum(-1)
        error = h - source @ w.T
        total = total + 0.5 * (gamma(layer, n) * (error * error).sum(-1)).sum()
        source = PLAIN_ACTIVATION[network.activations[layer - 1].name](h)
    if loss is not None:
        total = total + LOSSES[loss].value(activity[-1], target).sum()
    return total
