"""hamiltonian.backprop-limit: the symbolic proofs."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import (
    CHAIN_2,
    CHAIN_3,
    CYCLE,
    DIAMOND,
    SKIP,
    Graph,
    Model,
    SigmaPrime,
    every,
    is_zero,
    model,
)

ACYCLIC = (CHAIN_2, CHAIN_3, DIAMOND, SKIP)


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def backprop_relation(of: Model, i: int) -> Any:
    """Return Σ_k σ'(a_k) w_ki π_k + L_{x_i} − π_i: eq. 17 says it vanishes."""
    pulled = sum(
        SigmaPrime(of.pre_activation(k)) * of.weight[k, i] * of.costate[0][k] for j, k in of.graph.arcs if j == i
    )
    return pulled + sp.diff(of.loss[0], of.x[0][i]) - of.costate[0][i]


def prove_limit(effort: Effort) -> Evidence:
    """Divide the derived costate and weight equations by their scale in c and let c → ∞."""
    answers = []
    for graph in (*ACYCLIC, CYCLE):
        of = model(graph)
        for i in graph.vertices:
            limit = sp.limit(sp.expand(of.costate_velocity(i) / of.c), of.c, sp.oo)
            answers.append(is_zero(limit - backprop_relation(of, i)))
        for j, i in graph.arcs:
            source = {**of.u[0], **of.x[0]}[j]
            gradient = SigmaPrime(of.pre_activation(i)) * of.costate[0][i] * source
            force = -(gradient + of.k * of.weight[i, j]) / of.m - of.theta * sp.Symbol("v", real=True)
            answers.append(is_zero(sp.limit(of.acceleration((i, j)), of.c, sp.oo) - force))
    return _report(
        "limit of the derived equations",
        "π_i = Σ_k σ'(a_k) w_ki π_k + L_x_i and ẅ = −θẇ − (σ'(a_i) π_i x_j + k w)/m, on all graphs",
        answers,
    )


def prove_total_derivative(effort: Effort) -> Evidence:
    """On acyclic graphs the solution of the limit relation is the total derivative of the loss."""
    answers = []
    for graph in ACYCLIC:
        of = model(graph)
        on_manifold = _manifold(of)
        outputs = {of.x[0][i]: on_manifold[of.x[0][i]] for i in graph.outputs}
        total = of.loss[0].subs(outputs)
        costate = _costates(of)
        for j, i in graph.arcs:
            source = {**of.u[0], **of.x[0]}[j]
            local = SigmaPrime(of.pre_activation(i)) * costate[i] * source
            answers.append(is_zero(local.subs(on_manifold) - sp.diff(total, of.weight[i, j])))
    return _report(
        "what the limit is, without cycles",
        "σ'(a_i) π_i x_j = dL(x(w))/dw_ij, all activities being functions of all weights",
        answers,
    )


def prove_implicit_derivative(effort: Effort) -> Evidence:
    """With cycles the limit is the derivative through the fixed point: recurrent backpropagation."""
    of = model(CYCLE)
    neurons = list(CYCLE.vertices)
    x = sp.Matrix([of.x[0][i] for i in neurons])
    residual = sp.Matrix([of.velocity(i) / of.c for i in neurons])  # σ(a) − x, 0 on the manifold
    jacobian = residual.jacobian(x)
    loss_gradient = sp.Matrix([sp.diff(of.loss[0], of.x[0][i]) for i in neurons])
    pi = sp.Matrix([of.costate[0][i] for i in neurons])
    relation = sp.Matrix([backprop_relation(of, i) for i in neurons])
    matrix, right = sp.linear_eq_to_matrix(list(relation), list(pi))
    solved = matrix.LUsolve(right)
    answers = []
    for j, i in CYCLE.arcs:
        # differentiate σ(a(x, w)) − x = 0 along w: J dx/dw + ∂residual/∂w = 0
        tangent = jacobian.LUsolve(-residual.diff(of.weight[i, j]))
        total = (loss_gradient.T * tangent)[0]
        source = {**of.u[0], **of.x[0]}[j]
        local = SigmaPrime(of.pre_activation(i)) * solved[neurons.index(i)] * source
        answers.append(is_zero(local - total))
    return _report(
        "what the limit is, with cycles",
        "σ'(a_i) π_i x_j = L_x · dx*/dw_ij by the implicit function theorem, where I − D_σ W is regular",
        answers,
    )


def prove_static_exactness(effort: Effort) -> Evidence:
    """At rest with θ = 0 the costate relation does not contain c at all."""
    answers = []
    for graph in (*ACYCLIC, CYCLE):
        of = model(graph)
        for i in graph.vertices:
            at_rest = sp.expand(of.costate_velocity(i).subs(of.theta, 0) / of.c)
            answers.append(is_zero(at_rest - backprop_relation(of, i)))
    return _report("static input, θ = 0", "the rest state obeys eq. 17 at every c, not only in the limit", answers)


def prove_attenuation(effort: Effort) -> Evidence:
    """At rest with θ > 0 each layer of a chain attenuates the costate once more by c/(c + θ)."""
    answers = []
    for depth in (1, 2, 3, 4):
        graph = Graph("chain", 1, depth, tuple((i, i + 1) for i in range(1, depth + 1)), (depth + 1,))
        of = model(graph)
        exact, damped = _costates(of), _costates(of, has_dissipation=True)
        for layer, i in enumerate(graph.vertices, start=1):
            factor = (of.c / (of.c + of.theta)) ** (depth - layer + 1)
            answers.append(is_zero(damped[i] - factor * exact[i]))
    return _report("static input, θ > 0", "π_l = (c/(c+θ))^(D−l+1) π_BP,l on chains of depth 1 to 4", answers)


def _costates(of: Model, *, has_dissipation: bool = False) -> dict[int, Any]:
    """Solve dπ/dt = 0 from the outputs back; activities stay symbols."""
    order = of.graph.order()
    assert order is not None
    solved: dict[int, Any] = {}
    for i in reversed(order):
        rest = of.costate_velocity(i)
        if not has_dissipation:
            rest = rest.subs(of.theta, 0)
        rest = rest.subs({of.costate[0][k]: value for k, value in solved.items()})
        (solution,) = sp.solve(rest, of.costate[0][i])
        solved[i] = solution
    return solved


def _manifold(of: Model) -> dict[Any, Any]:
    """Solve dx/dt = 0 from the inputs on: every activity as a function of the weights."""
    order = of.graph.order()
    assert order is not None
    solved: dict[Any, Any] = {}
    for i in order:
        (solution,) = sp.solve(of.velocity(i).subs(solved), of.x[0][i])
        solved[of.x[0][i]] = solution
    return solved
