"""hamiltonian.normalised-costate: the equations in λ = σ'(a) p/φ are those in p."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS, Bridge, build_bridge
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian import normalised_proof as proof
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.normalised_proof import Published, along
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Tensors = tuple[Tensor, ...]
SYSTEMS = ((HamiltonEquations, +1), (CostateReversal, -1))


def slopes(network: LayeredNetwork, weights: Tensors, activity: Tensors, source: Tensor) -> Tensors:
    """Return σ'(a_l) of a layered network."""
    found = []
    for layer, activation in enumerate(network.activations):
        a = network.pre_activation(weights[layer], source)
        found.append(activation.slope(a, activation.value(a)))
        source = activity[layer]
    return tuple(found)


def moving(
    problem: LearningProblem[LayeredNetwork],
    state: LearningState,
    field: LearningState,
    source: Tensor,
    source_rate: Tensor,
) -> tuple[Tensors, Tensors]:
    """Return dλ/dt and d(log σ')/dt along a running field, by forward differentiation of λ = σ'(a) π."""

    def both(w: Tensors, x: Tensors, pi: Tensors, u: Tensor) -> tuple[Tensors, Tensors]:
        each = slopes(problem.network, w, x, u)
        return tuple(s * p for s, p in zip(each, pi, strict=True)), tuple(s.log() for s in each)

    point = (state.weight, state.activity, state.costate, source)
    direction = (field.weight, field.activity, field.costate, source_rate)
    rates: tuple[Tensors, Tensors] = torch.func.jvp(both, point, direction)[1]
    return rates


def bridge_normalised(effort: Effort) -> Evidence:
    """(NLP 16) and (NLP 19) as numbers equal dλ/dt and d²w/dt² along the running fields."""
    tolerance, worst, count = 1e-12, 0.0, 0  # as for the field itself: some hundred roundings
    for widths, activation, loss in (
        ((2, 2, 2), "tanh", "squared_error"),
        ((1, 2, 1, 2), "logistic", "cross_entropy"),
        ((2, 1, 2), "softplus", "squared_error"),
    ):
        bridge = build_bridge(widths, activation, loss, samples=1)
        assert bridge.inputs.input is not None
        source_rate = torch.as_tensor(generator(1, "input rate").normal(size=bridge.inputs.input.shape))
        for n in range(widths[0]):
            bridge.values[sp.Symbol(f"udot{n + 1}", real=True)] = float(source_rate[0, n])
        bridge.values[sp.Symbol(f"udot{widths[0] + 1}", real=True)] = 0.0  # the bias vertex
        for system, sign in SYSTEMS:
            field = system(bridge.problem).vector_field(0.0, bridge.state, bridge.inputs)
            rate, _ = moving(bridge.problem, bridge.state, field, bridge.inputs.input, source_rate)
            worst = max(worst, _bridge_gap(bridge, activation, sign, rate, field))
            count += 1
    return Evidence(
        Leg.BRIDGE,
        "(NLP 16), (NLP 19) = dλ/dt along the running fields",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; λ = σ'(a) π by forward differentiation, moving inputs",
        f"{worst:.2g} over {count} fields",
    )


def _bridge_gap(bridge: Bridge, activation: str, sign: int, rate: Tensors, field: LearningState) -> float:
    of, problem, worst = bridge.symbolic, bridge.problem, 0.0
    published = Published(of, sign, _slope(activation))
    rates = proof.motion(of, {arc: of.weight_velocity(arc) for arc in of.weight})
    slope = {i: published.slope(of.pre_activation(i)) for i in of.graph.vertices}
    lam = {i: slope[i] * of.costate[0][i] for i in of.graph.vertices}

    def compare(expression: Any, running: Tensor) -> float:
        expected = bridge.number(expression)
        return abs(expected - float(running)) / (1 + abs(expected))

    for layer in range(problem.network.depth):
        for n in range(problem.network.widths[layer + 1]):
            i = bridge.vertex(layer, n)
            expected = published.normalised_rate(i, lam, along(slope[i], rates) / slope[i], of.theta)
            worst = max(worst, compare(expected, rate[layer][0, n]))
        acceleration = -field.weight_costate[layer] / (problem.mass * problem.mean_speed)
        for n, column in np.ndindex(*acceleration.shape):
            arc = (bridge.vertex(layer, n), bridge.source(layer, column))
            expected = published.acceleration(arc, lam, of.weight_velocity(arc), of.theta)
            worst = max(worst, compare(expected, acceleration[n, column]))
    return worst


