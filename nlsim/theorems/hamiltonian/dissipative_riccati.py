"""hamiltonian.dissipative-riccati: with dissipation it matters which terms are turned round."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic, example_costs
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticReversal
from nlsim.systems.hamiltonian.riccati import Convention, RiccatiFeedback, RiccatiFlow
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian import dissipative_numbers as numbers
from nlsim.theorems.hamiltonian.quadratic_symbols import (
    QuadraticModel,
    bridge_quadratic,
    polynomial_is_zero,
    quadratic_model,
)
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero


def _algebraic(of: QuadraticModel, shift: Any) -> Any:
    """Return Q + (A + shift)ᵀP + P(A + shift) − PSP."""
    shifted = of.drift + shift * sp.eye(of.gain.rows)
    return of.tracking_weight + shifted.T * of.gain + of.gain * shifted - of.gain * of.actuation * of.gain


def prove_matrix(effort: Effort) -> Evidence:
    """Flipping all terms shifts A by η/2; flipping all but the dissipation shifts it by −η/2."""
    answers = []
    for n in (1, 2, 3):
        of = quadratic_model(n)
        half = of.dissipation / 2
        answers.append(polynomial_is_zero(of.feedback(Convention.ALL_TERMS)[0] - _algebraic(of, half)))
        answers.append(polynomial_is_zero(of.feedback(Convention.NON_DISSIPATIVE)[0] - _algebraic(of, -half)))
    return Evidence(
        Leg.PROOF,
        "matrix: which algebraic equation",
        judge(every(list(answers))),
        "all terms: A + η/2 in place of A; non-dissipative terms: A − η/2, that is η → −η; n = 1, 2, 3",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def prove_scalar(effort: Effort) -> Evidence:
    """Eigenvalues, gains and rates of the three conventions."""
    of = quadratic_model(1)
    a, s, q, eta = of.drift[0], of.actuation[0], of.tracking_weight[0], of.dissipation
    state = [*of.activity, *of.costate]
    exact = sp.Matrix([*of.velocity(), *of.costate_velocity()]).jacobian(state)
    turned = sp.Matrix([*of.velocity(), *of.costate_velocity(sign=-1)]).jacobian(state)
    root, turned_root = sp.sqrt((2 * a + eta) ** 2 + 4 * s * q), sp.sqrt(eta**2 - 4 * s * q)
    z = sp.Symbol("z")
    gain = (2 * a + eta + root) / (2 * s)
    flow = of.feedback(Convention.ALL_TERMS)[0][0]
    slowed = of.feedback(Convention.NON_DISSIPATIVE)[0][0]
    slower_gain = gain.subs(eta, -eta)
    answers = [
        is_zero(exact.charpoly(z).as_expr() - (z + eta / 2 - root / 2) * (z + eta / 2 + root / 2)),
        is_zero(flow.subs(of.gain[0], gain)),
        is_zero(a - s * gain + eta / 2 + root / 2),
        is_zero(sp.diff(flow, of.gain[0]).subs(of.gain[0], gain) + root),
        is_zero(slowed.subs(of.gain[0], slower_gain)),
        is_zero(
            turned.charpoly(z).as_expr() - (z - a + eta / 2 - turned_root / 2) * (z - a + eta / 2 + turned_root / 2)
        ),
        # dΘ₊/dη = (1 + (2a + η)/√((2a + η)² + 4sq))/(2s) > 0 for s q > 0, so −η gives the smaller gain
        is_zero(sp.diff(gain, eta) - (1 + (2 * a + eta) / root) / (2 * s)),
        is_zero(root**2 - (2 * a + eta) ** 2 - 4 * s * q),
    ]
    return Evidence(
        Leg.PROOF,
        "scalar: eigenvalues, gains, rates",
        judge(every(answers)),
        "−η/2 ± ½√((2a+η)² + 4sq); Θ₊ = ((2a+η) + √·)/2s with loop −η/2 − ½√·; η → −η; a − η/2 ± ½√(η² − 4sq)",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge(effort: Effort) -> Evidence:
    """Compare the derived fields with the running ones, with dissipation."""
    return bridge_quadratic(0.7)


DISSIPATIVE_RICCATI = Theorem(
    key="hamiltonian.dissipative-riccati",
    title="With dissipation only flipping every term of the Riccati equation gives the optimal gain",
    statement=(
        "With φ = e^{ηt} and π = P x: P' = −Q − AᵀP − PA + PSP − ηP. Flipping all terms tends to the "
        "stabilising solution of the algebraic Riccati equation with A + η/2, loop rate −η/2 − ½√((2a+η)² + 4sq): "
        "the optimal stationary law. Flipping all but the dissipation is the same with η → −η, a smaller gain "
        "for η > 0. Costate-only reversal has eigenvalues a − η/2 ± ½√(η² − 4sq) and is not optimal at all."
    ),
    hypotheses=(
        "S, Q, R as for hamiltonian.riccati-reversal",
        "η constant, of either sign",
        "normalised costates π = p/φ",
    ),
    source="derived here; the conventions are those of Betti & Gori (section 4) and Hamiltonian Learning (eq. E1–E4)",
    about=(RiccatiFlow, RiccatiFeedback, LinearQuadraticReversal, ScalarLinearQuadratic, example_costs),
    checks=(
        prove_matrix,
        prove_scalar,
        bridge,
        numbers.matrix_oracles,
        numbers.closed_form,
        numbers.reversal_stability,
        numbers.costs,
        numbers.approach_rate,
        numbers.convention_control,
    ),
)
