"""Time has no unit: all rates times two and times by half is the same run, to the last bit."""

from __future__ import annotations

import dataclasses

import pytest
from support.compare import assert_round_off, assert_same_bits
from support.learning import make_network, make_problem, make_sinusoid, make_state
from support.steppers import FIRST as STEPPERS

from nlsim.core.state import map_leaves
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import hamiltonian

NETWORK = make_network()
STATE, SIGNAL = make_state(NETWORK, 3), make_sinusoid(NETWORK, 3)


def scaled_problem(factor):
    """Return the problem with c and θ times the factor and m divided by its square."""
    plain = make_problem(NETWORK)
    return dataclasses.replace(
        plain,
        speed=tuple(factor * c for c in plain.speed),
        mass=plain.mass / factor**2,
        dissipation=factor * plain.dissipation,
    )


def scaled_signal(factor):
    frequency = Inputs(factor * SIGNAL.frequency.input, factor * SIGNAL.frequency.target)
    return dataclasses.replace(SIGNAL, frequency=frequency)


def ended(stepper, factor):
    system, piece = CostateReversal(scaled_problem(factor)), scaled_signal(factor).at
    return stepper.advance(system, piece, STATE, 0.0, 0.125 / factor, 16)


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
@pytest.mark.parametrize("factor", [0.5, 2.0, 8.0])
def test_powers_of_two_change_no_bit(stepper, factor):
    assert_same_bits(ended(stepper, factor), ended(stepper, 1.0))


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_any_factor_changes_round_off_only(stepper):
    # 16 steps of some hundred roundings each, of a flow that expands little in two units of time
    assert_round_off(ended(stepper, 3.0), ended(stepper, 1.0), 2000)


def test_hamiltonian_is_a_rate():
    inputs = SIGNAL.at(0.3)
    plain, doubled = (hamiltonian(scaled_problem(factor), STATE, inputs) for factor in (1.0, 2.0))
    assert_same_bits(doubled, 2 * plain)


def test_the_field_is_a_rate():
    inputs = SIGNAL.at(0.3)
    plain, doubled = (CostateReversal(scaled_problem(factor)).vector_field(0.0, STATE, inputs) for factor in (1.0, 2.0))
    assert_same_bits(doubled, map_leaves(lambda leaf: 2 * leaf, plain))
