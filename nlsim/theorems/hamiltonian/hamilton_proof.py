"""Theorem 1 of Betti & Gori on symbolic graphs: the minimum principle and the first variation."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import CHAIN_2, CHAIN_3, CYCLE, DIAMOND, SKIP, Model, every, is_zero, model

GRAPHS = (CHAIN_2, CHAIN_3, DIAMOND, SKIP, CYCLE)


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def loss_rate(of: Model) -> Any:
    """Return c ℓ = c (Σ L + k |w|²/2), from the definition of the functional."""
    return of.c * (sum(of.loss) + of.k * sum(w**2 for w in of.weight.values()) / 2)


def prove_minimum_principle(effort: Effort) -> Evidence:
    """Minimise m c |v|²/2 + c ℓ + π·f + π_w·v over v: the minimiser, the minimum, and that it is one."""
    answers: list[bool | None] = []
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        v = {arc: sp.Symbol(f"v{arc[0]}_{arc[1]}", real=True) for arc in of.weight}
        to_minimise = of.m * of.c * sum(each**2 for each in v.values()) / 2 + loss_rate(of)
        to_minimise += sum(of.costate[0][i] * of.velocity(i) for i in graph.vertices)
        to_minimise += sum(of.weight_costate[arc] * v[arc] for arc in v)
        best = {v[arc]: sp.solve(sp.diff(to_minimise, v[arc]), v[arc])[0] for arc in v}
        curvatures = sp.hessian(to_minimise, list(v.values()))
        answers.append(is_zero(to_minimise.subs(best) - of.hamiltonian))
        answers += [is_zero(best[v[arc]] - of.weight_velocity(arc)) for arc in v]
        answers.append(None if curvatures.is_positive_definite is None else bool(curvatures.is_positive_definite))
    return _report(
        "minimum over the weight velocity",
        "min_v gives H, at v = −π_w/(mc) = dH/dπ_w, and the Hessian in v is positive definite; 5 graphs",
        answers,
    )


def prove_normalisation(effort: Effort) -> Evidence:
    """dp/dt = −∂H/∂y in p = φπ is dπ/dt = −∂(H/φ)/∂y − θπ: the equations of the running system."""
    answers = []
    t = sp.Symbol("t", real=True)
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        phi = sp.exp(of.theta * t)
        normalised = [*of.costate[0].values(), *of.weight_costate.values()]
        plain = {pi: sp.Symbol(f"P{pi}", real=True) for pi in normalised}
        whole = phi * of.hamiltonian.subs({pi: p / phi for pi, p in plain.items()})
        back = {p: phi * pi for pi, p in plain.items()}

        def rate(y: Any, pi: Any, whole: Any = whole, plain: Any = plain, back: Any = back, phi: Any = phi) -> Any:
            """Return d(p/φ)/dt."""
            return ((-sp.diff(whole, y) - plain[pi] * sp.diff(phi, t) / phi) / phi).subs(back)

        for i in graph.vertices:
            found = rate(of.x[0][i], of.costate[0][i])
            answers.append(is_zero(found - of.costate_velocity(i, sign=+1)))
        for arc in of.weight:
            found = rate(of.weight[arc], of.weight_costate[arc])
            answers.append(is_zero(found - of.weight_costate_velocity(arc, sign=+1)))
    return _report("normalised costates", "π = p/φ obeys dπ/dt = −∂(H/φ)/∂y − θπ, φ = e^{θt}; 5 graphs", answers)


def variations(of: Model) -> tuple[dict[int, Any], dict[Any, Any]]:
    """Return symbols for δx and δw."""
    dx = {i: sp.Symbol(f"dx{i}", real=True) for i in of.graph.vertices}
    return dx, {arc: sp.Symbol(f"dw{arc[0]}_{arc[1]}", real=True) for arc in of.weight}


def vary(of: Model, expression: Any) -> Any:
    """Return the first variation of a function of activities and weights."""
    dx, dw = variations(of)
    by_x = sum(sp.diff(expression, of.x[0][i]) * dx[i] for i in dx)
    return by_x + sum(sp.diff(expression, of.weight[arc]) * dw[arc] for arc in dw)


def pairing_rate(of: Model, control: dict[Any, Any]) -> Any:
    """Return d(p·δy)/dt divided by φ, the costates obeying the running equations.

    The variations obey δx' = f_x δx + f_w δw and δw' = ``control``.
    """
    dx, dw = variations(of)
    total = sp.Integer(0)
    for i in dx:  # d(φπ)/dt = φ (dπ/dt + θπ)
        pi = of.costate[0][i]
        total += (of.costate_velocity(i, sign=+1) + of.theta * pi) * dx[i] + pi * vary(of, of.velocity(i))
    for arc in dw:
        pi = of.weight_costate[arc]
        total += (of.weight_costate_velocity(arc, sign=+1) + of.theta * pi) * dw[arc] + pi * control[arc]
    return total


def prove_first_variation(effort: Effort) -> Evidence:
    """The pairing p·δy turns the variation of the cost into an integral over the control alone."""
    answers = []
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        control = {arc: sp.Symbol(f"dv{arc[0]}_{arc[1]}", real=True) for arc in of.weight}
        steered = sum(of.weight_costate[arc] * control[arc] for arc in control)
        answers.append(is_zero(pairing_rate(of, control) + vary(of, loss_rate(of)) - steered))
    return _report(
        "first variation",
        "d(p·δy)/dt = −φ c δℓ + p_w·δv; with δy(0) = 0 and p(T) = 0, δG = ∫ (m c φ v + p_w)·δv dt for every δv, "
        "so G is stationary exactly where v = −p_w/(mcφ); 5 graphs",
        answers,
    )
