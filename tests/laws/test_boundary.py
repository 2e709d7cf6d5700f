"""Newton on a collocation grid solves two-point problems: closed forms, SciPy, order, edges, endings."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp
from support.learning import draw
from support.order import assert_order
from support.two_point import double_well, even, pendulum, regulator, regulator_state, scipy_two_point, tracker, vector

from nlsim.core.grid import time_grid
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.boundary import (
    TwoPointEnding,
    TwoPointProblem,
    row_field,
    row_jacobian,
    two_point_problem,
    unflatten,
)
from nlsim.integrate.collocation import COLLOCATIONS, GAUSS4, MIDPOINT, solve_two_point
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
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


def test_the_bridge_is_the_running_field_row_by_row():
    problem, signal, _ = neuron()
    system = HamiltonEquations(problem)
    like = problem.initial_state((draw(3, 1, 2),), 1)
    two_point = two_point_problem(system, signal, like)
    times, points = draw(5, 4, low=0.0, high=2.0), draw(6, 4, 6)
    rows = two_point.field(times, points)
    for t, point, row in zip(times.tolist(), points, rows, strict=True):
        running = system.vector_field(t, unflatten(point, like), signal.at(t))
        expected = torch.cat([leaf.reshape(-1) for leaf in (*running.activity, *running.weight, *running.costate)])
        assert torch.equal(row[:3], expected[:3])
        assert largest(row - torch.cat((expected, running.weight_costate[0].reshape(-1)))) <= 1e-15
    # and back
    again = unflatten(points, like)
    assert again.weight[0].shape == (4, 1, 2)
    assert torch.equal(again.weight_costate[0].reshape(4, 2), points[:, 4:])


def test_the_default_jacobian_is_that_of_one_row_at_a_time():
    problem, signal, boundary = neuron()
    two_point = two_point_problem(HamiltonEquations(problem), signal, boundary)
    times, points = draw(5, 3, low=0.0, high=2.0), draw(6, 3, 6)
    found = two_point.linearise(times, points)
    for row in range(3):
        alone = torch.autograd.functional.jacobian(
            lambda z, row=row: two_point.field(times[row : row + 1], z[None])[0], points[row]
        )
        assert largest(found[row] - alone) <= 1e-14


def test_more_rows_than_are_formed_at_once():
    matrix = draw(1, 150, 150)
    points = draw(2, 2, 150)
    found = row_jacobian(lambda z: torch.sin(z @ matrix.mT), points)
    expected = torch.cos(points @ matrix.mT)[:, :, None] * matrix
    assert largest(found - expected) <= 1e-14


def test_a_jacobian_that_is_given_is_used():
    asked = []

    def jacobian(times, points):
        asked.append(len(times))
        return row_jacobian(lambda z: pendulum().field(times, z), points)

    plain, given = solved(pendulum(), even(2.0, 10)), solved(replace(pendulum(), jacobian=jacobian), even(2.0, 10))
    assert torch.equal(plain.points, given.points)
    assert asked == [20] * given.iterations


def test_a_state_without_as_many_costates_is_refused():
    problem, signal, boundary = neuron()
    with pytest.raises(NlsimError, match="as many costates"):
        two_point_problem(HamiltonEquations(problem), signal, LearningState((), *_tail(boundary)))


def _tail(boundary):
    return boundary.weight, boundary.costate, boundary.weight_costate


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


# --- warm starts and endings ------------------------------------------------------------------------------------------


def test_a_warm_start_from_the_solution_needs_no_iteration_and_from_a_neighbour_fewer():
    grid = even(2.0, 40)
    cold = solved(pendulum(2.0), grid, method=MIDPOINT)
    assert solved(pendulum(2.0), grid, method=MIDPOINT, guess=cold.points).iterations == 0
    warm = solved(pendulum(2.0), grid, guess=solved(pendulum(1.99), grid).points)
    assert warm.iterations < solved(pendulum(2.0), grid).iterations


def test_newton_converges_quadratically():
    residuals = solved(pendulum(2.0), even(2.0, 40), tolerance=1e-15).residuals
    late = [math.log(b) / math.log(a) for a, b in pairwise(residuals) if 1e-8 < a < 1e-2]
    assert late
    assert min(late) > 1.8, residuals


def test_damping_finds_what_full_steps_do_not():
    # one midpoint step of length 1 with p(1) = 0 asks for atan(p̄) = 0, p̄ = p(0)/2; from p̄ = 5 full Newton steps
    # run away: 5, −31, 1.5e3, …
    def field(times, z):
        y, p = z.unbind(-1)
        return torch.stack((torch.zeros_like(y), torch.atan(p) - 2 * p), -1)

    full = [5.0]
    for _ in range(3):
        full.append(full[-1] - math.atan(full[-1]) * (1 + full[-1] ** 2))
    assert abs(full[-1]) > 1e3
    problem = TwoPointProblem(field, vector(0.0), vector(0.0))
    start = torch.tensor([[0.0, 10.0], [0.0, 0.0]], dtype=torch.float64)
    solution = solved(problem, [0.0, 1.0], method=MIDPOINT, guess=start)
    assert largest(solution.points) <= 1e-10


@pytest.mark.parametrize(
    ("problem", "options", "ending"),
    [
        (pendulum(2.0), {"max_iterations": 1}, TwoPointEnding.BUDGET_SPENT),
        (pendulum(2.0), {"guess": torch.full((11, 2), torch.nan, dtype=torch.float64)}, TwoPointEnding.DIVERGED),
        # x' = −p, p' = x over half a period: every p(0) or none
        (regulator(0.0, 1.0, -1.0), {"tolerance": 1e-30}, TwoPointEnding.STALLED),
    ],
)
def test_what_cannot_be_solved_ends_by_name(problem, options, ending):
    solution = solve_two_point(problem, even(2.0, 10), **options)
    assert solution.ending is ending
    assert not solution.ending.is_success
    assert solution.ending.advice
    assert "residual" in solution.detail


def test_a_field_that_depends_on_nothing_is_solved():
    def field(times, z):
        return torch.ones_like(z)

    solution = solved(TwoPointProblem(field, vector(0.0), vector(0.0)), even(1.0, 4))
    assert torch.equal(solution.state[:, 0], solution.times)
    assert largest(solution.costate[:, 0] - (solution.times - 1)) <= 1e-15


def test_a_problem_without_a_solution_ends_by_name():
    # x' = −p, p' = x + 1 on half a period: cos t and sin t, and p(π/2) = 0 asks sin for 0
    def field(times, z):
        return torch.stack((-z[:, 1], z[:, 0] + 1), -1)

    # the midpoint rule turns by 2 atan(h/2) a step: a step of 2 turns by π/2, exactly
    solution = solve_two_point(TwoPointProblem(field, vector(0.0), vector(0.0)), [0.0, 2.0], method=MIDPOINT)
    assert solution.ending == "stalled"
    assert "singular" in solution.detail


@pytest.mark.parametrize("grid", [[0.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
def test_a_grid_that_does_not_increase_is_refused(grid):
    with pytest.raises(NlsimError, match="increasing"):
        solve_two_point(pendulum(), grid)


def test_a_guess_of_the_wrong_shape_is_refused():
    with pytest.raises(NlsimError, match="guess"):
        solve_two_point(pendulum(), even(1.0, 4), guess=torch.zeros(4, 2, dtype=torch.float64))


def test_single_precision_stays_single():
    problem = regulator(-0.5, 2.0, 1.5)
    single = TwoPointProblem(
        lambda times, z: problem.field(times, z.double()).float(), vector(1.0).float(), vector(0.0).float()
    )
    solution = solved(single, even(3.0, 40))
    assert solution.points.dtype == torch.float32
    # the closed form to the rounding of forty steps and the error of Gauss-4
    exact = regulator_state(solution.times.double(), 3.0, -0.5, 2.0, 1.5)
    assert largest(solution.state[:, 0].double() - exact) <= 40 * 1.2e-7


@pytest.mark.parametrize("depth", [4.0])
def test_newton_may_find_a_saddle(depth):
    # what proximal descent is for: see test_boundary_alternatives
    solution = solved(double_well(depth), even(5.0, 50), method=GAUSS4)
    assert abs(float(solution.state[-1, 0])) < 0.2
