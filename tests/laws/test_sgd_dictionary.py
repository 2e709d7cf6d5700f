"""Hamiltonian Learning: its field, its dictionary, its steps as SGD, and what its step size must not decide."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nlsim.core.system import Inputs
from nlsim.data.catalogue import load
from nlsim.errors import CapabilityError, NlsimError, UnknownNameError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.reset import SampleReset, build_learning
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import FirstStep, Turn, take_turns
from nlsim.systems.hamiltonian.sgd_dictionary import from_learning_problem, from_sgd, to_learning_problem, to_sgd
from nlsim.systems.hamiltonian.state_space import (
    Readout,
    StateSpaceNetwork,
    layered_form,
    output_form,
    split_form,
    state_form,
)
from nlsim.systems.hamiltonian.transition import WholeTransition
from nlsim.systems.loss import CROSS_ENTROPY, LOSSES, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant, HeldSamples, hold, one_hot
from support.compare import EPS, assert_round_off, assert_same_bits, gap
from support.learning import make_network, make_problem, make_sinusoid
from support.learning import make_inputs as make_network_inputs
from support.learning import make_state as make_network_state
from support.oracle import autograd_gradient, scipy_flow
from support.order import assert_order
from support.robust import FORMS, make_inputs, make_learning, make_state, make_weights, net, plain_hamiltonian

each_form = pytest.mark.parametrize("network", FORMS.values(), ids=FORMS)


# the field


@each_form
@pytest.mark.parametrize("loss", LOSSES)
def test_the_field_is_the_gradient_of_the_robust_hamiltonian(network, loss):
    learning, state, inputs = make_learning(network, loss), make_state(network), make_inputs()

    def hamiltonian(h, theta, z):
        return plain_hamiltonian(learning, inputs, h, theta, z, phi=1.7)

    by_h, by_theta, by_z = torch.func.grad(hamiltonian, argnums=(0, 1, 2))(state.activity, state.weight, state.costate)
    expected = LearningState(
        by_z,
        tuple(-0.4 * omega for omega in state.weight_costate),
        tuple(g - 0.3 * z for g, z in zip(by_h, state.costate, strict=True)),
        tuple(g - 0.3 * omega for g, omega in zip(by_theta, state.weight_costate, strict=True)),
    )
    # sums over at most 3 samples, 8 sources and 3 layers, in values up to about 5
    assert_round_off(learning.vector_field(0.0, state, inputs), expected, 200)


@each_form
@pytest.mark.parametrize("loss", LOSSES)
def test_the_hamiltonian_is_the_one_written_out_again(network, loss):
    learning, state, inputs = make_learning(network, loss), make_state(network), make_inputs()
    expected = plain_hamiltonian(learning, inputs, state.activity, state.weight, state.costate, phi=1.7)
    assert_round_off(learning.hamiltonian(0.0, state, inputs), expected, 500)


@each_form
def test_an_ensemble_is_its_members(network):
    learning, state, inputs = make_learning(network), make_state(network, ensemble=(4,)), make_inputs()
    betas, etas = torch.tensor([0.1, 0.2, 0.3, 0.4]).double(), torch.tensor([0.0, 0.3, 0.6, 0.9]).double()
    phis = torch.tensor([1.0, 0.5, 2.0, 3.0]).double()
    together = replace(learning, constants=LearningConstants(betas, etas, phis, 0.2))
    fields = together.vector_field(0.0, state, inputs)
    steps = together.ordered_step(0.0, state, inputs, 0.1, moves_with_old=False)
    energies = together.hamiltonian(0.0, state, inputs)
    for index in range(4):
        constants = LearningConstants(float(betas[index]), float(etas[index]), float(phis[index]), 0.2)
        alone = replace(learning, constants=constants)
        member = LearningState(
            *(
                tuple(leaf[index] for leaf in getattr(state, name))
                for name in ("activity", "weight", "costate", "weight_costate")
            )
        )
        expected = alone.vector_field(0.0, member, inputs)
        for name in ("activity", "weight", "costate", "weight_costate"):
            found = tuple(leaf[index] for leaf in getattr(fields, name))
            assert_round_off(found, getattr(expected, name), 50)
            found = tuple(leaf[index] for leaf in getattr(steps, name))
            ordered = alone.ordered_step(0.0, member, inputs, 0.1, moves_with_old=False)
            assert_round_off(found, getattr(ordered, name), 50)
        assert_round_off(energies[index], alone.hamiltonian(0.0, member, inputs), 100)


# the dictionary to the costate-only reversal


@pytest.mark.parametrize("activation", ["tanh", "logistic", "relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_learning_problem_in_the_other_words_has_the_same_field(activation, loss):
    network = make_network(activation=activation)
    problem = make_problem(network, loss=LOSSES[loss])
    state, inputs = make_network_state(network, 3), make_network_inputs(network, 3)
    expected = CostateReversal(problem).vector_field(0.0, state, inputs)
    learning = from_learning_problem(problem)
    # the same sums with constants multiplied in another order
    assert_round_off(learning.vector_field(0.0, state, inputs), expected, 20)
    back = to_learning_problem(learning)
    assert_round_off(CostateReversal(back).vector_field(0.0, state, inputs), expected, 20)
    assert (back.speed, back.network, back.loss) == (problem.speed, problem.network, problem.loss)
    assert back.mass == pytest.approx(problem.mass, rel=4 * EPS)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_hamiltonian_learning_with_its_own_loss_weight_is_a_learning_problem(loss, beta):
    learning = make_learning(FORMS["layers"], loss, beta=beta)
    state, inputs = make_state(FORMS["layers"]), make_inputs()
    reversal = CostateReversal(to_learning_problem(learning))
    assert_round_off(reversal.vector_field(0.0, state, inputs), learning.vector_field(0.0, state, inputs), 20)


@pytest.mark.parametrize(
    ("learning", "where"),
    [
        (make_learning(FORMS["state"]), "learning.network"),
        (make_learning(FORMS["layers and output"]), "learning.network"),
        (make_learning(FORMS["layers"], phi=FirstStep(1.0, 0.5, 1.0)), "learning.constants.phi"),
        (replace(make_learning(FORMS["layers"]), speed=take_turns(3, 0.5)), "learning.speed"),
    ],
    ids=["whole", "readout", "phi", "turns"],
)
def test_what_has_no_neurons_with_a_constant_speed_is_no_learning_problem(learning, where):
    with pytest.raises(CapabilityError) as refusal:
        to_learning_problem(learning)
    assert refusal.value.where == where


# the dictionary to SGD

SETTINGS = {
    "GD-a": (0.01, 0.0, 0.0, 1.0),
    "GD-b": (0.001, 0.0, 0.0, 0.5),
    "Mom-a": (0.01, 0.05, 0.6, 1.0),
    "Mom-b": (0.01, 0.1, 0.5, 0.5),
    "strong momentum": (0.02, 0.9, 0.0, 0.37),
}
"""Learning rate, momentum, dampening and τ; the first four are those of Melacci et al., section 5."""

NET = LayeredNetwork((3, 4, 5, 2), (TANH, TANH, IDENTITY))
LEARNING_FORMS = {"output": output_form(NET), "state": state_form(NET), "state and output": split_form(NET, 1)}
each_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
each_learning_form = pytest.mark.parametrize("network", LEARNING_FORMS.values(), ids=LEARNING_FORMS)
STEPS = 40


def batches(count=STEPS, samples=2):
    return [make_inputs(samples, seed=50 + index) for index in range(count)]


def torch_sgd(setting, weights, stream, *, weight_decay=0.0):
    """Return the weights after each step of torch's own optimiser along autograd's gradients."""
    rate, momentum, dampening, _ = setting
    own = [w.clone().requires_grad_() for w in weights]
    optimiser = torch.optim.SGD(own, lr=rate, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    trajectory = []
    for inputs in stream:
        for w, g in zip(own, autograd_gradient(NET, CROSS_ENTROPY, own, inputs), strict=True):
            w.grad = g
        optimiser.step()
        trajectory.append(tuple(w.detach().clone() for w in own))
    return trajectory


def learn(system, stepper, weights, stream, tau):
    """Return the weights after each sample, the state being reset after each."""
    state, trajectory = system.initial_state(weights, stream[0].input.shape[0]), []
    for index, inputs in enumerate(stream):
        state = stepper.advance(system, hold(inputs), state, index * tau, tau, 1)
        trajectory.append(state.weight)
        state = system.jump((index + 1) * tau, state, inputs)
    return trajectory


def as_learning(network, setting, *, weight_decay=0.0):
    rate, momentum, dampening, tau = setting
    constants = from_sgd(rate, momentum, dampening, tau=tau, weight_decay=weight_decay)
    return SampleReset(HamiltonianLearning(network, CROSS_ENTROPY, constants, (1 / tau,) * len(network.widths)))


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


@pytest.mark.parametrize("stepper", [EXPLICIT_EULER, ORDERED_EULER, ORDERED_EULER_OLD], ids=lambda each: each.name)
@pytest.mark.parametrize("name", ["output", "layers", "deep recurrent"])
def test_with_dissipation_steps_converge_to_the_flow_at_first_order(stepper, name):
    learning, state, inputs = make_learning(FORMS[name], eta=0.6), make_state(FORMS[name]), make_inputs()
    span, counts = 1.0, (200, 400, 800)
    exact = scipy_flow(learning, hold(inputs), state, 0.0, span)
    errors = [gap(stepper.advance(learning, hold(inputs), state, 0.0, span / n, n), exact) for n in counts]
    assert_order(1, counts, errors)


def test_one_neuron_and_one_weight_with_dissipation_have_a_limit():
    network = layered_form(net(1, 1, activation="tanh", has_bias=False))
    learning = HamiltonianLearning(network, SQUARED_ERROR, LearningConstants(1.0, 0.1, 1.0), (1.0,))
    inputs = Inputs(torch.ones(1, 1).double(), torch.full((1, 1), 0.8).double())
    start = learning.initial_state((torch.full((1, 1), 0.2).double(),), 1)
    exact = float(scipy_flow(learning, hold(inputs), start, 0.0, 5.0).weight[0])
    counts = (50, 100, 200, 400, 800)  # dt from 0.1 to 0.00625
    found = [float(EXPLICIT_EULER.advance(learning, hold(inputs), start, 0.0, 5.0 / n, n).weight[0]) for n in counts]
    errors = [abs(each - exact) for each in found]
    assert abs(exact - 0.2) > 0.3, "nothing was learned, so nothing could be lost"
    assert_order(1, counts[1:], errors[1:])


@pytest.mark.parametrize("stepper", [ORDERED_EULER, ORDERED_EULER_OLD], ids=lambda each: each.name)
def test_many_steps_at_once_are_as_many_single_steps(stepper):
    # inputs, loss weight and speeds all change from step to step
    signal = make_sinusoid(net(3, 4, 5, 2), 3)
    learning = replace(
        make_learning(FORMS["layers"], phi=FirstStep(1.0, 0.5, 0.25)), speed=take_turns(3, 0.25, period=4)
    )
    state = single = make_state(FORMS["layers"])
    together = stepper.advance(learning, signal.piece(0.0), state, 0.0, 0.25, 6)
    for index in range(6):
        single = stepper.advance(learning, signal.piece(0.0), single, index * 0.25, 0.25, 1)
    assert_same_bits(together, single)


# layers that take turns

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


# what cannot be built


@pytest.mark.parametrize(
    ("build", "where"),
    [
        (lambda: StateSpaceNetwork(None, None), "StateSpaceNetwork"),
        (lambda: StateSpaceNetwork(None, Readout(net(3, 2))), "StateSpaceNetwork.readout.reads_input"),
        (
            lambda: StateSpaceNetwork(WholeTransition(net(5, 2)), Readout(net(3, 2))),
            "StateSpaceNetwork.readout.network.widths",
        ),
        (
            lambda: StateSpaceNetwork(WholeTransition(net(5, 2)), Readout(net(2, 2), reads_input=True)),
            "StateSpaceNetwork.readout.network.widths",
        ),
        (lambda: split_form(net(3, 2), 1), "split_form(at=)"),
        (lambda: split_form(net(3, 4, 2), 0), "split_form(at=)"),
        (
            lambda: HamiltonianLearning(layered_form(net(3, 2)), SQUARED_ERROR, LearningConstants(1.0, 0.0, 1.0)),
            "HamiltonianLearning.speed",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused_by_name(build, where):
    with pytest.raises(NlsimError) as refusal:
        build()
    assert refusal.value.where == where


def test_ordered_steps_are_refused_to_systems_without_an_order():
    with pytest.raises(CapabilityError, match="Ordered") as refusal:
        FixedStep(ORDERED_EULER, 0.1).require(CostateReversal(make_problem()))
    assert "hamiltonian_learning" in str(refusal.value)


def test_observables_are_what_they_say():
    learning, state, inputs = make_learning(FORMS["recurrent"]), make_state(FORMS["recurrent"]), make_inputs()
    seen = {name: each.evaluate(0.0, state, inputs) for name, each in learning.observables().items()}
    assert sorted(seen) == sorted(
        ["loss", "hamiltonian", "activity/1", "costate/1"]
        + [f"{field}/{layer}" for field in ("weight", "weight_costate") for layer in (1, 2)]
    )
    assert_same_bits((seen["activity/1"], seen["weight_costate/2"]), (state.activity[0], state.weight_costate[1]))
    for name, each in learning.observables().items():
        assert seen[name].ndim == len(each.dims)
    without = replace(learning, constants=replace(learning.constants, regularisation=0.0))
    at_rest = replace(state, costate=tuple(torch.zeros_like(z) for z in state.costate))
    assert_round_off(without.hamiltonian(0.0, at_rest, inputs), 1.7 * seen["loss"], 10)


def test_the_fastest_rate_is_that_of_the_fastest_costate():
    assert make_learning(FORMS["layers"]).fastest_rate() == pytest.approx(1.0 + 0.6 * 2 + 0.3)
    assert make_learning(FORMS["output"]).fastest_rate() == pytest.approx(0.3)
    assert replace(make_learning(FORMS["layers"]), speed=take_turns(3, 0.5)).fastest_rate() == pytest.approx(2.3)


# a data set


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


@pytest.mark.parametrize("form", ["output", "state", "layers"])
def test_a_scenario_s_values_make_the_system(form):
    values = {"beta": 0.4, "eta": 0.3, "phi": 1.7, "speed": 2.0, "regularisation": 0.2}
    system = build_learning(NET, SQUARED_ERROR, form=form, **values)
    parts = {"output": (), "state": (2,), "layers": (4, 5, 2)}[form]
    assert (system.learning.network.widths, system.learning.speed) == (parts, (2.0,) * len(parts))
    assert system.learning.constants == LearningConstants(0.4, 0.3, 1.7, 0.2)
    assert system.learning.network.networks == (NET,)


def test_another_form_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'layers'"):
        build_learning(NET, SQUARED_ERROR, form="layer", beta=1.0, eta=0.0, phi=1.0, speed=1.0)


def test_a_signal_without_edges_never_resets():
    system = as_learning(LEARNING_FORMS["state"], SETTINGS["Mom-b"])
    state = system.initial_state(make_weights(LEARNING_FORMS["state"]), 3)
    loop = Loop(system, FixedStep(ORDERED_EULER, 0.5), Constant(make_inputs()), state, until=1.0)
    list(loop)
    assert float(loop.state.costate[0].abs().max()) > 0
