"""The recurrent network: its field, its rest, its bound, and its steps of one part."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import EPS, assert_round_off
from support.learning import draw

from nlsim.core.system import Inputs, Linearised, Relaxing, Stiff
from nlsim.errors import CapabilityError
from nlsim.integrate.control import beyond_stability
from nlsim.integrate.explicit import RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.activation import RELU, TANH
from nlsim.systems.recurrent import RecurrentNetwork

N, SAMPLES = 5, 3
INPUTS = Inputs(draw(1, SAMPLES, 2))
STATE = draw(2, SAMPLES, N)


def net(speed=3.0, activation=TANH):
    return RecurrentNetwork(draw(3, N, N), draw(4, N, 2), activation, speed)


def test_the_field_entry_by_entry():
    system = net(3.0)
    field = system.vector_field(0.0, STATE, INPUTS)
    for sample in range(SAMPLES):
        for i in range(N):
            a = sum(float(system.weight[i, j] * STATE[sample, j]) for j in range(N))
            a += sum(float(system.input_weight[i, j] * INPUTS.input[sample, j]) for j in range(2))
            expected = 3.0 * (math.tanh(a) - float(STATE[sample, i]))
            assert float(field[sample, i]) == pytest.approx(expected, abs=40 * EPS)


def test_it_offers_what_the_steppers_ask_for():
    assert isinstance(net(), Relaxing)
    assert isinstance(net(), Linearised)
    assert isinstance(net(), Stiff)


@pytest.mark.parametrize("speed", [2.0, torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)])
def test_fastest_rate_and_rates(speed):
    system = net(speed)
    assert system.fastest_rate() == (2.0 if isinstance(speed, float) else 8.0)
    assert_round_off(system.rates(STATE), torch.as_tensor(speed, dtype=torch.float64), 0)
    found = beyond_stability(RK4, system, 2.0)
    assert found is not None
    assert found.rate == system.fastest_rate()


def test_one_speed_a_neuron_scales_its_own_row_of_the_solver():
    speed, scale = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64), 0.3
    system, residual = net(speed), draw(5, 1, N)
    alone, inputs = STATE[:1], Inputs(INPUTS.input[:1])
    jacobian = torch.autograd.functional.jacobian(lambda x: system.vector_field(0.0, x[None], inputs)[0], alone[0])
    found = system.linear_solver(0.0, alone, inputs, scale)(residual)
    assert_round_off(found[0] - scale * jacobian @ found[0], residual[0], 200)


@pytest.mark.parametrize(
    ("stepper", "fraction"),
    [(IMPLICIT_SWEEP, 0.6 / 1.6), (EXPONENTIAL_SWEEP, 1 - math.exp(-0.6))],
    ids=["implicit", "exponential"],
)
def test_a_sweep_is_one_simultaneous_step(stepper, fraction):
    system = net(3.0)
    found = stepper.advance(system, lambda t: INPUTS, STATE, 0.0, 0.2, 1)
    target = torch.tanh(STATE @ system.weight.mT + INPUTS.input @ system.input_weight.mT)
    assert_round_off(found, STATE + fraction * (target - STATE), 4)


@pytest.mark.parametrize("stepper", [IMPLICIT_SWEEP, EXPONENTIAL_SWEEP], ids=lambda each: each.name)
@pytest.mark.parametrize("h", [0.01, 1.0, 1e4])
def test_activities_stay_within_the_bound_of_their_activation(stepper, h):
    # a step is a convex combination of x and σ(…), whatever h
    end = stepper.advance(net(3.0), lambda t: INPUTS, 0.99 * STATE, 0.0, h, 50)
    assert float(end.abs().max()) <= 1.0


def test_ensemble_axes_lead():
    system = RecurrentNetwork(draw(3, 4, N, N), draw(4, 4, N, 2), RELU, draw(6, 4, 1, 1, low=1.0, high=2.0))
    state, residual = draw(7, 4, SAMPLES, N), draw(8, 4, SAMPLES, N)
    field = system.vector_field(0.0, state, INPUTS)
    solved = system.linear_solver(0.0, state, INPUTS, 0.1)(residual)
    for member in range(4):
        own = RecurrentNetwork(system.weight[member], system.input_weight[member], RELU, float(system.speed[member]))
        assert_round_off(field[member], own.vector_field(0.0, state[member], INPUTS), 20)
        assert_round_off(solved[member], own.linear_solver(0.0, state[member], INPUTS, 0.1)(residual[member]), 100)


def test_a_signal_without_input_is_refused():
    with pytest.raises(CapabilityError, match="input"):
        net().vector_field(0.0, STATE, Inputs())
