"""Random networks, states, inputs and learning problems in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlsim.core.state import map_leaves
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Sinusoid

WIDTHS = (3, 4, 5, 2)


def draw(seed: int, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return numbers uniform in [low, high)."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def make_network(
    widths: tuple[int, ...] = WIDTHS, activation: str = "tanh", *, has_bias: bool = True
) -> LayeredNetwork:
    return LayeredNetwork(widths, (ACTIVATIONS[activation],) * (len(widths) - 1), has_bias)


def make_inputs(network: LayeredNetwork, samples: int, seed: int = 1) -> Inputs:
    """Return inputs in [−1, 1] and positive targets that sum to one, so that every loss accepts them."""
    input_ = draw(seed, samples, network.widths[0])
    return Inputs(input_, torch.softmax(draw(seed + 1000, samples, network.widths[-1]), -1))


def make_weights(network: LayeredNetwork, seed: int = 2, ensemble: tuple[int, ...] = ()) -> tuple[Tensor, ...]:
    """Return weights and biases in [−1, 1]."""
    return tuple(draw(seed + 100 * layer, *ensemble, *network.weight_shape(layer)) for layer in range(network.depth))


def make_problem(network: LayeredNetwork | None = None, **constants: Any) -> LearningProblem:
    """Return a problem with unequal speeds, finite mass, dissipation and a regulariser, unless told otherwise."""
    network = network or make_network()
    given = {
        "loss": LOSSES["squared_error"],
        "speed": tuple(1.0 + 0.7 * layer for layer in range(network.depth)),
        "mass": 1.5,
        "dissipation": 0.3,
        "regularisation": 0.2,
        **constants,
    }
    return LearningProblem(network, **given)


def equal_speeds(network: LayeredNetwork, c: float) -> tuple[float, ...]:
    return (c,) * network.depth


def make_state(network: LayeredNetwork, samples: int, seed: int = 3, ensemble: tuple[int, ...] = ()) -> LearningState:
    """Return a generic point of the state space, costates included."""

    def layered(offset: int) -> tuple[Tensor, ...]:
        return tuple(
            draw(seed + offset + 10 * layer, *ensemble, samples, n) for layer, n in enumerate(network.widths[1:])
        )

    return LearningState(
        layered(1),
        make_weights(network, seed + 2, ensemble),
        layered(3),
        make_weights(network, seed + 4, ensemble),
    )


def make_sinusoid(network: LayeredNetwork, samples: int, seed: int = 7) -> Sinusoid:
    """Return smooth moving inputs and targets of different frequencies and phases."""

    def random_inputs(offset: int, low: float, high: float) -> Inputs:
        return Inputs(
            draw(seed + offset, samples, network.widths[0], low=low, high=high),
            draw(seed + offset + 50, samples, network.widths[-1], low=low, high=high),
        )

    return Sinusoid(
        random_inputs(1, -0.3, 0.3), random_inputs(2, 0.5, 1.0), random_inputs(3, 1.0, 2.0), random_inputs(4, 0.0, 3.0)
    )


def member(state: Any, index: int) -> Any:
    """Return one member of an ensemble state."""
    return map_leaves(lambda leaf: leaf[index], state)


def sample(state: LearningState, index: int) -> LearningState:
    """Return the same state with one sample only."""
    return LearningState(
        tuple(x[index : index + 1] for x in state.activity),
        state.weight,
        tuple(pi[index : index + 1] for pi in state.costate),
        state.weight_costate,
    )
