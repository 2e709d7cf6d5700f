"""hamiltonian.time-scaling: faster speeds under faster inputs are the same run, only sooner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.core.state import leaves
from nlsim.core.system import Inputs
from nlsim.integrate.conformal import CONFORMAL_MIDPOINT
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.gauss import GAUSS4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.signals import Sinusoid
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    GRAPHS,
    field,
    generic_problem,
    largest,
    phase_model,
    proof,
    random_state,
    vanishes,
)
from nlsim.theorems.hamiltonian.phase_bridge import bridge_fields
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

STEPPERS: tuple[Any, ...] = (
    EXPLICIT_EULER,
    RK4,
    IMPLICIT_SWEEP,
    EXPONENTIAL_SWEEP,
    EXPONENTIAL_EULER,
    GAUSS4,
)
STEPS = 10


def prove_scaling(effort: Effort) -> Evidence:
    """Scaling the constants multiplies every component of both fields by κ, at the same state."""
    answers = []
    for graph in GRAPHS:
        of = phase_model(graph)
        kappa = sp.Symbol("kappa", positive=True)
        scaled = {of.c: kappa * of.c, of.theta: kappa * of.theta, of.m: of.m / kappa**2}
        scaled |= {speed: kappa * speed for speed in of.speed.values()}
        for sign in (+1, -1):
            for rate in field(of, sign=sign):
                answers.append(vanishes(rate.subs(scaled, simultaneous=True) - kappa * rate))
    return proof(
        "fields with scaled constants",
        "f(y; κc, κθ, m/κ²) = κ f(y; c, θ, m) in every component of (H) and (R), five graphs, unequal speeds",
        answers,
    )


def bridge(effort: Effort) -> Evidence:
    """Tie both fields to the running code."""
    return bridge_fields((+1, -1))


def scaled_problem(problem: LearningProblem[Any], kappa: float, *, has_mass: bool = True) -> LearningProblem[Any]:
    """Return the problem with speeds and dissipation times κ and, unless told otherwise, mass over κ²."""
    return replace(
        problem,
        speed=tuple(kappa * c for c in problem.speed),
        dissipation=kappa * problem.dissipation,
        mass=problem.mass / kappa**2 if has_mass else problem.mass,
    )


def scaled_signal(signal: Sinusoid, kappa: float) -> Sinusoid:
    """Return u(κ t)."""
    rate = signal.frequency
    assert rate.input is not None
    assert rate.target is not None
    return replace(signal, frequency=Inputs(kappa * rate.input, kappa * rate.target))


def final(
    kind: Any, stepper: Any, problem: LearningProblem[Any], signal: Sinusoid, case: Case, kappa: float
) -> LearningState:
    """Return the state after ten steps of 0.1/(κ c) from time 1/κ."""
    dt = 0.1 / case.speed
    after: LearningState = stepper.advance(kind(problem), signal.at, random_state(case), 1 / kappa, dt / kappa, STEPS)
    return after


def gap(case: Case, kappa: float) -> float:
    """Return the largest relative difference of the final states, over systems and steppers."""
    errors = []
    # m c² = 20: weights heavy enough to stay small within the run, also where σ is unbounded
    problem, signal = generic_problem(case, mass=20 / case.speed**2), case.signal(case.speed)
    runs = [(CostateReversal, stepper) for stepper in STEPPERS] + [(HamiltonEquations, CONFORMAL_MIDPOINT)]
    for kind, stepper in runs:
        plain = final(kind, stepper, problem, signal, case, 1.0)
        fast = final(kind, stepper, scaled_problem(problem, kappa), scaled_signal(signal, kappa), case, kappa)
        errors.append(difference(fast, plain))
    return largest(errors)


def difference(found: LearningState, expected: LearningState) -> float:
    """Return the largest difference of any entry, relative to the largest entry of all (at least 1)."""
    size = max(1.0, *(float(leaf.abs().max()) for leaf in leaves(expected)))
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return largest(float((f - e).abs().max()) / size for f, e in pairs)


def power_of_two(effort: Effort) -> Evidence:
    """With κ a power of two every product scales without rounding: runs agree bit for bit."""
    return check_property(
        "runs at κ = 1/4, 1/2, 2, 4, 8",
        "final states agree to the last bit; (R) by 6 steppers, (H) by the conformal one; θ > 0, moving inputs",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(cases(max_dissipation=2.0, max_depth=3), st.sampled_from([0.25, 0.5, 2.0, 4.0, 8.0])),
        lambda drawn: gap(*drawn),
        0.0,
    )


def any_factor(effort: Effort) -> Evidence:
    """With any κ they agree to rounding."""
    return check_property(
        "runs at κ from 0.1 to 10",
        # ten steps of some hundred roundings each, which may grow tenfold
        "final states agree to 1e-12",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(cases(max_dissipation=2.0, max_depth=3), st.floats(0.1, 10.0)),
        lambda drawn: gap(*drawn),
        1e-12,
    )


def broken_hypotheses(effort: Effort) -> Evidence:
    """Leave out one of the scalings: mass, frequencies, dissipation, step."""
    case, kappa = Case(widths=(2, 3, 2), seed=8, dissipation=0.7), 2.0
    problem, signal = generic_problem(case), case.signal(1.0)
    fast, quick = scaled_problem(problem, kappa), scaled_signal(signal, kappa)
    plain = final(CostateReversal, RK4, problem, signal, case, 1.0)

    def against(other: LearningProblem[Any], moving: Sinusoid, pace: float = kappa) -> float:
        return difference(final(CostateReversal, RK4, other, moving, case, pace), plain)

    broken = {
        "mass": against(scaled_problem(problem, kappa, has_mass=False), quick),
        "frequencies": against(fast, signal),
        "dissipation": against(replace(fast, dissipation=problem.dissipation), quick),
        "step": against(fast, quick, 1.0),
    }
    kept = against(fast, quick)
    frozen = replace(problem, mass=torch.inf)
    still = difference(
        final(CostateReversal, RK4, scaled_problem(frozen, kappa, has_mass=False), quick, case, kappa),
        final(CostateReversal, RK4, frozen, signal, case, 1.0),
    )
    return Evidence(
        Leg.CONTROL,
        "one quantity not scaled",
        judge(kept == 0.0 and still == 0.0 and all(value > 1e-3 for value in broken.values())),
        "differs by more than 1e-3; all scaled: 0; with frozen weights the mass need not be scaled: 0",
        ", ".join(f"{name} {value:.2g}" for name, value in broken.items()) + f"; all {kept:g}; frozen {still:g}",
    )


TIME_SCALING = Theorem(
    key="hamiltonian.time-scaling",
    title="Speeds, frequencies and dissipation times κ, mass over κ²: the same run, κ times as fast",
    statement=(
        "If y(t) solves the exact or the reversed equations with (c_i, θ, m) and inputs u(t), then y(κt) solves them "
        "with (κ c_i, κ θ, m/κ²) and inputs u(κt). Only ratios of c to input frequencies matter, so the limit of fast "
        "signals and that of slow inputs are one. With a step dt/κ every stepper has the symmetry exactly, bit for bit "
        "when κ is a power of two."
    ),
    hypotheses=(
        "loss and regulariser without scale in time; k is not scaled",
        "weights that learn: the mass is scaled; frozen weights: any mass",
    ),
    source="derived here, for Betti & Gori, Nature-Inspired Local Propagation, eq. 14 and 18",
    about=(HamiltonEquations, CostateReversal, LearningProblem),
    checks=(prove_scaling, bridge, power_of_two, any_factor, broken_hypotheses),
)
