"""hamiltonian.trajectory-gradient: the symbolic proofs."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.backprop_proof import backprop_relation
from nlsim.theorems.hamiltonian.hamilton_proof import GRAPHS, loss_rate, pairing_rate, vary
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import SigmaPrime, every, is_zero, model


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def prove_identity(effort: Effort) -> Evidence:
    """With frozen weights d(p·δy)/dt = −φ c δℓ; and what p_w integrates is the local product."""
    answers = []
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        frozen = dict.fromkeys(of.weight, sp.Integer(0))
        answers.append(is_zero(pairing_rate(of, frozen) + vary(of, loss_rate(of))))
        for j, i in graph.arcs:
            source = {**of.u[0], **of.x[0]}[j]
            pi, w = of.weight_costate[i, j], of.weight[i, j]
            local = of.speed[i] * of.costate[0][i] * SigmaPrime(of.pre_activation(i)) * source + of.c * of.k * w
            # d(φπ)/dt / φ = dπ/dt + θπ
            answers.append(is_zero(of.weight_costate_velocity((i, j), sign=+1) + of.theta * pi + local))
    return _report(
        "adjoint identity",
        "d(p·δy)/dt = −φ c δℓ for δw' = 0, so with p(T) = 0 and δx(0) = 0 the derivative of ∫ c ℓ φ dt is "
        "p_w(0) = ∫ (c_i p_i σ'(a_i) x_j + c k w φ) dt; 5 graphs",
        answers,
    )


def prove_limit(effort: Effort) -> Evidence:
    """The exact costate equation divided by c has the backpropagation relation as its limit."""
    answers = []
    for graph in GRAPHS:
        of = model(graph)
        for i in graph.vertices:
            limit = sp.limit(sp.expand(of.costate_velocity(i, sign=+1) / of.c), of.c, sp.oo)
            answers.append(is_zero(limit + backprop_relation(of, i)))
    return _report("limit c → ∞", "π_i = Σ_k σ'(a_k) w_ki π_k + L_x_i on the slow manifold; 5 graphs", answers)


def prove_partner(effort: Effort) -> Evidence:
    """One step of any explicit method and of the costates' recursion: the pairing p·δx is kept, loss for loss.

    Stage Jacobians are free symbols, so nothing is assumed of the field. Summed over steps, the identity says that
    the recursion returns the derivatives of the discretised cost.
    """
    answers: list[bool | None] = []
    for stages, size in ((4, 1), (2, 2)):
        h = sp.Symbol("h")
        a = sp.Matrix(stages, stages, lambda i, j: sp.Symbol(f"a{i}{j}") if j < i else 0)
        b, phi = sp.symbols(f"b:{stages}"), sp.symbols(f"phi:{stages}")

        def family(letter: str, rows: int, columns: int, count: int = stages) -> list[Any]:
            return [sp.Matrix(rows, columns, sp.symbols(f"{letter}{i}_:{rows * columns}")) for i in range(count)]

        f_x, f_w = family("A", size, size), family("B", size, size)
        l_x, l_w = family("L", 1, size), family("M", 1, size)  # c ℓ_x and c ℓ_w at the stages
        (dx,), (dw,), (after,) = family("x", size, 1, 1), family("w", size, 1, 1), family("p", 1, size, 1)
        # forward: tangents of the stages, of the step and of its share of the cost
        slopes: list[Any] = []
        cost, dx_after = sp.zeros(1, 1), dx
        for i in range(stages):
            point = sum((h * a[i, j] * slopes[j] for j in range(i)), dx)
            slopes.append(f_x[i] * point + f_w[i] * dw)
            cost += h * b[i] * phi[i] * (l_x[i] * point + l_w[i] * dw)
            dx_after = dx_after + h * b[i] * slopes[i]
        # backward: the recursion of trajectory_gradient, h_x = π f_x + c ℓ_x and h_w = π f_w + c ℓ_w
        shares: dict[int, Any] = {}
        before, gradient = after, sp.zeros(1, size)
        for i in reversed(range(stages)):
            pulled = sum((a[j, i] * shares[j] for j in range(i + 1, stages)), b[i] * after)
            pi = pulled / (b[i] * phi[i])
            shares[i] = h * b[i] * phi[i] * (pi * f_x[i] + l_x[i])
            gradient += h * b[i] * phi[i] * (pi * f_w[i] + l_w[i])
            before = before + shares[i]
        answers.append(is_zero((after * dx_after + cost - before * dx - gradient * dw)[0]))
    return _report(
        "exact discrete adjoint",
        "p⁺·δx⁺ + h Σ b_i φ_i c δℓ_i = p·δx + (p_w − p_w⁺)·δw for every explicit method: 4 stages, and 2 in matrices",
        answers,
    )
