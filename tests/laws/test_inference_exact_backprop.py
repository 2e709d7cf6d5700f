"""T15, N11: zero divergence and fixed predictions make the gradients of backpropagation, and nothing near them does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, make_weights
from support.oracle import autograd_gradient
from support.settling import linear_output, near_target, one_hot_target

from nlsim.core.state import map_leaves
from nlsim.core.system import Held
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.inference.baselines import BackpropagationSteps, GradientDescent
from nlsim.systems.inference.exact_backprop import (
    FixedPredictionLearning,
    ZeroDivergence,
    zero_divergence_gradients,
)
from nlsim.systems.inference.update import Adam
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.signals import HeldSamples

# a gradient here is a sum of some hundred products through four layers: 1e-13 is 450 roundings of 1
ROUNDINGS = 450
each_loss = pytest.mark.parametrize("loss", [SQUARED_ERROR, CROSS_ENTROPY], ids=lambda each: each.name)
each_depth = pytest.mark.parametrize("widths", [(5, 4), (5, 7, 4), (5, 7, 6, 4), (5, 3, 6, 2, 4)])
each_activation = pytest.mark.parametrize("activation", ["tanh", "softplus", "identity", "relu"])


def case(widths=(5, 7, 6, 4), activation="tanh", loss=SQUARED_ERROR, samples=3, has_bias=True):
    network = linear_output(widths, activation, has_bias=has_bias)
    weights = make_weights(network)
    inputs = one_hot_target(network, samples) if loss is CROSS_ENTROPY else near_target(network, weights, samples)
    reference = tuple(g / samples for g in autograd_gradient(network, loss, weights, inputs))
    return network, weights, inputs, reference


def relative(found, reference):
    gap = sum(float((f - r).square().sum()) for f, r in zip(found, reference, strict=True))
    return (gap / sum(float(r.square().sum()) for r in reference)) ** 0.5


@each_loss
@each_depth
@each_activation
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_zero_divergence_is_backpropagation(loss, widths, activation, rate):
    network, weights, inputs, reference = case(widths, activation, loss)
    assert_round_off(zero_divergence_gradients(network, loss, weights, inputs, rate=rate), reference, ROUNDINGS)


def test_zero_divergence_needs_a_step_of_exactly_one():
    network, weights, inputs, reference = case()
    for step in (0.5, 1.5):
        found = zero_divergence_gradients(network, SQUARED_ERROR, weights, inputs, step=step)
        assert relative(found, reference) >= 0.3
        # the output layer learns before anything moves
        assert_round_off(found[-1], reference[-1], ROUNDINGS)


def test_zero_divergence_needs_the_forward_pass():
    network, weights, inputs, reference = case()
    offset = tuple(0.5 * draw(40 + n, 3, n) for n in network.widths[1:-1])
    assert relative(zero_divergence_gradients(network, SQUARED_ERROR, weights, inputs, offset=offset), reference) >= 0.3


def test_zero_divergence_needs_the_right_moment():
    network, weights, inputs, reference = case()
    assert relative(zero_divergence_gradients(network, SQUARED_ERROR, weights, inputs, delay=1), reference) >= 0.3


@each_loss
@each_depth
@each_activation
def test_errors_at_fixed_predictions_rest_at_backpropagation(loss, widths, activation):
    network, weights, inputs, reference = case(widths, activation, loss)
    system = FixedPredictionLearning(network, loss, GradientDescent(0.1))
    state = system.initial_state(weights, inputs)
    # unit Euler steps: the matrix of the flow is −1 plus a nilpotent one
    settled = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 1.0, network.depth - 1)
    still = map_leaves(torch.zeros_like, settled.activity)
    assert_round_off(system.vector_field(0.0, settled, inputs).activity, still, ROUNDINGS)
    assert_round_off(system.gradients(settled, inputs), reference, ROUNDINGS)


def test_any_road_to_rest_leads_there():
    network, weights, inputs, reference = case()
    system = FixedPredictionLearning(network, SQUARED_ERROR, GradientDescent(0.1))
    state = system.initial_state(weights, inputs)
    start = replace(state, activity=tuple(h + draw(9, *h.shape) for h in state.activity))
    # e^{−40} (40²/2) of the start is left, some 1e-14
    flow, moving = system.moving(start, Held(inputs))
    settled = replace(start, activity=RK4.advance(flow, Held(inputs), moving, 0.0, 0.1, 450))
    assert_round_off(system.gradients(settled, inputs), reference, ROUNDINGS)
    assert relative(system.gradients(start, inputs), reference) > 0.1


@pytest.mark.parametrize("descent", [GradientDescent(0.2), Adam(0.01)], ids=["sgd", "adam"])
def test_runs_are_those_of_backpropagation(descent):
    network, weights, _, _ = case()
    signal = HeldSamples(draw(1, 6, 5), draw(2, 6, 4), 2, 3.0, 0)

    def run(system):
        state = system.initial_state(weights, signal.piece(0.0)(0.0))
        loop = Loop(system, FixedStep(EXPLICIT_EULER, 1.0), signal, state, until=27.0)
        list(loop)
        assert loop.ending.is_success
        return loop.state.weight

    expected = run(BackpropagationSteps(network, SQUARED_ERROR, descent))
    assert max(float((w - v).abs().max()) for w, v in zip(expected, weights, strict=True)) > 0.05
    # nine steps; Adam divides by the gradient's size, which magnifies roundings of small entries
    for kind in (ZeroDivergence, FixedPredictionLearning):
        assert_round_off(
            run(kind(network, SQUARED_ERROR, descent)), expected, 1e5 if isinstance(descent, Adam) else 1e4
        )


@pytest.mark.parametrize("kind", ["zero divergence", "fixed prediction"])
def test_an_ensemble_is_its_members(kind):
    network, _, inputs, _ = case()
    members = [make_weights(network, seed) for seed in (3, 4)]
    both = tuple(torch.stack(pair) for pair in zip(*members, strict=True))

    def after(weights):
        make = ZeroDivergence if kind == "zero divergence" else FixedPredictionLearning
        system = make(network, SQUARED_ERROR, GradientDescent(0.1))
        state = system.initial_state(weights, inputs)
        state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.7, 3)
        return system.jump(0.0, state, inputs, inputs).weight

    together = after(both)
    for index, weights in enumerate(members):
        assert_round_off(tuple(w[index] for w in together), after(weights), ROUNDINGS)
