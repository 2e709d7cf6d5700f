"""At great speed a step of the reversal is a step of SGD with momentum, and so is one of the heavy ball."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, equal_speeds, make_network, make_problem, make_weights
from support.oracle import autograd_gradient

from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.loss import LOSSES
from nlsim.systems.signals import HeldSamples

NETWORK = make_network()
DT, MASS, STEPS = 0.25, 2.0, 12
WEIGHTS = make_weights(NETWORK)
STREAM = HeldSamples(draw(1, 9, 3), torch.softmax(draw(2, 9, 2), -1), 4, DT, 3)
# 12 steps, each a gradient of some hundred roundings times a rate of 1/32, with errors that add up
ROUNDINGS = 300

CASES = [(0.0, 0.0), (0.4, 0.0), (4.0, 0.0), (0.4, 0.3), (0.0, 0.3)]
each_case = pytest.mark.parametrize(("theta", "k"), CASES)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def optimiser_weights(loss, theta, k, factors):
    """Return the weights after each step of torch's own SGD, gradients by autograd times a factor a layer."""
    own = [w.clone().requires_grad_() for w in WEIGHTS]
    sgd = torch.optim.SGD(own, lr=DT**2 / MASS, momentum=1 - theta * DT, weight_decay=k)
    for step in range(STEPS):
        inputs = STREAM.piece(step * DT)(step * DT)
        gradients = autograd_gradient(NETWORK, loss, own, inputs)
        for weight, gradient, factor in zip(own, gradients, factors, strict=True):
            weight.grad = factor * gradient
        sgd.step()
        yield tuple(w.detach().clone() for w in own)


def run_weights(system, stepper, state):
    times = [DT * step for step in range(1, STEPS + 1)]
    loop = Loop(system, FixedStep(stepper, DT), STREAM, state, until=times[-1], record_times=times)
    return [tick.state.weight for tick in loop if tick.is_record]


def assert_same_path(found, expected):
    assert len(found) == STEPS
    for mine, theirs in zip(found, expected, strict=True):
        assert_round_off(mine, theirs, ROUNDINGS)


@each_case
@each_loss
@pytest.mark.parametrize("stepper", [EXPONENTIAL_SWEEP, IMPLICIT_SWEEP], ids=lambda each: each.name)
def test_heavy_ball_is_sgd(stepper, loss, theta, k):
    ball = HeavyBall(NETWORK, loss, MASS, theta, k)
    start = HeavyBallState(WEIGHTS, tuple(torch.zeros_like(w) for w in WEIGHTS))
    assert_same_path(run_weights(ball, stepper, start), optimiser_weights(loss, theta, k, (1.0, 1.0, 1.0)))


@each_case
@each_loss
@pytest.mark.parametrize("speed_step", [50.0, 1e4])
def test_reversal_is_sgd_with_attenuated_gradients(speed_step, loss, theta, k):
    # with θ each layer's costate is smaller by c/(c + θ), so the gradient of layer l by its (D − l + 1)th power;
    # e^{−50} is nothing, so all else is exact
    c = speed_step / DT
    problem = make_problem(
        NETWORK, loss=loss, speed=equal_speeds(NETWORK, c), mass=MASS, dissipation=theta, regularisation=k
    )
    factors = [(c / (c + theta)) ** power for power in (3, 2, 1)]
    found = run_weights(CostateReversal(problem), EXPONENTIAL_SWEEP, problem.initial_state(WEIGHTS, 4))
    assert_same_path(found, optimiser_weights(loss, theta, k, factors))


@each_case
@each_loss
def test_reversal_at_extreme_speed_is_plain_sgd(loss, theta, k):
    # 3θ/c = 1e-17 · θ: the attenuation is below round-off
    problem = make_problem(
        NETWORK, loss=loss, speed=equal_speeds(NETWORK, 3e17), mass=MASS, dissipation=theta, regularisation=k
    )
    found = run_weights(CostateReversal(problem), EXPONENTIAL_SWEEP, problem.initial_state(WEIGHTS, 4))
    assert_same_path(found, optimiser_weights(loss, theta, k, (1.0, 1.0, 1.0)))


def test_the_law_has_teeth():
    # momentum 1 − θτ and not e^{−θτ}: they differ by (θτ)²/2, far above the tolerance
    ball = HeavyBall(NETWORK, LOSSES["squared_error"], MASS, 0.4)
    start = HeavyBallState(WEIGHTS, tuple(torch.zeros_like(w) for w in WEIGHTS))
    found = run_weights(ball, EXPONENTIAL_SWEEP, start)
    with pytest.raises(AssertionError, match="off by"):
        assert_same_path(found, optimiser_weights(LOSSES["squared_error"], 0.41, 0.0, (1.0, 1.0, 1.0)))
