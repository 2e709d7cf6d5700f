"""hamiltonian.bounded-state: activities stay within the range of σ, whatever the weights do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4, ExplicitRungeKutta
from nlsim.integrate.relaxation import (
    EXPONENTIAL_EULER,
    EXPONENTIAL_SWEEP,
    IMPLICIT_SWEEP,
    ExponentialEuler,
    Sweep,
    exponential_fraction,
    implicit_fraction,
)
from nlsim.systems.activation import ACTIVATIONS, Activation
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningState
from nlsim.systems.signals import hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import EPSILON, GRAPHS, largest, phase_model, proof, random_state, vanishes
from nlsim.theorems.hamiltonian.phase_bridge import bridge_fields
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma

BOUNDED = sorted(name for name, each in ACTIVATIONS.items() if each.bound is not None)
STEPS = 20


def prove_bound(effort: Effort) -> Evidence:
    """Variation of constants with the forcing c σ, then a convex combination."""
    answers = []
    for graph in GRAPHS:
        of = phase_model(graph)
        for i in graph.vertices:
            expected = of.speed[i] * (Sigma(of.pre_activation(i)) - of.x[0][i])
            answers.append(vanishes(of.velocity(i) - expected))
    t, s, c = sp.symbols("t s c", positive=True)
    start = sp.Symbol("x0", real=True)
    g = sp.Function("g")  # σ(a(s)) along any weights and any inputs
    x = sp.exp(-c * t) * (start + sp.Integral(c * sp.exp(c * s) * g(s), (s, 0, t)))
    answers.append(vanishes(sp.simplify(sp.diff(x, t) - c * (g(t) - x))))
    answers.append(vanishes(x.subs(t, 0).doit() - start))
    # |g| ≤ B under the integral: e^{−ct} ∫ c e^{cs} B ds = B (1 − e^{−ct})
    weight = sp.integrate(sp.exp(-c * t) * c * sp.exp(c * s), (s, 0, t))
    answers.append(vanishes(weight - (1 - sp.exp(-c * t))))
    answers.append(_convex(sp.exp(-c * t)))
    return proof(
        "variation of constants",
        "dx_i/dt = c_i (σ(a_i) − x_i) gives |x_i| ≤ e^{−c_i t}|x_i(0)| + B (1 − e^{−c_i t}) ≤ max(|x_i(0)|, B)",
        answers,
    )


def _convex(share: Any) -> bool | None:
    """Whether share·a + (1 − share)·b ≤ max(a, b), for 0 ≤ share ≤ 1 as sympy sees it.

    With m = max(a, b) = a + r = b + q, r, q ≥ 0, the gap m − (share·a + (1 − share)·b) is share·r + (1 − share)·q.
    """
    a, r, q = sp.symbols("a r q", nonnegative=True)
    m = a + r
    gap = m - (share * a + (1 - share) * (m - q))
    if vanishes(gap - (share * r + (1 - share) * q)) is not True:
        return None
    is_share: bool | None = sp.simplify(share).is_nonnegative and sp.simplify(1 - share).is_nonnegative
    if is_share is None and share.func is sp.exp:
        is_share = (-share.args[0]).is_nonnegative  # e^{−z} ≤ 1 for z ≥ 0
    return is_share


def prove_steps(effort: Effort) -> Evidence:
    """A step closes a fraction of the gap to σ: convex for sweeps at any cτ, for explicit Euler iff cτ ≤ 1."""
    z = sp.Symbol("z", positive=True)
    b = sp.Symbol("B", positive=True)
    answers = [_convex(1 - implicit_fraction(z)), _convex(sp.exp(-z))]
    # the exponential fraction that runs is 1 − e^{−z}
    answers += [abs(exponential_fraction(v) - (1 - math.exp(-v))) <= 2 * EPSILON for v in (0.01, 0.7, 3.0, 40.0)]
    below = sp.Symbol("l", nonnegative=True)
    answers.append(_convex(1 - below / (1 + below)))  # cτ = l/(1 + l), which is any number from 0 to below 1
    answers.append(_convex(sp.Integer(0)))  # and 1 itself
    # beyond: x = B with σ = −B goes to (1 − 2z) B, and for z = 1 + l/2 that is −(1 + l) B
    over = sp.Symbol("l", positive=True)
    step = (1 - z) * b + z * (-b)
    answers.append(vanishes(step.subs(z, 1 + over / 2) + (1 + over) * b))
    answers.append(bool((over * b).is_positive))
    # if σ opposes x at every step, |x| → (z − 1)|x| + z B, which rests at B z/(2 − z)
    size = b * z / (2 - z)
    answers.append(vanishes((z - 1) * size + z * b - size))
    return proof(
        "one step x⁺ = (1 − f) x + f σ",
        "f = z/(1+z) and 1 − e^{−z}: convex at every z = cτ; f = z: convex iff z ≤ 1, else up to B z/(2 − z)",
        answers,
    )


def bridge(effort: Effort) -> Evidence:
    """Tie the symbolic field to the running one."""
    return bridge_fields((-1,))


def excess(stepper: Any, case: Case, z: float, remaining: float, *, substeps: int = 1) -> float:
    """Return how far activities exceed the bound in a run whose weights and inputs jump at random every step.

    ``remaining`` is the factor by which a step of z/c shrinks a gap, so that after n steps the bound is
    remainingⁿ |x(0)| + B (1 − remainingⁿ).
    """
    problem = replace(case.problem(), dissipation=0.0)
    system, dt = CostateReversal(problem), z / case.speed
    bound = problem.network.activations[0].bound
    assert bound is not None
    state = random_state(case)
    first = [2 * x for x in state.activity]
    state = replace(state, activity=tuple(first))
    found = []
    for n in range(STEPS):
        draw = generator(case.seed, "jumping weights", n)
        # large weights saturate σ, which is where the bound is tight
        weight = tuple(torch.as_tensor(10 * draw.normal(size=tuple(w.shape))) for w in state.weight)
        inputs = replace(case, seed=case.seed + n).inputs()
        state = replace(state, weight=weight)
        state = stepper.advance(system, hold(inputs), state, 0.0, dt / substeps, substeps)
        left = remaining ** (n + 1)
        found += [
            float((x.abs() - (left * start.abs() + bound * (1 - left))).max())
            for x, start in zip(state.activity, first, strict=True)
        ]
    return max(0.0, largest(found))


def bounded_cases() -> st.SearchStrategy[Case]:
    """Draw cases whose σ is bounded."""
    return st.builds(lambda case, name: replace(case, activation=name), cases(max_depth=3), st.sampled_from(BOUNDED))


def steps_property(effort: Effort) -> Evidence:
    """The running steppers: sweeps at any cτ, explicit Euler up to cτ = 1."""

    def error_of(drawn: tuple[Case, float, float]) -> float:
        case, z, small = drawn
        return largest(
            (
                excess(IMPLICIT_SWEEP, case, z, 1 - implicit_fraction(z)),
                excess(EXPONENTIAL_SWEEP, case, z, math.exp(-z)),
                excess(EXPONENTIAL_EULER, case, z, math.exp(-z)),
                excess(EXPLICIT_EULER, case, small, 1 - small),
            )
        )

    return check_property(
        "steps under weights and inputs that jump",
        # a step rounds numbers below 10 a few times, and errors shrink with the gaps
        "excess over the bound ≤ 1e-14; implicit and exponential steps with cτ from 0.01 to 1e6, Euler with cτ ≤ 1",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(bounded_cases(), st.floats(-2, 6).map(lambda p: 10**p), st.floats(0.01, 1.0)),
        error_of,
        1e-14,
    )


def flow_property(effort: Effort) -> Evidence:
    """The flow, followed by RK4 in steps of 0.02/c."""

    def error_of(drawn: tuple[Case, float]) -> float:
        case, z = drawn
        return excess(RK4, case, z, math.exp(-z), substeps=math.ceil(z / 0.02))

    return check_property(
        "the flow under weights and inputs that jump",
        # a step is R x + Σ_j b_j σ_j with b_j > 0 and Σ b_j = 1 − R, so the bound holds with R in place of e^{−z};
        # these differ by δ = 0.02⁵/120 = 2.7e-11 a step: n δ e^{−0.02 n} |x(0)| ≤ δ · 10/(0.02 e) = 5e-9, |x(0)| ≤ 10
        "excess over the bound ≤ 1e-8",
        Effort(max(1, effort.examples // 5), effort.is_random),
        st.tuples(bounded_cases(), st.floats(0.1, 1.0)),
        error_of,
        1e-8,
    )


def opposed(z: float, steps: int = 400) -> list[float]:
    """Return |x| of one neuron under explicit Euler when its input opposes it at every step."""
    case = Case(widths=(1, 1), has_bias=False, samples=1)
    problem = case.problem()
    one = torch.ones(1, 1, dtype=torch.float64)
    # a weight of 50 makes σ(±50) = ±1 to the last bit
    state = LearningState((one,), (50 * one,), (0 * one,), (0 * one,))
    sizes = []
    for _ in range(steps):
        inputs = Inputs(-torch.sign(state.activity[0]), 0 * one)
        state = EXPLICIT_EULER.advance(CostateReversal(problem), hold(inputs), state, 0.0, z, 1)
        sizes.append(float(state.activity[0].abs()))
    return sizes


def euler_control(effort: Effort) -> Evidence:
    """Let explicit Euler take steps with 1 < cτ < 2, which are stable: the bound is lost."""
    products = [0.5, 1.0, 1.2, 1.5, 1.8]
    rows, answers = [], []
    for z in products:
        sizes = opposed(z)
        expected = 1.0 if z <= 1 else z / (2 - z)
        is_right = max(sizes) <= 1 + 4 * EPSILON if z <= 1 else abs(sizes[-1] / expected - 1) <= 1e-12
        answers.append(is_right and math.isfinite(sizes[-1]))
        rows.append((f"{z:g}", f"{sizes[0]:.6f}", f"{sizes[-1]:.12f}", f"{expected:.12f}"))
    return Evidence(
        Leg.CONTROL,
        "explicit Euler with cτ in (1, 2)",
        judge(all(answers)),
        "opposed at every step, |x| tends to cτ/(2 − cτ) > 1 to 1e-12 (bounded: the step is stable); cτ ≤ 1: never "
        "above 1",
        "; ".join(f"cτ = {row[0]}: {float(row[2]):.6g}" for row in rows),
        (
            Table(
                "|x| under explicit Euler, input opposed, σ = ±1",
                ("cτ", "first step", "last step", "bound"),
                tuple(rows),
            ),
        ),
    )


def without_factor(effort: Effort) -> Evidence:
    """Forget the factor c_i of the forcing, or the bound on σ."""
    speed, t = 5.0, 2.0
    case = Case(widths=(1, 1), has_bias=False, samples=1, speed=speed)
    one = torch.ones(1, 1, dtype=torch.float64)

    def reached(activation: str, weight: float) -> float:
        state = LearningState((0 * one,), (weight * one,), (0 * one,), (0 * one,))
        system = CostateReversal(replace(case, activation=activation).problem())
        after: Tensor = RK4.advance(system, hold(Inputs(one, 0 * one)), state, 0.0, t / 1000, 1000).activity[0]
        return float(after)

    saturated, linear = reached("tanh", 50.0), reached("identity", 50.0)
    full = 1 - math.exp(-speed * t)
    return Evidence(
        Leg.CONTROL,
        "the forcing's factor c_i dropped; σ unbounded",
        judge(abs(saturated - full) <= 1e-9 and saturated > 4 * full / speed and linear > 10),
        f"x(2) at c = 5 from 0 under σ = 1 is 1 − e^(−10), above (1 − e^(−ct))/c = {full / speed:.4f}; with σ = id it "
        "passes 10",
        f"{saturated:.10f}; {linear:.3f}",
    )


BOUNDED_STATE = Theorem(
    key="hamiltonian.bounded-state",
    title="Bounded in, bounded out: |x_i| ≤ max(|x_i(0)|, sup |σ|), whatever the weights do",
    statement=(
        "If |σ| ≤ B then |x_i(t)| ≤ e^{−c_i t}|x_i(0)| + B (1 − e^{−c_i t}) ≤ max(|x_i(0)|, B) for any weights, inputs "
        "and speeds; the forcing carries the factor c_i, without which the bound would be false for c_i > 1. Implicit "
        "and exponential steps keep it at every cτ, explicit Euler iff cτ ≤ 1: for 1 < cτ < 2 it is stable but may "
        "reach B cτ/(2 − cτ)."
    ),
    hypotheses=("|σ| ≤ B", "weights and inputs measurable in time, nothing else; cycles and self-loops allowed"),
    source="Betti & Gori, Nature-Inspired Local Propagation, Proposition 1, factor c_i restored; steps derived here",
    about=(CostateReversal, Activation, Sweep, ExponentialEuler, ExplicitRungeKutta),
    checks=(prove_bound, prove_steps, bridge, steps_property, flow_property, euler_control, without_factor),
)
