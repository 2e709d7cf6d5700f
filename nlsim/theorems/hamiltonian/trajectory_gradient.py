"""hamiltonian.trajectory-gradient: with frozen weights the terminal-value costate is the gradient of the integral."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.grid import time_grid
from nlsim.core.system import Inputs
from nlsim.integrate.boundary import two_point_problem, unflatten
from nlsim.integrate.collocation import solve_two_point
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4, ExplicitRungeKutta
from nlsim.systems.backprop import backpropagate, required_input, required_target
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.observables import relative_error
from nlsim.systems.hamiltonian.problem import LearningProblem, costate_gradient, partials
from nlsim.systems.hamiltonian.trajectory import trajectory_gradient
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.backprop_proof import backprop_relation
from nlsim.theorems.hamiltonian.hamilton_proof import GRAPHS, loss_rate, pairing_rate, vary
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import SigmaPrime, every, is_zero, model

Layers = tuple[Tensor, ...]
METHODS = (EXPLICIT_EULER, HEUN, RK4)


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def prove_identity(effort: Effort) -> Evidence:
    """With frozen weights d(p·δy)/dt = −φ c δℓ; and what p_w integrates is the local product."""
    answers = []
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        frozen = dict.fromkeys(of.weight, sp.Integer(0))
        answers.append(is_zero(pairing_rate(of, frozen) + vary(of, loss_rate(of))))
        for j, i in graph.arcs:
            source = {**of.u[0], **of.x[0]}[j]
            pi, w = of.weight_costate[i, j], of.weight[i, j]
            local = of.speed[i] * of.costate[0][i] * SigmaPrime(of.pre_activation(i)) * source + of.c * of.k * w
            # d(φπ)/dt / φ = dπ/dt + θπ
            answers.append(is_zero(of.weight_costate_velocity((i, j), sign=+1) + of.theta * pi + local))
    return _report(
        "adjoint identity",
        "d(p·δy)/dt = −φ c δℓ for δw' = 0, so with p(T) = 0 and δx(0) = 0 the derivative of ∫ c ℓ φ dt is "
        "p_w(0) = ∫ (c_i p_i σ'(a_i) x_j + c k w φ) dt; 5 graphs",
        answers,
    )


def prove_limit(effort: Effort) -> Evidence:
    """The exact costate equation divided by c has the backpropagation relation as its limit."""
    answers = []
    for graph in GRAPHS:
        of = model(graph)
        for i in graph.vertices:
            limit = sp.limit(sp.expand(of.costate_velocity(i, sign=+1) / of.c), of.c, sp.oo)
            answers.append(is_zero(limit + backprop_relation(of, i)))
    return _report("limit c → ∞", "π_i = Σ_k σ'(a_k) w_ki π_k + L_x_i on the slow manifold; 5 graphs", answers)


def prove_partner(effort: Effort) -> Evidence:
    """One step of any explicit method and of the costates' recursion: the pairing p·δx is kept, loss for loss.

    Stage Jacobians are free symbols, so nothing is assumed of the field. Summed over steps, the identity says that
    the recursion returns the derivatives of the discretised cost.
    """
    answers: list[bool | None] = []
    for stages, size in ((4, 1), (2, 2)):
        h = sp.Symbol("h")
        a = sp.Matrix(stages, stages, lambda i, j: sp.Symbol(f"a{i}{j}") if j < i else 0)
        b, phi = sp.symbols(f"b:{stages}"), sp.symbols(f"phi:{stages}")

        def family(letter: str, rows: int, columns: int, count: int = stages) -> list[Any]:
            return [sp.Matrix(rows, columns, sp.symbols(f"{letter}{i}_:{rows * columns}")) for i in range(count)]

        f_x, f_w = family("A", size, size), family("B", size, size)
        l_x, l_w = family("L", 1, size), family("M", 1, size)  # c ℓ_x and c ℓ_w at the stages
        (dx,), (dw,), (after,) = family("x", size, 1, 1), family("w", size, 1, 1), family("p", 1, size, 1)
        # forward: tangents of the stages, of the step and of its share of the cost
        slopes: list[Any] = []
        cost, dx_after = sp.zeros(1, 1), dx
        for i in range(stages):
            point = sum((h * a[i, j] * slopes[j] for j in range(i)), dx)
            slopes.append(f_x[i] * point + f_w[i] * dw)
            cost += h * b[i] * phi[i] * (l_x[i] * point + l_w[i] * dw)
            dx_after = dx_after + h * b[i] * slopes[i]
        # backward: the recursion of trajectory_gradient, h_x = π f_x + c ℓ_x and h_w = π f_w + c ℓ_w
        shares: dict[int, Any] = {}
        before, gradient = after, sp.zeros(1, size)
        for i in reversed(range(stages)):
            pulled = sum((a[j, i] * shares[j] for j in range(i + 1, stages)), b[i] * after)
            pi = pulled / (b[i] * phi[i])
            shares[i] = h * b[i] * phi[i] * (pi * f_x[i] + l_x[i])
            gradient += h * b[i] * phi[i] * (pi * f_w[i] + l_w[i])
            before = before + shares[i]
        answers.append(is_zero((after * dx_after + cost - before * dx - gradient * dw)[0]))
    return _report(
        "exact discrete adjoint",
        "p⁺·δx⁺ + h Σ b_i φ_i c δℓ_i = p·δx + (p_w − p_w⁺)·δw for every explicit method: 4 stages, and 2 in matrices",
        answers,
    )


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
        prove_identity,
        prove_limit,
        prove_partner,
        bridge_field,
        equals_autograd,
        equals_two_point,
        limit_order,
        initial_value_control,
    ),
)
