"""hamiltonian.trajectory-gradient: with frozen weights the terminal-value costate is the gradient of the integral."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.grid import time_grid
from nlsim.core.system import Inputs
from nlsim.integrate.collocation import solve_two_point
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4, ExplicitRungeKutta
from nlsim.integrate.flattening import two_point_problem, unflatten
from nlsim.systems.backprop import backpropagate, required_input, required_target
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.observables import relative_error
from nlsim.systems.hamiltonian.problem import LearningProblem, costate_gradient, partials
from nlsim.systems.hamiltonian.trajectory import trajectory_gradient
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian import trajectory_proof as proof
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Layers = tuple[Tensor, ...]
METHODS = (EXPLICIT_EULER, HEUN, RK4)


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic f, h_x and h_w with those that the recursion uses, at random points."""
    tolerance, worst = 1e-12, 0.0  # some hundred roundings of numbers below 10
    for widths, activation, loss in (((2, 2, 2), "tanh", "squared_error"), ((2, 1, 2), "logistic", "cross_entropy")):
        bridge = build_bridge(widths, activation, loss)
        worst = max(
            worst,
            bridge.gaps(HamiltonEquations(bridge.problem).vector_field(0.0, bridge.state, bridge.inputs), sign=+1),
        )
    return Evidence(
        Leg.BRIDGE,
        "symbolic partial derivatives = torch",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; 2 activations, 2 losses, unequal speeds, batch 2",
        f"{worst:.2g}",
    )


def plain_cost(
    problem: LearningProblem[LayeredNetwork],
    weights: Layers,
    start: Layers,
    case: Case,
    grid: tuple[float, ...],
    rk: ExplicitRungeKutta,
) -> Tensor:
    """Return the discretised cost in plain torch, for autograd to go through."""
    signal, c, theta = case.signal(), float(problem.mean_speed), case.dissipation
    x, total = start, weights[0].new_zeros(())
    for begin, end in pairwise(grid):
        h, slopes = end - begin, list[Layers]()
        for node, row, b in zip(rk.nodes, rk.stages, rk.weights, strict=True):
            inputs = signal.at(begin + node * h)
            point = _mix(x, h, row, slopes)
            slopes.append(_velocity(problem, weights, point, inputs))
            loss = problem.loss.value(point[-1], required_target(inputs)).sum()
            loss = loss + 0.5 * float(problem.regularisation) * sum(w.square().sum() for w in weights)
            total = total + h * b * c * loss * math.exp(theta * (begin + node * h - grid[0]))
        x = _mix(x, h, rk.weights, slopes)
    return total


def _velocity(problem: LearningProblem[LayeredNetwork], weights: Layers, x: Layers, inputs: Inputs) -> Layers:
    source, found = required_input(inputs), []
    for each, weight, activation, speed in zip(x, weights, problem.network.activations, problem.speed, strict=True):
        if problem.network.has_bias:
            source = torch.cat((source, torch.ones_like(source[:, :1])), -1)
        found.append(speed * (activation.value(source @ weight.mT) - each))
        source = each
    return tuple(found)


def _mix(x: Layers, h: float, row: tuple[float, ...], slopes: list[Layers]) -> Layers:
    for a, slope in zip(row, slopes, strict=True):
        x = tuple(each + h * a * k for each, k in zip(x, slope, strict=True))
    return x


def equals_autograd(effort: Effort) -> Evidence:
    """Compare with autograd through the same discretisation."""

    def error_of(drawn: tuple[Case, ExplicitRungeKutta, float]) -> float:
        case, rk, k = drawn
        problem, weights = replace(case.problem(), regularisation=k), case.weights()
        grid = time_grid(case.signal(), 0.5, 0.5 + 6 / case.speed, 0.5 / case.speed)
        start = tuple(torch.cos(x + 0.3) for x in problem.initial_state(weights, case.samples).activity)
        found = trajectory_gradient(problem, weights, case.signal(), grid, method=rk, activity=start)
        own = [each.clone().requires_grad_() for each in (*weights, *start)]
        with torch.enable_grad():
            cost = plain_cost(problem, tuple(own[: len(weights)]), tuple(own[len(weights) :]), case, grid, rk)
            expected = torch.autograd.grad(cost, own)
        size = max(1.0, *(float(g.abs().max()) for g in expected))
        gaps = [float((f - e).abs().max()) for f, e in zip((*found.weight, *found.activity), expected, strict=True)]
        return max(*gaps, abs(float(found.cost - cost.detach()))) / size

    return check_property(
        "= autograd through the discretisation",
        # sums of some thousand products, each rounded in both ways
        "cost, ∂/∂W and ∂/∂x(0) to 1e-12; Euler, Heun, RK4; all activations and losses; θ up to 1, c from 0.5 to 50",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(cases(max_dissipation=1.0, max_depth=3), st.sampled_from(METHODS), st.floats(0.0, 0.5)),
        error_of,
        1e-12,
    )


def equals_two_point(effort: Effort) -> Evidence:
    """The two-point solver at infinite mass gives the same gradient: another discretisation of the same identity."""
    case = Case((2, 3, 1), samples=2, speed=3.0, seed=4, dissipation=0.7)
    problem, signal, counts = case.problem(), case.signal(), [20, 40, 80]
    boundary = problem.initial_state(case.weights(), case.samples)
    gaps = []
    for steps in counts:
        grid = time_grid(signal, 0.0, 2.0, 2.0 / steps)
        solution = solve_two_point(two_point_problem(HamiltonEquations(problem), signal, boundary), grid)
        first = unflatten(solution.points[0], boundary).weight_costate
        found = trajectory_gradient(problem, case.weights(), signal, grid, method=RK4).weight
        gaps.append(float(relative_error(found, first)))
    slope = observed_order([1 / n for n in counts], gaps)
    rows = tuple((str(n), f"{g:.3e}") for n, g in zip(counts, gaps, strict=True))
    return Evidence(
        Leg.ORDER,
        "RK4 and its partner against Gauss-4 at m = ∞",
        judge(abs(slope - 4) <= 0.2),
        "relative difference of the gradients falls with slope 4 ± 0.2 in the step",
        f"{slope:.3f}",
        (Table("relative difference of the gradients", ("steps", "difference"), rows),),
    )


