"""The discrete adjoint is the derivative of the discretised functional, by automatic differentiation of plain torch."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from support.compare import EPS, gap, size
from support.learning import (
    draw,
    make_network,
    make_problem,
    make_sinusoid,
    make_state,
    member,
)
from support.oracle import PLAIN_ACTIVATION, PLAIN_LOSS

from nlsim.errors import NlsimError
from nlsim.systems.hamiltonian.discrete_adjoint import discrete_adjoint, euler_path
from nlsim.systems.hamiltonian.problem import LearningState, hamiltonian
from nlsim.systems.loss import LOSSES
from nlsim.systems.signals import HeldSamples

NETWORK = make_network((2, 4, 3))
STEPS, DT, SAMPLES = 12, 0.07, 3
STATE = make_state(NETWORK, SAMPLES)
HELD = HeldSamples(draw(1, 9, 2), torch.softmax(draw(2, 9, 3), -1), SAMPLES, 4 * DT, 5)
SIGNALS = {"moving": make_sinusoid(NETWORK, SAMPLES), "held": HELD}


def make_control(network=NETWORK, steps=STEPS, seed=31):
    return tuple(draw(seed + layer, steps, *network.weight_shape(layer)) for layer in range(network.depth))


def plain_functional(problem, activity, weight, control, inputs, dt, start):
    """Return G_τ written out: explicit Euler, rectangle rule, plain torch functions."""
    network = problem.network
    neurons = network.widths[1:]
    c = sum(n * speed for n, speed in zip(neurons, problem.speed, strict=True)) / sum(neurons)
    total = torch.zeros((), dtype=torch.float64)
    x, w = list(activity), list(weight)
    for n, each in enumerate(inputs):
        phi = math.exp(problem.dissipation * (start + n * dt))
        kinetic = sum((v[n] ** 2).sum() for v in control) * problem.mass / 2
        rest = sum((matrix**2).sum() for matrix in w) * problem.regularisation / 2
        total = total + dt * phi * c * (kinetic + rest + PLAIN_LOSS[problem.loss.name](x[-1], each.target))
        sources = [each.input, *x[:-1]]
        moved = []
        for layer in range(network.depth):
            source = sources[layer]
            if network.has_bias:
                source = torch.cat((source, torch.ones(len(source), 1, dtype=torch.float64)), -1)
            target = PLAIN_ACTIVATION[network.activations[layer].name](source @ w[layer].T)
            moved.append(x[layer] + dt * problem.speed[layer] * (target - x[layer]))
        x = moved
        w = [matrix + dt * v[n] for matrix, v in zip(w, control, strict=True)]
    return total


def found(problem, signal, control=None, start=0.0):
    return discrete_adjoint(problem, STATE.activity, STATE.weight, control or make_control(), signal, DT, start)


PROBLEMS = {
    "plain": make_problem(NETWORK, dissipation=0.0, regularisation=0.0),
    "all constants at work": make_problem(NETWORK, dissipation=0.8),
    "cross entropy": make_problem(NETWORK, loss=LOSSES["cross_entropy"]),
    "softplus, no bias": make_problem(make_network((2, 4, 3), "softplus", has_bias=False)),
}


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("start", [0.0, 0.28])
def test_gradient_is_the_derivative_to_rounding(name, signal, start):
    problem = PROBLEMS[name]
    state = make_state(problem.network, SAMPLES)
    control = make_control(problem.network)
    own = tuple(v.clone().requires_grad_() for v in control)
    inputs = [signal.piece(start + n * DT)(start + n * DT) for n in range(STEPS)]
    value = plain_functional(problem, state.activity, state.weight, own, inputs, DT, start)
    expected = torch.autograd.grad(value, own)
    adjoint = discrete_adjoint(problem, state.activity, state.weight, control, signal, DT, start)
    # both are sums over 12 steps of some thirty products of numbers below 5, in another order
    assert float(adjoint.functional) == pytest.approx(float(value.detach()), rel=1e-14 * STEPS)
    assert gap(adjoint.gradient, expected) <= 1e3 * EPS * max(1.0, size(expected))
    assert size(expected) > 1e-2


def test_costates_of_the_later_state_are_wrong_at_first_order():
    # the mismatched pair: H_y at y^{n+1}, costates of n + 1. Its error falls like τ and is far above rounding
    problem, signal = PROBLEMS["all constants at work"], SIGNALS["moving"]
    errors = []
    for steps in (20, 40, 80):
        dt = 1.0 / steps
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1]
        control = tuple(torch.sin(3 * grid + layer)[:, None, None] * v[:1] for layer, v in enumerate(make_control()))
        adjoint = discrete_adjoint(problem, STATE.activity, STATE.weight, control, signal, dt)
        late = mismatched(problem, adjoint.trajectory, control, signal, dt)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(late, adjoint.gradient, strict=True)) / dt)
    assert errors[-1] > 1e-3
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2.0, abs=0.2)


def mismatched(problem, trajectory, control, signal, dt):
    """Return τ φ (m c v_n + q_w) with the costates driven by the states of n + 1, by autograd of H."""
    x = [layer[-1] for layer in trajectory.costate]
    w = [layer[-1] for layer in trajectory.weight_costate]
    steps, theta = len(control[0]), problem.dissipation
    gradients = []
    for n in reversed(range(steps)):
        q = [math.exp(theta * dt) * each for each in x], [math.exp(theta * dt) * each for each in w]
        y = LearningState(
            tuple(layer[n + 1] for layer in trajectory.activity),
            tuple(layer[n + 1] for layer in trajectory.weight),
            tuple(q[0]),
            tuple(q[1]),
        )
        factor = dt * math.exp(theta * n * dt)
        inertia = problem.mass * problem.mean_speed
        gradients.append([factor * (inertia * v[n] + each) for v, each in zip(control, q[1], strict=True)])
        slope = hamiltonian_slope(problem, y, signal.at(n * dt))
        x = [each + dt * h for each, h in zip(q[0], slope.activity, strict=True)]
        w = [each + dt * h for each, h in zip(q[1], slope.weight, strict=True)]
    return tuple(torch.stack(layer) for layer in zip(*gradients[::-1], strict=True))


def hamiltonian_slope(problem, state, inputs):
    return torch.func.grad(lambda y: hamiltonian(problem, y, inputs))(state)


def test_first_costate_is_the_derivative_with_respect_to_the_initial_state():
    problem, signal = PROBLEMS["all constants at work"], SIGNALS["held"]
    start = tuple(x.clone().requires_grad_() for x in (*STATE.activity, *STATE.weight))
    inputs = [signal.piece(n * DT)(n * DT) for n in range(STEPS)]
    value = plain_functional(problem, start[:2], start[2:], make_control(), inputs, DT, 0.0)
    expected = torch.autograd.grad(value, start)
    trajectory = found(problem, signal).trajectory
    # φ(0) = 1, so the normalised costate is the costate
    first = tuple(layer[0] for layer in (*trajectory.costate, *trajectory.weight_costate))
    assert gap(first, expected) <= 1e3 * EPS * max(1.0, size(expected))


def test_last_costates_vanish_and_shapes_are_those_of_the_grid():
    adjoint = found(PROBLEMS["plain"], SIGNALS["moving"])
    trajectory = adjoint.trajectory
    assert trajectory.activity[0].shape == trajectory.costate[0].shape == (STEPS + 1, SAMPLES, 4)
    assert trajectory.weight[1].shape == trajectory.weight_costate[1].shape == (STEPS + 1, 3, 5)
    assert all(float(layer[-1].abs().max()) == 0 for layer in (*trajectory.costate, *trajectory.weight_costate))
    assert [v.shape for v in adjoint.gradient] == [v.shape for v in make_control()]


def test_descending_the_gradient_lowers_the_functional():
    problem, signal, control = PROBLEMS["plain"], SIGNALS["held"], make_control()
    begin = found(problem, signal, control)
    for _ in range(5):
        adjoint = found(problem, signal, control)
        control = tuple(v - 0.5 * g / DT / 3 for v, g in zip(control, adjoint.gradient, strict=True))
    end = euler_path(problem, STATE.activity, STATE.weight, control, signal, DT)
    assert float(end.functional) < 0.5 * float(begin.functional)


def test_each_member_of_an_ensemble_is_its_own_problem():
    theta = torch.tensor([0.0, 0.9], dtype=torch.float64)
    mass = torch.tensor([1.5, 0.4], dtype=torch.float64)
    problem = make_problem(NETWORK, dissipation=theta, mass=mass)
    state = make_state(NETWORK, SAMPLES, ensemble=(2,))
    control = tuple(draw(40 + layer, STEPS, 2, *NETWORK.weight_shape(layer)) for layer in range(2))
    signal = SIGNALS["moving"]
    together = discrete_adjoint(problem, state.activity, state.weight, control, signal, DT, 0.1)
    assert together.functional.shape == (2,)
    for index in range(2):
        alone = replace(problem, dissipation=float(theta[index]), mass=float(mass[index]))
        own = member(state, index)
        mine = tuple(v[:, index] for v in control)
        expected = discrete_adjoint(alone, own.activity, own.weight, mine, signal, DT, 0.1)
        assert gap(tuple(g[:, index] for g in together.gradient), expected.gradient) <= 1e3 * EPS
        assert float(together.functional[index]) == pytest.approx(float(expected.functional), rel=1e-14)


class TestRefusals:
    def test_control_of_another_shape(self):
        wrong = (make_control()[0],)
        with pytest.raises(NlsimError, match="does not fit") as refusal:
            found(PROBLEMS["plain"], SIGNALS["moving"], wrong)
        assert "'N', 4, 3" in str(refusal.value)

    def test_layers_of_different_length(self):
        first, second = make_control()
        with pytest.raises(NlsimError, match="does not fit"):
            found(PROBLEMS["plain"], SIGNALS["moving"], (first, second[:-1]))

    def test_no_steps(self):
        with pytest.raises(NlsimError, match="N ≥ 1"):
            found(PROBLEMS["plain"], SIGNALS["moving"], tuple(v[:0] for v in make_control()))

    def test_infinite_mass(self):
        with pytest.raises(NlsimError, match="infinite mass"):
            found(make_problem(NETWORK, mass=math.inf), SIGNALS["moving"])
