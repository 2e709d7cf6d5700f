"""hamiltonian.recurrent-backprop: with cycles the limit is the derivative through the fixed point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import TANH
from nlsim.systems.backprop import backpropagate
from nlsim.systems.digraph import Digraph, digraph, fast_abscissa, recurrent_backpropagate
from nlsim.systems.hamiltonian.learning import HamiltonEquations, RecurrentCostateReversal
from nlsim.systems.hamiltonian.observables import relative_error
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, costate_gradient
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.signals import Sinusoid, hold
from nlsim.theorems.bridge import symbolic_loss
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.backprop_proof import prove_implicit_derivative, prove_limit
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import CYCLE, SKIP, Graph, model

Weights = tuple[torch.Tensor, ...]


def bridge_graphs(effort: Effort) -> Evidence:
    """The symbolic field of a skip and of a cycle with self-loop equals the running digraph's field."""
    tolerance, worst = 1e-13, 0.0  # sums of a handful of products of size 1
    for graph in (SKIP, CYCLE):
        worst = max(worst, _graph_gap(graph, HamiltonEquations, +1), _graph_gap(graph, RecurrentCostateReversal, -1))
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = running digraph, unequal c_i",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g} on a skip connection and on a cycle with self-loop, both systems",
        f"{worst:.2g}",
    )


def _graph_gap(graph: Graph, system: Any, sign: int) -> float:
    draw = generator(0, f"graph {graph.name}")
    speeds = draw.uniform(0.5, 3.0, graph.neurons)
    network = digraph(
        graph.inputs,
        graph.neurons,
        [(j - 1, i - 1) for j, i in graph.arcs],
        [o - 1 for o in graph.outputs],
        TANH,
        speeds=list(speeds),
    )
    problem = LearningProblem(network, SQUARED_ERROR, (float(speeds.mean()),), 0.7, 0.3, 0.2)
    mask, samples = network.mask, 2

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(draw.normal(size=shape))

    state = LearningState(
        (normal(samples, graph.neurons),),
        (normal(*mask.shape) * mask,),
        (normal(samples, graph.neurons),),
        (normal(*mask.shape) * mask,),
    )
    inputs = Inputs(normal(samples, graph.inputs), normal(samples, len(graph.outputs)))
    of = model(graph, activation=sp.tanh, loss=symbolic_loss("squared_error"), samples=samples, has_equal_speeds=False)
    assert inputs.input is not None
    assert inputs.target is not None
    values = {of.m: 0.7, of.theta: 0.3, of.k: 0.2, of.c: float(speeds.mean())}
    for b, i in np.ndindex(samples, graph.neurons):
        values[of.x[b][i + graph.inputs + 1]] = float(state.activity[0][b, i])
        values[of.costate[b][i + graph.inputs + 1]] = float(state.costate[0][b, i])
        values[of.speed[i + graph.inputs + 1]] = float(speeds[i])
    for b, j in np.ndindex(samples, graph.inputs):
        values[of.u[b][j + 1]] = float(inputs.input[b, j])
    for b, o in np.ndindex(samples, len(graph.outputs)):
        values[sp.Symbol(f"z{o}_{b}", real=True)] = float(inputs.target[b, o])
    arcs = [(i, j) for j, i in graph.arcs]
    for i, j in arcs:
        row, column = i - graph.inputs - 1, j - 1
        values[of.weight[i, j]] = float(state.weight[0][row, column])
        values[of.weight_costate[i, j]] = float(state.weight_costate[0][row, column])

    def gap(expression: Any, running: torch.Tensor) -> float:
        expected = float(expression.xreplace({k: sp.Float(v, 30) for k, v in values.items()}).evalf(25))
        distance = abs(expected - float(running)) / (1 + abs(expected))
        return math.inf if math.isnan(distance) else distance  # max(0, NaN) is 0: a NaN must not hide

    field = system(problem).vector_field(0.0, state, inputs)
    worst = 0.0
    for b, n in np.ndindex(samples, graph.neurons):
        i = n + graph.inputs + 1
        worst = max(worst, gap(of.velocity(i, b), field.activity[0][b, n]))
        worst = max(worst, gap(of.costate_velocity(i, b, sign=sign), field.costate[0][b, n]))
    for i, j in arcs:
        row, column = i - graph.inputs - 1, j - 1
        worst = max(worst, gap(of.weight_velocity((i, j)), field.weight[0][row, column]))
        worst = max(worst, gap(of.weight_costate_velocity((i, j), sign=sign), field.weight_costate[0][row, column]))
    return worst


def random_graph(seed: int, gain: float) -> tuple[Digraph, Weights]:
    """Return a random digraph of 2 inputs and 5 neurons, about half of all arcs, with random weights."""
    draw = generator(seed, "random graph")
    inner = [(j, i) for j in range(2, 7) for i in range(2, 7) if draw.uniform() < 0.5]
    network = digraph(2, 5, [(0, 2), (1, 3), *inner], [5, 6], TANH)
    weight = torch.from_numpy(gain * draw.normal(size=tuple(network.mask.shape)))
    return network, (weight * network.mask,)


def random_inputs(seed: int) -> Inputs:
    """Return a batch of two."""
    draw = generator(seed, "random graph inputs")
    return Inputs(torch.from_numpy(draw.normal(size=(2, 2))), torch.from_numpy(draw.normal(size=(2, 2))))


