"""Reversed streaming of costates is backpropagation through time, against autograd through the unrolled network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, gap, size
from support.learning import draw
from support.oracle import PLAIN_LOSS
from support.robust import FORMS, make_inputs, make_learning, make_weights, plain_output, plain_proposal

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.ordered import ORDERED_EULER
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.hamiltonian.schedule import FirstStep, take_turns
from nlsim.systems.hamiltonian.stream import learn_sequence, stored_index, stream_forward, stream_reverse
from nlsim.systems.signals import hold

COUNT = 6
TAUS = (1.0, 0.37)
RECURRENT = {name: FORMS[name] for name in ("recurrent", "deep recurrent", "recurrent without output")}
STATEFUL = {**RECURRENT, **{name: FORMS[name] for name in ("layers", "layers and output")}}
each_recurrent = pytest.mark.parametrize("network", RECURRENT.values(), ids=RECURRENT)
each_stateful = pytest.mark.parametrize("network", STATEFUL.values(), ids=STATEFUL)
each_tau = pytest.mark.parametrize("tau", TAUS)

# The gradient is a sum over 6 tokens of products of up to 6 Jacobians of 4 neurons: some hundred roundings.
ROUNDINGS = 500


def tokens(count=COUNT, scored=None, samples=3):
    """Return a stream; without ``scored`` every token has a target."""
    each = [make_inputs(samples, seed=20 + index) for index in range(count)]
    return [u if scored is None or index in scored else Inputs(u.input) for index, u in enumerate(each)]


def start(network, samples=3):
    return tuple(draw(90 + part, samples, n) for part, n in enumerate(network.widths))


def exact(network, tau, loss="squared_error", **constants):
    """Return the residual transition with η = 0 and φ = 1/τ."""
    return make_learning(
        network, loss, speed=1 / tau, **{"eta": 0.0, "phi": 1 / tau, "regularisation": 0.0, **constants}
    )


def unrolled_gradient(learning, weights, stream, h, *, length=None, leak=1.0):
    """Return autograd's gradient of the summed loss of the last ``length`` tokens, the state before them held."""
    own, loss = [w.clone().requires_grad_() for w in weights], 0.0
    first = len(stream) - (length or len(stream))
    for index, inputs in enumerate(stream):
        if index == first:
            h = [each.detach() for each in h]
        proposed = plain_proposal(learning.network, own, inputs.input, h)
        h = [x + leak * (f - x) for x, f in zip(h, proposed, strict=True)]
        if inputs.target is not None and index >= first:
            output = plain_output(learning.network, own, inputs.input, h)
            loss = loss + PLAIN_LOSS[learning.loss.name](output, inputs.target)
    return torch.autograd.grad(loss, own)


def streamed(learning, weights, stream, h, tau, length=None):
    stored = stream_forward(learning, weights, stream, h, tau=tau)
    *_, last = stream_reverse(learning, weights, stream, stored, tau=tau, length=length)
    return last.weight_costate


@each_stateful
@each_tau
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_the_streamed_costate_is_the_gradient_through_time(network, tau, loss):
    learning, weights, stream, h = exact(network, tau, loss), make_weights(network), tokens(), start(network)
    expected = unrolled_gradient(learning, weights, stream, h)
    assert min(size(g) for g in expected) > 1e-3
    assert_round_off(streamed(learning, weights, stream, h, tau), expected, ROUNDINGS)


@each_recurrent
@each_tau
@pytest.mark.parametrize("scored", [{COUNT - 1}, {0}, {1, 4}], ids=["last", "first", "some"])
def test_tokens_without_a_target_are_passed_but_not_scored(network, tau, scored):
    learning, weights, stream, h = exact(network, tau), make_weights(network), tokens(scored=scored), start(network)
    expected = unrolled_gradient(learning, weights, stream, h)
    assert_round_off(streamed(learning, weights, stream, h, tau), expected, ROUNDINGS)


@each_recurrent
@each_tau
@pytest.mark.parametrize("length", range(1, COUNT + 1))
def test_a_shorter_reverse_stream_is_truncated_backpropagation(network, tau, length):
    learning, weights, stream, h = exact(network, tau), make_weights(network), tokens(), start(network)
    expected = unrolled_gradient(learning, weights, stream, h, length=length)
    assert_round_off(streamed(learning, weights, stream, h, tau, length), expected, ROUNDINGS)


@each_recurrent
def test_a_longer_truncation_is_another_gradient(network):
    learning, weights, stream, h = exact(network, 1.0), make_weights(network), tokens(), start(network)
    found = [streamed(learning, weights, stream, h, 1.0, length) for length in range(1, COUNT + 1)]
    assert all(gap(a, b) > 1e-3 for a, b in pairwise(found))


