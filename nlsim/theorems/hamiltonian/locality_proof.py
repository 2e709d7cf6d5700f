"""hamiltonian.locality: the symbolic proofs, and the Jacobian of the running field as their bridge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.state import leaves, rebuild
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.theorems.bridge import Bridge, build_bridge
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.normalised_proof import GRAPHS, PHI, Published
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import CHAIN_3, DIAMOND, SKIP, AbstractLoss, Model, SigmaPrime, every, is_zero, model

SYSTEMS = ((HamiltonEquations, +1), (CostateReversal, -1))


def prove_components(effort: Effort) -> Evidence:
    """(NLP 12), the derivatives of the unnormalised H, is (NLP 14), component by component."""
    answers = []
    for graph in GRAPHS:
        of = model(graph, has_equal_speeds=False)
        costates = [*of.costate[0].values(), *of.weight_costate.values()]
        hamiltonian = PHI * of.hamiltonian.subs({p: p / PHI for p in costates}, simultaneous=True)
        published = Published(of, +1, SigmaPrime)
        p = of.costate[0]
        for i in graph.vertices:
            answers.append(is_zero(sp.diff(hamiltonian, p[i]) - published.velocity(i)))
            answers.append(is_zero(-sp.diff(hamiltonian, of.x[0][i]) - published.costate_rate(i, p)))
        for arc, p_w in of.weight_costate.items():
            answers.append(is_zero(sp.diff(hamiltonian, p_w) + p_w / (of.m * of.c * PHI)))
            answers.append(is_zero(-sp.diff(hamiltonian, of.weight[arc]) - published.weight_costate_rate(arc, p)))
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(
        Leg.PROOF, "(NLP 12) = (NLP 14)", judge(every(answers)), "all four equations, cycles and self-loops", measured
    )


def separable(outputs: list[Any], sample: int) -> Any:
    """Return an abstract loss that is a sum over outputs: each looks at itself alone."""
    return sum(AbstractLoss(x, sp.Symbol(f"z{n}", real=True)) for n, x in enumerate(outputs))


def slope_symbol(k: int) -> Any:
    """Return the symbol of σ'(a_k), which neuron k knows from its own parents."""
    return sp.Symbol(f"slope{k}", real=True)


def field_of(of: Model, i: int) -> list[tuple[Any, set[Any], bool]]:
    """Return each rate of neuron i and its incoming weights, what it may depend on, and if slopes are known to it.

    Everybody knows c, m, k, θ and targets. The activity moves by itself, its parents and its weights; the
    costate by itself and, of each child, its costate, speed, slope and the weight to it; a weight by itself
    and the two neurons it joins.
    """
    values = {**of.u[0], **of.x[0]}
    everybody = {of.c, of.m, of.k, of.theta} | {sp.Symbol(f"z{n}", real=True) for n in range(len(of.graph.outputs))}
    parents, children = [j for j, k in of.graph.arcs if k == i], [k for j, k in of.graph.arcs if j == i]
    x, pi, speed = of.x[0][i], of.costate[0][i], of.speed[i]
    to_activity = {x, speed} | {s for j in parents for s in (values[j], of.weight[i, j])}
    to_costate = {x, pi, speed} | {
        s for k in children for s in (of.costate[0][k], of.speed[k], slope_symbol(k), of.weight[k, i])
    }
    found = [(of.velocity(i), to_activity, False), (of.costate_velocity(i), everybody | to_costate, True)]
    for j in parents:
        w, q = of.weight[i, j], of.weight_costate[i, j]
        found.append((of.weight_velocity((i, j)), everybody | {q}, True))
        to_weight = everybody | {w, q, pi, speed, slope_symbol(i), values[j]}
        found.append((of.weight_costate_velocity((i, j)), to_weight, True))
    return found


def strangers(of: Model, i: int) -> set[Any]:
    """Return what the field of neuron i depends on beyond what it may know, σ'(a_k) being a quantity of k."""
    slopes = {SigmaPrime(of.pre_activation(k)): slope_symbol(k) for k in of.graph.vertices}
    found: set[Any] = set()
    for rate, may_know, has_slopes in field_of(of, i):
        seen = sp.expand(rate).xreplace(slopes) if has_slopes else rate
        found |= seen.free_symbols - may_know
    return found


def prove_locality(effort: Effort) -> Evidence:
    """On every graph no rate depends on anything but the neuron, its parents and its children."""
    found: set[Any] = set()
    count = 0
    for graph in GRAPHS:
        of = model(graph, loss=separable, has_equal_speeds=False)
        for i in graph.vertices:
            found |= strangers(of, i)
            count += 1
    return Evidence(
        Leg.PROOF,
        "who is asked",
        judge(not found),
        "dx/dt: self and parents; dp/dt: self, and costate, slope, speed and weight of children; dw/dt: both ends",
        f"{len(found)} strangers in the fields of {count} neurons",
    )


