"""The terminal-value costate with frozen weights is the gradient of the discretised integral, to round-off."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from support.learning import draw, make_inputs, make_network, make_problem, make_sinusoid, make_weights, member
from support.oracle import PLAIN_ACTIVATION, PLAIN_LOSS
from support.order import assert_order

from nlsim.core.grid import time_grid
from nlsim.errors import NlsimError
from nlsim.integrate.collocation import solve_two_point
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4, ExplicitRungeKutta
from nlsim.integrate.flattening import two_point_problem, unflatten
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.systems.hamiltonian.trajectory import lagrangian, trajectory_gradient
from nlsim.systems.loss import LOSSES
from nlsim.systems.signals import Constant, HeldSamples

# a third-order method with three different weights, so that no two can be mistaken for each other
KUTTA3 = ExplicitRungeKutta("kutta3", 3, 2.5, (0.0, 0.5, 1.0), ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6))
METHODS = (EXPLICIT_EULER, HEUN, KUTTA3, RK4)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)

SAMPLES = 2
NETWORK = make_network((3, 4, 2))
WEIGHTS = make_weights(NETWORK)
SIGNAL = make_sinusoid(NETWORK, SAMPLES)
START = tuple(draw(70 + layer, SAMPLES, n) for layer, n in enumerate((4, 2)))


def plain_cost(problem, weights, start, signal, grid, method):
    """Write the discretised cost out in torch's own functions."""
    c = sum(n * speed for n, speed in zip((4, 2), problem.speed, strict=True)) / 6
    x, total = start, 0.0
    for begin, end in pairwise(grid):
        h, slopes, piece = end - begin, [], signal.piece(begin)
        for i, node in enumerate(method.nodes):
            inputs = piece(begin + node * h)
            stage = list(x)
            for a, slope in zip(method.stages[i], slopes, strict=True):
                stage = [each + h * a * k for each, k in zip(stage, slope, strict=True)]
            source, slope = inputs.input, []
            for layer, weight in enumerate(weights):
                source = torch.cat((source, source.new_ones(SAMPLES, 1)), -1)
                y = PLAIN_ACTIVATION[problem.network.activations[layer].name](source @ weight.T)
                slope.append(problem.speed[layer] * (y - stage[layer]))
                source = stage[layer]
            slopes.append(slope)
            loss = PLAIN_LOSS[problem.loss.name](stage[-1], inputs.target)
            loss = loss + problem.regularisation / 2 * sum((w * w).sum() for w in weights)
            discount = math.exp(problem.dissipation * (begin + node * h - grid[0]))
            total = total + h * method.weights[i] * discount * c * loss
        for b, slope in zip(method.weights, slopes, strict=True):
            x = [each + h * b * k for each, k in zip(x, slope, strict=True)]
    return total


def by_autograd(problem, signal, grid, method):
    own = [each.clone().requires_grad_() for each in (*WEIGHTS, *START)]
    cost = plain_cost(problem, own[:2], own[2:], signal, grid, method)
    return cost.detach(), torch.autograd.grad(cost, own)


def assert_same(found, expected):
    cost, gradients = expected
    # some hundred steps of sums of fewer than fifty products, each rounded in two ways
    size = max(1.0, float(cost), *(float(g.abs().max()) for g in gradients))
    gaps = [float((f - e).abs().max()) for f, e in zip((*found.weight, *found.activity), gradients, strict=True)]
    assert max(*gaps, abs(float(found.cost - cost))) <= 1e-13 * size


@each_method
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("theta", [0.0, 0.8])
def test_equals_autograd_through_the_discretisation(method, loss, theta):
    problem = make_problem(NETWORK, loss=LOSSES[loss], dissipation=theta)
    grid = time_grid(SIGNAL, 0.5, 3.0, 0.05)
    found = trajectory_gradient(problem, WEIGHTS, SIGNAL, grid, method=method, activity=START)
    assert_same(found, by_autograd(problem, SIGNAL, grid, method))


@each_method
def test_held_samples_are_read_from_their_own_interval(method):
    signal = HeldSamples(draw(1, 7, 3), torch.softmax(draw(2, 7, 2), -1), SAMPLES, 0.3, 5)
    grid = time_grid(signal, 0.0, 2.0, 0.07)
    problem = make_problem(NETWORK)
    found = trajectory_gradient(problem, WEIGHTS, signal, grid, method=method, activity=START)
    assert_same(found, by_autograd(problem, signal, grid, method))


def test_uneven_grids_are_exact_too():
    grid = [0.0, 0.1, 0.13, 0.3, 0.31, 0.5]
    problem = make_problem(NETWORK)
    found = trajectory_gradient(problem, WEIGHTS, SIGNAL, grid, method=RK4, activity=START)
    assert_same(found, by_autograd(problem, SIGNAL, grid, RK4))


@pytest.fixture(scope="module")
def two_point_gradient():
    """p_W(0) of the two-point problem with frozen weights, by Gauss-4 on a grid finer than any below."""
    problem = make_problem(NETWORK, mass=math.inf)
    boundary = problem.initial_state(WEIGHTS, SAMPLES)
    two_point = two_point_problem(HamiltonEquations(problem), SIGNAL, boundary)
    fine = solve_two_point(two_point, time_grid(SIGNAL, 0.0, 1.0, 1 / 240))
    assert fine.ending == "converged"
    return unflatten(fine.points[0], boundary).weight_costate


