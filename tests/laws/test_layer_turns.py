"""Layers that take turns: outputs without delay, gradients that arrive late."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off
from support.oracle import autograd_gradient
from support.robust import make_inputs, make_state, make_weights
from support.sgd import (
    NET,
    batches,
)

from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import Turn, take_turns
from nlsim.systems.hamiltonian.state_space import (
    layered_form,
)
from nlsim.systems.loss import CROSS_ENTROPY
from nlsim.systems.signals import hold

DEPTH = 3


def turning(tau, *, period=DEPTH, phi=None, beta=0.0):
    network = layered_form(NET)
    constants = LearningConstants(beta, 0.0, phi or 1 / tau)
    return HamiltonianLearning(network, CROSS_ENTROPY, constants, take_turns(DEPTH, tau, period=period))


@pytest.mark.parametrize("tau", [1.0, 0.37])
def test_outputs_of_layers_that_take_turns_have_no_delay(tau):
    learning, stream = turning(tau), batches(6)
    weights = make_weights(learning.network)
    state = learning.initial_state(weights, 2)
    for index, inputs in enumerate(stream):
        state = EXPLICIT_EULER.advance(learning, hold(inputs), state, index * DEPTH * tau, tau, DEPTH)
        # each state closed a gap of size 1 with one rounding, on inputs of which the same is true
        assert_round_off(state.activity, NET.forward(weights, inputs.input), 30)


def test_in_its_turn_one_layer_moves_and_the_others_stand_still():
    learning, inputs = turning(0.5), make_inputs(2)
    state = make_state(learning.network, 2)
    for turn in range(2 * DEPTH):
        after = EXPLICIT_EULER.advance(learning, hold(inputs), state, turn * 0.5, 0.5, 1)
        moved = [not torch.equal(a, b) for a, b in zip(after.activity, state.activity, strict=True)]
        assert moved == [layer == turn % DEPTH for layer in range(DEPTH)]


@pytest.mark.parametrize("tau", [1.0, 0.37])
def test_costates_of_layers_that_take_turns_bring_the_gradient_late(tau):
    period = DEPTH + 1  # the last turn is the loss's: it sees the output of the input that is shown
    learning = turning(tau, period=period, phi=Turn(1 / tau, DEPTH, period, tau))
    weights, inputs = make_weights(learning.network), make_inputs(2)
    gradient = autograd_gradient(NET, CROSS_ENTROPY, weights, inputs)
    state = learning.initial_state(weights, 2)
    for cycle in range(6):
        before = state.weight_costate
        state = EXPLICIT_EULER.advance(learning, hold(inputs), state, cycle * period * tau, tau, period)
        for layer in range(DEPTH):
            gained = state.weight_costate[layer] - before[layer]
            # the loss acts at the end of cycle 0, the last layer in cycle 1, one layer more in each cycle
            is_there = cycle >= DEPTH - layer
            assert_round_off(gained, gradient[layer] if is_there else torch.zeros_like(gained), 60)