def rest_is_recurrent_backprop(effort: Effort) -> Evidence:
    """At static input, θ = 0, a stable graph settles on the derivative through its fixed point."""

    def error_of(seed: int) -> float:
        network, weights = random_graph(seed, gain=0.5)
        inputs = random_inputs(seed)
        # the gain keeps ‖W‖ near 1; where a draw is not clearly stable, shrink it until it is
        while fast_abscissa(network, weights, inputs) > -0.3:
            weights = (0.8 * weights[0],)
        problem = LearningProblem(network, SQUARED_ERROR, (1.0,), float("inf"))
        zero = torch.zeros(2, 5, dtype=torch.float64)
        state = LearningState((zero,), weights, (zero,), (torch.zeros_like(weights[0]),))
        # e^{−0.3·150} = 3e-20 is left of the start, transients of the coupling included
        state = RK4.advance(RecurrentCostateReversal(problem), hold(inputs), state, 0.0, 0.5, 300)
        exact = recurrent_backpropagate(network, SQUARED_ERROR, weights, inputs).gradient
        found = costate_gradient(problem, state, inputs)
        return float((found[0] - exact[0]).abs().max())

    return check_property(
        "static input: the rest state",
        "gradient = derivative through x* = σ(Wx*) to 1e-12, random graphs with abscissa of −I + D_σ W ≤ −0.3",
        Effort(max(1, effort.examples // 5), effort.is_random),
        st.integers(0, 10**6),
        error_of,
        1e-12,
    )


def moving_order(effort: Effort) -> Evidence:
    """Under moving inputs the error is O(1/c), in units of the effective speed c |abscissa|."""
    network, weights = random_graph(3, gain=0.5)
    draw = generator(3, "random graph signal")

    def both(low: float, high: float) -> Inputs:
        return Inputs(
            torch.from_numpy(draw.uniform(low, high, (2, 2))), torch.from_numpy(draw.uniform(low, high, (2, 2)))
        )

    one = torch.ones((), dtype=torch.float64)
    signal = Sinusoid(both(-0.3, 0.3), both(0.3, 0.8), Inputs(one, one), both(0.0, 6.3))
    abscissa = fast_abscissa(network, weights, signal.at(2.0))
    speeds, errors = [200.0, 400.0, 800.0, 1600.0], []
    for c in speeds:
        problem = LearningProblem(network, SQUARED_ERROR, (c,), float("inf"))
        begin = 2.0 - 40 / (c * -abscissa)
        start = recurrent_backpropagate(network, SQUARED_ERROR, weights, signal.at(begin))
        state = LearningState(start.activity, weights, start.costate, (torch.zeros_like(weights[0]),))
        steps = int(40 / -abscissa / 0.1)
        state = RK4.advance(
            RecurrentCostateReversal(problem), signal.piece(begin), state, begin, (2.0 - begin) / steps, steps
        )
        exact = recurrent_backpropagate(network, SQUARED_ERROR, weights, signal.at(2.0)).gradient
        errors.append(float(relative_error(costate_gradient(problem, state, signal.at(2.0)), exact)))
    slope = observed_order(speeds, errors)
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(speeds, errors))]
    rows = tuple((f"{c:g}", f"{e:.3e}", p) for c, e, p in zip(speeds, errors, local, strict=True))
    return Evidence(
        Leg.ORDER,
        "moving input: error in 1/c",
        judge(abs(slope + 1) <= 0.05),
        "slope −1 ± 0.05",
        f"{slope:.4f} at abscissa {abscissa:.3f}",
        (Table("gradient error on a cyclic graph", ("c", "error", "slope"), rows),),
    )


def unstable_control(effort: Effort) -> Evidence:
    """Drop the stability hypothesis: a bistable self-loop at its unstable fixed point must not stay there."""
    network = digraph(1, 1, [(0, 1), (1, 1)], [1], TANH)
    weights = (torch.tensor([[0.0, 2.0]], dtype=torch.float64),)  # x = tanh(2x): 0 is unstable, ±0.96 are not
    inputs = Inputs(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64))
    problem = LearningProblem(network, SQUARED_ERROR, (1.0,), float("inf"))
    abscissa = fast_abscissa(network, weights, inputs)  # Newton's method starts at the fixed point 0
    near = torch.full((1, 1), 1e-6, dtype=torch.float64)
    state = LearningState((near,), weights, (torch.zeros_like(near),), (torch.zeros_like(weights[0]),))
    state = RK4.advance(RecurrentCostateReversal(problem), hold(inputs), state, 0.0, 0.1, 400)
    gone = float(state.activity[0].abs().max())
    return Evidence(
        Leg.CONTROL,
        "spectrum of −I + D_σ W in the right half plane",
        judge(abscissa > 0.9 and gone > 0.9),
        "abscissa +1 at x* = 0: the run leaves this fixed point for |x| = 0.957",
        f"abscissa {abscissa:.3f}, |x| = {gone:.3f}",
    )


RECURRENT_BACKPROP = Theorem(
    key="hamiltonian.recurrent-backprop",
    title="With cycles the limit is recurrent backpropagation",
    statement=(
        "On a graph with cycles the limit c → ∞ of the reversed costates solves (I − D_σ W)ᵀ π = L_x: the "
        "derivative through the fixed point x = σ(Wx̃), not backpropagation through time. The speed that matters "
        "is c |abscissa(−I + D_σ W)|."
    ),
    hypotheses=("−I + D_σ W has its spectrum in the left half plane", "inputs, targets and weights smooth in time"),
    source="derived here (RD-3) from Betti & Gori, eq. 17",
    about=(RecurrentCostateReversal, HamiltonEquations, Digraph, recurrent_backpropagate, backpropagate),
    checks=(
        prove_limit,
        prove_implicit_derivative,
        bridge_graphs,
        rest_is_recurrent_backprop,
        moving_order,
        unstable_control,
    ),
)
