"""Leading axes: an ensemble is its members one by one, weights and constants alike."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, make_inputs, make_network, make_problem, make_sinusoid, make_state, member
from support.steppers import FIRST as STEPPERS

from nlsim.core.state import map_leaves
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.observables import learning_observables

NETWORK = make_network()
MEMBERS, SAMPLES = 4, 3
# batched products may sum in another order: some fifty roundings of sums of fewer than ten products
ROUNDINGS = 100

CONSTANTS = {
    "shared": {},
    "speed": {"speed": tuple(draw(layer, MEMBERS, low=0.5, high=4.0) for layer in range(3))},
    "one speed": {"speed": (1.0, draw(9, MEMBERS, low=0.5, high=4.0), 2.0)},
    "mass": {"mass": draw(11, MEMBERS, low=0.5, high=4.0)},
    "dissipation": {"dissipation": draw(12, MEMBERS, low=0.0, high=1.0)},
    "regularisation": {"regularisation": draw(13, MEMBERS, low=0.0, high=1.0)},
    "frozen": {"mass": torch.full((MEMBERS,), torch.inf, dtype=torch.float64)},
}
CONSTANTS["all"] = {key: CONSTANTS[key][key] for key in ("speed", "mass", "dissipation", "regularisation")}
each_choice = pytest.mark.parametrize("constants", CONSTANTS.values(), ids=CONSTANTS)


def problems(constants):
    together = make_problem(NETWORK, **constants)

    def pick(value, index):
        if isinstance(value, tuple):
            return tuple(pick(each, index) for each in value)
        return float(value[index]) if isinstance(value, torch.Tensor) else value

    alone = [
        dataclasses.replace(together, **{key: pick(value, index) for key, value in constants.items()})
        for index in range(MEMBERS)
    ]
    return together, alone


@each_choice
@pytest.mark.parametrize("kind", [CostateReversal, HamiltonEquations])
def test_vector_field_and_hamiltonian(kind, constants):
    together, alone = problems(constants)
    state, inputs = make_state(NETWORK, SAMPLES, ensemble=(MEMBERS,)), make_inputs(NETWORK, SAMPLES)
    field = kind(together).vector_field(0.0, state, inputs)
    energy = kind(together).hamiltonian(0.0, state, inputs)
    assert energy.shape == (MEMBERS,)
    for index, problem in enumerate(alone):
        mine = member(state, index)
        assert_round_off(member(field, index), kind(problem).vector_field(0.0, mine, inputs), ROUNDINGS)
        assert_round_off(energy[index], kind(problem).hamiltonian(0.0, mine, inputs), ROUNDINGS)


@each_choice
@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_steps(stepper, constants):
    together, alone = problems(constants)
    state, piece = make_state(NETWORK, SAMPLES, ensemble=(MEMBERS,)), make_sinusoid(NETWORK, SAMPLES).at
    ended = stepper.advance(CostateReversal(together), piece, state, 0.0, 0.1, 3)
    for index, problem in enumerate(alone):
        expected = stepper.advance(CostateReversal(problem), piece, member(state, index), 0.0, 0.1, 3)
        assert_round_off(member(ended, index), expected, 3 * ROUNDINGS)


@each_choice
def test_observables(constants):
    together, alone = problems(constants)
    state, inputs = make_state(NETWORK, SAMPLES, ensemble=(MEMBERS,)), make_inputs(NETWORK, SAMPLES)
    for name, seen in learning_observables(together).items():
        values = seen.evaluate(0.0, state, inputs)
        for index, problem in enumerate(alone):
            expected = learning_observables(problem)[name].evaluate(0.0, member(state, index), inputs)
            assert_round_off(values[index], expected, 10 * ROUNDINGS)


def test_two_leading_axes():
    system = CostateReversal(make_problem(NETWORK))
    state, inputs = make_state(NETWORK, SAMPLES, ensemble=(2, 3)), make_inputs(NETWORK, SAMPLES)
    field = system.vector_field(0.0, state, inputs)
    for i in range(2):
        for j in range(3):
            one = map_leaves(lambda leaf, i=i, j=j: leaf[i, j], state)
            found = map_leaves(lambda leaf, i=i, j=j: leaf[i, j], field)
            assert_round_off(found, system.vector_field(0.0, one, inputs), ROUNDINGS)


def test_rates_of_an_ensemble_broadcast_to_its_state():
    together, alone = problems(CONSTANTS["all"])
    state = make_state(NETWORK, SAMPLES, ensemble=(MEMBERS,))
    spread = map_leaves(lambda rate, leaf: rate.expand_as(leaf), CostateReversal(together).rates(state), state)
    for index, problem in enumerate(alone):
        mine = member(state, index)
        expected = map_leaves(lambda rate, leaf: rate.expand_as(leaf), CostateReversal(problem).rates(mine), mine)
        assert_round_off(member(spread, index), expected, 4)


def test_scalar_rates_of_an_ensemble_are_those_of_its_worst_member():
    together, alone = problems(CONSTANTS["all"])
    for question in ("slow_rate", "fastest_rate"):
        answers = [getattr(CostateReversal(problem), question)() for problem in alone]
        assert getattr(CostateReversal(together), question)() == pytest.approx(max(answers), rel=1e-15)
