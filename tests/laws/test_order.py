"""Every fixed stepper converges at its declared order ± 0.05 on problems that are neither linear nor autonomous."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.compare import gap
from support.flow import Swing
from support.learning import make_network, make_problem, make_sinusoid, make_state, make_weights
from support.oracle import scipy_flow
from support.order import assert_order, end_errors
from support.steppers import FIRST as STEPPERS

from nlsim.integrate.explicit import HEUN, RK4, ExplicitRungeKutta
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.loss import LOSSES

# the slope's own error is one power of h higher: at most 0.02 for the largest of these steps, seen by halving
COUNTS = (40, 80, 160)
EXPLICIT = {name: each for name, each in STEPPERS.items() if isinstance(each, ExplicitRungeKutta)}
SAMPLES = 3


def swing_errors(stepper):
    system, start = Swing(), torch.tensor([2.0], dtype=torch.float64)
    exact = torch.tensor([system.exact(1.0, 2.0)], dtype=torch.float64)
    return end_errors(stepper, system, system.piece, start, 1.0, exact, COUNTS)


@pytest.fixture(scope="module")
def learning():
    """Return a reversal with all constants at work, a moving signal, a state, and where it is at t = 1."""
    network = make_network((2, 3, 2))
    system, signal = CostateReversal(make_problem(network)), make_sinusoid(network, SAMPLES)
    state = make_state(network, SAMPLES)
    return system, signal.at, state, scipy_flow(system, signal.at, state, 0.0, 1.0)


def learning_errors(stepper, learning):
    system, piece, state, exact = learning
    return end_errors(stepper, system, piece, state, 1.0, exact, COUNTS)


@pytest.mark.parametrize("stepper", EXPLICIT.values(), ids=EXPLICIT)
def test_order_on_a_closed_form(stepper):
    assert_order(stepper.order, COUNTS, swing_errors(stepper))


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_order_on_a_learning_network_with_moving_inputs(stepper, learning):
    assert_order(stepper.order, COUNTS, learning_errors(stepper, learning))


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_order_on_the_heavy_ball(stepper):
    network = make_network((2, 3, 2))
    ball = HeavyBall(network, LOSSES["cross_entropy"], mass=0.7, dissipation=0.5, regularisation=0.3)
    piece, state = make_sinusoid(network, SAMPLES).at, HeavyBallState(make_weights(network), make_weights(network, 9))
    exact = scipy_flow(ball, piece, state, 0.0, 1.0)
    assert_order(stepper.order, COUNTS, end_errors(stepper, ball, piece, state, 1.0, exact, COUNTS))


def test_reference_solvers_agree(learning):
    system, piece, state, exact = learning
    # Radau shares no formula with DOP853; at rtol 1e-10 it is good to about 1e-10, far below every error above
    assert gap(scipy_flow(system, piece, state, 0.0, 1.0, method="Radau", rtol=1e-10), exact) <= 1e-9


class TestTeeth:
    """Faults of order that the laws above must see."""

    # right on autonomous systems, order 1 otherwise: the second stage is taken at the wrong time
    NODE = dataclasses.replace(HEUN, nodes=(0.0, 0.0))
    # one coefficient of RK4 off by a tenth
    WEIGHT = dataclasses.replace(RK4, stages=((), (0.5,), (0.0, 0.4), (0.0, 0.0, 1.0)))

    @pytest.mark.parametrize("faulty", [NODE, WEIGHT], ids=["wrong node", "wrong stage"])
    def test_on_a_closed_form(self, faulty):
        with pytest.raises(AssertionError, match="declared"):
            assert_order(faulty.order, COUNTS, swing_errors(faulty))

    @pytest.mark.parametrize("faulty", [NODE, WEIGHT], ids=["wrong node", "wrong stage"])
    def test_on_a_learning_network(self, faulty, learning):
        with pytest.raises(AssertionError, match="declared"):
            assert_order(faulty.order, COUNTS, learning_errors(faulty, learning))
