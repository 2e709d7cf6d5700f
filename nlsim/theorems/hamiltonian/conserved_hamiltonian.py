"""hamiltonian.conserved-hamiltonian: what becomes of H along the exact and along the reversed equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.state import leaves, map_leaves
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.integrate.gauss import GAUSS4, GaussCollocation
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningState, hamiltonian
from nlsim.systems.signals import Sinusoid, hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    GRAPHS,
    costates,
    field,
    generic_problem,
    largest,
    phase_model,
    positions,
    proof,
    random_state,
    vanishes,
)
from nlsim.theorems.hamiltonian.phase_bridge import bridge_fields
from nlsim.theorems.hamiltonian.recurrent_backprop import bridge_graphs
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

SYSTEMS: dict[int, Any] = {+1: HamiltonEquations, -1: CostateReversal}
MOVING = Case(widths=(2, 4, 3), samples=2, seed=11, dissipation=0.4)


def prove_rate(effort: Effort) -> Evidence:
    """Differentiate H = φ Ĥ(y, p/φ, t) along both systems, with inputs and loss that move."""
    answers = []
    t = sp.Symbol("t", real=True)
    for graph in GRAPHS:
        of = phase_model(graph, time=t)
        phi = sp.exp(of.theta * t)
        p = {pi: sp.Symbol(f"P{pi}", real=True) for pi in costates(of)}
        moving = {u: sp.Function(str(u))(t) for u in of.u[0].values()}
        plain = {**moving, **{pi: each / phi for pi, each in p.items()}}
        h = phi * of.hamiltonian.subs(plain, simultaneous=True)
        for sign in (+1, -1):
            rates = field(of, sign=sign)
            y, pis = positions(of), costates(of)
            along = sp.diff(h, t)
            gradients = [(sp.diff(h, x), sp.diff(h, p[pi])) for x, pi in zip(y, pis, strict=True)]
            for (h_y, h_p), pi, rate, costate_rate in zip(
                gradients, pis, rates[: len(y)], rates[len(y) :], strict=True
            ):
                # dp/dt = φ (dπ/dt + θ π)
                momentum_rate = phi * (costate_rate + of.theta * pi)
                along += h_y * rate.subs(plain, simultaneous=True) + h_p * momentum_rate.subs(plain, simultaneous=True)
            expected = sp.diff(h, t)
            if sign < 0:
                expected += 2 * sum(h_y * h_p for h_y, h_p in gradients)
            answers.append(vanishes(along - expected))
    return proof(
        "derivative of H along the flow",
        "(H): dH/dt = ∂H/∂t; (R): dH/dt = ∂H/∂t + 2 H_y·H_p; φ = e^{θt}, moving inputs and loss, five graphs",
        answers,
    )


def prove_normalised(effort: Effort) -> Evidence:
    """The same for Ĥ = H/φ of the normalised costates, which is what the code records."""
    answers = []
    for graph in GRAPHS:
        of = phase_model(graph, samples=2)
        y, pis = positions(of), costates(of)
        slopes = [sp.diff(of.hamiltonian, each) for each in (*y, *pis)]
        dissipated = of.theta * sum(pi * h for pi, h in zip(pis, slopes[len(y) :], strict=True))
        product = sum(a * b for a, b in zip(slopes[: len(y)], slopes[len(y) :], strict=True))
        for sign in (+1, -1):
            along = sum(h * rate for h, rate in zip(slopes, field(of, sign=sign), strict=True))
            answers.append(vanishes(along + dissipated - (1 - sign) * product))
    return proof(
        "derivative of Ĥ = H/φ along the flow, inputs held",
        "(H): −θ π·Ĥ_π; (R): −θ π·Ĥ_π + 2 Ĥ_y·Ĥ_π; two samples, five graphs",
        answers,
    )


def bridge(effort: Effort) -> Evidence:
    """Tie both fields and H to the running code."""
    return bridge_fields((+1, -1), has_hamiltonian=True)


def rate_of(system: Any, state: LearningState, inputs: Inputs, moving: Inputs) -> tuple[Tensor, Tensor]:
    """Return dĤ/dt along the running field while inputs move at ``moving``, and what the theorem says it is."""
    problem, sign = system.problem, +1 if isinstance(system, HamiltonEquations) else -1
    slope, by_inputs = torch.func.grad(lambda y, u: hamiltonian(problem, y, u), argnums=(0, 1))(state, inputs)
    explicit = _dot(by_inputs, moving)
    dissipated = problem.dissipation * _dot(
        (slope.costate, slope.weight_costate), (state.costate, state.weight_costate)
    )
    product = _dot((slope.activity, slope.weight), (slope.costate, slope.weight_costate))
    along = _dot(slope, system.vector_field(0.0, state, inputs)) + explicit
    return along, explicit - dissipated + (1 - sign) * product


def _dot(a: Any, b: Any) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(leaves(a), leaves(b), strict=True)]).sum()


def rate_property(effort: Effort) -> Evidence:
    """On random networks, states, inputs and rates of the inputs."""

    def error_of(case: Case) -> float:
        state, moving = random_state(case), Case(case.widths, samples=case.samples, seed=case.seed + 1).inputs()
        errors = []
        for kind in SYSTEMS.values():
            system = kind(generic_problem(case))
            running = system.vector_field(0.0, state, case.inputs())
            fastest = largest(float(leaf.abs().max()) for leaf in leaves(running))
            found, expected = rate_of(system, state, case.inputs(), moving)
            # a sum over the phase space of products of two numbers below the largest rate
            errors.append(abs(float(found - expected)) / (1 + fastest**2))
        return largest(errors)

    return check_property(
        "dĤ/dt at random points",
        "error ≤ 1e-12 (1 + |f|²); both systems, θ up to 5, all activations and losses, moving inputs",
        effort,
        cases(max_dissipation=5.0, max_depth=3),
        error_of,
        1e-12,
    )


@dataclass(frozen=True)
class Accounted:
    """A system beside the integral of the rate that the theorem gives for Ĥ."""

    system: Any
    signal: Sinusoid

    def vector_field(
        self, t: float, state: tuple[LearningState, Tensor], inputs: Inputs
    ) -> tuple[LearningState, Tensor]:
        """Return the system's field and the expected rate of Ĥ."""
        _, expected = rate_of(self.system, state[0], inputs, rate_of_signal(self.signal, t))
        return self.system.vector_field(t, state[0], inputs), expected


