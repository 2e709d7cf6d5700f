"""Hamiltonian Learning step by step as SGD with momentum, and what its constants mean there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.compare import EPS, assert_round_off, gap
from support.oracle import autograd_gradient
from support.robust import make_weights
from support.sgd import (
    LEARNING_FORMS,
    NET,
    SETTINGS,
    STEPS,
    as_learning,
    batches,
    each_learning_form,
    each_setting,
    learn,
    torch_sgd,
)

from nlsim.data.catalogue import load
from nlsim.errors import NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import FirstStep, Turn
from nlsim.systems.hamiltonian.sgd_dictionary import from_sgd, to_sgd
from nlsim.systems.hamiltonian.state_space import (
    output_form,
    split_form,
    state_form,
)
from nlsim.systems.loss import CROSS_ENTROPY
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import HeldSamples, one_hot


@each_setting
@each_learning_form
@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
def test_steps_are_those_of_torch_sgd(setting, network, weight_decay):
    weights, stream = make_weights(network), batches()
    found = learn(as_learning(network, setting, weight_decay=weight_decay), ORDERED_EULER, weights, stream, setting[-1])
    expected = torch_sgd(setting, weights, stream, weight_decay=weight_decay)
    # a step of size 1/100 adds less than a rounding of weights of size 1; momentum 0.9 remembers ten steps
    for f, e in zip(found, expected, strict=True):
        assert_round_off(f, e, STEPS)


@pytest.mark.parametrize("name", ["Mom-a", "Mom-b"])
@each_learning_form
def test_without_the_first_step_rule_steps_are_not_those_of_torch(name, network):
    _, momentum, dampening, tau = SETTINGS[name]
    system = as_learning(network, SETTINGS[name])
    damped = replace(system.learning.constants, phi=(1 - dampening) / tau)
    system = SampleReset(replace(system.learning, constants=damped))
    weights, stream = make_weights(network), batches()
    found, expected = learn(system, ORDERED_EULER, weights, stream, tau), torch_sgd(SETTINGS[name], weights, stream)
    # the first step is too short by ρ γ |g|, in all ρ γ |g| / (1 − μ), and nothing makes up for it
    first = gap(expected[0], weights)
    missing = [gap(f, e) for f, e in zip(found, expected, strict=True)]
    assert missing[0] == pytest.approx(dampening * first, rel=1e-9)
    assert min(missing) > 0.3 * dampening * first / (1 - momentum)


@each_setting
@pytest.mark.parametrize("stepper", [ORDERED_EULER_OLD, EXPLICIT_EULER], ids=lambda each: each.name)
def test_weights_moved_with_old_costates_follow_a_gradient_one_step_late(setting, stepper):
    rate, momentum, dampening, tau = setting
    weights, stream = make_weights(LEARNING_FORMS["output"]), batches()
    expected, buffer, before = [weights], None, weights
    for index in range(1, STEPS):
        gradient = autograd_gradient(NET, CROSS_ENTROPY, before, stream[index - 1])
        if buffer is None:
            buffer = gradient
        else:
            damped = 1.0 if momentum == 0 else 1 - dampening
            buffer = tuple(momentum * b + damped * g for b, g in zip(buffer, gradient, strict=True))
        before = expected[-1]
        expected.append(tuple(w - rate * b for w, b in zip(before, buffer, strict=True)))
    found = learn(as_learning(LEARNING_FORMS["output"], setting), stepper, weights, stream, tau)
    for f, e in zip(found, expected, strict=True):
        assert_round_off(f, e, STEPS)


@each_setting
def test_old_costates_make_whole_state_networks_one_step_late_too(setting):
    weights, stream = make_weights(LEARNING_FORMS["output"]), batches()
    trajectories = [
        learn(as_learning(network, setting), ORDERED_EULER_OLD, weights, stream, setting[-1])
        for network in LEARNING_FORMS.values()
    ]
    for other in trajectories[1:]:
        for f, e in zip(other, trajectories[0], strict=True):
            assert_round_off(f, e, STEPS)


@each_setting
def test_there_and_back(setting):
    rate, momentum, dampening, tau = setting
    back = to_sgd(from_sgd(rate, momentum, dampening, tau=tau, weight_decay=0.02), tau)
    found = (back.learning_rate, back.momentum, back.dampening, back.weight_decay)
    assert found == pytest.approx((rate, momentum, dampening, 0.02), abs=4 * EPS)


def test_the_constants_are_those_of_the_table():
    constants = from_sgd(0.01, 0.1, 0.5, tau=0.5)
    assert constants.beta == pytest.approx(0.02, rel=2 * EPS)
    assert constants.eta == pytest.approx(1.8, rel=2 * EPS)
    assert [constants.phi(t) for t in (0.0, 0.5, 1.0)] == [2.0, 1.0, 1.0]
    assert from_sgd(0.01, 0.1, tau=0.5).phi == 2.0


def test_without_momentum_the_loss_weight_scales_the_learning_rate():
    assert to_sgd(LearningConstants(beta=0.1, eta=2.0, phi=0.5), 0.5).learning_rate == pytest.approx(0.1 * 0.5 * 0.25)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"tau": 0.0}, "tau"),
        ({"momentum": 1.01}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"dampening": 1.0}, "dampening"),
        ({"dampening": math.nan}, "dampening"),
        ({"momentum": 0.0, "dampening": 0.1}, "dampening"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(change, where):
    with pytest.raises(NlsimError) as refusal:
        from_sgd(**{"learning_rate": 0.1, "momentum": 0.5, "dampening": 0.2, "tau": 0.5, **change})
    assert refusal.value.where == where
    assert refusal.value.allowed is not None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"eta": 2.1}, "constants.eta"),
        ({"eta": -0.1}, "constants.eta"),
        ({"beta": 0.0}, "constants.beta"),
        ({"phi": 1.0}, "constants.phi"),
        ({"phi": FirstStep(1.0, 1.0, 0.5)}, "constants.phi"),
        ({"phi": FirstStep(2.0, 1.0, 0.25)}, "constants.phi"),
        ({"phi": Turn(2.0, 0, 2, 0.5)}, "constants.phi"),
        ({"eta": 2.0, "phi": FirstStep(2.0, 1.0, 0.5)}, "constants.phi"),
        ({"eta": torch.tensor([0.1, 0.2])}, "constants"),
    ],
)
def test_constants_that_no_sgd_has_are_refused_by_name(change, where):
    with pytest.raises(NlsimError) as refusal:
        to_sgd(replace(LearningConstants(beta=0.1, eta=1.0, phi=2.0), **change), 0.5)
    assert refusal.value.where == where


# the step size decides nothing as it goes to zero


def epoch_gap(setting, form, samples=None):
    """Return the largest distance from torch's SGD at any step of an epoch over the digits, one at a time."""
    data = load("digits")
    count = samples or len(data.labels)
    inputs = torch.as_tensor(data.inputs[:count])
    targets = one_hot(torch.as_tensor(data.labels[:count]), 10, torch.float64)
    network = LayeredNetwork((64, 30, 10), (TANH, IDENTITY))
    weights = network.initial_weights(3, dtype=torch.float64, device="cpu")
    rate, momentum, dampening, tau = setting
    constants = from_sgd(rate, momentum, dampening, tau=tau)
    model = form(network)
    system = SampleReset(HamiltonianLearning(model, CROSS_ENTROPY, constants, (1 / tau,) * len(model.widths)))
    loop = Loop(
        system,
        FixedStep(ORDERED_EULER, tau),
        HeldSamples(inputs, targets, 1, tau, 5),
        system.initial_state(weights, 1),
        until=count * tau,
    )
    own = [w.clone().requires_grad_() for w in weights]
    optimiser = torch.optim.SGD(own, lr=rate, momentum=momentum, dampening=dampening)
    worst, steps = 0.0, 0
    for tick in loop:
        for w, g in zip(own, autograd_gradient(network, CROSS_ENTROPY, own, tick.inputs), strict=True):
            w.grad = g
        optimiser.step()
        steps += 1
        worst = max(worst, gap(tick.state.weight, tuple(w.detach() for w in own)))
    assert (steps, loop.steps, loop.ending) == (count, count, "reached_end")
    moved = gap(loop.state.weight, weights)
    assert moved > 0.005 * math.sqrt(count / 100), f"weights moved by {moved:.2g} only: too little to compare"
    answers = network.forward(loop.state.weight, inputs)[-1].argmax(-1)
    return worst, float((answers == targets.argmax(-1)).double().mean())