MOVING = Case((3, 4, 2), samples=2, seed=3, dissipation=0.5)
HORIZON = 1.0


def integrated_backprop(case: Case) -> Layers:
    """Return ∫ φ ∂L_BP/∂W dt by Simpson's rule on 201 nodes (relative error below 1e-9 at frequency 1)."""
    problem, signal, count = case.problem(), case.signal(), 200
    total: Layers = tuple(torch.zeros_like(w) for w in case.weights())
    for n in range(count + 1):
        t = HORIZON * n / count
        share = (1 if n in (0, count) else 4 if n % 2 else 2) * HORIZON / count / 3 * math.exp(case.dissipation * t)
        gradient = backpropagate(problem.network, problem.loss, case.weights(), signal.at(t)).gradient
        total = tuple(s + share * g for s, g in zip(total, gradient, strict=True))
    return total


def per_speed(gradient: Layers, c: float) -> Layers:
    """Return a gradient of ∫ c ℓ φ dt divided by c."""
    return tuple(g / c for g in gradient)


def limit_order(effort: Effort) -> Evidence:
    """Divided by c, the trajectory gradient tends to the time integral of the backpropagation gradient."""
    speeds, errors = [80.0, 160.0, 320.0, 640.0], []
    for c in speeds:
        case = replace(MOVING, speed=c)
        start = case.problem().network.forward(case.weights(), required_input(case.signal().at(0.0)))
        grid = time_grid(case.signal(), 0.0, HORIZON, 0.8 / c)
        found = trajectory_gradient(case.problem(), case.weights(), case.signal(), grid, method=RK4, activity=start)
        errors.append(float(relative_error(per_speed(found.weight, c), integrated_backprop(case))))
    slope = observed_order(speeds, errors)
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(speeds, errors))]
    rows = tuple((f"{c:g}", f"{e:.3e}", p) for c, e, p in zip(speeds, errors, local, strict=True))
    return Evidence(
        Leg.ORDER,
        "moving input: trajectory gradient against integrated backpropagation",
        judge(abs(slope + 1) <= 0.05),
        "slope −1 ± 0.05 in c; depth 2, tanh, θ = 0.5",
        f"{slope:.4f}",
        (Table("relative difference of p_w(0)/c from ∫ φ ∂L_BP/∂W dt", ("c", "error", "slope"), rows),),
    )


def initial_value_control(effort: Effort) -> Evidence:
    """Start the costates from 0 at t = 0 instead, reversed or not: no gradient of anything at moderate c."""
    c, steps = 3.0, 200
    case = replace(MOVING, speed=c, dissipation=0.0)
    problem, signal = case.problem(), case.signal()
    grid = time_grid(signal, 0.0, 4.0, 4.0 / steps)
    exact = trajectory_gradient(problem, case.weights(), signal, grid, method=RK4).weight
    errors = {}
    for name, system in (("reversed", CostateReversal(problem)), ("exact equations", HamiltonEquations(problem))):
        state = problem.initial_state(case.weights(), case.samples)
        total: Layers = tuple(torch.zeros_like(w) for w in case.weights())
        for begin, end in pairwise(grid):
            halfway = RK4.advance(system, signal.piece(begin), state, begin, (end - begin) / 2, 1)
            local = costate_gradient(problem, halfway, signal.at((begin + end) / 2))
            total = tuple(s + c * (end - begin) * g for s, g in zip(total, local, strict=True))
            state = RK4.advance(system, signal.piece(begin), state, begin, end - begin, 1)
        errors[name] = float(relative_error(total, exact))
    return Evidence(
        Leg.CONTROL,
        "costates given at t = 0 instead of T",
        judge(min(errors.values()) > 0.1),
        "∫ of the local products is off by more than 10 % at c = 3, T = 4, with the costates reversed or not",
        ", ".join(f"{name}: {error:.3g}" for name, error in errors.items()),
    )


TRAJECTORY_GRADIENT = Theorem(
    key="hamiltonian.trajectory-gradient",
    title="With frozen weights the terminal-value costate is the exact gradient of the integrated loss",
    statement=(
        "If the weights are constants and p(T) = 0, then d/dw_ij ∫ c ℓ φ dt = ∫ (c_i p_i σ'(a_i) x_j + c k w_ij φ) dt "
        "= p_w,ij(0) at every c. An explicit Runge–Kutta method for x with its partner for p gives the derivative of "
        "the discretised integral exactly. Divided by c it tends to ∫ φ ∂ℓ_BP/∂w_ij dt with an error O(1/c)."
    ),
    hypotheses=(
        "frozen weights",
        "p(T) = 0 and x(0) independent of w",
        "all weights b of the Runge–Kutta method non-zero",
        "for the limit: acyclic graph, smooth inputs, T fixed",
    ),
    source="classical adjoint identity; the partner method after Hager (2000); the limit derived here",
    about=(trajectory_gradient, partials, HamiltonEquations, backpropagate, CostateReversal),
    checks=(
        proof.prove_identity,
        proof.prove_limit,
        proof.prove_partner,
        bridge_field,
        equals_autograd,
        equals_two_point,
        limit_order,
        initial_value_control,
    ),
)
