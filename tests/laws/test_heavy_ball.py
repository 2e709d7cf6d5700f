"""The heavy ball under splittings: order, energy without dissipation, and the factor by which phase space shrinks."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_round_off
from support.learning import make_inputs, make_network, make_weights
from support.oracle import scipy_flow
from support.order import assert_order, end_errors

from nlsim.core.state import clone, map_leaves
from nlsim.integrate.conformal import CONFORMAL_MIDPOINT, CONFORMAL_VERLET
from nlsim.integrate.symplectic import STORMER_VERLET, SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.signals import hold

NETWORK = make_network()
INPUTS = make_inputs(NETWORK, 3)
SPLITTINGS = (SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT, STORMER_VERLET, CONFORMAL_MIDPOINT, CONFORMAL_VERLET)
by_name = {"ids": lambda each: each.name}


def ball(dissipation):
    return HeavyBall(NETWORK, SQUARED_ERROR, 1.5, dissipation, 0.1)


def start():
    return HeavyBallState(make_weights(NETWORK), make_weights(NETWORK, 9))


@pytest.mark.parametrize("dissipation", [0.0, 0.8])
@pytest.mark.parametrize("stepper", SPLITTINGS, **by_name)
def test_splittings_have_their_order(stepper, dissipation):
    exact = scipy_flow(ball(dissipation), hold(INPUTS), start(), 0.0, 1.0)
    counts = (128, 256, 512) if stepper.order == 1 else (32, 64, 128)
    errors = end_errors(stepper, ball(dissipation), hold(INPUTS), start(), 1.0, exact, counts)
    assert_order(stepper.order, counts, errors)


@pytest.mark.parametrize("dt", [0.3, -0.2])
def test_a_kick_is_the_exact_flow_at_fixed_weights(dt):
    state = clone(start())
    ball(0.8).kick_(0.0, state, INPUTS, dt)
    # dv/dt = F/m − θ v with F constant: v(t) = F/(mθ) + (v(0) − F/(mθ)) e^{−θt}
    rest = map_leaves(lambda f: f / (1.5 * 0.8), ball(0.8).force(start().weight, INPUTS))
    expected = map_leaves(lambda r, v: r + (v - r) * math.exp(-0.8 * dt), rest, start().velocity)
    assert_round_off(state, HeavyBallState(start().weight, expected), 10)


@pytest.mark.parametrize("stepper", [CONFORMAL_MIDPOINT, CONFORMAL_VERLET], **by_name)
def test_phase_space_shrinks_by_exactly_the_dissipation(stepper):
    # det of the step's Jacobian is e^{−θ dt n} for n weights, at any dt
    network = make_network(widths=(2, 1))
    inputs, weights = make_inputs(network, 3), make_weights(network)
    system = HeavyBall(network, SQUARED_ERROR, 1.5, 0.8, 0.1)
    count = weights[0].numel()

    def step(flat):
        state = HeavyBallState((flat[:count].view_as(weights[0]),), (flat[count:].view_as(weights[0]),))
        after = stepper.advance(system, hold(inputs), state, 0.0, 0.1, 4)
        return torch.cat((after.weight[0].reshape(-1), after.velocity[0].reshape(-1)))

    flat = torch.cat((weights[0].reshape(-1), weights[0].reshape(-1) * 0.3))
    small = 1e-3
    rows = [
        (step(flat + small * e) - step(flat - small * e)) / (2 * small) for e in torch.eye(2 * count, dtype=flat.dtype)
    ]
    # central differences: 1e-6 times third derivatives below 1; what the iteration leaves, 1e-12, over 1e-3
    assert float(torch.linalg.det(torch.stack(rows))) == pytest.approx(math.exp(-0.8 * 0.4 * count), rel=1e-5)