@each_stateful
@pytest.mark.parametrize("leak", [0.8, 0.3])
def test_below_unit_speed_it_is_the_gradient_of_the_leaky_network(network, leak):
    tau = 0.37
    learning = exact(network, tau)
    learning = replace(learning, speed=(leak / tau,) * len(learning.speed))
    weights, stream, h = make_weights(network), tokens(), start(network)
    expected = unrolled_gradient(learning, weights, stream, h, leak=leak)
    assert_round_off(streamed(learning, weights, stream, h, tau), expected, ROUNDINGS)


def test_layers_that_take_turns_are_streamed_in_reverse_in_the_reverse_order():
    network, tau = FORMS["layers"], 0.37
    learning = replace(exact(network, tau), speed=take_turns(3, tau))
    weights, stream = make_weights(network), [make_inputs(3, seed=20)] * 3
    h, own = start(network), [w.clone().requires_grad_() for w in make_weights(network)]
    moved, loss = list(h), 0.0
    for layer in range(3):
        moved[layer] = plain_proposal(network, own, stream[0].input, moved)[layer]
        loss = loss + PLAIN_LOSS["squared_error"](moved[-1], stream[0].target)
    expected = torch.autograd.grad(loss, own)
    assert_round_off(streamed(learning, weights, stream, h, tau), expected, ROUNDINGS)


@each_tau
def test_dissipation_breaks_it_and_the_loss_weight_scales_it(tau):
    network = FORMS["recurrent"]
    weights, stream, h = make_weights(network), tokens(), start(network)
    expected = unrolled_gradient(exact(network, tau), weights, stream, h)
    with_dissipation = streamed(exact(network, tau, eta=0.1 / tau), weights, stream, h, tau)
    # the first token's share is damped by 0.9⁶
    assert gap(with_dissipation, expected) > 0.1 * size(expected)
    half = streamed(exact(network, tau, phi=0.5 / tau), weights, stream, h, tau)
    assert_round_off(half, tuple(0.5 * g for g in expected), ROUNDINGS)


@each_tau
def test_the_regulariser_is_counted_once_a_scored_token(tau):
    network = FORMS["recurrent"]
    weights, stream, h = make_weights(network), tokens(scored={1, 4}), start(network)
    expected = unrolled_gradient(exact(network, tau), weights, stream, h)
    found = streamed(exact(network, tau, regularisation=0.3), weights, stream, h, tau)
    assert_round_off(found, tuple(g + 2 * 0.3 * w for g, w in zip(expected, weights, strict=True)), ROUNDINGS)


@each_recurrent
@each_tau
def test_the_costate_at_each_stored_state_is_the_derivative_of_all_that_follows(network, tau):
    learning, weights, stream, h = exact(network, tau), make_weights(network), tokens(), start(network)
    stored = stream_forward(learning, weights, stream, h, tau=tau)
    for step, reverse in enumerate(stream_reverse(learning, weights, stream, stored, tau=tau)):
        assert reverse.index == stored_index(step, COUNT) == COUNT - step
        own = [x.clone().requires_grad_() for x in stored[reverse.index]]
        state, loss = own, 0.0
        for k in range(reverse.index, COUNT + 1):  # h_k is scored by token k − 1 and moved by token k
            output = plain_output(network, weights, stream[k - 1].input, state)
            loss = loss + PLAIN_LOSS["squared_error"](output, stream[k - 1].target)
            if k < COUNT:
                state = plain_proposal(network, weights, stream[k].input, state)
        assert_round_off(reverse.costate, torch.autograd.grad(loss, own), ROUNDINGS)
    assert reverse.index == 1


@each_recurrent
@each_tau
def test_with_dissipation_both_costates_follow_their_recursion(network, tau):
    eta, weights, stream, h = 0.3 / tau, make_weights(network), tokens(), start(network)
    learning = exact(network, tau, eta=eta, phi=0.7 / tau)
    stored = stream_forward(learning, weights, stream, h, tau=tau)
    z, omega = tuple(torch.zeros_like(x) for x in h), tuple(torch.zeros_like(w) for w in weights)
    for reverse in stream_reverse(learning, weights, stream, stored, tau=tau):
        token, here = stream[reverse.index - 1], [x.clone().requires_grad_() for x in stored[reverse.index]]
        own = [w.clone().requires_grad_() for w in weights]
        score = 0.7 * PLAIN_LOSS["squared_error"](plain_output(network, own, token.input, here), token.target)
        by_h, *by_weight = torch.autograd.grad(score, (*here, *own), materialize_grads=True)
        pulled = (torch.zeros_like(by_h),)
        if reverse.index < COUNT:
            following = plain_proposal(network, weights, stream[reverse.index].input, here)
            pulled = torch.autograd.grad(following, here, z)
        z = (by_h + pulled[0] - tau * eta * z[0],)
        arrived = plain_proposal(network, own, token.input, stored[reverse.index - 1])
        through = torch.autograd.grad(arrived, own, z, materialize_grads=True)
        omega = tuple((1 - tau * eta) * o + g + b for o, g, b in zip(omega, through, by_weight, strict=True))
        assert_round_off((reverse.costate, reverse.weight_costate), (z, omega), ROUNDINGS)