def rate_of_signal(signal: Sinusoid, t: float) -> Inputs:
    """Return du/dt and dz/dt of a sinusoid: A ω cos(ω t + φ)."""

    def slope(amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
        return amplitude * frequency * torch.cos(frequency * t + phase)

    rates: Inputs = map_leaves(slope, signal.amplitude, signal.frequency, signal.phase)
    return rates


def balance_order(effort: Effort) -> Evidence:
    """Along runs with moving inputs and dissipation, H changes by the integral of the theorem's rate."""
    steps, horizon = [25, 50, 100], 0.5
    columns: dict[str, list[float]] = {}
    for sign, kind in SYSTEMS.items():
        system, signal = kind(generic_problem(MOVING)), MOVING.signal(2.0)
        state = (random_state(MOVING), torch.zeros((), dtype=torch.float64))
        begin = hamiltonian(system.problem, state[0], signal.at(0.0))
        errors = []
        for n in steps:
            after, balance = RK4.advance(Accounted(system, signal), signal.at, state, 0.0, horizon / n, n)
            end = hamiltonian(system.problem, after, signal.at(horizon))
            errors.append(abs(float(end - begin - balance)))
        columns["(H)" if sign > 0 else "(R)"] = errors
    slopes = [observed_order([1 / n for n in steps], errors) for errors in columns.values()]
    rows = tuple((str(n), *(f"{errors[row]:.2e}" for errors in columns.values())) for row, n in enumerate(steps))
    return Evidence(
        Leg.ORDER,
        "balance of Ĥ along RK4 runs, moving inputs, θ > 0",
        judge(all(abs(slope - 4) <= 0.05 for slope in slopes)),
        "ΔĤ − ∫ rate falls like h⁴ (slope 4 ± 0.05), for both systems",
        ", ".join(f"{slope:.3f}" for slope in slopes),
        (Table("|ΔĤ − ∫ rate|", ("steps", *columns), rows),),
    )


def energy_errors(system: Any, steps: list[int], horizon: float) -> list[float]:
    """Return |Ĥ(T) − Ĥ(0)| of Gauss-4 runs at held inputs."""
    inputs, state = MOVING.inputs(), random_state(MOVING)
    begin = hamiltonian(system.problem, state, inputs)
    errors = []
    for n in steps:
        after = GAUSS4.advance(system, hold(inputs), state, 0.0, horizon / n, n)
        errors.append(abs(float(hamiltonian(system.problem, after, inputs) - begin)))
    return errors


def conservation_order(effort: Effort) -> Evidence:
    """At held inputs and θ = 0, H is conserved up to the error of the stepper."""
    steps = [10, 20, 40, 80]
    system = HamiltonEquations(generic_problem(MOVING)).conservative()
    errors = energy_errors(system, steps, 1.0)
    slope = observed_order([1 / n for n in steps[1:]], errors[1:])
    local = ["", *(f"{p:.3f}" for p in pairwise_orders([1 / n for n in steps], errors))]
    rows = tuple((str(n), f"{e:.2e}", p) for n, e, p in zip(steps, errors, local, strict=True))
    return Evidence(
        Leg.ORDER,
        "|ΔH| along Gauss-4 runs, held inputs, θ = 0",
        judge(abs(slope - 4) <= 0.05),
        "falls like h⁴ (slope 4 ± 0.05)",
        f"{slope:.4f}",
        (Table("|H(1) − H(0)|", ("steps", "error", "slope"), rows),),
    )


def broken_hypotheses(effort: Effort) -> Evidence:
    """Reverse the costates, or dissipate, or let the inputs move: H is not conserved."""
    problem = generic_problem(MOVING)
    free = HamiltonEquations(problem).conservative()
    changes = {
        "nothing": energy_errors(free, [80], 1.0)[0],
        "costates reversed": energy_errors(CostateReversal(free.problem), [80], 1.0)[0],
        "dissipation": energy_errors(HamiltonEquations(problem), [80], 1.0)[0],
    }
    signal, state = MOVING.signal(2.0), random_state(MOVING)
    after = GAUSS4.advance(free, signal.at, state, 0.0, 1 / 80, 80)
    moved = hamiltonian(free.problem, after, signal.at(1.0)) - hamiltonian(free.problem, state, signal.at(0.0))
    changes["moving inputs"] = abs(float(moved))
    kept = changes.pop("nothing")
    return Evidence(
        Leg.CONTROL,
        "a hypothesis broken",
        judge(kept < 1e-6 and all(change > 0.01 for change in changes.values())),
        "H changes by more than 0.01 where the unbroken run keeps it to 1e-6",
        f"unbroken {kept:.1e}; " + ", ".join(f"{name} {change:.2g}" for name, change in changes.items()),
    )


CONSERVED_HAMILTONIAN = Theorem(
    key="hamiltonian.conserved-hamiltonian",
    title="H is conserved along the exact equations, not along the reversed ones",
    statement=(
        "Along the exact Hamilton equations dH/dt = ∂H/∂t, so H is constant when φ = 1 and inputs, loss and "
        "regulariser do not depend on time. Along the costate-only reversal dH/dt = 2 H_y·H_p + ∂H/∂t. For Ĥ = H/φ of "
        "normalised costates both rates gain −θ π·Ĥ_π."
    ),
    hypotheses=(
        "σ and L differentiable; any digraph, any speeds",
        "φ = e^{θt}; H = φ Ĥ(y, p/φ, t)",
        "conservation: exact equations, θ = 0, held inputs",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, eq. 11–14, 18; rates derived here",
    about=(HamiltonEquations, CostateReversal, hamiltonian, GaussCollocation),
    checks=(
        prove_rate,
        prove_normalised,
        bridge,
        bridge_graphs,
        rate_property,
        balance_order,
        conservation_order,
        broken_hypotheses,
    ),
)
