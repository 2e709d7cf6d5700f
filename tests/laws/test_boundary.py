"""Newton on a collocation grid solves two-point problems: closed forms, SciPy, order, edges, endings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import solve_ivp
from support.learning import draw
from support.order import assert_order
from support.two_point import even, pendulum, regulator, regulator_state, scipy_two_point, tracker, vector

from nlsim.core.grid import time_grid
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.boundary import TwoPointProblem
from nlsim.integrate.collocation import COLLOCATIONS, MIDPOINT, solve_two_point
from nlsim.integrate.explicit import RK4
from nlsim.integrate.flattening import row_field, two_point_problem
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem
from nlsim.systems.hamiltonian.trajectory import lagrangian
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant, HeldSamples, Sinusoid

each_method = pytest.mark.parametrize("method", COLLOCATIONS.values(), ids=COLLOCATIONS)


def solved(problem, grid, **options):
    solution = solve_two_point(problem, grid, **options)
    assert solution.ending == "converged", solution.detail
    return solution


def largest(values):
    return float(values.abs().max())


# --- accuracy ---------------------------------------------------------------------------------------------------------


@each_method
def test_order_on_a_problem_with_a_closed_form(method):
    a, s, q, end = -0.5, 2.0, 1.5, 3.0
    counts, errors = (10, 20, 40, 80), []
    for steps in counts:
        solution = solved(regulator(a, s, q), even(end, steps), method=method)
        errors.append(largest(solution.state[:, 0] - regulator_state(solution.times, end, a, s, q)))
    assert_order(method.order, counts, errors)


@each_method
def test_order_on_a_nonlinear_problem_with_explicit_time(method):
    end = 2.0
    reference = scipy_two_point(pendulum(), even(end, 20), torch.ones(21, 2, dtype=torch.float64), tolerance=1e-11)
    counts, errors = (20, 40, 80), []
    for steps in counts:
        solution = solved(pendulum(), even(end, steps), method=method)
        errors.append(largest(solution.points[:: steps // 20] - reference))
    assert_order(method.order, counts, errors)


def test_uneven_steps_are_as_good_as_even_ones():
    # steps from 0.05 to 0.15: the error of Gauss-4 is below that of the longest step everywhere
    nodes = [0.0]
    while nodes[-1] < 2.9:
        nodes.append(nodes[-1] + 0.1 + 0.05 * math.sin(7 * nodes[-1]))
    nodes.append(3.0)
    even_error, uneven_error = (
        largest(solution.state[:, 0] - regulator_state(solution.times, 3.0, -0.5, 2.0, 1.5))
        for solution in (solved(regulator(-0.5, 2.0, 1.5), grid) for grid in (even(3.0, 20), nodes))
    )
    assert uneven_error <= even_error


@pytest.mark.parametrize("method", COLLOCATIONS.values(), ids=COLLOCATIONS)
@pytest.mark.parametrize("rate", [20.0, 19.99999999, 200.0])
def test_growth_rates_at_poles_of_the_stability_function_are_no_obstacle(method, rate):
    # implicit midpoint at h c = 2 divides by 0 when it is written as a step; y' = −c y and p' = c p − c y uncoupled
    # from p have y = e^{−ct} damped by (1 − z/2)/(1 + z/2) a step, 0 at z = 2
    matrix = torch.tensor([[-rate, 0.0], [-rate, rate]], dtype=torch.float64)
    problem = TwoPointProblem(lambda times, z: z @ matrix.mT, vector(1.0), vector(0.0))
    solution = solved(problem, even(1.0, 10), method=method)
    z = rate * 0.1
    factor = (1 - z / 2) / (1 + z / 2) if method is MIDPOINT else (1 - z / 2 + z * z / 12) / (1 + z / 2 + z * z / 12)
    expected = factor ** torch.arange(11, dtype=torch.float64)
    assert largest(solution.state[:, 0] - expected) <= 1e-13
    assert largest(solution.costate) <= 1.0


def test_linear_problems_take_one_iteration_and_both_ends_are_exact():
    solution = solved(tracker(), even(6.0, 60))
    assert solution.iterations == 1
    assert (float(solution.state[0, 0]), float(solution.costate[-1, 0])) == (1.0, 0.0)
    given = replace(tracker(), terminal_costate=vector(-0.7))
    assert float(solved(given, even(6.0, 60)).costate[-1, 0]) == -0.7


def test_the_closed_form_of_the_limit_problem_and_its_cost():
    # Example 1 of Betti & Gori: m = h = 1, θ = 0.7, T = 6; costate normalised
    theta, end = 0.7, 6.0
    r1, r2 = ((-theta + sign * math.sqrt(theta**2 + 4)) / 2 for sign in (1, -1))
    matrix = torch.tensor([[0.0, -1.0], [-1.0, -theta]], dtype=torch.float64)
    solution = solved(TwoPointProblem(lambda t, z: z @ matrix.mT, vector(1.0), vector(0.0)), even(end, 240))
    upper, lower = r1 * math.exp(r1 * end), r2 * math.exp(r2 * end)
    times = solution.times
    exact = (upper * torch.exp(r2 * times) - lower * torch.exp(r1 * times)) / (upper - lower)
    # Gauss-4: (h r)⁴/720 per unit of |r| t, h r = 1/28, so below 1e-8
    assert largest(solution.state[:, 0] - exact) <= 1e-8


# --- Example 1 through the running system -----------------------------------------------------------------------------

THETA, END = 0.7, 6.0


def example_one():
    """ℓ = |w|²/2 with one weight that nothing drives: c = 1, k = 1, u = z = 0."""
    network = LayeredNetwork((1, 1), (ACTIVATIONS["identity"],), has_bias=False)
    problem = LearningProblem(network, LOSSES["squared_error"], (1.0,), 1.0, THETA, 1.0)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    return problem, Constant(Inputs(zero, zero)), problem.initial_state((zero + 1,), 1)


def discounted(problem):
    return lambda t, state, inputs: torch.exp(THETA * t) * lagrangian(problem, state, inputs)


def feedback_cost(gain_rate, start):
    """Return ∫ (ẇ² + w²)/2 e^{θt} dt of ẇ = −Θ w with dΘ/dt = gain_rate(Θ), by SciPy."""

    def rates(t, y):
        w, gain, _ = y
        return [-gain * w, gain_rate(gain), 0.5 * (1 + gain**2) * w * w * math.exp(THETA * t)]

    return float(solve_ivp(rates, (0, END), [1.0, start, 0.0], rtol=1e-11, atol=1e-13).y[2, -1])


def test_example_one_optimal_cost_and_the_cost_of_five_alternatives():
    problem, signal, boundary = example_one()
    system = HamiltonEquations(problem)
    solution = solved(two_point_problem(system, signal, boundary), even(END, 200))
    optimal = float(solution.quadrature.integral(row_field(discounted(problem), signal, boundary)))

    gain = (THETA + math.sqrt(THETA**2 + 4)) / 2
    stationary = feedback_cost(lambda g: 0.0, gain)
    reversed_riccati = feedback_cost(lambda g: -g * g + THETA * g + 1, 0.0)
    partly_flipped = feedback_cost(lambda g: -g * g - THETA * g + 1, 0.0)

    # costates reversed: RK4 at h = 1/100 (error 1e-8) and Simpson's rule on its nodes
    state, reversal, costs = boundary, CostateReversal(problem), []
    for n in range(601):
        now = torch.tensor(n / 100, dtype=torch.float64)
        costs.append(float(discounted(problem)(now, state, signal.inputs)))
        state = RK4.advance(reversal, signal.piece(0.0), state, n / 100, 0.01, 1)
    costate_reversal = 0.01 / 3 * (costs[0] + costs[-1] + 4 * sum(costs[1:-1:2]) + 2 * sum(costs[2:-1:2]))
    frozen = 0.5 * (math.exp(THETA * END) - 1) / THETA

    found = [optimal, stationary, reversed_riccati, partly_flipped, costate_reversal, frozen]
    # the spec's table, to its digits
    for value, printed, digit in zip(
        found, (0.7047, 0.7047, 1.171, 1.687, 3.530, 46.9), (1e-4, 1e-4, 1e-3, 1e-3, 1e-3, 0.1), strict=True
    ):
        assert abs(value - printed) <= 0.5 * digit, found
    assert found == sorted(found), "the optimum is not the smallest"
    assert stationary - optimal > 1e-8, "even the stationary gain must lose something at the end of the horizon"


# --- the running learning system against SciPy ------------------------------------------------------------------------


def neuron(*, mass=1.0, dissipation=0.3):
    """One tanh neuron with a bias under moving input: n = 3."""
    network = LayeredNetwork((1, 1), (ACTIVATIONS["tanh"],))
    problem = LearningProblem(network, LOSSES["squared_error"], (2.0,), mass, dissipation, 0.2)
    one = torch.ones(1, 1, dtype=torch.float64)
    signal = Sinusoid(
        Inputs(0.5 * one, 0.2 * one), Inputs(one, 0.5 * one), Inputs(2.0 * one, 3.0 * one), Inputs(0 * one, 0.4 * one)
    )
    boundary = problem.initial_state((draw(3, 1, 2),), 1)
    return problem, signal, boundary


def test_a_learning_neuron_against_scipy():
    problem, signal, boundary = neuron()
    two_point = two_point_problem(HamiltonEquations(problem), signal, boundary)
    grid = even(2.0, 40)
    solution = solved(two_point, grid)
    reference = scipy_two_point(two_point, grid, torch.zeros(41, 6, dtype=torch.float64), tolerance=1e-9)
    # Gauss-4 at h c = 0.1: (h c)⁴/720 ≈ 1.4e-7 a unit of rate and time, T c = 4; SciPy's own error is smaller
    assert largest(solution.points - reference) <= 1e-6
    assert largest(solution.costate[-1]) == 0.0


# --- edges ------------------------------------------------------------------------------------------------------------


def held(interval=0.5):
    return HeldSamples(draw(1, 6, 1), draw(2, 6, 1), 1, interval, 5)


def test_inputs_that_jump_at_nodes_cost_no_order():
    problem, _, boundary = neuron()
    two_point = two_point_problem(HamiltonEquations(problem), held(), boundary)
    reference = solved(two_point, time_grid(held(), 0.0, 2.0, 2.0 / 320))
    counts, errors = (20, 40, 80), []
    for steps in counts:
        solution = solved(two_point, time_grid(held(), 0.0, 2.0, 2.0 / steps))
        errors.append(largest(solution.points - reference.points[:: 320 // steps]))
    assert_order(4, counts, errors)


def test_a_step_over_an_edge_is_refused():
    problem, _, boundary = neuron()
    two_point = two_point_problem(HamiltonEquations(problem), held(0.25), boundary)
    with pytest.raises(NlsimError, match=r"jump at 0\.25") as error:
        solve_two_point(two_point, even(2.0, 20))
    assert "time_grid" in str(error.value)
