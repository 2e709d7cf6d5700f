"""hamiltonian.reversed-volume: the reversed equations contract phase volume at a rate that weights cannot change."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Inputs
from nlsim.integrate.gauss import GAUSS4, IMPLICIT_MIDPOINT
from nlsim.systems.digraph import Digraph
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations, RecurrentCostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.cycles import CyclicCase, cyclic_cases
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    GRAPHS,
    field_jacobian,
    form,
    generic_problem,
    largest,
    phase_model,
    proof,
    random_state,
    step_jacobian,
    symbolic_form,
    symbolic_jacobian,
    vanishes,
)
from nlsim.theorems.hamiltonian.phase_bridge import bridge_jacobian
from nlsim.theorems.hamiltonian.recurrent_backprop import bridge_graphs
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import CYCLE, Model, SigmaPrime

NET = Case(widths=(2, 3, 2), samples=2, seed=5, dissipation=0.6)


def contraction(of: Model) -> Any:
    """Return −2 Σ c_i (1 − σ'(a_i) w_ii) over neurons and samples."""
    total = 0
    for b in range(len(of.x)):
        for i in of.graph.vertices:
            loop = of.weight.get((i, i), 0)
            total -= 2 * of.speed[i] * (1 - SigmaPrime(of.pre_activation(i, b)) * loop)
    return total


def prove_volume(effort: Effort) -> Evidence:
    """tr A = 2 tr f_x − θ dim y = −2 Σ c_i (1 − σ'(a_i) w_ii) − θ dim y."""
    answers = []
    for graph in GRAPHS:
        for samples in (1, 2):
            of = phase_model(graph, samples=samples)
            a = symbolic_jacobian(of, sign=-1)
            answers.append(vanishes(a.trace() - contraction(of) + of.theta * (a.shape[0] // 2)))
            if all(j != i for j, i in graph.arcs):
                plain = -2 * samples * sum(of.speed.values())
                answers.append(vanishes(contraction(of) - plain))
    return proof(
        "rate of the log-volume, five graphs, one and two samples",
        "tr A = −2 Σ c_i (1 − σ'(a_i) w_ii) − θ dim y; without self-loops −2 Σ c_i − θ dim y",
        answers,
    )


def prove_symmetry(effort: Effort) -> Evidence:
    """KA − (KA)ᵀ = −θJ with K = (0 I; I 0): symmetric for θ = 0."""
    answers = []
    for graph in GRAPHS:
        of = phase_model(graph)
        a = symbolic_jacobian(of, sign=-1)
        pairs = a.shape[0] // 2
        swapped = a[pairs:, :].col_join(a[:pairs, :])
        answers += [vanishes(entry) for entry in swapped - swapped.T + of.theta * symbolic_form(pairs)]
    return proof("structure of the Jacobian, five graphs", "KA = (KA)ᵀ − θJ in every entry", answers)


def bridge(effort: Effort) -> Evidence:
    """Tie the symbolic Jacobian to the running field."""
    return bridge_jacobian(-1)


def volume_rate(case: Case) -> float:
    """Return −2 Σ c_i − θ dim y of the running problem; layered networks have no self-loops."""
    problem = generic_problem(case)
    network = problem.network
    speeds = sum(n * float(c) for n, c in zip(network.widths[1:], problem.speed, strict=True))
    dimension = case.samples * sum(network.widths[1:])
    dimension += sum(rows * columns for rows, columns in map(network.weight_shape, range(network.depth)))
    return -2 * case.samples * speeds - case.dissipation * dimension


def asymmetry(a: Tensor, theta: float) -> float:
    """Return the largest entry of KA − (KA)ᵀ + θJ, relative to that of A."""
    pairs = len(a) // 2
    swapped = torch.cat((a[pairs:], a[:pairs]))
    return float((swapped - swapped.T + theta * form(len(a))).abs().max() / a.abs().max())


def field_property(effort: Effort) -> Evidence:
    """Trace and symmetry of the running field's Jacobian at random points."""

    def error_of(case: Case) -> float:
        a = field_jacobian(CostateReversal(generic_problem(case)), random_state(case), case.inputs())
        rate = volume_rate(case)
        return largest((abs(float(a.trace()) - rate) / abs(rate), asymmetry(a, case.dissipation)))

    return check_property(
        "tr A and KA of the running field, by automatic differentiation",
        "trace −2 Σ c_i − θ dim y and KA = (KA)ᵀ − θJ to 1e-12; all activations and losses, θ up to 5",
        effort,
        cases(max_dissipation=5.0, max_depth=3),
        error_of,
        1e-12,
    )


def cyclic_property(effort: Effort) -> Evidence:
    """The same on running digraphs with cycles and self-loops, where the rate depends on the state."""

    def error_of(case: CyclicCase) -> float:
        problem, state, inputs = case.problem(), case.state(), case.inputs()
        a = field_jacobian(RecurrentCostateReversal(problem), state, inputs)
        rate = loop_rate(problem, state, inputs) - case.dissipation * (len(a) // 2)
        return largest((abs(float(a.trace()) - rate) / abs(rate), asymmetry(a, case.dissipation)))

    return check_property(
        "tr A and KA on digraphs with cycles and self-loops",
        "trace −2 Σ c_i (1 − σ'(a_i) w_ii) − θ dim y and KA = (KA)ᵀ − θJ to 1e-12; unequal speeds, θ up to 5",
        effort,
        cyclic_cases(5.0),
        error_of,
        1e-12,
    )


def loop_rate(problem: LearningProblem[Digraph], state: LearningState, inputs: Inputs) -> float:
    """Return −2 Σ c_i (1 − σ'(a_i) w_ii) of a tanh digraph, neuron by neuron."""
    (x,), (weight,) = state.activity, state.weight
    given, speeds = inputs.input, problem.network.speeds
    assert given is not None
    assert speeds is not None
    total = 0.0
    for b in range(len(x)):
        sources = torch.cat((given[b], x[b]))
        for i in range(problem.network.neurons):
            slope = 1 - math.tanh(float(weight[i] @ sources)) ** 2
            loop = float(weight[i, problem.network.inputs + i])
            total -= 2 * float(problem.speed[0]) * float(speeds[i]) * (1 - slope * loop)
    return total


def flow_order(effort: Effort) -> Evidence:
    """The log-volume of the Gauss methods' maps tends to the rate times the time."""
    signal, state, horizon = NET.signal(), random_state(NET), 0.4
    system, exact = CostateReversal(generic_problem(NET)), volume_rate(NET) * horizon
    steps = [8, 16, 32]
    errors: dict[str, list[float]] = {}
    for method in (IMPLICIT_MIDPOINT, GAUSS4):
        maps = [step_jacobian(method, system, signal.at, state, 0.0, horizon / n, n) for n in steps]
        errors[method.name] = [abs(float(torch.linalg.slogdet(each).logabsdet) - exact) for each in maps]
    slopes = [observed_order([1 / n for n in steps], each) for each in errors.values()]
    rows = tuple((str(n), *(f"{each[row]:.2e}" for each in errors.values())) for row, n in enumerate(steps))
    return Evidence(
        Leg.ORDER,
        "log-volume of the flow over t = 0.4, moving inputs",
        judge(abs(slopes[0] - 2) <= 0.05 and abs(slopes[1] - 4) <= 0.05),
        f"tends to {exact:.6f}, with slope 2 ± 0.05 by implicit midpoint and 4 ± 0.05 by Gauss-4",
        f"slopes {slopes[0]:.4f} and {slopes[1]:.4f}; {min(errors['gauss4']):.1e} away",
        (Table("|log det M − rate · t|", ("steps", *errors), rows),),
    )


def broken_hypotheses(effort: Effort) -> Evidence:
    """Do not reverse, or add a self-loop: the rate is another."""
    problem, state, inputs = generic_problem(NET), random_state(NET), NET.inputs()
    a = field_jacobian(HamiltonEquations(problem), state, inputs)
    exact = float(a.trace()) - volume_rate(NET)
    of = phase_model(CYCLE)
    loop = contraction(of) + 2 * sum(of.speed.values())
    left = vanishes(loop - 2 * of.speed[2] * SigmaPrime(of.pre_activation(2)) * of.weight[2, 2])
    skew = asymmetry(a, NET.dissipation)
    return Evidence(
        Leg.CONTROL,
        "costates not reversed; a self-loop",
        judge(exact > 1.0 and skew > 0.1 and left is True and vanishes(loop) is not True),
        "(H): trace larger by 2 Σ c_i, KA not symmetric; with a self-loop 2 c σ'(a) w_ii is left over",
        f"(H): trace larger by {exact:.3f}, asymmetry {skew:.2f}; left over: {loop}",
    )


REVERSED_VOLUME = Theorem(
    key="hamiltonian.reversed-volume",
    title="The reversed equations contract phase volume at the rate 2 Σ c_i + θ dim y",
    statement=(
        "Along the costate-only reversal the logarithm of phase volume changes at the rate "
        "tr A = 2 tr f_x − θ dim y = −2 Σ c_i (1 − σ'(a_i) w_ii) − θ dim y, the sum being over neurons and samples: "
        "without self-loops it depends neither on the state nor on the weights. The system is not Hamiltonian but KA "
        "is symmetric at θ = 0, and KA = (KA)ᵀ − θJ in general."
    ),
    hypotheses=(
        "σ and L twice differentiable; any digraph, any speeds, moving inputs",
        "y = (x, w) and normalised costates; K = (0 I; I 0), J = (0 I; −I 0)",
    ),
    source="derived here, for Betti & Gori, Nature-Inspired Local Propagation, eq. 18",
    about=(CostateReversal, RecurrentCostateReversal, HamiltonEquations),
    checks=(
        prove_volume,
        prove_symmetry,
        bridge,
        bridge_graphs,
        field_property,
        cyclic_property,
        flow_order,
        broken_hypotheses,
    ),
)
