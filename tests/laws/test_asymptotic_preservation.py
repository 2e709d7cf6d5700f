"""At a fixed step the sweeps become backpropagation as the speed grows; the other steppers do not."""

from __future__ import annotations

import math

import pytest
import torch
from support.learning import equal_speeds, make_inputs, make_network, make_problem, make_sinusoid, make_weights
from support.oracle import autograd_gradient
from support.steppers import FIRST as STEPPERS

from nlsim.analysis.orders import observed_order
from nlsim.core.state import leaves
from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import costate_gradient
from nlsim.systems.signals import Constant

NETWORK, SAMPLES, DT = make_network(), 4, 0.05
WEIGHTS = make_weights(NETWORK)
STATIC = make_inputs(NETWORK, SAMPLES)
PIECES = {"static": lambda t: STATIC, "moving": make_sinusoid(NETWORK, SAMPLES).at}
each_piece = pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)

FAST = [1e4, 1e5, 1e6]
# costates and gradient are sums of about ten products over three layers each way
ROUND_OFF = 2e-15


def frozen(c, dissipation=0.0):
    return make_problem(NETWORK, speed=equal_speeds(NETWORK, c), mass=math.inf, dissipation=dissipation)


def gradient_error(name, c, steps, piece):
    """Return ‖g − g_BP‖/‖g_BP‖ after some steps from rest, g_BP by autograd at the same instant."""
    problem = frozen(c)
    start = problem.initial_state(WEIGHTS, SAMPLES)
    state = STEPPERS[name].advance(CostateReversal(problem), piece, start, 0.0, DT, steps)
    now = piece(steps * DT)
    expected = autograd_gradient(NETWORK, problem.loss, WEIGHTS, now)
    found = costate_gradient(problem, state, now)
    distance = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True))
    return math.sqrt(distance / sum(float(e.square().sum()) for e in expected))


@pytest.mark.parametrize(("piece", "steps"), [(PIECES["static"], 1), (PIECES["moving"], 1), (PIECES["moving"], 20)])
def test_implicit_sweep_falls_like_one_over_speed(piece, steps):
    # one step closes cτ/(1 + cτ) of each gap, so every layer passed leaves a relative error of 1/(cτ)
    errors = [gradient_error("implicit_sweep", c, steps, piece) for c in FAST]
    assert abs(observed_order(FAST, errors) + 1) <= 0.05


def test_implicit_sweep_forgets_a_static_start_geometrically():
    # after n steps at static inputs (cτ)^{-n} is left
    errors = [gradient_error("implicit_sweep", c, 2, PIECES["static"]) for c in FAST]
    assert abs(observed_order(FAST, errors) + 2) <= 0.05


@each_piece
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("speed_step", [40.0, 60.0, 1e3, 1e6])
def test_exponential_sweep_is_backpropagation_to_round_off(piece, steps, speed_step):
    # e^{-40} = 4e-18 is below the rounding of 1
    assert gradient_error("exponential_sweep", speed_step / DT, steps, piece) <= ROUND_OFF


def test_exponential_sweep_falls_like_the_exponential():
    # the error per layer is e^{-cτ}: ten units of cτ more, 10 / ln 10 decades less
    first, second = (gradient_error("exponential_sweep", z / DT, 1, PIECES["static"]) for z in (10.0, 20.0))
    assert math.log(first / second) == pytest.approx(10.0, rel=0.01)


def test_simultaneous_exponential_euler_saturates_when_the_input_moves():
    # it becomes the network with unit delays, 2D − 1 = 5 steps late for the first layer, whatever the speed
    errors = [gradient_error("exponential_euler", c, 20, PIECES["moving"]) for c in FAST]
    assert min(errors) >= 0.05
    assert abs(observed_order(FAST, errors)) <= 1e-6


def test_simultaneous_exponential_euler_arrives_late_but_exactly_at_static_inputs():
    depth = NETWORK.depth
    # D steps carry the input to the output and D − 1 more carry the costate back
    assert gradient_error("exponential_euler", 1e6, 2 * depth - 1, PIECES["static"]) >= 0.1
    assert gradient_error("exponential_euler", 1e6, 2 * depth, PIECES["static"]) <= ROUND_OFF


@pytest.mark.parametrize("speed_step", [2.5, 4.0])
def test_explicit_euler_overflows_beyond_its_limit_and_the_run_says_so(speed_step):
    problem = frozen(speed_step / DT)
    loop = Loop(
        CostateReversal(problem),
        FixedStep(STEPPERS["explicit_euler"], DT),
        Constant(STATIC),
        problem.initial_state(WEIGHTS, SAMPLES),
        until=500.0,
    )
    list(loop)
    assert loop.ending == "diverged"
    assert "activity" in loop.detail or "costate" in loop.detail
    assert all(bool(torch.isfinite(leaf).all()) for leaf in leaves(loop.state))
    # the activities grow by |1 − cτ| a step, so overflow comes within ln(1e308)/ln|1 − cτ| steps and one look
    assert loop.steps <= math.log(1e308) / math.log(speed_step - 1) + 100
