"""Sign flip with Euler steps: what the steps add up to, and the tracking errors of the published runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from support.compare import assert_round_off, gap
from support.control import (
    make_quadratic,
    make_quadratic_state,
    sinusoid,
)
from support.flip import FAMILIES, flipped, start_of

from nlsim.analysis.orders import observed_order
from nlsim.core.state import leaves, map_leaves
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.hamiltonian.averaged_flip import AveragedFlip, flip_factor, largest_flip_step, tracking_ratio
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations
from nlsim.systems.signals import Constant
from nlsim.theorems.hamiltonian.flip_runs import network_tracking, scalar_tracking
from nlsim.theorems.hamiltonian.midpoint import ImplicitMidpoint

SCALAR = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)


def test_two_euler_steps_multiply_a_free_system_by_its_factor():
    problem = make_quadratic(3)
    state, tau = make_quadratic_state(3), 0.05
    loop, _ = flipped(LinearQuadraticEquations(problem), Constant(Inputs()), state, tau, 2, EXPLICIT_EULER, tau)
    blocks = torch.cat(
        (
            torch.cat((problem.drift, -problem.actuation), 1),
            torch.cat((-problem.tracking_weight, -problem.drift.T), 1),
        )
    )
    expected = torch.cat((state.activity, state.costate), 1) @ (torch.eye(6) - tau**2 * blocks @ blocks).T
    assert_round_off(torch.cat((loop.state.activity, loop.state.costate), 1), expected, 50)
    loop, _ = flipped(
        LinearQuadraticEquations(SCALAR.matrices()), Constant(Inputs()), start_of(), 0.02, 2, EXPLICIT_EULER, 0.02
    )
    factor = flip_factor(SCALAR.rate, 0.02)
    assert factor == pytest.approx(1 - 0.0004 * 1001, rel=1e-12)
    assert_round_off(loop.state, map_leaves(lambda leaf: factor * leaf, start_of()), 20)


@pytest.mark.parametrize(("scaled", "grows"), [(1.40, False), (1.43, True)])
def test_flipped_euler_is_stable_below_root_two(scaled, grows):
    tau = scaled / SCALAR.rate
    assert (tau < largest_flip_step(SCALAR.rate)) is not grows
    loop, _ = flipped(
        LinearQuadraticEquations(SCALAR.matrices()), Constant(Inputs()), start_of(), tau, 60, EXPLICIT_EULER, tau
    )
    assert (float(loop.state.activity) > 0.3) is grows


@pytest.mark.parametrize("family", FAMILIES)
def test_averaged_field_against_finite_differences(family):
    make, make_state, _ = FAMILIES[family]
    signal = sinusoid(1.5, outputs=3 if family == "quadratic" else 2)
    system, state, tau, now = make(), make_state(), 0.02, 0.7
    piece = signal.piece(0.0)
    field = system.vector_field(now, state, piece(now))
    found = AveragedFlip(system, piece, tau).vector_field(now, state, piece(now))
    step = 1e-4

    def at(side):
        t = now + side * step
        moved = map_leaves(lambda y, f: y + side * step * f, state, field)
        return system.vector_field(t, moved, piece(t))

    expected = map_leaves(lambda a, b: -tau / 2 * (a - b) / (2 * step), at(+1), at(-1))
    # central differences: third derivatives of some ten times step², and roundings over step
    assert gap(found, expected) < 1e-7
    assert max(float(leaf.abs().max()) for leaf in leaves(found)) > 1e-2


def test_flipped_euler_follows_the_averaged_equation():
    problem = ScalarLinearQuadratic(-1.0, 1.0, 1.0, 0.1)
    matrix = np.array([[-1.0, -problem.actuation], [-1.0, 1.0]])
    slow, errors, steps = 0.04, [], (0.02, 0.01)  # 100 and 400 steps
    for tau in steps:
        halves = round(slow / tau**2)
        loop, _ = flipped(
            LinearQuadraticEquations(problem.matrices()),
            Constant(Inputs()),
            start_of(),
            tau,
            halves,
            EXPLICIT_EULER,
            tau,
        )
        expected = expm(-tau / 2 * matrix @ matrix * halves * tau) @ np.array([0.3, -0.2])
        errors.append(abs(float(loop.state.activity) - expected[0]) + abs(float(loop.state.costate) - expected[1]))
    # (1 − τ²μ²)^{T/2τ} = e^{−τμ²T/2}(1 − τ³μ⁴T/4 …): second order in τ at fixed τT
    assert observed_order(steps, errors) == pytest.approx(2.0, abs=0.05)


def test_tracking_error_is_that_of_the_formula_and_doubles_when_the_step_is_halved():
    period = 4 * math.pi
    found = []
    for tau in (0.04, 0.02, 0.01):
        step = period / round(period / tau)
        found.append(float(scalar_tracking([100.0], step=step, horizon=2 * period).relative))
        # corrections of order (τω)² and of the odd steps, below one in a hundred
        assert found[-1] == pytest.approx(tracking_ratio(SCALAR, 0.5, step), rel=0.01)
    assert found[1] / found[0] == pytest.approx(2.0, abs=0.03)
    assert found[2] / found[1] == pytest.approx(2.0, abs=0.03)


def test_tracking_formula_by_complex_response():
    problem, omega, tau = ScalarLinearQuadratic(0.8, 1.0, 30.0, 0.2), 0.7, 0.03
    matrix = np.array([[0.8, -problem.actuation], [-30.0, -0.8]])
    drive = np.array([0.0, 30.0])
    # iω Y = −(τ/2)(A² Y + A b + iω b)
    right = -tau / 2 * (matrix @ drive + 1j * omega * drive)
    response = np.linalg.solve(1j * omega * np.eye(2) + tau / 2 * matrix @ matrix, right)
    assert tracking_ratio(problem, omega, tau) == pytest.approx(abs(response[0] - 1), rel=1e-12)


def test_scalar_table():
    # the reference numbers, of two digits
    rms = scalar_tracking([10.0, 100.0, 1000.0]).rms.tolist()
    assert rms == pytest.approx([0.51, 0.070, 0.0070], rel=0.01)


@pytest.mark.slow
def test_scalar_table_without_euler():
    assert float(scalar_tracking([100.0], stepper=RK4).rms) == pytest.approx(0.83, abs=0.01)
    assert float(scalar_tracking([100.0], stepper=ImplicitMidpoint()).rms) == pytest.approx(0.84, abs=0.01)


def reference_start(seed):
    """Return the start of the reference runs: numpy's default generator, x before W."""
    numbers = np.random.default_rng(seed)
    activity = numbers.uniform(-1, 1, (1, 5))
    return torch.as_tensor(activity), torch.as_tensor(numbers.uniform(-1, 1, (5, 5)))


def test_network_table():
    relative = network_tracking([1.0, 10.0, 100.0, 1000.0], range(3), initial=reference_start).relative
    # four digits of an independent program in numpy
    expected = [[1.0013, 1.0010, 0.9997], [0.9990, 0.9984, 1.0011], [0.2990, 0.3024, 0.2848], [0.0260, 0.0304, 0.0100]]
    np.testing.assert_allclose(relative.numpy(), expected, atol=6e-5)


@pytest.mark.slow
def test_network_without_euler_and_with_longer_stretches():
    flow = network_tracking([1000.0], range(6), initial=reference_start, stepper=RK4).relative
    assert 1.0 < float(flow.min()) < float(flow.max()) < 2.8
    for halves, most in ((2, 0.04), (4, 0.04)):
        found = network_tracking([1000.0], range(3), initial=reference_start, half_period=0.05 * halves).relative
        assert float(found.max()) < most
    longest = network_tracking([1000.0], range(3), initial=reference_start, half_period=0.4).relative
    assert float(longest.max()) > 0.5
    halved = network_tracking([1000.0], range(3), initial=reference_start, step=0.025).relative
    np.testing.assert_allclose(halved / torch.tensor([0.0260, 0.0304, 0.0100]), 2.0, atol=0.15)
