"""Multiple shooting, forward–backward sweeps, receding horizon and proximal descent, each against Newton on a grid."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.order import assert_order
from support.recurrent import Tracking, Wave
from support.two_point import double_well, even, pendulum, regulator, scipy_two_point, tracker, tracker_cost, vector

from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.boundary import TwoPointProblem
from nlsim.integrate.collocation import MIDPOINT, solve_two_point
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.flattening import row_field, two_point_problem, unflatten
from nlsim.integrate.proximal import proximal_descent
from nlsim.integrate.receding import receding_horizon
from nlsim.integrate.shooting import multiple_shooting
from nlsim.integrate.sweep_iteration import forward_backward_sweep


def largest(values):
    return float(values.abs().max())


# --- multiple shooting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stepper", "counts"), [(EXPLICIT_EULER, (40, 80, 160)), (HEUN, (10, 20, 40)), (RK4, (5, 10, 20))]
)
def test_shooting_has_the_order_of_its_stepper(stepper, counts):
    end = 2.0
    reference = scipy_two_point(pendulum(), even(end, 20), torch.ones(21, 2, dtype=torch.float64), tolerance=1e-11)
    errors = []
    for steps in counts:
        solution = multiple_shooting(pendulum(), even(end, 5), steps=steps, stepper=stepper)
        assert solution.ending == "converged", solution.detail
        errors.append(largest(solution.points - reference[::4]))
    assert_order(stepper.order, counts, errors)


def test_the_number_of_segments_changes_nothing_but_rounding():
    coarse, fine = (multiple_shooting(tracker(), even(6.0, m), steps=120 // m) for m in (4, 24))
    assert coarse.ending == fine.ending == "converged"
    # the same 120 steps of RK4; over a segment of length 1.5 errors of 1e-11 grow by e^{5}
    assert largest(coarse.points - fine.points[::6]) <= 1e-8


def test_the_growth_over_a_segment_is_reported():
    solution = multiple_shooting(regulator(), even(4.0, 4), steps=40)
    # the flow of x' = −p, p' = −x over 1 is hyperbolic: singular values e and 1/e
    assert f"{math.e:.2g}" in solution.detail


def test_the_quadrature_of_shooting_is_that_of_its_stages():
    # RK4 integrates cost and state as one system of order 4
    exact = float(solve_two_point(tracker(), even(3.0, 400)).quadrature.integral(tracker_cost()))
    counts, errors = (20, 40, 80), []
    for steps in counts:
        solution = multiple_shooting(tracker(), even(3.0, 5), steps=steps)
        errors.append(abs(float(solution.quadrature.integral(tracker_cost())) - exact))
    assert_order(4, counts, errors)


def test_shooting_over_an_edge_is_refused_unless_the_stepper_stays_before_it():
    def field(times, z):
        y, p = z.unbind(-1)
        return torch.stack((torch.where(times < 1, 1.0, -1.0) - p, -y), -1)

    problem = TwoPointProblem(field, vector(0.0), vector(0.0), edge_after=lambda t: 1.0 if t < 1 else math.inf)
    with pytest.raises(CapabilityError, match="jump at t = 1"):
        multiple_shooting(problem, even(2.0, 4))
    euler = multiple_shooting(problem, even(2.0, 4), steps=2000, stepper=EXPLICIT_EULER)
    exact = solve_two_point(problem, even(2.0, 40))
    # Euler's error is of order h = 1/4000
    assert largest(euler.points - exact.points[::10]) <= 10 / 4000


# --- forward–backward sweep -------------------------------------------------------------------------------------------

# for x' = −s p, p' = −q x on [0, 1] one sweep is minus s q V*V, V the integral operator, whose norm is (2/π)²
THRESHOLD = (math.pi / 2) ** 2


def test_a_converged_sweep_is_the_newton_solution():
    grid = even(1.0, 20)
    swept = forward_backward_sweep(pendulum(), grid, relaxation=0.7)
    assert swept.ending == "converged"
    newton = solve_two_point(pendulum(), grid)
    # both residuals are below 1.1e-11 a step; 20 steps, amplified by at most e²
    assert largest(swept.points - newton.points) <= 20 * 8 * 1.1e-11
    assert swept.iterations > newton.iterations


@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_sweeps_contract_at_the_rate_of_the_operator_below_its_threshold(fraction):
    swept = forward_backward_sweep(regulator(0.0, 1.0, fraction * THRESHOLD), even(1.0, 12), max_sweeps=400)
    assert swept.ending == "converged"
    late = swept.residuals[-3] / swept.residuals[-4]
    # the next eigenvalue of V*V is nine times smaller; the grid changes the first one by (h/2)⁴/720 π⁴
    assert abs(late / fraction - 1) <= 1e-3


@pytest.mark.parametrize("fraction", [1.3, 4.0])
def test_sweeps_say_that_they_diverge_above_the_threshold(fraction):
    problem = regulator(0.0, 1.0, fraction * THRESHOLD)
    swept = forward_backward_sweep(problem, even(1.0, 12), max_sweeps=400)
    assert swept.ending == "diverged"
    assert not swept.ending.is_success
    assert f"the last change was {fraction:.3g} of the one before" in swept.detail
    assert solve_two_point(problem, even(1.0, 12)).iterations == 1


def test_relaxation_moves_the_threshold_where_it_should():
    # the eigenvalues of a relaxed sweep are 1 − ω (1 + κ), κ up to 4 here: stable for ω < 2/5
    problem = regulator(0.0, 1.0, 4 * THRESHOLD)
    grid = even(1.0, 12)
    assert forward_backward_sweep(problem, grid, relaxation=0.35).ending == "converged"
    assert forward_backward_sweep(problem, grid, relaxation=0.45, max_sweeps=400).ending == "diverged"


def test_too_few_sweeps_and_unsolvable_halves_end_by_name():
    assert forward_backward_sweep(pendulum(), even(2.0, 10), max_sweeps=2).ending == "budget_spent"

    def explosive(times, z):
        y, p = z.unbind(-1)
        return torch.stack((y * y - p, -y), -1)

    swept = forward_backward_sweep(TwoPointProblem(explosive, vector(2.0), vector(0.0)), even(2.0, 10))
    assert swept.ending == "diverged"
    assert "one half" in swept.detail


@pytest.mark.parametrize("relaxation", [0.0, -1.0, 1.5])
def test_a_relaxation_that_is_no_fraction_is_refused(relaxation):
    with pytest.raises(NlsimError, match="relaxation"):
        forward_backward_sweep(pendulum(), even(1.0, 4), relaxation=relaxation)


# --- receding horizon -------------------------------------------------------------------------------------------------


def test_the_cost_of_a_receding_horizon_tends_to_the_two_point_cost():
    q, grid = 10.0, even(4.0, 80)
    best = solve_two_point(tracker(q), grid)
    optimum = float(best.quadrature.integral(tracker_cost(q)))
    windows, losses = (8, 16, 32, 48), []
    for window in windows:
        applied = receding_horizon(tracker(q), grid, window=window)
        assert applied.ending == "converged"
        losses.append(float(applied.quadrature.integral(tracker_cost(q))) - optimum)
    assert all(after < before for before, after in pairwise(losses)), losses
    # a plan at t puts 0 where the optimal costate is p(t + H); that reaches back to t by e^{−μH}, and the cost is
    # quadratic in it: the loss is e^{−2μH} ∫_H^T p² dt up to a factor 1 + O(e^{−2μH}) (and the grid's own μ)
    mu = math.sqrt(1 + q)
    lost = [math.log(losses[k] / float(best.costate[windows[k] :].square().sum())) for k in (-2, -1)]
    assert abs((lost[0] - lost[1]) / (2 * mu * (windows[-1] - windows[-2]) / 20) - 1) <= 1e-3
    # a window over the whole horizon is the two-point solution: Bellman's principle, to rounding
    whole = receding_horizon(tracker(q), grid, window=80)
    assert abs(float(whole.quadrature.integral(tracker_cost(q))) - optimum) <= 1e-12


def test_applying_more_of_each_plan_is_worse_and_cheaper():
    grid = even(2.0, 40)
    often, seldom = (receding_horizon(tracker(), grid, window=12, advance=n) for n in (1, 12))
    assert len(often.iterations) == 40
    assert len(seldom.iterations) == 4
    assert float(often.quadrature.integral(tracker_cost())) < float(seldom.quadrature.integral(tracker_cost()))


def test_plans_start_from_the_plan_before():
    grid = even(2.0, 40)
    applied = receding_horizon(pendulum(2.0), grid, window=20)
    assert applied.iterations[0] > 3
    assert max(applied.iterations[1:]) < applied.iterations[0]
    # the state is continuous, and the quadrature covers the horizon once
    assert largest(applied.state[0] - 2.0) == 0.0
    assert abs(float(applied.quadrature.weights.sum()) - 2.0) <= 1e-14


@pytest.mark.parametrize("start", [1.0, 2.0, 3.0])
def test_a_plan_starts_from_what_is_left_of_the_plan_before(start):
    grid, advance = even(2.0, 20), 5
    applied = receding_horizon(pendulum(start), grid, window=20, advance=advance)
    whole = solve_two_point(pendulum(start), grid)
    # the window reaches to the end, so what is left of the first plan is the solution of all others (Bellman), at the
    # nodes; the points in between are solved anew from them
    assert applied.iterations[0] == whole.iterations
    assert max(applied.iterations[1:]) < whole.iterations
    # the same problems from the plan before as it was, not moved along
    for k, n in enumerate((5, 10, 15), start=1):
        rest = replace(pendulum(start), initial_state=whole.state[n])
        stale = solve_two_point(rest, grid[n:], guess=whole.points[n - advance : len(grid) - advance])
        assert stale.ending == "converged"
        assert applied.iterations[k] < stale.iterations


def test_a_plan_that_fails_ends_the_horizon_by_name():
    applied = receding_horizon(pendulum(2.0), even(2.0, 40), window=20, max_iterations=2)
    assert applied.ending == "budget_spent"
    assert "plan from t = 0" in applied.detail
    assert len(applied.times) == len(applied.points) == 1


@pytest.mark.parametrize(("window", "advance"), [(0, 1), (4, 0), (4, 5)])
def test_impossible_windows_are_refused(window, advance):
    with pytest.raises(NlsimError, match="reach"):
        receding_horizon(pendulum(), even(1.0, 8), window=window, advance=advance)


# --- proximal descent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [4.0, 25.0])
def test_proximal_descent_finds_the_minimum_where_newton_finds_a_saddle(depth):
    grid = even(5.0, 50)

    def cost(times, z):
        return z[:, 1].square() / 2 + depth * (1 - z[:, 0].square()).square() / 4

    saddle, minimum = (
        solve_two_point(double_well(depth), grid),
        proximal_descent(double_well(depth), grid, strength=2 * depth),
    )
    assert saddle.ending == minimum.ending == "converged"
    assert minimum.residuals[-1] <= 1.2e-11
    assert abs(float(saddle.state[-1, 0])) < 0.2
    # energy v²/2 − depth (1 − y²)²/4 is conserved and small, so the cost is near ∫ √(depth/2) (1 − y²) dy from 0.1 to 1
    ideal = math.sqrt(depth / 2) * ((1 - 1 / 3) - (0.1 - 0.001 / 3))
    found = float(minimum.quadrature.integral(cost))
    assert abs(found / ideal - 1) <= 0.01
    assert found < 0.2 * float(saddle.quadrature.integral(cost))


def test_on_a_convex_problem_proximal_descent_is_newton():
    grid = even(2.0, 40)
    assert largest(proximal_descent(pendulum(), grid).points - solve_two_point(pendulum(), grid).points) <= 1e-9


def test_proximal_descent_ends_by_name_and_refuses_what_has_no_costates():
    assert proximal_descent(double_well(4.0), even(5.0, 50), strength=8.0, max_steps=2).ending == "budget_spent"
    with pytest.raises(NlsimError, match="positive"):
        proximal_descent(pendulum(), even(1.0, 4), strength=0.0)
    alone = TwoPointProblem(lambda times, z: -z, vector(1.0), vector(1.0)[:0])
    with pytest.raises(NlsimError, match="as many costates"):
        proximal_descent(alone, even(1.0, 4))


# --- a recurrent network that learns to track -------------------------------------------------------------------------

NEURONS, END, STEPS = 3, 3.0, 30
NET = Tracking()
BOUNDARY = NET.boundary(NEURONS)
RATE = row_field(NET.cost_rate, Wave(), BOUNDARY)


@pytest.fixture(scope="module")
def optimum():
    problem, grid = two_point_problem(NET, Wave(), BOUNDARY), even(END, STEPS)
    coarse = proximal_descent(problem, grid, strength=NET.accuracy, method=MIDPOINT)
    solution = solve_two_point(problem, grid, guess=coarse.points)
    assert coarse.ending == solution.ending == "converged"
    return solution


def online_cost(system):
    """Return the cost of running forward from costates 0, by RK4 and the midpoint rule at h = 1/100."""
    state, total, dt, target = BOUNDARY, 0.0, 1 / 100, Wave().piece(0.0)
    for n in range(round(END / dt)):
        halfway = RK4.advance(system, target, state, n * dt, dt / 2, 1)
        total += dt * float(system.cost_rate(0.0, halfway, target((n + 0.5) * dt)))
        state = RK4.advance(system, target, state, n * dt, dt, 1)
    return total


def test_a_recurrent_net_meets_its_terminal_condition_and_agrees_with_scipy(optimum):
    assert largest(optimum.costate[-1]) <= 1e-8
    assert optimum.residuals[-1] <= 1.2e-11
    problem = two_point_problem(NET, Wave(), BOUNDARY)
    fine = solve_two_point(problem, even(END, 4 * STEPS), guess=_refined(optimum.points, 4))
    reference = scipy_two_point(problem, even(END, 4 * STEPS), fine.points, tolerance=1e-5)
    # what Gauss-4 changes from 30 to 120 steps is 255/256 of its error at 30; at 120 it is some 250 times smaller
    error = largest(fine.points[::4] - optimum.points) / 250
    assert largest(fine.points - reference) <= 10 * error + 1e-4


def _refined(points, factor):
    weights = torch.arange(factor, dtype=points.dtype)[:, None] / factor
    between = points[:-1, None] * (1 - weights) + points[1:, None] * weights
    return torch.cat((between.flatten(0, 1), points[-1:]))


def test_its_cost_is_below_that_of_every_online_scheme(optimum):
    best = float(optimum.quadrature.integral(RATE))
    reversed_, frozen = online_cost(Tracking(sign=-1)), online_cost(Tracking(sign=-1, effort=math.inf))
    problem, grid = two_point_problem(NET, Wave(), BOUNDARY), even(END, STEPS)
    receding = []
    for window in (6, 12):
        applied = receding_horizon(problem, grid, window=window, advance=3, method=MIDPOINT)
        assert applied.ending == "converged"
        receding.append(float(applied.quadrature.integral(RATE)))
    # the midpoint rule's own error on this grid is some per cent of a cost
    assert best < 0.9 * min(reversed_, frozen, *receding), (best, reversed_, frozen, receding)
    assert receding == sorted(receding, reverse=True)


def test_the_state_of_the_solution_is_the_trajectory_that_its_weights_drive(optimum):
    # an initial-value run of the activities along the planned weights, by RK4 on the planned stages: no costates
    state = unflatten(optimum.points, BOUNDARY)
    x, error = state.activity[0], 0.0
    for n in range(STEPS):
        h = END / STEPS
        w0, w1 = state.weight[n], state.weight[n + 1]
        v0, v1 = (-state.weight_costate[k] / NET.effort for k in (n, n + 1))
        middle = (w0 + w1) / 2 + h / 8 * (v0 - v1)  # Hermite

        def slope(w, x):
            return NET.speed * (torch.tanh(w @ x) - x)

        k1 = slope(w0, x)
        k2 = slope(middle, x + h / 2 * k1)
        k3 = slope(middle, x + h / 2 * k2)
        k4 = slope(w1, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        error = max(error, largest(x - state.activity[n + 1]))
    # two methods of order 4 at h = 0.1 with rates of size c (1 + |W|) < 10: (h · 10)⁴/720 at worst
    assert error <= 1.4e-3
