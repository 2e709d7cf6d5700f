"""At static inputs: what the costates rest at, how they get there, and how the exact equations run away."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_round_off, size
from support.learning import equal_speeds, make_inputs, make_network, make_problem, make_weights
from support.oracle import autograd_gradient, scipy_flow

from nlsim.integrate.relaxation import IMPLICIT_SWEEP
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningState, costate_gradient
from nlsim.systems.loss import LOSSES

NETWORK = make_network()
DEPTH, SAMPLES = NETWORK.depth, 4
WEIGHTS, INPUTS = make_weights(NETWORK), make_inputs(NETWORK, SAMPLES)


def at_rest(problem, dt=1e3):
    """Return the state after 30 implicit steps, which leave (1 + cτ)^{−30} of any gap, once it does not move."""
    system = CostateReversal(problem)
    start = problem.initial_state(WEIGHTS, SAMPLES)
    state = IMPLICIT_SWEEP.advance(system, lambda t: INPUTS, start, 0.0, dt, 30)
    fastest = max(problem.speed)
    field = system.vector_field(0.0, state, INPUTS)
    assert size((field.activity, field.costate)) <= 1e-14 * fastest
    return state


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("speed", [(0.5,) * 3, (1.0,) * 3, (50.0,) * 3, (0.5, 50.0, 3.0), (7.0, 0.5, 0.9)], ids=str)
def test_rest_without_dissipation_is_backpropagation_at_any_speed(loss, speed):
    problem = make_problem(NETWORK, loss=LOSSES[loss], speed=speed, mass=math.inf, dissipation=0.0)
    found = costate_gradient(problem, at_rest(problem), INPUTS)
    expected = autograd_gradient(NETWORK, LOSSES[loss], WEIGHTS, INPUTS)
    for f, e in zip(found, expected, strict=True):
        assert float((f - e).abs().max()) <= 1e-13


@pytest.mark.parametrize("theta", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("speed", [(0.5,) * 3, (50.0,) * 3, (0.5, 50.0, 3.0)], ids=str)
def test_dissipation_attenuates_layer_by_layer(theta, speed):
    # every layer between the loss and layer l, both included, passes on c/(c + θ): the power D − l + 1 of it
    problem = make_problem(NETWORK, speed=speed, mass=math.inf, dissipation=theta)
    found = costate_gradient(problem, at_rest(problem), INPUTS)
    exact = autograd_gradient(NETWORK, problem.loss, WEIGHTS, INPUTS)
    for layer in range(DEPTH):
        factor = math.prod(c / (c + theta) for c in speed[layer:])
        assert_round_off(found[layer], factor * exact[layer], 200)


def settled(c):
    """Return a problem at θ = 0 with frozen weights, activities at rest and costates 0; and ∂L/∂x."""
    problem = make_problem(NETWORK, speed=equal_speeds(NETWORK, c), mass=math.inf, dissipation=0.0)
    rest = backpropagate(NETWORK, problem.loss, WEIGHTS, INPUTS)
    start = problem.initial_state(WEIGHTS, SAMPLES)
    return problem, LearningState(rest.activity, WEIGHTS, start.costate, start.weight_costate), rest.costate


def poisson(z, terms):
    return math.fsum(z**k / math.factorial(k) for k in range(terms))


@pytest.mark.parametrize("c", [0.5, 4.0])
@pytest.mark.parametrize("z", [0.5, 3.0, 6.0])
def test_reversed_costates_arrive_as_a_sum_of_waiting_times(c, z):
    # π_l = g_l (1 − e^{−z} Σ_{k ≤ D−l} z^k/k!) with z = ct: the loss passes D − l + 1 exponential delays
    problem, state, g = settled(c)
    ended = scipy_flow(CostateReversal(problem), lambda t: INPUTS, state, 0.0, z / c)
    expected = tuple((1 - math.exp(-z) * poisson(z, DEPTH - layer)) * g[layer] for layer in range(DEPTH))
    # DOP853 at 1e-13 over at most six time constants
    for found, exact in zip(ended.costate, expected, strict=True):
        assert torch.allclose(found, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize("c", [0.5, 4.0])
@pytest.mark.parametrize("z", [0.5, 3.0, 6.0])
def test_exact_costates_run_forward_blow_up_at_the_speed(c, z):
    # the same with z → −z: π_l = g_l (1 − e^{z} Σ_{k ≤ D−l} (−z)^k/k!)
    problem, state, g = settled(c)
    ended = scipy_flow(HamiltonEquations(problem), lambda t: INPUTS, state, 0.0, z / c)
    for layer, found in enumerate(ended.costate):
        exact = (1 - math.exp(z) * poisson(-z, DEPTH - layer)) * g[layer]
        assert torch.allclose(found, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("c", [1.0, 4.0])
def test_growth_rate_of_the_exact_costates(c):
    # between t = 6/c and 12/c the output's costate grows at c (e^12 − 1)/(e^6 − 1), those below by powers of t faster
    problem, state, _ = settled(c)
    middle, end = (
        scipy_flow(HamiltonEquations(problem), lambda t: INPUTS, state, 0.0, z / c).costate for z in (6.0, 12.0)
    )
    rates = [
        math.log(float(late.norm() / early.norm())) / (6.0 / c) / c for early, late in zip(middle, end, strict=True)
    ]
    assert rates[-1] == pytest.approx(math.log(math.expm1(12.0) / math.expm1(6.0)) / 6.0, rel=1e-8)
    assert rates[-1] < rates[-2] < rates[-3] < 1.5
