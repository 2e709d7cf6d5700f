"""hamiltonian.dissipative-riccati: properties, costs, order and control on the running code."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.integrate.explicit import RK4
from nlsim.systems.hamiltonian.closed_form import EXAMPLE_1, ScalarLinearQuadratic, example_costs
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    LinearQuadraticState,
)
from nlsim.systems.hamiltonian.riccati import Convention, FeedbackState, RiccatiFeedback, RiccatiFlow, zero_gain
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.quadratic_runs import (
    NOTHING,
    algebraic_gain,
    boundary_gain,
    random_problem,
    relative_gap,
    run_to,
    scalar_problems,
    slowest_rate,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort

ZERO = torch.zeros(1, 1, dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)


def matrix_oracles(effort: Effort) -> Evidence:
    """The running flows against SciPy: boundary problem, and the algebraic equations with ±η/2."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        n, seed, eta = drawn
        problem, mirrored = random_problem(n, seed, eta), random_problem(n, seed, -eta)
        horizon = 1 / slowest_rate(problem)
        gain = run_to(RiccatiFlow(problem), zero_gain(problem), horizon).state
        errors = [relative_gap(gain, boundary_gain(problem, horizon))]
        for convention, settles_at in ((Convention.ALL_TERMS, problem), (Convention.NON_DISSIPATIVE, mirrored)):
            # e^{−2μt} = e^{−30} is 1e-13
            settled = run_to(RiccatiFlow(problem, convention), zero_gain(problem), 15 / slowest_rate(settles_at)).state
            errors.append(relative_gap(settled, algebraic_gain(settles_at)))
        return max(errors)

    return check_property(
        "matrix flows = boundary problem and algebraic equations",
        "P(T) = gain of the two-point problem; ends at SciPy's solutions with A + η/2 and A − η/2; to 1e-9, n to 4",
        Effort(max(1, effort.examples // 6), effort.is_random),
        st.tuples(st.integers(1, 4), st.integers(0, 10**6), st.floats(-1.5, 1.5)),
        error_of,
        1e-9,
    )


def closed_form(effort: Effort) -> Evidence:
    """The two reversed scalar flows against Θ̂ of η and of −η, and the loop they steer."""

    def error_of(drawn: tuple[ScalarLinearQuadratic, float]) -> float:
        problem, scaled = drawn
        t = torch.tensor(scaled / problem.rate, dtype=torch.float64)
        errors = []
        for convention, solved in (
            (Convention.ALL_TERMS, problem),
            (Convention.NON_DISSIPATIVE, problem.mirrored()),
        ):
            law = RiccatiFeedback(problem.matrices(), convention)
            end = run_to(law, law.initial_state(ONE), float(t)).state
            errors.append(relative_gap(end.gain, solved.gain(t)))
            errors.append(relative_gap(end.activity, solved.closed_loop(t)))
        return max(errors)

    return check_property(
        "scalar gains and loops = closed forms",
        "Θ(t) and x(t) to 1e-9 under both conventions; η in ±2",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(scalar_problems(is_dissipative=True), st.floats(0.05, 4.0)),
        error_of,
        1e-9,
    )


def reversal_stability(effort: Effort) -> Evidence:
    """The running costate-only reversal: eigenvalues of its own field against the stability condition."""

    def error_of(problem: ScalarLinearQuadratic) -> float:
        system = LinearQuadraticReversal(problem.matrices())
        units = torch.eye(2, dtype=torch.float64)  # two samples: the field of each is a column of the matrix
        field = system.vector_field(0.0, LinearQuadraticState(units[:, :1], units[:, 1:]), NOTHING(0.0))
        matrix = torch.cat((field.activity, field.costate), 1).T
        abscissa = float(torch.linalg.eigvals(matrix).real.max())
        a, eta = problem.drift, problem.dissipation
        square = eta**2 - 4 * problem.actuation * problem.tracking_weight
        is_stable = 2 * a < eta if square <= 0 else 2 * a < eta - square**0.5
        is_border = abs(abscissa) < 1e-6
        if not is_border and is_stable != (abscissa < 0):
            return float("inf")
        return abs(abscissa - problem.reversal_abscissa)

    return check_property(
        "costate-only reversal: stability",
        # at a double eigenvalue a rounding of the matrix moves it by about its square root, 1e-7
        "abscissa a − η/2 + ½ Re√(η² − 4sq) to 1e-6; stable iff 2a < η (oscillating) or 2a < η − √(η² − 4sq)",
        effort,
        scalar_problems(is_dissipative=True),
        error_of,
        1e-6,
    )


def running_costs(horizon: float = 6.0, steps: int = 300) -> dict[str, float]:
    """Return the costs of Example 1 by running the systems with RK4 and adding up by Simpson's rule."""
    problem, matrices, dt = EXAMPLE_1, EXAMPLE_1.matrices(), horizon / steps

    def cost(system: Any, state: Any, costate_of: Callable[[Any], Tensor]) -> float:
        total = 0.0
        for k in range(steps + 1):
            density = problem.tracking_weight * float(state.activity) ** 2
            density += problem.actuation * float(costate_of(state)) ** 2
            share = 1 if k in (0, steps) else 4 if k % 2 else 2
            total += share * density * math.exp(problem.dissipation * k * dt)
            state = RK4.advance(system, NOTHING, state, k * dt, dt, 1)
        return total * dt / 6  # a third of Simpson's weights, half of the density

    exact, turned = LinearQuadraticEquations(matrices), LinearQuadraticReversal(matrices)
    best = run_to(RiccatiFlow(matrices), ZERO, horizon).state
    law, slowed = RiccatiFeedback(matrices), RiccatiFeedback(matrices, Convention.NON_DISSIPATIVE)
    return {
        "optimal": cost(exact, LinearQuadraticState(ONE, best), lambda state: state.costate),
        # a stationary gain is a gain that starts where it rests
        "stationary gain": cost(law, FeedbackState(ONE, ZERO + problem.stationary_gain, ZERO), law.costate),
        "all terms flipped": cost(law, law.initial_state(ONE), law.costate),
        "non-dissipative part flipped": cost(slowed, slowed.initial_state(ONE), slowed.costate),
        "costate-only reversal": cost(turned, matrices.initial_state(ONE), lambda state: state.costate),
    }


def costs(effort: Effort) -> Evidence:
    """Example 1: what the running systems cost, against closed forms."""
    running, exact = running_costs(), example_costs()
    worst = max(abs(running[name] / exact[name] - 1) for name in running)
    order = ["optimal", "stationary gain", "all terms flipped", "non-dissipative part flipped", "costate-only reversal"]
    is_ordered = all(running[a] < running[b] for a, b in pairwise(order)) and running[order[-1]] < exact["uncontrolled"]
    rows = [(name, f"{running[name]:.6f}", f"{exact[name]:.6f}") for name in order]
    rows.append(("uncontrolled", "", f"{exact['uncontrolled']:.4f}"))
    return Evidence(
        Leg.PROPERTY,
        "Example 1: costs",
        # RK4 and Simpson at dt = 0.02 leave (0.02)⁴ times a number of order 1: 2e-7
        judge(worst <= 1e-6 and is_ordered),
        "running systems within 1e-6 of the closed forms; each row dearer than the one above",
        f"largest relative difference {worst:.2g}",
        (
            Table(
                "∫(ẇ² + w²)/2 e^{θt} dt, θ = 0.7, T = 6, w(0) = 1", ("steering", "running", "closed form"), tuple(rows)
            ),
        ),
    )


def approach_rate(effort: Effort) -> Evidence:
    """The gap to Θ₊ falls like e^{−√((2a+η)² + 4sq) t}."""
    rows, worst = [], 0.0
    for eta in (-1.0, 0.5, 1.5):
        problem = ScalarLinearQuadratic(-0.5, 1.0, 2.0, 0.5, eta)
        scaled, gaps = [3.0, 4.0, 5.0, 6.0], []
        for each in scaled:
            gain = run_to(RiccatiFlow(problem.matrices()), ZERO, each / problem.rate).state
            gaps.append(problem.stationary_gain - float(gain))
        slope = observed_order([math.exp(each) for each in scaled], gaps)
        worst = max(worst, abs(slope + 2))
        rows.append((f"{eta:g}", *(f"{gap:.3e}" for gap in gaps), f"{slope:.4f}"))
    return Evidence(
        Leg.ORDER,
        "approach to the stationary gain",
        # the next term of the gap is smaller by e^{−2μt} ≤ e^{−6}
        judge(worst <= 0.01),
        "slope −2 ± 0.01 of ln gap against μt, μ = ½√((2a+η)² + 4sq)",
        f"largest deviation {worst:.2g}",
        (Table("Θ₊ − Θ̂", ("η", "μt = 3", "4", "5", "6", "slope"), tuple(rows)),),
    )


def convention_control(effort: Effort) -> Evidence:
    """Flip the wrong terms: another gain, or none at all."""
    matrices = EXAMPLE_1.matrices()
    kept = float(run_to(RiccatiFlow(matrices, Convention.NON_DISSIPATIVE), ZERO, 15.0).state)
    missed = EXAMPLE_1.stationary_gain - kept
    # costate-only, η² < 4sq: Θ' = q − ηΘ + sΘ² has no rest point and is infinite within π/√(sq − η²/4)
    bound = math.pi / math.sqrt(1 - EXAMPLE_1.dissipation**2 / 4)
    escaped = run_to(RiccatiFlow(matrices, Convention.COSTATE_ONLY), ZERO, bound)
    unstable = ScalarLinearQuadratic(0.5, 1.0, 1.0, 1.0, 0.7)
    start = LinearQuadraticState(ONE, ZERO)
    away = run_to(LinearQuadraticReversal(unstable.matrices()), start, 30.0).state.activity
    law = RiccatiFeedback(unstable.matrices())
    steered = run_to(law, law.initial_state(ONE), 30.0).state.activity
    return Evidence(
        Leg.CONTROL,
        "the wrong terms flipped",
        judge(missed > 0.5 and escaped.ending is not None and float(away.abs()) > 20 > 1e-6 > float(steered.abs())),
        "dissipation kept: a gain lower than Θ₊ by η/s = 0.7; costates only: the gain escapes, and at 2a > η the "
        "state runs away, where the law with all terms flipped brings it to rest",
        f"lower by {missed:.6f}; {escaped.ending}; |x(30)| = {float(away.abs()):.3g} and {float(steered.abs()):.2g}",
    )
