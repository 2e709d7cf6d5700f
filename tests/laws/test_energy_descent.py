"""The heavy ball loses energy at the rate m θ |v|², and none without dissipation."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.learning import make_inputs, make_network, make_weights

from nlsim.analysis.orders import observed_order
from nlsim.integrate.explicit import RK4
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.loss import LOSSES

NETWORK = make_network()
INPUTS = make_inputs(NETWORK, 5)
MASS = 1.5


def ball_and_state(theta, k=0.2, loss="squared_error"):
    ball = HeavyBall(NETWORK, LOSSES[loss], MASS, theta, k)
    return ball, HeavyBallState(make_weights(NETWORK), make_weights(NETWORK, 9))


def path(ball, state, dt, steps):
    states = [state]
    for _ in range(steps):
        states.append(RK4.advance(ball, lambda t: INPUTS, states[-1], 0.0, dt, 1))
    return states


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("k", [0.0, 0.2])
@pytest.mark.parametrize("theta", [0.0, 0.5, 3.0])
def test_power_balance(loss, k, theta):
    # dE/dt = ∇E · f exactly, E being differentiated by torch and f the running vector field
    ball, state = ball_and_state(theta, k, loss)
    slope = torch.func.grad(lambda y: ball.energy(y, INPUTS))(state)
    field = ball.vector_field(0.0, state, INPUTS)
    pairs = [*zip(slope.weight, field.weight, strict=True), *zip(slope.velocity, field.velocity, strict=True)]
    power = sum(float((s * f).sum()) for s, f in pairs)
    lost = MASS * theta * sum(float(v.square().sum()) for v in state.velocity)
    # the terms that cancel are sums of fifty products of size up to 5
    assert power == pytest.approx(-lost, abs=1e-13 * (1 + lost))


@pytest.mark.parametrize("theta", [0.1, 0.5, 3.0])
def test_energy_falls_all_the_way(theta):
    ball, state = ball_and_state(theta)
    energies = [float(ball.energy(each, INPUTS)) for each in path(ball, state, 0.02, 200)]
    assert all(after < before for before, after in itertools.pairwise(energies))


def test_energy_lost_is_the_integral_of_the_power():
    theta, errors, steps = 0.5, [], (20, 40, 80)
    for count in steps:
        ball, state = ball_and_state(theta)
        dt = 1.0 / count
        states = path(ball, state, dt, count)
        lost = [MASS * theta * sum(float(v.square().sum()) for v in each.velocity) for each in states]
        # Simpson's rule is of order 4, as is RK4
        integral = dt / 3 * (lost[0] + lost[-1] + 4 * sum(lost[1:-1:2]) + 2 * sum(lost[2:-1:2]))
        errors.append(abs(float(ball.energy(states[0], INPUTS) - ball.energy(states[-1], INPUTS)) - integral))
    assert errors[-1] <= 1e-6
    assert observed_order([1 / count for count in steps], errors) >= 3.5


def test_energy_is_kept_without_dissipation():
    ball, state = ball_and_state(0.0)
    first = float(ball.energy(state, INPUTS))
    drift = []
    for count in (20, 40):
        last = path(ball, state, 1.0 / count, count)[-1]
        drift.append(abs(float(ball.energy(last, INPUTS)) - first))
    # the drift of RK4 is of order 4 or more
    assert drift[1] <= 1e-5 * first
    assert drift[0] / drift[1] >= 2**3.5


def test_energy_sums_over_samples_and_not_averages():
    ball, state = ball_and_state(0.5, k=0.0)
    still = HeavyBallState(state.weight, tuple(torch.zeros_like(v) for v in state.velocity))
    output = NETWORK.forward(state.weight, INPUTS.input)[-1]
    expected = 0.5 * float((output - INPUTS.target).square().sum())
    assert float(ball.energy(still, INPUTS)) == pytest.approx(expected, rel=1e-14)
