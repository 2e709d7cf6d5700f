"""Bounded in, bounded out: |x| ≤ max(|x₀|, sup|σ|), kept by relaxation steps at any cτ."""

from __future__ import annotations

import pytest
import torch
from support.compare import EPS
from support.learning import equal_speeds, make_inputs, make_network, make_problem, make_state
from support.steppers import FIRST as STEPPERS

from nlsim.core.state import map_leaves
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.learning import CostateReversal

DT, STEPS = 0.1, 50
RELAXATIONS = ("implicit_sweep", "exponential_sweep", "exponential_euler")


def largest_activity(name, speed_step, activation, seed):
    """Return sup |x| over a run from activities up to 2 with large moving weights, and the largest at the start."""
    network = make_network(activation=activation)
    system = CostateReversal(make_problem(network, speed=equal_speeds(network, speed_step / DT), dissipation=1.0))
    inputs = make_inputs(network, 4, seed=seed)
    state = map_leaves(lambda leaf: 2 * leaf, make_state(network, 4, seed=seed))
    start = max(float(x.abs().max()) for x in state.activity)
    reached = start
    for step in range(STEPS):
        state = STEPPERS[name].advance(system, lambda t: inputs, state, step * DT, DT, 1)
        reached = max(reached, *(float(x.abs().max()) for x in state.activity))
    return reached, start


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("speed_step", [0.1, 1.0, 1.5, 10.0, 1e6])
@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_relaxation_steps_keep_the_bound(name, speed_step, activation):
    for seed in range(3):
        reached, start = largest_activity(name, speed_step, activation, seed)
        # each step is a convex combination of x and σ; it rounds at most twice, and never accumulates beyond 1
        assert reached <= max(start, 1.0) * (1 + 4 * EPS)


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("speed_step", [0.1, 0.5, 1.0])
def test_explicit_euler_keeps_the_bound_up_to_one(speed_step, activation):
    for seed in range(3):
        reached, start = largest_activity("explicit_euler", speed_step, activation, seed)
        assert reached <= max(start, 1.0) * (1 + 4 * EPS)


@pytest.mark.parametrize("speed_step", [1.2, 1.5, 1.9])
def test_explicit_euler_breaks_the_bound_between_one_and_two(speed_step):
    # one neuron at x = 1 whose input asks for −1: x⁺ = (1 − cτ) − cτ = 1 − 2cτ < −1, although cτ < 2 is stable
    network = make_network((1, 1), has_bias=False)
    system = CostateReversal(make_problem(network, speed=(speed_step / DT,), mass=float("inf")))
    weight = (torch.tensor([[-50.0]], dtype=torch.float64),)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    state = make_problem(network).initial_state(weight, 1)
    state = type(state)((torch.ones_like(zero),), weight, state.costate, state.weight_costate)
    inputs = Inputs(torch.ones_like(zero), zero)
    after = STEPPERS["explicit_euler"].advance(system, lambda t: inputs, state, 0.0, DT, 1)
    assert float(after.activity[0]) == pytest.approx(1 - 2 * speed_step, rel=1e-14)
    assert float(after.activity[0].abs()) > 1.0
