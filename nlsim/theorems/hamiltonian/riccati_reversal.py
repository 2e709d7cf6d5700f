"""hamiltonian.riccati-reversal: the Riccati equation, turned round, is a forward feedback law."""

from __future__ import annotations

import math

import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.analysis.orders import observed_order
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadratic,
    LinearQuadraticEquations,
    LinearQuadraticState,
    linear_quadratic,
)
from nlsim.systems.hamiltonian.riccati import Convention, FeedbackState, RiccatiFeedback, RiccatiFlow, zero_gain
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.quadratic_runs import (
    algebraic_gain,
    boundary_gain,
    random_problem,
    relative_gap,
    run_to,
    scalar_problems,
    slowest_rate,
)
from nlsim.theorems.hamiltonian.quadratic_symbols import bridge_quadratic, polynomial_is_zero, quadratic_model
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero


def prove_scalar(effort: Effort) -> Evidence:
    """From H to the gain equation, its reversed solution, limit, rate and closed loop."""
    of = quadratic_model(1)
    a = sp.Symbol("a", real=True)
    q, mu, t = sp.symbols("q mu t", positive=True)
    s = (mu**2 - a**2) / q  # μ² = a² + s q
    theta = of.gain[0]
    derived = of.feedback_demands()[0][0].subs(of.dissipation, 0)
    exact = of.actuation[0] * theta**2 - 2 * of.drift[0] * theta - of.tracking_weight[0]
    solution = q * sp.sinh(mu * t) / (mu * sp.cosh(mu * t) - a * sp.sinh(mu * t))
    residual = sp.diff(solution, t) - (-s * solution**2 + 2 * a * solution + q)
    # with E = e^{−2μt} in (0, 1] the solution is rational, and t → ∞ is E → 0
    decay = sp.Symbol("E", positive=True)
    rational = q * (1 - decay) / (mu * (1 + decay) - a * (1 - decay))
    limit = rational.subs(decay, 0)
    gap = sp.cancel((limit - rational) / decay)
    slope = sp.diff(-s * theta**2 + 2 * a * theta + q, theta)
    answers = [
        polynomial_is_zero(derived - exact),
        is_zero(residual.rewrite(sp.exp)),
        is_zero(solution.subs(t, 0)),
        is_zero((solution - rational.subs(decay, sp.exp(-2 * mu * t))).rewrite(sp.exp)),
        is_zero(limit - (a + mu) / s),
        is_zero(gap.subs(decay, 0) - 2 * mu * q / (mu - a) ** 2),  # finite, not 0: the rate is 2μ exactly
        is_zero(a - s * limit + mu),
        is_zero(slope.subs(theta, (a + mu) / s) + 2 * mu),
        is_zero(slope.subs(theta, (a - mu) / s) - 2 * mu),
    ]
    return Evidence(
        Leg.PROOF,
        "scalar: derivation, closed form, limit, rate",
        judge(every(answers)),
        "Θ' = sΘ² − 2aΘ − q from π = Θx; Θ̂(t), Θ̂(0) = 0, → (a + μ)/s like e^{−2μt}; closed loop −μ; roots −2μ, +2μ",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def prove_matrix(effort: Effort) -> Evidence:
    """What Hamilton's equations demand of π = P x is the matrix Riccati equation, and t → T − t reverses it."""
    answers = []
    for n in (1, 2, 3):
        of = quadratic_model(n)
        A, S, Q, P = of.drift, of.actuation, of.tracking_weight, of.gain
        derived, offset = of.feedback_demands()
        no_dissipation = {of.dissipation: 0}
        exact = -Q - A.T * P - P * A + P * S * P
        answers.append(polynomial_is_zero(derived.subs(no_dissipation) - exact))
        exact_offset = Q * of.target - A.T * of.offset + P * S * of.offset
        answers.append(polynomial_is_zero(offset.subs(no_dissipation) - exact_offset))
    # the mirror image of a solution solves the mirrored equation, whatever the right-hand side is
    t, horizon = sp.symbols("t T", real=True)
    gain, field = sp.Function("P"), sp.Function("F")
    mirrored = sp.diff(gain(horizon - t), t).doit()
    on_solution = mirrored.replace(sp.Subs, lambda body, old, new: field(gain(new[0])))
    answers.append(on_solution == -field(gain(horizon - t)))
    return Evidence(
        Leg.PROOF,
        "matrix: derivation and mirror image",
        judge(every(list(answers))),
        "P' = −Q − AᵀP − PA + PSP and g' = Qz − Aᵀg + PSg for n = 1, 2, 3; P(T − t) solves the reversed equation",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge(effort: Effort) -> Evidence:
    """Compare the derived fields with the running ones, without dissipation."""
    return bridge_quadratic(0.0)


def closed_form(effort: Effort) -> Evidence:
    """The running scalar flow, reversed and un-reversed, against the closed form."""

    def error_of(drawn: tuple[ScalarLinearQuadratic, float]) -> float:
        problem, scaled = drawn
        t = scaled / problem.rate
        found = run_to(RiccatiFlow(problem.matrices()), torch.zeros(1, 1, dtype=torch.float64), t).state
        expected = problem.gain(torch.tensor(t, dtype=torch.float64))
        back = run_to(RiccatiFlow(problem.matrices(), Convention.UNREVERSED), found, t).state
        # the un-reversed run magnifies the error of its start by up to e^{2μt}, which it may not exceed
        return max(relative_gap(found, expected), float(back.abs().max()) * math.exp(-2 * scaled))

    return check_property(
        "scalar flow = closed form",
        # local errors of 1e-11 in some tens of steps of a contracting flow
        "Θ(t) = Θ̂(t) to 1e-10, and the un-reversed flow leads back to 0; a in ±2, q, r from 0.2 to 5, μt to 6",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(scalar_problems(), st.floats(0.05, 6.0)),
        error_of,
        1e-10,
    )


def matrix_oracles(effort: Effort) -> Evidence:
    """The running matrix flow against SciPy: boundary problem, terminal condition, algebraic equation."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        n, seed, scaled = drawn
        problem = random_problem(n, seed)
        horizon = scaled / slowest_rate(problem)
        gain = run_to(RiccatiFlow(problem), zero_gain(problem), horizon).state
        errors = [relative_gap(gain, boundary_gain(problem, horizon))]
        # e^{−2μt} = e^{−30} is 1e-13
        settled = run_to(RiccatiFlow(problem), zero_gain(problem), 15 / slowest_rate(problem)).state
        errors.append(relative_gap(settled, algebraic_gain(problem)))
        # started with π = P(T) x, the exact equations end at π(T) = 0
        x = torch.ones(1, n, dtype=torch.float64)
        end = run_to(LinearQuadraticEquations(problem), LinearQuadraticState(x, x @ gain.mT), horizon).state
        errors.append(float(end.costate.abs().max()) / float((x @ gain.mT).abs().max()) * 1e-2)
        return max(errors)

    return check_property(
        "matrix flow = boundary problem and algebraic equation",
        # the costate leg is weighed by 1e-2: Hamilton's equations magnify errors by e^{μT}, at most about 1e3 here
        "P(T) to 1e-9 of the two-point problem's gain; P(∞) to 1e-9 of SciPy's; π(T) = 0 to 1e-7; n from 1 to 4",
        Effort(max(1, effort.examples // 3), effort.is_random),
        st.tuples(st.integers(1, 4), st.integers(0, 10**6), st.floats(0.2, 1.5)),
        error_of,
        1e-9,
    )


def approach_rate(effort: Effort) -> Evidence:
    """The gap to the stationary gain falls like e^{−2μt}."""
    rows, worst = [], 0.0
    for a in (-1.0, 0.0, 1.0):
        problem = ScalarLinearQuadratic(a, 1.0, 2.0, 0.5)
        flow, scaled = RiccatiFlow(problem.matrices()), [3.0, 4.0, 5.0, 6.0]
        gaps = []
        for each in scaled:
            gain = run_to(flow, torch.zeros(1, 1, dtype=torch.float64), each / problem.rate).state
            gaps.append(problem.stationary_gain - float(gain))
        slope = observed_order([math.exp(each) for each in scaled], gaps)
        worst = max(worst, abs(slope + 2))
        rows.append((f"{a:g}", *(f"{gap:.3e}" for gap in gaps), f"{slope:.4f}"))
    return Evidence(
        Leg.ORDER,
        "approach to the stationary gain",
        # the next term of the gap is smaller by e^{−2μt} ≤ e^{−6}: it bends the slope by some thousandths
        judge(worst <= 0.01),
        "slope −2 ± 0.01 of ln gap against μt",
        f"largest deviation {worst:.2g}",
        (Table("Θ₊ − Θ̂", ("a", "μt = 3", "4", "5", "6", "slope"), tuple(rows)),),
    )


def unstable_problem() -> LinearQuadratic:
    """Return three coupled states that run away at rate 1 and faster when left alone."""
    drift = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.2, 0.3], [0.0, -0.3, 1.5]], dtype=torch.float64)
    one = torch.eye(3, dtype=torch.float64)
    return linear_quadratic(drift, one, one, one)


def unreversed_control(effort: Effort) -> Evidence:
    """Run the exact gain equation forward: the other root, an escape in finite time, an unstable loop."""
    scalar = ScalarLinearQuadratic(0.5, 1.0, 2.0, 0.5)
    flow = RiccatiFlow(scalar.matrices(), Convention.UNREVERSED)
    other = float(run_to(flow, torch.zeros(1, 1, dtype=torch.float64), 12 / scalar.rate).state)
    start = scalar.stationary_gain + 0.1
    above = torch.full((1, 1), start, dtype=torch.float64)
    escape = scalar.escape_time(start)
    before, after = run_to(flow, above, 0.999 * escape), run_to(flow, above, 1.001 * escape)
    problem, sizes = unstable_problem(), {}
    for convention in (Convention.ALL_TERMS, Convention.UNREVERSED):
        state: FeedbackState = RiccatiFeedback(problem, convention).initial_state(torch.ones(1, 3, dtype=torch.float64))
        sizes[convention] = float(run_to(RiccatiFeedback(problem, convention), state, 8.0).state.activity.norm())
    is_other = abs(other - scalar.other_gain) < 1e-8 and abs(other - scalar.stationary_gain) > 1
    has_escaped = before.ending is None and float(before.state) > 100 and after.ending is not None
    is_split = sizes[Convention.ALL_TERMS] < 1e-2 and sizes[Convention.UNREVERSED] > 1e5
    return Evidence(
        Leg.CONTROL,
        "the gain equation not reversed",
        judge(is_other and has_escaped and is_split),
        "from 0 to (a − μ)/s; from above Θ₊ infinite at ln[(Θ₀ − Θ₋)/(Θ₀ − Θ₊)]/2μ; 3 unstable states run away, "
        "where the reversed gain brings them to rest",
        f"{other:.6f} for {scalar.other_gain:.6f}; {float(before.state):.3g} at 0.999 of the escape time, "
        f"{after.ending} beyond; |x(8)| = {sizes[Convention.UNREVERSED]:.2g}, "
        f"reversed {sizes[Convention.ALL_TERMS]:.2g}",
    )


RICCATI_REVERSAL = Theorem(
    key="hamiltonian.riccati-reversal",
    title="The Riccati equation turned round in time is a stable forward feedback law",
    statement=(
        "With π = P x Hamilton's equations ask P' = −Q − AᵀP − PA + PSP, P(T) = 0. The reversed equation "
        "from P(0) = 0 is stable forward, P_optimal(t) = P(T − t), and tends to the stabilising solution of the "
        "algebraic Riccati equation. Scalar: Θ̂(t) = q sinh μt/(μ cosh μt − a sinh μt) → (a + μ)/s at rate 2μ, "
        "closed loop −μ, μ² = a² + sq. Un-reversed, it tends to (a − μ)/s or escapes in finite time."
    ),
    hypotheses=(
        "S = B R⁻¹ Bᵀ, Q and R positive (for the limit: stabilisable and detectable)",
        "no dissipation, φ ≡ 1",
        "the true state runs forward: the gain is reversed, not the state",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, section 4.2 and eq. 22, signs corrected; matrix form here",
    about=(RiccatiFlow, RiccatiFeedback, LinearQuadraticEquations, LinearQuadratic, ScalarLinearQuadratic),
    checks=(
        prove_scalar,
        prove_matrix,
        bridge,
        closed_form,
        matrix_oracles,
        approach_rate,
        unreversed_control,
    ),
)
