"""Hamiltonian Learning: its field, its Hamiltonian, its limit, and what its step size must not decide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.compare import EPS, assert_round_off, assert_same_bits, gap
from support.learning import make_inputs as make_network_inputs
from support.learning import make_network, make_problem, make_sinusoid
from support.learning import make_state as make_network_state
from support.oracle import scipy_flow
from support.order import assert_order
from support.robust import FORMS, make_inputs, make_learning, make_state, make_weights, net, plain_hamiltonian
from support.sgd import (
    LEARNING_FORMS,
    NET,
    SETTINGS,
    as_learning,
)

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, NlsimError, UnknownNameError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.hamiltonian.reset import build_learning
from nlsim.systems.hamiltonian.robust import HamiltonianLearning, LearningConstants
from nlsim.systems.hamiltonian.schedule import FirstStep, take_turns
from nlsim.systems.hamiltonian.sgd_dictionary import from_learning_problem, to_learning_problem
from nlsim.systems.hamiltonian.state_space import (
    Readout,
    StateSpaceNetwork,
    layered_form,
    split_form,
)
from nlsim.systems.hamiltonian.transition import WholeTransition
from nlsim.systems.loss import LOSSES, SQUARED_ERROR
from nlsim.systems.signals import Constant, hold

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
