"""The orders of every rule, proved on the net of one hidden neuron with any smooth φ; and the bridge to what runs.

With h = φ(w₁'x), out = w₂'h, U = w'₁ − w₁, V = w'₂ − w₂ and the residual r = y − w₂φ(w₁x), every rule solves two
equations of U and V. φ is its own Taylor series at w₁x with free coefficients, exact to the order that is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from nlsim.systems.inference.precision import StepPrecision
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw
from nlsim.theorems.inference.running import running, running_step
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import every, is_zero

Pair = tuple[Any, Any]

X, W1, W2 = sp.symbols("x w1 w2", nonzero=True)
ALPHA, RHO = sp.symbols("alpha rho", positive=True)
F0, F1, F2, F3 = sp.symbols("f0 f1 f2 f3", nonzero=True)
S = sp.Symbol("s")
JET = F0 + F1 * S + F2 * S**2 / 2 + F3 * S**3 / 6
"""φ(w₁x + s) to third order."""


def equations(kind: str, value: Any, slope: Any, before: Any, y: Any, u: Any, v: Any) -> Pair:
    """Return the two expressions that vanish at a rule's step.

    ``value`` and ``slope`` are φ and φ′ at w'₁x, ``before`` is φ(w₁x); the output is held at v φ.
    The implicit step feeds back through v, plain inference through w₂; its normalisers are those of the rule.
    """
    left = y - v * value
    first, second = ALPHA * left * slope * X, ALPHA * left * value
    if kind == "exact":
        return u - W1 - first * v, v - W2 - second
    if kind == "self_consistent":
        return u - W1 - first * W2, v - W2 - second
    if kind == "feedforward":
        return u - W1 - first * W2, (v - W2) * value - ALPHA * left * before**2
    return u - W1 - first * W2 * value**2 / X**2, v - W2 - second


def one_shot(kind: str, y: Any) -> Pair:
    """Return the step of a rule that solves no equations, from derivatives at the old weights."""
    u, v = sp.symbols("u v")
    output = v * JET.subs(S, (u - W1) * X)
    loss = (y - output) ** 2 / 2
    start = {u: W1, v: W2}
    gradient = sp.Matrix([sp.diff(loss, each) for each in (u, v)]).subs(start)
    if kind == "explicit":
        step = -ALPHA * gradient
    elif kind == "linearly implicit":
        step = -ALPHA * (sp.eye(2) + ALPHA * sp.hessian(loss, (u, v)).subs(start)).inv() * gradient
    else:
        J = sp.Matrix([[sp.diff(output, each) for each in (u, v)]]).subs(start)
        step = -ALPHA * gradient / (1 + ALPHA * (J * J.T)[0, 0])
    return W1 + step[0], W2 + step[1]


def series(kind: str, small: Any, terms: int) -> list[Pair]:
    """Return the Taylor coefficients of a rule's step (U, V), orders 1 … terms, in α or in ρ."""
    y = W2 * F0 + RHO
    if kind in ("explicit", "linearly implicit", "Levenberg–Marquardt"):
        first, second = one_shot(kind, y)
        return [
            (
                sp.diff(first, small, k).subs(small, 0) / sp.factorial(k),
                sp.diff(second, small, k).subs(small, 0) / sp.factorial(k),
            )
            for k in range(1, terms + 1)
        ]
    unknown = [(sp.Symbol(f"U{k}"), sp.Symbol(f"V{k}")) for k in range(1, terms + 1)]
    u = W1 + sum(a * small**k for k, (a, _) in enumerate(unknown, 1))
    v = W2 + sum(b * small**k for k, (_, b) in enumerate(unknown, 1))
    at = {S: (u - W1) * X}
    missed = equations(kind, JET.subs(at), sp.diff(JET, S).subs(at), F0, y, u, v)
    found: list[Pair] = []
    known: dict[Any, Any] = {}
    for k, pair in enumerate(unknown, 1):
        parts = [sp.diff(each, small, k).subs(small, 0).subs(known) for each in missed]
        solved = sp.solve(parts, pair, dict=True)[0]
        known |= solved
        found.append((solved[pair[0]], solved[pair[1]]))
    return found