def test_a_stretch_of_digits_is_torch_sgd_through_the_loop():
    worst, _ = epoch_gap(SETTINGS["Mom-b"], lambda network: split_form(network, 1), samples=150)
    # 150 steps, each less than a rounding of weights of size 1
    assert worst <= 150 * EPS


def test_an_epoch_of_digits_is_torch_sgd():
    worst, accuracy = epoch_gap(SETTINGS["Mom-a"], state_form)
    # 1797 roundings of 2e-16 add up to 4e-13 at most; the loss may amplify early ones a hundred times
    assert worst <= 1e-10
    assert accuracy > 0.7  # chance is 0.1


# a rate γ/(1 − μ) of 0.2, as in "strong momentum" above, makes SGD on single digits chaotic: within an epoch it
# amplifies any rounding to size 1, so there nothing can be compared after the first hundred steps
EPOCH_SETTINGS = {**SETTINGS, "strong momentum": (0.002, 0.9, 0.0, 0.37)}


@pytest.mark.slow
@pytest.mark.parametrize("name", EPOCH_SETTINGS)
@pytest.mark.parametrize(
    "form", [output_form, state_form, lambda network: split_form(network, 1)], ids=["output", "state", "both"]
)
def test_an_epoch_of_digits_is_torch_sgd_in_every_setting_and_form(name, form):
    assert epoch_gap(EPOCH_SETTINGS[name], form)[0] <= 1e-10
