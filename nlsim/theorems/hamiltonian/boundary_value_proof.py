"""hamiltonian.boundary-value-limit: the symbolic proofs, and the closed form of the quadratic problem."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.backprop_proof import backprop_relation
from nlsim.theorems.hamiltonian.hamilton_proof import GRAPHS
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import SigmaPrime, every, is_zero, model


def roots(h_over_m: Any, theta: Any) -> tuple[Any, Any]:
    """Return r₁ > 0 > r₂ of r² + θ r − h/m = 0, as numbers or expressions."""
    root = sp.sqrt(theta**2 + 4 * h_over_m)
    return (-theta + root) / 2, (-theta - root) / 2


def closed_form(t: Any, end: Any, r1: Any, r2: Any, start: Any = 1) -> Any:
    """Return the minimiser for ℓ = h w²/2: w(0) = start, w'(T) = 0."""
    upper, lower = r1 * sp.exp(r1 * end), r2 * sp.exp(r2 * end)
    return start * (upper * sp.exp(r2 * t) - lower * sp.exp(r1 * t)) / (upper - lower)


def prove_limit(effort: Effort) -> Evidence:
    """Let c → ∞ in the derived exact equations; compare with the Euler–Lagrange equation of the limit functional."""
    answers = []
    for graph in GRAPHS:
        of = model(graph)
        for i in graph.vertices:
            limit = sp.limit(sp.expand(of.costate_velocity(i, sign=+1) / of.c), of.c, sp.oo)
            answers.append(is_zero(limit + backprop_relation(of, i)))
        for j, i in graph.arcs:
            source = {**of.u[0], **of.x[0]}[j]
            slope = SigmaPrime(of.pre_activation(i)) * of.costate[0][i] * source + of.k * of.weight[i, j]
            v = sp.Symbol("v", real=True)
            exact = -of.weight_costate_velocity((i, j), sign=+1) / (of.m * of.c)
            exact = sp.expand(exact.subs(of.weight_costate[i, j], -v * of.m * of.c))
            answers.append(is_zero(sp.limit(exact, of.c, sp.oo) - (slope / of.m - of.theta * v)))
    t, m, theta = sp.Symbol("t", real=True), sp.Symbol("m", positive=True), sp.Symbol("theta", real=True)
    w, loss = sp.Function("w")(t), sp.Function("ell")
    integrand = (m * sp.diff(w, t) ** 2 / 2 + loss(w, t)) * sp.exp(theta * t)
    equation = sp.diff(sp.diff(integrand, sp.diff(w, t)), t) - sp.diff(integrand, w)
    expected = m * (sp.diff(w, t, 2) + theta * sp.diff(w, t)) - sp.diff(loss(w, t), w)
    answers.append(is_zero(sp.expand(equation * sp.exp(-theta * t)) - expected))
    return Evidence(
        Leg.PROOF,
        "limit of the exact equations",
        judge(every(answers)),
        "π_i obeys the backpropagation relation and m(ẅ + θẇ) = +∇ℓ, which is the Euler–Lagrange equation of "
        "∫(mẇ²/2 + ℓ)φ; 5 graphs",
        f"{answers.count(True)} of {len(answers)} identities simplify to 0",
    )


def prove_closed_form(effort: Effort) -> Evidence:
    """For ℓ = h w²/2 the closed form solves equation and both ends, and far from T it is w⁰ e^{r₂ t}."""
    t, theta = sp.symbols("t theta", real=True)
    end, h, m, start = sp.symbols("T h m w0", positive=True)
    r1, r2 = roots(h / m, theta)
    w = closed_form(t, end, r1, r2, start)
    answers = [
        is_zero(m * (sp.diff(w, t, 2) + theta * sp.diff(w, t)) - h * w),
        is_zero(w.subs(t, 0) - start),
        is_zero(sp.diff(w, t).subs(t, end)),
    ]
    a, b = sp.symbols("a b", positive=True)  # r₁ = a, r₂ = −b
    far = sp.limit(sp.simplify(closed_form(t, end, a, -b, start)), end, sp.oo)
    answers.append(is_zero(far - start * sp.exp(-b * t)))
    return Evidence(
        Leg.PROOF,
        "closed form and turnpike",
        judge(every(answers)),
        "m(ẅ + θẇ) = h w, w(0) = w⁰, ẇ(T) = 0; as T → ∞ w → w⁰ e^{r₂ t}, r₂ = −(θ + √(θ² + 4h/m))/2",
        f"{answers.count(True)} of {len(answers)} identities simplify to 0",
    )
