"""Hamiltonian Learning written out again in plain torch, and small cases of every form of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.state_space import (
    Readout,
    StateSpaceNetwork,
    layered_form,
    output_form,
    split_form,
    state_form,
)
from nlsim.systems.hamiltonian.transition import LayeredTransition, WholeTransition
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from support.learning import draw
from support.oracle import PLAIN_ACTIVATION, PLAIN_LOSS


def net(*widths: int, activation: str = "tanh", has_bias: bool = True) -> LayeredNetwork:
    return LayeredNetwork(widths, (ACTIVATIONS[activation],) * (len(widths) - 1), has_bias)


FORMS = {
    "output": output_form(net(3, 4, 2)),
    "output without biases": output_form(net(3, 4, 2, has_bias=False)),
    "state": state_form(net(3, 4, 2)),
    "state and output": split_form(net(3, 4, 5, 2), 2),
    "layers": layered_form(net(3, 4, 5, 2, activation="softplus")),
    "layers and output": StateSpaceNetwork(LayeredTransition(net(3, 4, 5)), Readout(net(5, 2))),
    "recurrent": StateSpaceNetwork(WholeTransition(net(3 + 4, 4)), Readout(net(4, 2, activation="identity"))),
    "deep recurrent": StateSpaceNetwork(
        WholeTransition(net(3 + 2, 4, 2, activation="logistic")), Readout(net(3 + 2, 2), reads_input=True)
    ),
    "recurrent without output": StateSpaceNetwork(WholeTransition(net(3 + 2, 2)), None),
}
"""Networks with three inputs and two outputs."""


def make_learning(
    network: StateSpaceNetwork, loss: str = "squared_error", speed: float | None = None, **constants: Any
) -> HamiltonianLearning:
    """Return a system with unequal speeds (or the one given) and every constant at work, unless told otherwise."""
    given = {"beta": 0.4, "eta": 0.3, "phi": 1.7, "regularisation": 0.2, **constants}
    speeds = tuple(speed or 1.0 + 0.6 * part for part in range(len(network.widths)))
    return HamiltonianLearning(network, LOSSES[loss], LearningConstants(**given), speeds)


def make_weights(network: StateSpaceNetwork, seed: int = 1, ensemble: tuple[int, ...] = ()) -> tuple[Tensor, ...]:
    shapes = [each.weight_shape(layer) for each in network.networks for layer in range(each.depth)]
    return tuple(draw(seed + 7 * layer, *ensemble, *shape) for layer, shape in enumerate(shapes))


def make_state(
    network: StateSpaceNetwork, samples: int = 3, seed: int = 2, ensemble: tuple[int, ...] = ()
) -> LearningState:
    """Return a generic point, costates included."""

    def parts(offset: int) -> tuple[Tensor, ...]:
        return tuple(draw(seed + offset + part, *ensemble, samples, n) for part, n in enumerate(network.widths))

    return LearningState(
        parts(100), make_weights(network, seed, ensemble), parts(200), make_weights(network, seed + 300, ensemble)
    )


def make_inputs(samples: int = 3, seed: int = 3, inputs: int = 3, outputs: int = 2) -> Inputs:
    return Inputs(draw(seed, samples, inputs), torch.softmax(draw(seed + 1000, samples, outputs), -1))


def plain_network(network: LayeredNetwork, weights: Any, x: Tensor) -> list[Tensor]:
    """Return the activities of all layers, in plain torch."""
    values = []
    for weight, activation in zip(weights, network.activations, strict=True):
        if network.has_bias:
            x = torch.cat((x, x.new_ones((*x.shape[:-1], 1))), -1)
        x = PLAIN_ACTIVATION[activation.name](x @ weight.T)
        values.append(x)
    return values


def plain_proposal(network: StateSpaceNetwork, weights: Any, u: Tensor, h: Any) -> list[Tensor]:
    """Return f̂(u, h, θ^h) in plain torch."""
    transition = network.transition
    if transition is None:
        return []
    own = weights[: transition.network.depth]
    if isinstance(transition, LayeredTransition):
        layers = []
        for layer, weight in enumerate(own):
            widths = transition.network.widths[layer : layer + 2]
            single = LayeredNetwork(widths, (transition.network.activations[layer],), transition.network.has_bias)
            layers += plain_network(single, (weight,), h[layer - 1] if layer else u)
        return layers
    source = torch.cat((u, h[0]), -1) if transition.has_memory else u
    return plain_network(transition.network, own, source)[-1:]


def plain_output(network: StateSpaceNetwork, weights: Any, u: Tensor, h: Any) -> Tensor:
    """Return y in plain torch."""
    if network.readout is None:
        return h[-1]
    own = weights[len(weights) - network.readout.network.depth :]
    source = [u] * network.readout.reads_input + list(h[-1:])
    return plain_network(network.readout.network, own, torch.cat(source, -1))[-1]


def plain_hamiltonian(
    learning: HamiltonianLearning, inputs: Inputs, h: Any, theta: Any, z: Any, *, phi: float
) -> Tensor:
    """Return H' = φ (L + k|θ|²/2) + z · c (f̂ − h) in plain torch."""
    network, k = learning.network, learning.constants.regularisation
    output = plain_output(network, theta, inputs.input, h)
    total = phi * PLAIN_LOSS[learning.loss.name](output, inputs.target)
    total = total + phi * k / 2 * sum((w**2).sum() for w in theta)
    for c, f, own, costate in zip(learning.speed, plain_proposal(network, theta, inputs.input, h), h, z, strict=True):
        total = total + (costate * c * (f - own)).sum()
    return total