def _answers(kind: str, small: Any, order: int | None, exact: list[Pair]) -> list[bool | None]:
    """Return whether a rule's step agrees with the implicit one to an order beyond the first, and no further."""
    own = series(kind, small, len(exact))
    agreed = len(exact) if order is None else order
    answers = [is_zero(a - b) for k in range(agreed) for a, b in zip(own[k], exact[k], strict=True)]
    if order is not None:  # the next coefficient differs at some point: the order is no higher
        point = {X: 2, W1: 3, W2: 5, F0: 7, F1: 11, F2: 13, F3: 17, ALPHA: 19, RHO: 23}
        answers.append(any((a - b).subs(point) != 0 for a, b in zip(own[order], exact[order], strict=True)))
    return answers


def prove_orders(effort: Effort) -> Evidence:
    """Compare the Taylor coefficients of every rule's step with those of the implicit step."""
    answers: list[bool | None] = []
    for small, orders in ((ALPHA, (1, 1, 0, 1, 2, 1)), (RHO, (1, 1, 0, 1, 1, 0))):
        kinds = ("self_consistent", "feedforward", "equal", "Levenberg–Marquardt", "linearly implicit", "explicit")
        exact = series("exact", small, max(orders) + 1)
        for kind, order in zip(kinds, orders, strict=True):
            answers += _answers(kind, small, order, exact)
        # equal gains are of order 1 where the normalisers are alike
        alike = [a.subs(F0, X) - b.subs(F0, X) for a, b in zip(series("equal", small, 1)[0], exact[0], strict=True)]
        answers += [is_zero(each) for each in alike]
    return Evidence(
        Leg.PROOF,
        "Taylor coefficients of the steps in α and in ρ",
        judge(every(answers)),
        "agreement up to the order said and a difference in the next; one hidden neuron, any smooth φ",
        f"{answers.count(True)} of {len(answers)} comparisons hold",
    )


def prove_defect(effort: Effort) -> Evidence:
    """θ_IL − θ' = −α² (∂g/∂θ_b) g + O(α³): the second coefficients differ by that, g being the gradient."""
    y = W2 * F0 + RHO
    b = sp.Symbol("b")
    exact, plain = series("exact", ALPHA, 2), series("self_consistent", ALPHA, 2)
    left = W2 * F0 - y
    fed = sp.Matrix([left * b * F1 * X, left * F0])  # g(θ, θ_b), of θ_b it has w₂ only
    expected = -sp.diff(fed, b) * fed.subs(b, W2)[1]
    answers = [is_zero(p - e) for p, e in zip(plain[0], exact[0], strict=True)]
    answers += [is_zero(p - e - d) for p, e, d in zip(plain[1], exact[1], expected, strict=True)]
    return Evidence(
        Leg.PROOF,
        "defect −α² (∂g/∂θ_b) g",
        judge(every(answers)),
        "second Taylor coefficient in α; one hidden neuron, any smooth φ",
        f"{answers.count(True)} of {len(answers)} comparisons hold",
    )


def bridge_orders(effort: Effort) -> Evidence:
    """Put the running steps of one hidden neuron into the equations of their rules."""
    worst, count = 0.0, 0
    u, v, y, drive = sp.symbols("u v y a")
    for activation in SMOOTH:
        value = SYMBOLIC_ACTIVATIONS[activation](drive)
        for kind in ("exact", "self_consistent", "feedforward", "equal"):
            at, before = {drive: u * X}, value.subs(drive, W1 * X)
            missed = equations(kind, value.subs(at), sp.diff(value, drive).subs(at), before, y, u, v)
            evaluate: Callable[..., Any] = sp.lambdify((X, W1, W2, y, ALPHA, u, v), missed, "numpy")
            for seed, rate in ((1, 0.3), (2, 1.0), (3, 3.0)):
                draw = Draw((1, 1, 1), activation, has_bias=False, seed=seed)
                weights, sample = draw.weights(), (draw.sample()[0], draw.near_target(0.5))
                new = running_step(running(draw, StepPrecision(rate, kind)), weights, sample)
                numbers = [float(each) for each in (sample[0], *weights, sample[1])]
                gaps = evaluate(*numbers, rate, *(float(w) for w in new))
                size = 1 + max(abs(float(w)) for w in (*weights, *new)) * (1 + rate)
                worst, count = float(np.max([worst, *(abs(g) / size for g in gaps)])), count + 2
    return Evidence(
        Leg.BRIDGE,
        "the equations of every rule at the running step",
        judge(worst <= 1e-12),
        "≤ 1e-12 for exact, self-consistent, feedforward-frozen and equal; tanh, identity, softplus",
        f"{worst:.2g} over {count} numbers",
    )
