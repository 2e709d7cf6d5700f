"""hamiltonian.discrete-adjoint: proof on symbolic graphs, and its bridge to the running adjoint."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.hamiltonian.discrete_adjoint import discrete_adjoint
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.phase import largest, proof, vanishes
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import CHAIN_2, CYCLE, DIAMOND, SKIP, Graph, model

Control = tuple[Tensor, ...]


def prove_gradient(effort: Effort) -> Evidence:
    """Write G_τ out as a function of the controls, differentiate it, and compare with the recursion."""
    answers = []
    # from four steps on, the first derivative sees costates that have been carried back through f_x
    for graph, steps in ((CHAIN_2, 4), (CYCLE, 4), (DIAMOND, 4), (SKIP, 3)):
        answers += _gradient_answers(graph, steps, is_paired=True)
    return proof(
        "∂G_τ/∂v_n of the functional written out",
        "= τ (m c φ_n v_n + p_w^{n+1}) with p^n = p^{n+1} + τ H_y(y^n, p^{n+1}); abstract σ and L, moving inputs, "
        "3 or 4 steps, four graphs",
        answers,
    )


def _gradient_answers(graph: Graph, steps: int, *, is_paired: bool) -> list[bool | None]:
    """Compare derivative and recursion for every arc and step; unpaired takes H_y at the later state."""
    of = model(graph, has_equal_speeds=False)
    tau = sp.Symbol("tau", positive=True)
    x, w = dict(of.x[0]), dict(of.weight)
    v = [{arc: sp.Symbol(f"v{arc[0]}_{arc[1]}_{n}", real=True) for arc in w} for n in range(steps)]
    phi = [sp.Symbol(f"phi{n}", positive=True) for n in range(steps)]
    points, functional = [], sp.Integer(0)
    for n in range(steps + 1):
        inputs = {u: sp.Symbol(f"{u}_at{n}", real=True) for u in of.u[0].values()}
        here = {**{of.x[0][i]: x[i] for i in x}, **{of.weight[arc]: w[arc] for arc in w}, **inputs}
        points.append(here)
        if n == steps:
            break
        at_rest = dict.fromkeys([*of.costate[0].values(), *of.weight_costate.values()], 0)
        running = of.hamiltonian.subs(at_rest).subs(here, simultaneous=True)  # c ℓ
        functional += tau * phi[n] * (of.m * of.c * sum(each**2 for each in v[n].values()) / 2 + running)
        x = {i: x[i] + tau * of.velocity(i).subs(here, simultaneous=True) for i in x}
        w = {arc: w[arc] + tau * v[n][arc] for arc in w}
    answers = []
    p: dict[Any, Any] = dict.fromkeys([*of.costate[0].values(), *of.weight_costate.values()], sp.Integer(0))
    for n in reversed(range(steps)):
        for arc in w:
            claimed = tau * (of.m * of.c * phi[n] * v[n][arc] + p[of.weight_costate[arc]])
            answers.append(vanishes(sp.diff(functional, v[n][arc]) - claimed))
        here = points[n] if is_paired else points[n + 1]
        # H_y(y, p) = φ Ĥ_y(y, p/φ)
        at = {**here, **{pi: each / phi[n] for pi, each in p.items()}}
        pairs = [(of.costate[0][i], of.x[0][i]) for i in x]
        pairs += [(of.weight_costate[arc], of.weight[arc]) for arc in w]
        p = {pi: p[pi] + tau * phi[n] * sp.diff(of.hamiltonian, y).subs(at, simultaneous=True) for pi, y in pairs}
    return answers


def bridge_recursion(effort: Effort) -> Evidence:
    """Run the recursion with the symbolic field turned into numbers, against the running adjoint."""
    tolerance, gaps = 1e-12, list[float]()  # six steps, each with the roundings of a field
    steps, dt, start = 6, 0.1, 0.2
    for widths, activation, loss in (((1, 2, 1), "tanh", "squared_error"), ((2, 1, 2), "softplus", "cross_entropy")):
        bridge = build_bridge(widths, activation, loss)
        problem, of = bridge.problem, bridge.symbolic
        draw = generator(1, "bridge control")
        control = tuple(torch.as_tensor(draw.normal(size=(steps, *w.shape))) for w in bridge.state.weight)
        held = Constant(bridge.inputs)
        found = discrete_adjoint(problem, bridge.state.activity, bridge.state.weight, control, held, dt, start)
        y = [symbol for each in of.x for symbol in each.values()] + list(of.weight.values())
        pi = [symbol for each in of.costate for symbol in each.values()] + list(of.weight_costate.values())
        known = sorted(bridge.values, key=str)
        slopes = sp.lambdify(known, [sp.diff(of.hamiltonian, each) for each in (*y, *pi)], "numpy", cse=True)
        velocities = _by_symbol(bridge, control)
        values = dict(bridge.values)
        values.update(dict.fromkeys(pi, 0.0))
        path = [dict(values)]
        for n in range(steps):
            h = slopes(*(values[each] for each in known))
            rate = dict(zip(y, h[len(y) :], strict=True))
            rate.update({weight: velocities[n][arc] for arc, weight in of.weight.items()})
            values = {**values, **{each: values[each] + dt * rate[each] for each in y}}
            path.append(dict(values))
        growth = math.exp(problem.dissipation * dt)
        costate = dict.fromkeys(pi, 0.0)
        expected: list[dict[tuple[int, int], float]] = []
        for n in reversed(range(steps)):
            q = {each: growth * value for each, value in costate.items()}
            scale = dt * math.exp(problem.dissipation * (start + n * dt))
            inertia = bridge.values[of.m] * bridge.values[of.c]
            expected.append(
                {arc: scale * (inertia * velocities[n][arc] + q[each]) for arc, each in of.weight_costate.items()}
            )
            h = slopes(*({**path[n], **q}[each] for each in known))
            costate = {each: q[each] + dt * slope for each, slope in zip(pi, h[: len(y)], strict=True)}
        running = _by_symbol(bridge, found.gradient)
        for n in range(steps):
            gaps += [abs(running[n][arc] - value) / (1 + abs(value)) for arc, value in expected[steps - 1 - n].items()]
    return Evidence(
        Leg.BRIDGE,
        "recursion with the symbolic H = running adjoint",
        judge(largest(gaps) <= tolerance),
        f"relative difference ≤ {tolerance:g}; θ > 0, unequal speeds, batch 2, 6 steps",
        f"{largest(gaps):.2g} over {len(gaps)} derivatives",
    )


def _by_symbol(bridge: Any, layers: Control) -> list[dict[tuple[int, int], float]]:
    """Return, step by step, the entries of weight-shaped tensors by arc."""
    steps: list[dict[tuple[int, int], float]] = [{} for _ in range(len(layers[0]))]
    for layer, tensor in enumerate(layers):
        for n, row, column in np.ndindex(*tensor.shape):
            arc = (bridge.vertex(layer, row), bridge.source(layer, column))
            steps[n][arc] = float(tensor[n, row, column])
    return steps


def mismatched_proof(effort: Effort) -> Evidence:
    """The symbolic comparison, too, must tell the two apart."""
    answers = _gradient_answers(CHAIN_2, 2, is_paired=False)
    return Evidence(
        Leg.CONTROL,
        "the proof with the mismatched stage",
        judge(True not in answers[-2:] and answers[:2] == [True, True]),
        "the last step's derivatives still agree (p^N = 0 is the same), the first step's do not simplify to 0",
        f"last step {answers[:2]}, first step {answers[-2:]}",
    )
