"""Implicit SGD as a system: the steps of a run are implicit ones, and it records their certificates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.inference import autograd_certificate, make_net, make_sample, relative

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import IDENTITY
from nlsim.systems.inference.implicit_sgd import ImplicitSGD
from nlsim.systems.inference.implicit_step import solve_in_weights
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.signals import HeldSamples

ALPHA = 0.05


def linear_output():
    """Return a tanh network whose output is linear, and its weights."""
    network, weights = make_net()
    return replace(network, activations=(*network.activations[:-1], IDENTITY)), weights


def inputs_of(samples):
    return Inputs(*make_sample(count=samples, seed=4))


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_a_jump_is_the_implicit_step_of_its_batch(samples):
    """Stationary to 1e-10 by autograd; at this α the minimum is the only one, and Newton in the weights finds it."""
    network, weights = linear_output()
    system, inputs = ImplicitSGD(network, SQUARED_ERROR, ALPHA), inputs_of(samples)
    state = system.jump(1.0, system.initial_state(weights, inputs), inputs, inputs)
    rates = (ALPHA,) * network.depth
    found = autograd_certificate(network, SQUARED_ERROR, rates, weights, state.weight, inputs.input, inputs.target)
    assert found <= 1e-10
    assert abs(float(state.moment[0]) - found) <= 1e-11
    other = solve_in_weights(system.problem(), weights, inputs.input, inputs.target)
    assert relative(state.weight, other.weights, weights) <= 1e-10


def test_a_run_makes_the_steps_one_after_another_and_records_the_last_certificate():
    network, weights = linear_output()
    system = ImplicitSGD(network, SQUARED_ERROR, ALPHA)
    given, target = make_sample(count=3, seed=4)
    signal = HeldSamples(given, target, 1, 1.0, 0)
    state = system.initial_state(weights, signal.piece(0.0)(0.0))
    with torch.no_grad():
        loop = Loop(system, FixedStep(EXPLICIT_EULER, 0.5), signal, state, until=3.0)
        list(loop)
    by_hand = weights
    for index in range(3):
        shown = signal.piece(float(index))(float(index))
        by_hand = solve_in_weights(system.problem(), by_hand, shown.input, shown.target).weights
    assert relative(loop.state.weight, by_hand, weights) <= 1e-10
    seen = system.observables()["certificate"]
    assert 0 < float(seen.evaluate(3.0, loop.state, shown)) <= 1e-10
    assert not any(w.requires_grad for w in loop.state.weight)


def test_ensembles_are_refused():
    network, weights = linear_output()
    system = ImplicitSGD(network, SQUARED_ERROR, ALPHA)
    with pytest.raises(NlsimError) as caught:
        system.initial_state(tuple(w.expand(3, *w.shape) for w in weights), inputs_of(1))
    assert caught.value.where == "weights"
