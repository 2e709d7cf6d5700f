"""Linear-quadratic and tracking systems against their Hamiltonians, and the closed forms against SciPy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_bvp, solve_ivp
from support.compare import assert_round_off
from support.control import (
    make_quadratic,
    make_quadratic_state,
    make_tracking,
    make_tracking_state,
    positive,
    target,
)
from support.learning import draw, member

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.hamiltonian.closed_form import EXAMPLE_1, ScalarLinearQuadratic, example_costs
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadratic,
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    LinearQuadraticState,
    linear_quadratic,
)
from nlsim.systems.hamiltonian.tracking import TrackingEquations, TrackingReversal, TrackingState

FAMILIES = {
    "quadratic": (
        lambda: make_quadratic(dissipation=0.3),
        make_quadratic_state,
        LinearQuadraticEquations,
        LinearQuadraticReversal,
        target(3),
    ),
    "tracking": (make_tracking, make_tracking_state, TrackingEquations, TrackingReversal, target(2)),
}
CONJUGATES = {
    "quadratic": [("activity", "costate")],
    "tracking": [("activity", "costate"), ("weight", "weight_costate")],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sign", [1, -1])
def test_fields_are_derivatives_of_the_hamiltonian(family, sign):
    make, make_state, exact, reversal, inputs = FAMILIES[family]
    problem, state = make(), make_state()
    slope = torch.func.grad(lambda y: exact(problem).hamiltonian(0.0, y, inputs))(state)
    field = (exact if sign == 1 else reversal)(problem).vector_field(0.0, state, inputs)
    for position, costate in CONJUGATES[family]:
        # sums of some tens of products in different orders
        assert_round_off(getattr(field, position), getattr(slope, costate), 200)
        expected = -sign * getattr(slope, position) - problem.dissipation * getattr(state, costate)
        assert_round_off(getattr(field, costate), expected, 200)


def test_quadratic_hamiltonian_is_the_minimum_over_controls():
    n, k = 3, 2
    A, B, Q, R = draw(1, n, n), draw(2, n, k), positive(3, n), positive(4, k)
    system = LinearQuadraticEquations(linear_quadratic(A, B, Q, R))
    state, inputs = make_quadratic_state(n, samples=1), target(n, samples=1)
    x, pi, z = state.activity[0], state.costate[0], inputs.target[0]

    def value(v):
        return 0.5 * (x - z) @ Q @ (x - z) + 0.5 * v @ R @ v + pi @ (A @ x + B @ v)

    best = -torch.linalg.inv(R) @ B.T @ pi
    found = system.hamiltonian(0.0, state, inputs)
    assert_round_off(found, value(best), 200)
    for seed in range(5):
        assert float(value(best + 0.1 * draw(10 + seed, k))) > float(found)
    # the control moves the state as S π does
    assert_round_off(system.vector_field(0.0, state, inputs).activity[0], A @ x + B @ best, 200)
    effort = 0.5 * (x - z) @ Q @ (x - z) + 0.5 * best @ R @ best
    assert_round_off(system.observables()["lagrangian"].evaluate(0.0, state, inputs), effort, 200)


def test_tracking_hamiltonian_written_out_neuron_by_neuron():
    problem, state, inputs = make_tracking(), make_tracking_state(), target(2)
    x, w, pi, pw, z = state.activity, state.weight, state.costate, state.weight_costate, inputs.target
    expected = 0.0
    for b in range(2):
        for i in range(4):
            drive = sum(float(w[i, j] * x[b, j]) for j in range(4))
            expected += float(pi[b, i]) * problem.speed * (math.tanh(drive) - float(x[b, i]))
        for o in range(2):
            expected += problem.tracking_weight / 2 * float(x[b, o] - z[b, o]) ** 2
    motion = 0.0
    for i in range(4):
        for j in range(4):
            expected += problem.regularisation * float(w[i, j]) ** 2
            motion += float(pw[i, j]) ** 2 / (2 * problem.control_weight)
    found = TrackingEquations(problem).hamiltonian(0.0, state, inputs)
    assert float(found) == pytest.approx(expected - motion, rel=1e-13)
    observed = TrackingEquations(problem).observables()
    field = TrackingEquations(problem).vector_field(0.0, state, inputs)
    legendre = float(found) - float((pi * field.activity).sum() + (pw * field.weight).sum())
    assert float(observed["lagrangian"].evaluate(0.0, state, inputs)) == pytest.approx(legendre, rel=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_ensemble_is_its_members(family):
    _, make_state, exact, reversal, inputs = FAMILIES[family]
    if family == "quadratic":
        eta = torch.tensor([0.1, 0.0, -0.4], dtype=torch.float64)
        problem = make_quadratic(dissipation=eta, ensemble=(3,))
        alone = [
            LinearQuadratic(problem.drift[i], problem.actuation[i], problem.tracking_weight[i], eta[i])
            for i in range(3)
        ]
    else:
        names = ("tracking_weight", "control_weight", "regularisation", "speed", "dissipation")
        values = {name: draw(40 + k, 3, low=0.2, high=2.0) for k, name in enumerate(names)}
        problem = make_tracking(**values)
        alone = [make_tracking(**{name: value[i] for name, value in values.items()}) for i in range(3)]
    state = make_state(ensemble=(3,))
    for system in (exact, reversal):
        together = system(problem)
        for i in range(3):
            one = system(alone[i])
            found = member(together.vector_field(0.0, state, inputs), i)
            assert_round_off(found, one.vector_field(0.0, member(state, i), inputs), 50)
            energy = together.hamiltonian(0.0, state, inputs)
            assert energy.shape == (3,)
            assert_round_off(energy[i], one.hamiltonian(0.0, member(state, i), inputs), 50)


@pytest.mark.parametrize("family", FAMILIES)
def test_observables_have_the_shapes_they_declare(family):
    make, make_state, exact, reversal, inputs = FAMILIES[family]
    state = make_state(ensemble=(3,))
    for system in (exact(make()), reversal(make())):
        for name, channel in system.observables().items():
            assert channel.name == name
            value = channel.evaluate(0.0, state, inputs)
            assert value.shape[:1] == (3,)
            assert value.ndim == 1 + len(channel.dims)


def test_discount_is_what_dissipation_adds_to_the_field():
    inputs = target(3)
    state = make_quadratic_state()
    damped, free = make_quadratic(dissipation=0.3), make_quadratic()
    found = LinearQuadraticEquations(damped).discount(state)
    with_, without = (LinearQuadraticEquations(p).vector_field(0.0, state, inputs) for p in (damped, free))
    assert_round_off(found.costate, with_.costate - without.costate, 50)
    assert not found.activity.any()
    assert LinearQuadraticEquations(free).discount(state) is None
    net, state = make_tracking(), make_tracking_state()
    found = TrackingEquations(net).discount(state)
    pair = [TrackingEquations(p).vector_field(0.0, state, target(2)) for p in (net, replace(net, dissipation=0.0))]
    for name in ("activity", "weight", "costate", "weight_costate"):
        assert_round_off(getattr(found, name), getattr(pair[0], name) - getattr(pair[1], name), 50)
    assert TrackingEquations(replace(net, dissipation=0.0)).discount(state) is None


def test_no_target_means_a_target_of_zero():
    problem, state = make_quadratic(), make_quadratic_state()
    zero = Inputs(None, torch.zeros(2, 3, dtype=torch.float64))
    for system in (LinearQuadraticEquations(problem), LinearQuadraticReversal(problem)):
        assert_round_off(system.vector_field(0.0, state, Inputs()), system.vector_field(0.0, state, zero), 0)


def test_initial_costates_are_zero():
    x = draw(1, 2, 3)
    state = make_quadratic().initial_state(x)
    assert torch.equal(state.activity, x)
    assert not state.costate.any()
    w = draw(2, 3, 3)
    state = make_tracking().initial_state(x, w)
    assert isinstance(state, TrackingState)
    assert not state.costate.any()
    assert state.weight_costate.shape == w.shape
    assert not state.weight_costate.any()


SCALARS = [
    ScalarLinearQuadratic(-1.0, 1.0, 10.0, 0.1),
    ScalarLinearQuadratic(0.7, -0.5, 2.0, 0.4, 0.9),
    ScalarLinearQuadratic(0.3, 1.5, 0.5, 2.0, -1.1),
]


@pytest.mark.parametrize("problem", SCALARS)
def test_gain_solves_the_reversed_equation(problem):
    def velocity(t, theta):
        alpha = 2 * problem.drift + problem.dissipation
        return -problem.actuation * theta**2 + alpha * theta + problem.tracking_weight

    times = np.linspace(0.0, 3.0, 7)
    solved = solve_ivp(velocity, (0.0, 3.0), [0.0], t_eval=times, rtol=1e-12, atol=1e-13, method="DOP853").y[0]
    # SciPy's own error at rtol 1e-12, a hundred times over
    np.testing.assert_allclose(problem.gain(torch.as_tensor(times)).numpy(), solved, rtol=1e-10, atol=1e-11)
    for root in (problem.stationary_gain, problem.other_gain):
        assert velocity(0.0, root) == pytest.approx(0.0, abs=1e-12 * (1 + problem.actuation * root**2))
    assert problem.stationary_gain > 0 > problem.other_gain
    late = float(problem.gain(torch.tensor(40.0 / problem.rate, dtype=torch.float64)))
    assert late == pytest.approx(problem.stationary_gain, rel=1e-14)


@pytest.mark.parametrize("problem", SCALARS)
def test_rates_are_eigenvalues(problem):
    a, s, q, eta = problem.drift, problem.actuation, problem.tracking_weight, problem.dissipation
    exact = np.linalg.eigvals(np.array([[a, -s], [-q, -a - eta]]))
    np.testing.assert_allclose(sorted(exact.real), sorted(problem.eigenvalues), rtol=1e-12)
    assert problem.drift - s * problem.stationary_gain == pytest.approx(min(problem.eigenvalues), rel=1e-12)
    turned = np.linalg.eigvals(np.array([[a, -s], [q, a - eta]]))
    assert turned.real.max() == pytest.approx(problem.reversal_abscissa, rel=1e-12)


def test_reversal_abscissa_where_the_reversed_system_does_not_oscillate():
    problem = ScalarLinearQuadratic(0.2, 1.0, 0.5, 2.0, 2.5)  # η² = 6.25 > 4 s q = 1
    turned = np.linalg.eigvals(np.array([[0.2, -0.5], [0.5, 0.2 - 2.5]]))
    assert turned.real.max() == pytest.approx(problem.reversal_abscissa, rel=1e-12)


@pytest.mark.parametrize("problem", SCALARS)
def test_optimal_trajectory_and_cost_solve_the_boundary_problem(problem):
    horizon, start = 2.0, 1.3
    a, s, q, eta = problem.drift, problem.actuation, problem.tracking_weight, problem.dissipation

    def field(t, y):
        return np.stack((a * y[0] - s * y[1], -q * y[0] - (a + eta) * y[1]))

    solved = solve_bvp(
        field,
        lambda y0, y1: np.array([y0[0] - start, y1[1]]),
        np.linspace(0, horizon, 200),
        np.ones((2, 200)),
        tol=1e-8,
        max_nodes=50_000,
    )
    assert solved.success
    t = torch.linspace(0.0, horizon, 9, dtype=torch.float64)
    # solve_bvp holds its relative residual to 1e-8
    np.testing.assert_allclose(solved.sol(t.numpy())[0], start * problem.optimal(t, horizon).numpy(), atol=1e-7)

    def density(time):
        x, p = solved.sol(time)
        return 0.5 * (q * x**2 + s * p**2) * math.exp(eta * time)

    assert quad(density, 0.0, horizon, epsabs=1e-10)[0] == pytest.approx(problem.optimal_cost(horizon, start), rel=1e-6)


@pytest.mark.parametrize("problem", SCALARS)
def test_closed_loop_follows_the_reversed_gain(problem):
    def velocity(t, x):
        return (problem.drift - problem.actuation * float(problem.gain(torch.tensor(t, dtype=torch.float64)))) * x

    solved = solve_ivp(velocity, (0.0, 2.0), [1.0], rtol=1e-11, atol=1e-13, method="DOP853").y[0, -1]
    found = float(problem.closed_loop(torch.tensor(2.0, dtype=torch.float64)))
    assert found == pytest.approx(solved, rel=1e-8)


@pytest.mark.parametrize("problem", SCALARS)
def test_escape_time_is_the_pole_of_the_unreversed_gain(problem):
    start = problem.stationary_gain + 0.3
    escape = problem.escape_time(start)

    def velocity(t, inverse):  # of 1/Θ, which passes through 0 where Θ is infinite
        alpha = 2 * problem.drift + problem.dissipation
        return -problem.actuation + alpha * inverse + problem.tracking_weight * inverse**2

    at_pole = solve_ivp(velocity, (0.0, escape), [1 / start], rtol=1e-12, atol=1e-14, method="DOP853").y[0, -1]
    assert at_pole == pytest.approx(0.0, abs=1e-9)
    assert math.isinf(problem.escape_time(problem.stationary_gain))
    assert math.isinf(problem.escape_time(0.0))


def test_costs_of_example_1():
    # the six numbers of the reference, to the digits given there
    expected = {
        "optimal": 0.7047,
        "stationary gain": 0.7047,
        "all terms flipped": 1.171,
        "non-dissipative part flipped": 1.687,
        "costate-only reversal": 3.530,
        "uncontrolled": 46.9,
    }
    found = example_costs()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=5e-4), name
    assert found["optimal"] < found["stationary gain"]
    # nothing done: ∫ e^{0.7 t}/2 over [0, 6]
    assert found["uncontrolled"] == pytest.approx((math.exp(4.2) - 1) / 1.4, rel=1e-13)


def test_heavy_ball_cost_by_integration():
    # w″ + θ w′ + w = 0 from rest, its cost by SciPy
    theta = EXAMPLE_1.dissipation

    def field(t, y):
        density = 0.5 * (y[0] ** 2 + y[1] ** 2) * math.exp(theta * t)
        return [y[1], -theta * y[1] - y[0], density]

    cost = solve_ivp(field, (0.0, 6.0), [1.0, 0.0, 0.0], rtol=1e-12, atol=1e-13, method="DOP853").y[2, -1]
    assert example_costs()["costate-only reversal"] == pytest.approx(cost, rel=1e-9)


def test_scalar_problem_as_matrices():
    problem = SCALARS[1]
    matrices = problem.matrices(torch.float32)
    assert matrices.drift.dtype == torch.float32
    state = LinearQuadraticState(torch.full((1, 1), 2.0), torch.full((1, 1), -3.0))
    field = LinearQuadraticEquations(matrices).vector_field(0.0, state, Inputs())
    a, s, q, eta = problem.drift, problem.actuation, problem.tracking_weight, problem.dissipation
    assert float(field.activity) == pytest.approx(2 * a + 3 * s, rel=1e-6)
    assert float(field.costate) == pytest.approx(-2 * q + 3 * (a + eta), rel=1e-6)
    assert field.costate.dtype == torch.float32


@pytest.mark.parametrize("name", ["tracking_weight", "control_weight"])
def test_weights_must_be_positive(name):
    with pytest.raises(NlsimError, match=name):
        replace(SCALARS[0], **{name: 0.0})


@pytest.mark.parametrize("eta", [-1.5, 0.0, 2.0])
def test_the_fastest_rate_is_the_spectral_radius_in_closed_form(eta):
    members = [(-1.0, 10.0, 100.0), (2.0, 0.5, 3.0)]

    def largest_of(system):
        columns = [torch.tensor(each, dtype=torch.float64)[:, None, None] for each in zip(*members, strict=True)]
        return system(LinearQuadratic(*columns, eta)).fastest_rate()

    # −η/2 ± √((a + η/2)² + sq), and a − η/2 ± ½ √(η² − 4sq), complex here
    exact = max(abs(-eta / 2) + math.sqrt((a + eta / 2) ** 2 + s * q) for a, s, q in members)
    reversed_ = max(math.hypot(a - eta / 2, math.sqrt(s * q - eta**2 / 4)) for a, s, q in members)
    assert largest_of(LinearQuadraticEquations) == pytest.approx(exact, rel=1e-13)
    assert largest_of(LinearQuadraticReversal) == pytest.approx(reversed_, rel=1e-13)