def prove_slopes(effort: Effort) -> Evidence:
    """A child's slope is the child's: written out it holds the child's other parents and their weights, no more."""
    answers = []
    for graph in GRAPHS:
        of = model(graph, loss=separable, has_equal_speeds=False)
        values = {**of.u[0], **of.x[0]}
        for i in graph.vertices:
            children = {k for j, k in graph.arcs if j == i}
            (rate, may_know, _) = field_of(of, i)[1]
            around = {s for j, k in graph.arcs if k in children for s in (values[j], of.weight[k, j])}
            answers.append(sp.expand(rate).free_symbols - may_know == around - may_know)
    return Evidence(
        Leg.PROOF,
        "what a child's slope hides",
        judge(all(answers)),
        "with σ'(a_k) written out, dp/dt gains exactly the children's other parents and the weights from them",
        f"{answers.count(True)} of {len(answers)} neurons",
    )


def coupled_control(effort: Effort) -> Evidence:
    """Let the loss look at a hidden and an output neuron jointly, or at two outputs: strangers must appear."""
    hidden = model(replace(CHAIN_3, outputs=(2, 4)), has_equal_speeds=False)
    outputs = model(DIAMOND, has_equal_speeds=False)
    seen = {
        "neuron 2 of a chain whose loss couples 2 and 4": (strangers(hidden, 2), {hidden.x[0][4]}),
        "neuron 4 of it": (strangers(hidden, 4), {hidden.x[0][2]}),
        "one of two outputs in one joint loss": (strangers(outputs, 3), {outputs.x[0][4]}),
    }
    alone = strangers(model(SKIP, loss=separable, has_equal_speeds=False), 2)
    return Evidence(
        Leg.CONTROL,
        "a loss that is not a sum over outputs",
        judge(all(found == expected for found, expected in seen.values()) and not alone),
        "the other neuron in the loss becomes a stranger one depends on",
        "; ".join(f"{name}: {', '.join(sorted(map(str, found))) or 'none'}" for name, (found, _) in seen.items()),
    )


def bridge_jacobian(effort: Effort) -> Evidence:
    """Which entry depends on which: free symbols of the derived field = non-zero entries of the running Jacobian."""
    wrong, count = 0, 0
    for widths, activation, loss in (((1, 2, 2, 2), "tanh", "squared_error"), ((2, 2, 2), "logistic", "cross_entropy")):
        bridge = build_bridge(widths, activation, loss)
        for system, sign in SYSTEMS:
            symbols, rates = _symbolic(bridge, sign)
            expected = np.array([[s in rate.free_symbols for s in symbols] for rate in rates])
            found = _jacobian(system(bridge.problem), bridge).numpy() != 0
            wrong += int((expected != found).sum())
            count += expected.size
    return Evidence(
        Leg.BRIDGE,
        "free symbols = non-zero Jacobian of the running field",
        judge(wrong == 0),
        "the same pattern, entry by entry, both systems, two samples",
        f"{wrong} of {count} entries differ",
    )


def _jacobian(system: Any, bridge: Bridge) -> Tensor:
    """Return the Jacobian of the running field at the bridge's point, by torch's reverse mode."""
    parts = leaves(bridge.state)

    def flat_field(flat: Tensor) -> Tensor:
        pieces = torch.split(flat, [leaf.numel() for leaf in parts])
        state = rebuild(bridge.state, [p.reshape(leaf.shape) for p, leaf in zip(pieces, parts, strict=True)])
        field = system.vector_field(0.0, state, bridge.inputs)
        return torch.cat([leaf.flatten() for leaf in leaves(field)])

    jacobian: Tensor = torch.func.jacrev(flat_field)(torch.cat([leaf.flatten() for leaf in parts]))
    return jacobian


def _symbolic(bridge: Bridge, sign: int) -> tuple[list[Any], list[Any]]:
    """Return symbols and rates in the order of the state's tensors."""
    of, state = bridge.symbolic, bridge.state
    symbols, rates = [], []

    def vertices(field: str) -> list[tuple[int, int]]:
        tensors = getattr(state, field)
        return [(bridge.vertex(layer, n), b) for layer, x in enumerate(tensors) for b, n in np.ndindex(*x.shape)]

    def arcs() -> list[tuple[int, int]]:
        shapes = enumerate(w.shape for w in state.weight)
        return [(bridge.vertex(layer, n), bridge.source(layer, j)) for layer, s in shapes for n, j in np.ndindex(*s)]

    for i, b in vertices("activity"):
        symbols.append(of.x[b][i])
        rates.append(of.velocity(i, b))
    for arc in arcs():
        symbols.append(of.weight[arc])
        rates.append(of.weight_velocity(arc))
    for i, b in vertices("costate"):
        symbols.append(of.costate[b][i])
        rates.append(of.costate_velocity(i, b, sign=sign))
    for arc in arcs():
        symbols.append(of.weight_costate[arc])
        rates.append(of.weight_costate_velocity(arc, sign=sign))
    return symbols, [sp.expand(rate) for rate in rates]
