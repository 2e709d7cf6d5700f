"""Backpropagation against autograd, and the force of the heavy ball against its potential."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.compare import assert_round_off
from support.learning import make_inputs, make_network, make_weights
from support.oracle import autograd_gradient

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.backprop import HeavyBall, backpropagate
from nlsim.systems.loss import LOSSES

DEPTHS = {1: (3, 2), 2: (3, 5, 2), 3: (3, 4, 5, 2), 4: (3, 4, 2, 5, 3)}
CASES = list(itertools.product(DEPTHS, ACTIVATIONS, LOSSES, (True, False)))


@pytest.mark.parametrize(("depth", "activation", "loss", "has_bias"), CASES)
def test_gradient_is_that_of_autograd(depth, activation, loss, has_bias):
    network = make_network(DEPTHS[depth], activation, has_bias=has_bias)
    weights, inputs = make_weights(network, seed=depth), make_inputs(network, 6, seed=depth)
    found = backpropagate(network, LOSSES[loss], weights, inputs)
    # sums over at most 6 samples and 6 sources in each of 2·depth products: well under 200 roundings
    assert_round_off(found.gradient, autograd_gradient(network, LOSSES[loss], weights, inputs), 200)


@pytest.mark.parametrize("loss", LOSSES)
def test_costates_are_the_derivatives_of_the_loss_by_the_activities(loss):
    network = make_network()
    weights, inputs = make_weights(network), make_inputs(network, 4)
    found = backpropagate(network, LOSSES[loss], weights, inputs)
    for layer, activity in enumerate(found.activity):
        leaf = activity.clone().requires_grad_()
        x = leaf
        for weight, activation in list(zip(weights, network.activations, strict=True))[layer + 1 :]:
            x = activation.value(x @ weight[:, :-1].T + weight[:, -1])
        (expected,) = torch.autograd.grad(LOSSES[loss].value(x, inputs.target).sum(), leaf)
        assert_round_off(found.costate[layer], expected, 100)


def test_bias_is_the_last_column():
    network, bare = make_network(), make_network(has_bias=False)
    inputs, weights = make_inputs(network, 3), make_weights(bare)
    padded = tuple(torch.cat((w, torch.zeros_like(w[:, :1])), 1) for w in weights)
    assert_round_off(network.forward(padded, inputs.input), bare.forward(weights, inputs.input), 50)


@pytest.mark.parametrize("regularisation", [0.0, 0.4])
def test_force_of_the_heavy_ball_is_minus_the_slope_of_its_potential(regularisation):
    network = make_network()
    inputs, weights = make_inputs(network, 5), make_weights(network)
    ball = HeavyBall(network, LOSSES["squared_error"], mass=2.0, regularisation=regularisation)
    loss_gradient = autograd_gradient(network, LOSSES["squared_error"], weights, inputs)
    expected = tuple(-(g + regularisation * w) for g, w in zip(loss_gradient, weights, strict=True))
    assert_round_off(ball.force(weights, inputs), expected, 200)


def test_ensemble_of_weights_is_its_members():
    network = make_network()
    inputs, weights = make_inputs(network, 5), make_weights(network, ensemble=(3,))
    together = backpropagate(network, LOSSES["cross_entropy"], weights, inputs)
    for index in range(3):
        alone = backpropagate(network, LOSSES["cross_entropy"], tuple(w[index] for w in weights), inputs)
        assert_round_off(tuple(g[index] for g in together.gradient), alone.gradient, 50)
        assert_round_off(tuple(p[index] for p in together.costate), alone.costate, 50)


@pytest.mark.parametrize("missing", ["input", "target"])
def test_missing_inputs_are_refused_by_name(missing):
    network = make_network()
    full = make_inputs(network, 2)
    given = Inputs(None if missing == "input" else full.input, None if missing == "target" else full.target)
    with pytest.raises(CapabilityError, match=missing):
        backpropagate(network, LOSSES["squared_error"], make_weights(network), given)