@each_recurrent
@each_tau
def test_stored_states_are_those_of_the_system_itself(network, tau):
    learning, weights, stream, h = exact(network, tau), make_weights(network), tokens(), start(network)
    zeros = tuple(torch.zeros_like(x) for x in h), tuple(torch.zeros_like(w) for w in weights)
    held = replace(learning, constants=replace(learning.constants, beta=0.0))
    state = LearningState(h, weights, *zeros)
    stored = stream_forward(learning, weights, stream, h, tau=tau)
    for index, inputs in enumerate(stream):
        assert_same_bits(stored[index], state.activity)
        state = ORDERED_EULER.advance(held, hold(inputs), state, index * tau, tau, 1)
    assert_same_bits(stored[-1], state.activity)


@each_tau
def test_a_sequence_of_one_token_is_an_ordered_step_from_zero_costates(tau):
    network = FORMS["deep recurrent"]
    learning = exact(network, tau, eta=0.2, regularisation=0.1)
    weights, inputs, h = make_weights(network), make_inputs(), start(network)
    zeros = tuple(torch.zeros_like(x) for x in h), tuple(torch.zeros_like(w) for w in weights)
    before = LearningState(h, weights, *zeros)
    expected = ORDERED_EULER.advance(SampleReset(learning), hold(inputs), before, 0.0, tau, 1)
    assert_round_off(learn_sequence(learning, before, [inputs], tau=tau), expected, 10)


@each_recurrent
@each_tau
def test_learning_a_sequence_is_a_step_of_gradient_descent(network, tau):
    learning, weights, stream = exact(network, tau, beta=0.05 / tau), make_weights(network), tokens()
    state = learning.initial_state(weights, 3)
    for _ in range(5):
        gradient = unrolled_gradient(learning, state.weight, stream, state.activity, length=4)
        expected = tuple(w - 0.05 * g for w, g in zip(state.weight, gradient, strict=True))
        state = learn_sequence(learning, state, stream, tau=tau, length=4)
        assert_round_off(state.weight, expected, ROUNDINGS)


def test_a_schedule_of_the_loss_weight_is_asked_at_the_time_of_the_token():
    network, tau = FORMS["recurrent"], 0.37
    learning = exact(network, tau, phi=FirstStep(1 / tau, 0.0, tau))
    weights, stream, h = make_weights(network), tokens(), start(network)
    only_first = [stream[0], *(Inputs(u.input) for u in stream[1:])]
    expected = unrolled_gradient(learning, weights, only_first, h)
    assert_round_off(streamed(learning, weights, stream, h, tau), expected, ROUNDINGS)


def test_an_ensemble_is_its_members():
    network = FORMS["deep recurrent"]
    learning, stream, h = exact(network, 0.37), tokens(), start(network)
    weights = make_weights(network, ensemble=(3,))
    found = streamed(learning, weights, stream, tuple(x.expand(3, *x.shape) for x in h), 0.37)
    for index in range(3):
        alone = streamed(learning, tuple(w[index] for w in weights), stream, h, 0.37)
        assert_round_off(tuple(g[index] for g in found), alone, 50)


@pytest.mark.parametrize("length", [0, COUNT + 1, -1])
def test_a_length_out_of_range_is_refused(length):
    network = FORMS["recurrent"]
    learning, weights, stream, h = exact(network, 1.0), make_weights(network), tokens(), start(network)
    stored = stream_forward(learning, weights, stream, h, tau=1.0)
    with pytest.raises(NlsimError, match="1 to 6") as refusal:
        stream_reverse(learning, weights, stream, stored, tau=1.0, length=length)
    assert refusal.value.where == "length"


def test_states_that_do_not_belong_to_the_stream_are_refused():
    network = FORMS["recurrent"]
    learning, weights, stream, h = exact(network, 1.0), make_weights(network), tokens(), start(network)
    stored = stream_forward(learning, weights, stream[:-1], h, tau=1.0)
    with pytest.raises(NlsimError, match="6 states") as refusal:
        stream_reverse(learning, weights, stream, stored, tau=1.0)
    assert refusal.value.where == "stored"
