"""hamiltonian.symplectic: the exact equations keep the symplectic form, shrunk by e^{−θt}; so do the right steppers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import sympy as sp
import torch

from nlsim.analysis.orders import observed_order
from nlsim.integrate.conformal import CONFORMAL_MIDPOINT, ConformalSplitting
from nlsim.integrate.explicit import RK4
from nlsim.integrate.gauss import GAUSS4, IMPLICIT_MIDPOINT, GaussCollocation
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.signals import hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.cycles import CyclicCase, cyclic_cases
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    GRAPHS,
    form_defect,
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

NET = Case(widths=(2, 3, 2), samples=2, seed=4, dissipation=0.6)


def prove_form(effort: Effort) -> Evidence:
    """AᵀJ + JA = −θJ for the Jacobian A of the field, so MᵀJM = e^{−θt} J for that of the flow."""
    answers = []
    for graph in GRAPHS:
        of = phase_model(graph)
        a = symbolic_jacobian(of, sign=+1)
        pairs = a.shape[0] // 2
        j = symbolic_form(pairs)
        answers += [vanishes(entry) for entry in a.T * j + j * a + of.theta * j]
        answers.append(vanishes(a.trace() + of.theta * pairs))
    # d/dt (MᵀJM) = Mᵀ(AᵀJ + JA)M = −θ MᵀJM, from J at t = 0
    t, theta = sp.symbols("t theta", real=True)
    s = sp.Function("S")
    solution = sp.dsolve(s(t).diff(t) + theta * s(t), s(t), ics={s(0): 1})
    answers.append(vanishes(solution.rhs - sp.exp(-theta * t)))
    return proof(
        "infinitesimal form, every graph",
        "AᵀJ + JA = −θJ in every entry, tr A = −θ dim y, and the factor that follows is e^{−θt}",
        answers,
    )


def prove_steps(effort: Effort) -> Evidence:
    """Gauss tableaux satisfy the condition of symplecticity; a scaling of the costates shrinks the form."""
    root = sp.sqrt(3) / 6
    tableaux = {
        IMPLICIT_MIDPOINT: (sp.Matrix([[sp.Rational(1, 2)]]), sp.Matrix([1])),
        GAUSS4: (
            sp.Matrix([[sp.Rational(1, 4), sp.Rational(1, 4) - root], [sp.Rational(1, 4) + root, sp.Rational(1, 4)]]),
            sp.Matrix([sp.Rational(1, 2), sp.Rational(1, 2)]),
        ),
    }
    answers: list[bool | None] = []
    for method, (a, b) in tableaux.items():
        for i in range(len(b)):
            answers += [vanishes(b[i] * a[i, j] + b[j] * a[j, i] - b[i] * b[j]) for j in range(len(b))]
            # and these are the coefficients that run
            answers += [
                abs(float(a[i, j]) - given) <= 1e-16 for j, given in zip(range(len(b)), method.stages[i], strict=True)
            ]
            answers.append(float(b[i]) == method.weights[i])
    d = sp.Symbol("d", positive=True)
    for pairs in (1, 2, 3):
        scaling = sp.diag(*([1] * pairs + [d] * pairs))
        j = symbolic_form(pairs)
        answers += [vanishes(entry) for entry in scaling.T * j * scaling - d * j]
    return proof(
        "steps: tableaux and scalings",
        "b_i a_ij + b_j a_ji = b_i b_j for the coefficients that run; D = diag(1, d): DᵀJD = dJ",
        answers,
    )


def bridge(effort: Effort) -> Evidence:
    """Tie the symbolic Jacobian to the running field."""
    return bridge_jacobian(+1)


def step_of(case: Case, stepper: Any, kind: Any = HamiltonEquations, steps: int = 2) -> float:
    """Return the defect of MᵀJM = e^{−θt} J after some steps of a hundredth of a time constant, moving inputs."""
    dt = 0.01 / case.speed
    signal = case.signal(case.speed)
    matrix = step_jacobian(stepper, kind(generic_problem(case)), signal.at, random_state(case), 0.3, dt, steps)
    return form_defect(matrix, math.exp(-case.dissipation * dt * steps))


def step_property(effort: Effort) -> Evidence:
    """One and two steps of the symplectic steppers, and of the conformal one with dissipation."""

    def error_of(case: Case) -> float:
        undamped = replace(case, dissipation=0.0)
        undamped_steps = [step_of(undamped, stepper) for stepper in (IMPLICIT_MIDPOINT, GAUSS4)]
        return largest([step_of(case, CONFORMAL_MIDPOINT), *undamped_steps])

    return check_property(
        "MᵀJM = e^{−θt} J of running steps, by automatic differentiation",
        "defect ≤ 1e-11; conformal midpoint with θ up to 5; midpoint and Gauss-4 with θ = 0; moving inputs",
        Effort(max(1, effort.examples // 4), effort.is_random),
        cases(max_dissipation=5.0, max_depth=2),
        error_of,
        1e-11,
    )


def cyclic_property(effort: Effort) -> Evidence:
    """A conformal step on running digraphs with cycles and self-loops."""

    def error_of(case: CyclicCase) -> float:
        dt, system = 0.01 / case.speed, HamiltonEquations(case.problem())
        matrix = step_jacobian(CONFORMAL_MIDPOINT, system, hold(case.inputs()), case.state(), 0.0, dt, 2)
        return form_defect(matrix, math.exp(-case.dissipation * 2 * dt))

    return check_property(
        "MᵀJM = e^{−θt} J of running steps on digraphs with cycles and self-loops",
        "defect ≤ 1e-11; conformal midpoint with θ up to 5, unequal speeds",
        Effort(max(1, effort.examples // 4), effort.is_random),
        cyclic_cases(5.0),
        error_of,
        1e-11,
    )


def flow_order(effort: Effort) -> Evidence:
    """The flow itself: RK4, which knows nothing of the form, tends to it; the conformal step is on it at any h."""
    problem, signal, state, horizon = generic_problem(NET), NET.signal(), random_state(NET), 0.5
    system, factor = HamiltonEquations(problem), math.exp(-NET.dissipation * horizon)
    steps = [10, 20, 40]
    defects: dict[str, list[float]] = {}
    volumes: dict[str, list[float]] = {}
    exact = -NET.dissipation * horizon * (sum(leaf.numel() for leaf in (*state.activity, *state.weight)))
    for stepper in (RK4, CONFORMAL_MIDPOINT):
        matrices = [step_jacobian(stepper, system, signal.at, state, 0.0, horizon / n, n) for n in steps]
        defects[stepper.name] = [form_defect(matrix, factor) for matrix in matrices]
        volumes[stepper.name] = [float(torch.linalg.slogdet(matrix).logabsdet) for matrix in matrices]
    slope = observed_order([1 / n for n in steps], defects["rk4"])
    worst = largest(defects["conformal_midpoint"])
    lost = largest(abs(volume - exact) for volume in volumes["conformal_midpoint"])
    rows = tuple(
        (
            str(n),
            f"{defects['rk4'][row]:.2e}",
            f"{defects['conformal_midpoint'][row]:.2e}",
            f"{volumes['conformal_midpoint'][row]:.10f}",
        )
        for row, n in enumerate(steps)
    )
    return Evidence(
        Leg.ORDER,
        "MᵀJM − e^{−θt} J of the flow over t = 0.5",
        judge(abs(slope - 4) <= 0.05 and worst <= 1e-10 and lost <= 1e-9),
        f"RK4: slope 4 ± 0.05; conformal midpoint: ≤ 1e-10 at every h, log-volume −θ t dim y = {exact:g} to 1e-9",
        f"{slope:.3f}; {worst:.1e}; {lost:.1e}",
        (Table("defect of the form", ("steps", "rk4", "conformal_midpoint", "its log-volume"), rows),),
    )


def broken_hypotheses(effort: Effort) -> Evidence:
    """Reverse the costates, or take a step that ignores the structure."""
    undamped = replace(NET, dissipation=0.0)
    found = {
        "conformal midpoint on (H)": step_of(NET, CONFORMAL_MIDPOINT),
        "Gauss-4 on (R)": step_of(undamped, GAUSS4, CostateReversal),
        "midpoint on θ > 0": step_of(NET, IMPLICIT_MIDPOINT),
        "2 iterations": step_of(undamped, replace(GAUSS4, iterations=2)),
    }
    kept = found["conformal midpoint on (H)"]
    broken = [value for name, value in found.items() if name != "conformal midpoint on (H)"]
    return Evidence(
        Leg.CONTROL,
        "a hypothesis broken",
        judge(kept <= 1e-11 and all(value > 100 * kept and value > 1e-10 for value in broken)),
        "conformal midpoint on (H): ≤ 1e-11; (R), a step that ignores θ, and stages not solved: a hundred times more",
        ", ".join(f"{name} {value:.1e}" for name, value in found.items()),
    )


SYMPLECTIC = Theorem(
    key="hamiltonian.symplectic",
    title="The exact equations keep the symplectic form, or shrink it by e^{−θt}",
    statement=(
        "The flow M of the exact Hamilton equations in y = (x, w) and normalised costates satisfies MᵀJM = e^{−θt} J, "
        "whatever the inputs do: symplectic for θ = 0, conformally symplectic for θ > 0, with volume e^{−θt dim y}. "
        "Gauss methods keep the form at θ = 0, and put between two halves of the exact scaling of the costates they "
        "shrink it by exactly e^{−θh} a step."
    ),
    hypotheses=(
        "σ and L twice differentiable; any digraph, any speeds, moving inputs",
        "exact equations: costates not reversed",
        "steps: stages solved, h|J| well below 1",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, eq. 12; the conformal factor derived here",
    about=(HamiltonEquations, GaussCollocation, ConformalSplitting),
    checks=(
        prove_form,
        prove_steps,
        bridge,
        bridge_graphs,
        step_property,
        cyclic_property,
        flow_order,
        broken_hypotheses,
    ),
)
