"""What a two-point problem is made of, how the search for its solution starts, and every way in which it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.learning import draw, make_inputs, make_network, make_problem, make_sinusoid, make_state
from support.two_point import double_well, even, pendulum, regulator, regulator_state, vector

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.boundary import TwoPointEnding, TwoPointProblem, row_jacobian
from nlsim.integrate.collocation import GAUSS4, MIDPOINT, solve_two_point
from nlsim.integrate.flattening import flatten, row_field, two_point_problem, unflatten
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.signals import Constant, HeldSamples


def solved(problem, grid, **options):
    solution = solve_two_point(problem, grid, **options)
    assert solution.ending == "converged", solution.detail
    return solution


def largest(values):
    return float(values.abs().max())


# --- systems as rows --------------------------------------------------------------------------------------------------

NETWORK = make_network((3, 2, 2))
PROBLEM = make_problem(NETWORK)
STATE = make_state(NETWORK, 2)
SIGNALS = {
    "moving": make_sinusoid(NETWORK, 2),
    "held": HeldSamples(draw(1, 7, 3), draw(2, 7, 2), 2, 0.3, 5),
    "static": Constant(make_inputs(NETWORK, 2)),
}
TIMES = draw(5, 6, low=0.0, high=2.0)


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
def test_rows_are_the_running_field_with_the_inputs_of_their_times(signal):
    system = HamiltonEquations(PROBLEM)
    two_point = two_point_problem(system, signal, STATE)
    points = draw(6, len(TIMES), two_point.size)
    rows = two_point.field(TIMES, points)
    for t, point, row in zip(TIMES.tolist(), points, rows, strict=True):
        running = system.vector_field(t, unflatten(point, STATE), signal.piece(t)(t))
        # a batched product may sum its fewer than ten terms in another order
        assert largest(row - flatten(running)) <= 1e-14


def test_the_ends_are_the_states_at_the_start_and_the_costates_at_the_end():
    two_point = two_point_problem(HamiltonEquations(PROBLEM), SIGNALS["moving"], STATE)
    assert torch.equal(two_point.initial_state, flatten((STATE.activity, STATE.weight)))
    assert torch.equal(two_point.terminal_costate, flatten((STATE.costate, STATE.weight_costate)))
    assert two_point.size == 2 * two_point.states


def test_flat_points_and_states_are_two_forms_of_one_thing():
    points = draw(6, 4, len(flatten(STATE)))
    states = unflatten(points, STATE)
    assert states.weight[1].shape == (4, *STATE.weight[1].shape)
    assert states.activity[0].shape == (4, *STATE.activity[0].shape)
    for row in range(4):
        alone = unflatten(points[row], STATE)
        assert torch.equal(flatten(alone), points[row])
        assert torch.equal(alone.costate[1], states.costate[1][row])


def test_a_function_of_states_becomes_one_of_rows_with_its_own_time():
    rate = row_field(lambda t, state, inputs: t * state.weight[0].sum() + inputs.input[0, 0], SIGNALS["moving"], STATE)
    points = draw(6, len(TIMES), len(flatten(STATE)))
    for t, point, value in zip(TIMES.tolist(), points, rate(TIMES, points), strict=True):
        expected = t * unflatten(point, STATE).weight[0].sum() + SIGNALS["moving"].at(t).input[0, 0]
        assert abs(float(value - expected)) <= 1e-13


def test_a_signal_without_inputs_is_passed_on_as_such():
    class Silent:
        def edge_after(self, t):
            return math.inf

        def piece(self, t):
            return lambda now: Inputs(None, torch.tensor(now, dtype=torch.float64))

    rate = row_field(lambda t, state, inputs: inputs.target + (inputs.input is None), Silent(), STATE)
    assert torch.equal(rate(TIMES, draw(6, len(TIMES), len(flatten(STATE)))), TIMES + 1)


def test_a_state_without_as_many_costates_is_refused():
    lopsided = (*STATE.activity, *STATE.weight, *STATE.costate)
    with pytest.raises(NlsimError, match="as many costates"):
        two_point_problem(HamiltonEquations(PROBLEM), SIGNALS["moving"], lopsided)


# --- Jacobians --------------------------------------------------------------------------------------------------------


def test_the_default_jacobian_is_that_of_one_row_at_a_time():
    two_point = two_point_problem(HamiltonEquations(PROBLEM), SIGNALS["moving"], STATE)
    points = draw(6, len(TIMES), two_point.size)
    found = two_point.linearise(TIMES, points)
    for row in range(len(TIMES)):
        alone = torch.autograd.functional.jacobian(
            lambda z, row=row: two_point.field(TIMES[row : row + 1], z[None])[0], points[row]
        )
        assert largest(found[row] - alone) <= 1e-13


def test_more_rows_than_are_formed_at_once():
    matrix = draw(1, 150, 150)
    points = draw(2, 2, 150)
    found = row_jacobian(lambda z: torch.sin(z @ matrix.mT), points)
    expected = torch.cos(points @ matrix.mT)[:, :, None] * matrix
    # a product of 150 terms below 1, inside a cosine
    assert largest(found - expected) <= 1e-13


def test_a_jacobian_that_is_given_is_used():
    asked = []

    def jacobian(times, points):
        asked.append(len(times))
        return row_jacobian(lambda z: pendulum().field(times, z), points)

    plain, given = solved(pendulum(), even(2.0, 10)), solved(replace(pendulum(), jacobian=jacobian), even(2.0, 10))
    assert torch.equal(plain.points, given.points)
    assert asked == [20] * given.iterations


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
