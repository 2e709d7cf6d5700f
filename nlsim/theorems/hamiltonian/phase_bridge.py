"""Bridges of the structural theorems: field, Hamiltonian and Jacobian, symbolic against running."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.theorems.bridge import Bridge, build_bridge
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.phase import field_jacobian, largest

# Field, Hamiltonian and Jacobian are sums of at most some hundred products of numbers below 10, evaluated twice
TOLERANCE = 1e-12

NETS = (
    ((2, 2, 2), "tanh", "squared_error"),
    ((1, 2, 1, 2), "logistic", "cross_entropy"),
    ((2, 1, 2), "softplus", "squared_error"),
    ((2, 2, 1), "identity", "cross_entropy"),
)
SYSTEMS: dict[int, Any] = {+1: HamiltonEquations, -1: CostateReversal}


def bridge_fields(signs: tuple[int, ...], *, has_hamiltonian: bool = False) -> Evidence:
    """Compare derived fields (and H itself) with the torch ones at random points; +1 is (H), −1 is (R)."""
    gaps: list[float] = []
    for widths, activation, loss in NETS:
        bridge = build_bridge(widths, activation, loss)
        for sign in signs:
            running = SYSTEMS[sign](bridge.problem).vector_field(0.0, bridge.state, bridge.inputs)
            gaps.append(bridge.gaps(running, sign=sign))
        if has_hamiltonian:
            expected = bridge.number(bridge.symbolic.hamiltonian)
            found = float(hamiltonian(bridge.problem, bridge.state, bridge.inputs))
            gaps.append(abs(found - expected) / (1 + abs(expected)))
    what = "fields and Hamiltonians" if has_hamiltonian else "fields"
    return Evidence(
        Leg.BRIDGE,
        f"symbolic {what} = torch {what}",
        judge(largest(gaps) <= TOLERANCE),
        f"relative difference ≤ {TOLERANCE:g}; 4 activations, 2 losses, unequal speeds, batch 2",
        f"{largest(gaps):.2g} over {len(gaps)} {what}",
    )


def bridge_jacobian(sign: int) -> Evidence:
    """Compare every entry of the symbolic Jacobian with automatic differentiation of the torch field."""
    gaps: list[float] = []
    for widths, activation, loss in (((1, 2, 1), "tanh", "squared_error"), ((1, 1, 2), "softplus", "cross_entropy")):
        bridge = build_bridge(widths, activation, loss)
        symbols, expressions = flattened(bridge, sign)
        known = sorted(bridge.values, key=str)
        symbolic = sp.lambdify(known, sp.Matrix(expressions).jacobian(sp.Matrix(symbols)), "numpy", cse=True)
        expected = np.asarray(symbolic(*(bridge.values[each] for each in known)), dtype=np.float64)
        running = field_jacobian(SYSTEMS[sign](bridge.problem), bridge.state, bridge.inputs).numpy()
        gaps += (abs(running - expected) / (1 + abs(expected))).ravel().tolist()
    return Evidence(
        Leg.BRIDGE,
        "symbolic Jacobian = Jacobian of the torch field",
        judge(largest(gaps) <= TOLERANCE),
        f"relative difference ≤ {TOLERANCE:g} in every entry; unequal speeds, biases, batch 2",
        f"{largest(gaps):.2g} over {len(gaps)} entries",
    )


def flattened(bridge: Bridge, sign: int) -> tuple[list[Any], list[Any]]:
    """Return symbols and field in the order of the running state's entries."""
    of, state = bridge.symbolic, bridge.state
    y: list[Any] = []
    y_rate: list[Any] = []
    pi: list[Any] = []
    pi_rate: list[Any] = []
    for layer, activity in enumerate(state.activity):
        for b, n in np.ndindex(*activity.shape):
            i = bridge.vertex(layer, n)
            y.append(of.x[b][i])
            y_rate.append(of.velocity(i, b))
            pi.append(of.costate[b][i])
            pi_rate.append(of.costate_velocity(i, b, sign=sign))
    for layer, weight in enumerate(state.weight):
        for n, column in np.ndindex(*weight.shape):
            arc = (bridge.vertex(layer, n), bridge.source(layer, column))
            y.append(of.weight[arc])
            y_rate.append(of.weight_velocity(arc))
            pi.append(of.weight_costate[arc])
            pi_rate.append(of.weight_costate_velocity(arc, sign=sign))
    return y + pi, y_rate + pi_rate