@pytest.mark.parametrize(
    ("method", "counts"),
    [(EXPLICIT_EULER, (80, 160, 320)), (HEUN, (40, 80, 160)), (KUTTA3, (40, 80, 160)), (RK4, (30, 60, 120))],
    ids=lambda each: getattr(each, "name", ""),
)
def test_converges_to_the_two_point_costate_with_the_order_of_the_method(method, counts, two_point_gradient):
    errors = []
    for steps in counts:
        grid = time_grid(SIGNAL, 0.0, 1.0, 1.0 / steps)
        found = trajectory_gradient(make_problem(NETWORK), WEIGHTS, SIGNAL, grid, method=method).weight
        errors.append(max(float((f - e).abs().max()) for f, e in zip(found, two_point_gradient, strict=True)))
    assert_order(method.order, counts, errors)


@pytest.mark.parametrize("speed", [0.5, 5.0, 25.0])
def test_the_derivative_is_that_of_the_integral_at_any_speed(speed):
    # central differences of the cost itself; h² third derivatives and rounding/h balance at h = 1e-5
    problem = make_problem(NETWORK, speed=(speed, speed))
    grid = time_grid(SIGNAL, 0.0, 1.5, 0.5 / speed)
    gradient = trajectory_gradient(problem, WEIGHTS, SIGNAL, grid, method=RK4).weight
    direction = tuple(draw(80 + layer, *w.shape) for layer, w in enumerate(WEIGHTS))

    def cost(step):
        moved = tuple(w + step * d for w, d in zip(WEIGHTS, direction, strict=True))
        return float(trajectory_gradient(problem, moved, SIGNAL, grid, method=RK4).cost)

    expected = (cost(1e-5) - cost(-1e-5)) / 2e-5
    found = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert abs(found - expected) <= 1e-7 * max(1.0, abs(cost(0.0)))


def test_at_static_input_on_the_slow_manifold_it_is_backpropagation_times_the_horizon():
    # π relaxes from 0 at T within 1/c, so p_w(0)/(cT) → g as cT → ∞: the defect is the area of D + 1 − l layers, 1/c
    inputs = make_inputs(NETWORK, SAMPLES)
    problem = make_problem(NETWORK, speed=(40.0, 40.0), dissipation=0.0, regularisation=0.0)
    passed = backpropagate(NETWORK, problem.loss, WEIGHTS, inputs)
    horizon = 10.0
    found = trajectory_gradient(
        problem,
        WEIGHTS,
        Constant(inputs),
        time_grid(Constant(inputs), 0.0, horizon, 0.02),
        method=RK4,
        activity=passed.activity,
    )
    for layer, (p, g) in enumerate(zip(found.weight, passed.gradient, strict=True)):
        # ∫ (1 − e^{−cs} Σ_{k<n} (cs)^k/k!) ds = T − n/c with n = D − l + 1 layers to the output
        lag = (NETWORK.depth - layer) / 40.0
        assert float((p / 40.0 - (horizon - lag) * g).abs().max()) <= 1e-6 * float(g.abs().max())


def test_ensembles_are_their_members():
    weights = make_weights(NETWORK, ensemble=(3,))
    problem = make_problem(NETWORK, dissipation=draw(4, 3, low=0.0, high=1.0))
    grid = time_grid(SIGNAL, 0.0, 1.0, 0.1)
    together = trajectory_gradient(problem, weights, SIGNAL, grid, method=RK4)
    assert together.cost.shape == (3,)
    for index in range(3):
        alone = make_problem(NETWORK, dissipation=float(problem.dissipation[index]))
        found = trajectory_gradient(alone, member(weights, index), SIGNAL, grid, method=RK4)
        assert abs(float(found.cost - together.cost[index])) <= 1e-13
        for mine, all_ in zip(found.weight + found.activity, together.weight + together.activity, strict=True):
            assert float((mine - all_[index]).abs().max()) <= 1e-13


def test_the_lagrangian_is_the_legendre_transform_of_the_hamiltonian():
    problem = make_problem(NETWORK)
    inputs = make_inputs(NETWORK, SAMPLES)
    state = problem.initial_state(WEIGHTS, SAMPLES)
    state = type(state)(START, WEIGHTS, tuple(x + 0.3 for x in START), tuple(0.5 * w for w in WEIGHTS))
    velocity = HamiltonEquations(problem).vector_field(0.0, state, inputs)
    # H = L + p·dy/dt at the minimum
    pairs = zip((*state.costate, *state.weight_costate), (*velocity.activity, *velocity.weight), strict=True)
    pairing = sum(float((p * v).sum()) for p, v in pairs)
    value = float(lagrangian(problem, state, inputs)) + pairing
    assert abs(value - float(hamiltonian(problem, state, inputs))) <= 1e-13 * max(1.0, abs(value))
    frozen = make_problem(NETWORK, mass=math.inf)
    assert float(lagrangian(frozen, state, inputs)) < float(lagrangian(problem, state, inputs))


def test_a_weight_of_zero_and_a_step_over_an_edge_are_refused():
    midpoint = ExplicitRungeKutta("midpoint", 2, 2.0, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0))
    problem = make_problem(NETWORK)
    with pytest.raises(NlsimError, match="partner") as error:
        trajectory_gradient(problem, WEIGHTS, SIGNAL, [0.0, 1.0], method=midpoint)
    assert "non-zero" in str(error.value)
    signal = HeldSamples(draw(1, 7, 3), draw(2, 7, 2), SAMPLES, 0.3, 5)
    with pytest.raises(NlsimError, match="jump"):
        trajectory_gradient(problem, WEIGHTS, signal, [0.0, 0.2, 0.4], method=RK4)