def _slope(activation: str) -> Any:
    """Return σ' by differentiation of the definition."""
    a = sp.Symbol("a", real=True)
    derivative = sp.diff(SYMBOLIC_ACTIVATIONS[activation](a), a)
    return lambda value: derivative.subs(a, value)


def random_fields(effort: Effort) -> Evidence:
    """(NLP 16) and (NLP 19), written for layers, against the running fields over random nets."""

    def error_of(case: Case) -> float:
        if case.activation == "relu":  # λ says nothing where σ' = 0
            case = replace(case, activation="softplus")
        problem, state, inputs, source_rate = _generic(case)
        assert inputs.input is not None
        return max(_layer_gap(problem, state, inputs, source_rate, *each) for each in SYSTEMS)

    return check_property(
        "(NLP 16) and (NLP 19) along the running fields",
        "relative difference ≤ 1e-12; random layered nets, unequal speeds, θ > 0, k > 0, moving inputs",
        effort,
        cases(max_dissipation=3.0),
        error_of,
        1e-12,
    )


def _generic(case: Case) -> tuple[LearningProblem[LayeredNetwork], LearningState, Inputs, Tensor]:
    """Return a case with unequal speeds at a random point, and a rate of the inputs."""
    draw = generator(case.seed, "normalised case")
    bare = case.problem(mass=0.7)
    speeds = tuple(case.speed * float(factor) for factor in draw.uniform(0.5, 2.0, bare.network.depth))
    problem, weights, inputs = replace(bare, speed=speeds, regularisation=0.2), case.weights(), case.inputs()

    def tensors(shapes: list[torch.Size]) -> Tensors:
        return tuple(torch.as_tensor(draw.normal(size=tuple(s))) for s in shapes)

    layers = [torch.Size((case.samples, n)) for n in case.widths[1:]]
    costates = tensors([w.shape for w in weights])
    state = LearningState(tensors(layers), weights, tensors(layers), costates)
    assert inputs.input is not None
    return problem, state, inputs, tensors([inputs.input.shape])[0]


def _layer_gap(
    problem: LearningProblem[LayeredNetwork],
    state: LearningState,
    inputs: Inputs,
    source_rate: Tensor,
    system: Any,
    sign: int,
) -> float:
    assert inputs.input is not None
    assert inputs.target is not None
    field = system(problem).vector_field(0.0, state, inputs)
    rate, log_rate = moving(problem, state, field, inputs.input, source_rate)
    each = slopes(problem.network, state.weight, state.activity, inputs.input)
    lam = [s * pi for s, pi in zip(each, state.costate, strict=True)]
    c, theta, worst = problem.mean_speed, problem.dissipation, 0.0
    for layer in range(problem.network.depth):
        bracket = -theta + log_rate[layer] + sign * problem.speed[layer]
        if layer + 1 < problem.network.depth:
            pulled = problem.network.pull_back(state.weight[layer + 1], problem.speed[layer + 1] * lam[layer + 1])
        else:
            pulled = c * problem.loss.gradient(state.activity[-1], inputs.target)
        expected = bracket * lam[layer] - sign * each[layer] * pulled
        worst = max(worst, float(((rate[layer] - expected).abs() / (1 + expected.abs())).max()))
    return worst


NORMALISED_COSTATE = Theorem(
    key="hamiltonian.normalised-costate",
    title="The equations in λ = σ'(a) p/φ are the equations in p",
    statement=(
        "With λ_i = σ'(a_i) p_i/φ the component form (NLP 14) is equivalent to (NLP 16), and with the costates "
        "reversed (NLP 18) to (NLP 19). The inverse is p_i = φ λ_i/σ'(a_i); the formula p_i = φ σ' λ_i of the paper's "
        "appendix is a slip. In the normalised costates of the code, λ_i = σ'(a_i) π_i."
    ),
    hypotheses=("σ'(a_i) ≠ 0", "φ positive and smooth", "cycles, self-loops and unequal speeds are allowed"),
    source="Betti & Gori, Nature-Inspired Local Propagation, Proposition 2, eq. 14–16 and 18–19",
    about=(HamiltonEquations, CostateReversal, LearningState),
    checks=(
        proof.prove_components,
        proof.prove_forward,
        proof.prove_backward,
        bridge_normalised,
        random_fields,
        proof.erratum_control,
    ),
)
