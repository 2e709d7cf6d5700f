"""One pass forward and one back solve the implicit Euler equations of the fast block exactly."""

from __future__ import annotations

import dataclasses
import math

import pytest
from support.compare import EPS, assert_round_off
from support.learning import make_network, make_problem, make_sinusoid, make_state

from nlsim.core.state import leaves
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.hamiltonian.learning import CostateReversal

NETWORK = make_network()
PIECE = make_sinusoid(NETWORK, 3).at
SPEEDS = (1.0, 3.0, 0.5)


def system_at(speed, **constants):
    return CostateReversal(make_problem(NETWORK, speed=tuple(speed * each for each in SPEEDS), **constants))


@pytest.mark.parametrize("speed", [0.1, 1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize("mass", [1.5, math.inf])
def test_residual_of_the_implicit_equations_is_round_off(speed, mass):
    system, old, dt = system_at(speed, mass=mass), make_state(NETWORK, 3), 0.1
    new = IMPLICIT_SWEEP.advance(system, PIECE, old, 0.0, dt, 1)
    # y⁺ = y + τ f(t + τ, y⁺) with the weights that the step began with
    at_end = dataclasses.replace(new, weight=old.weight)
    slope = system.vector_field(dt, at_end, PIECE(dt))
    for field in ("activity", "costate"):
        for after, before, rate in zip(*(getattr(each, field) for each in (new, old, slope)), strict=True):
            residual = float((after - before - dt * rate).abs().max())
            # the terms of τ f are of size τ c · 10, and each is good to a few roundings
            assert residual <= 20 * EPS * (1 + dt * speed * 3 * 10)


@pytest.mark.parametrize("speed", [0.1, 10.0, 1e3])
def test_slow_block_takes_an_explicit_step_with_the_new_fast_values(speed):
    system, old, dt = system_at(speed), make_state(NETWORK, 3), 0.1
    problem = system.problem
    new = IMPLICIT_SWEEP.advance(system, PIECE, old, 0.0, dt, 1)
    mixed = dataclasses.replace(new, weight=old.weight, weight_costate=old.weight_costate)
    slope = system.vector_field(dt, mixed, PIECE(dt))
    costates = tuple(p + dt * f for p, f in zip(old.weight_costate, slope.weight_costate, strict=True))
    assert_round_off(new.weight_costate, costates, 50)
    inertia = problem.mass * problem.mean_speed
    weights = tuple(w - dt * p / inertia for w, p in zip(old.weight, costates, strict=True))
    assert_round_off(new.weight, weights, 50)


@pytest.mark.parametrize("speed", [0.1, 1.0, 10.0])
def test_exponential_sweep_solves_each_layer_exactly_for_held_neighbours(speed):
    # x⁺ = e^{−cτ} x + (1 − e^{−cτ}) σ(W x̃⁺), and likewise with rate c + θ for the costates
    system, old, dt = system_at(speed), make_state(NETWORK, 3), 0.1
    new = EXPONENTIAL_SWEEP.advance(system, PIECE, old, 0.0, dt, 1)
    at_end = dataclasses.replace(new, weight=old.weight)
    slope = system.vector_field(dt, at_end, PIECE(dt))
    rates = system.rates(old)
    for field in ("activity", "costate"):
        parts = (getattr(each, field) for each in (new, old, slope, rates))
        for after, before, velocity, rate in zip(*parts, strict=True):
            target = after + velocity / rate
            kept = math.exp(-float(rate) * dt)
            assert_round_off(after, kept * before + (1 - kept) * target, 50)


def test_rates_are_those_of_the_linear_part():
    system, state = system_at(2.0, dissipation=0.3), make_state(NETWORK, 3)
    rates = system.rates(state)
    assert [float(each) for each in rates.activity] == [2.0, 6.0, 1.0]
    assert [float(each) for each in rates.costate] == pytest.approx([2.3, 6.3, 1.3])
    assert all(float(each) == 0.0 for each in leaves((rates.weight, rates.weight_costate)))
