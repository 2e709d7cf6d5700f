"""The flow of the activities in symbols, and the bridge to the one that runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from nlsim.core.system import Inputs
from nlsim.systems.inference.precision import StepPrecision
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw, SymbolicNet, number, symbolic_twin
from nlsim.theorems.inference.running import running
from nlsim.theorems.statement import Effort

ALPHA = sp.Symbol("alpha", positive=True)
EPSILON = sp.Symbol("epsilon", nonnegative=True)
LOSS_NAMES = ("squared_error", "cross_entropy")


def settled(expression: Any) -> Any:
    """Carry out what cancels inside φ, φ′ and the loss, from the inside out."""
    return expression.replace(
        lambda each: isinstance(each, sp.Function), lambda each: each.func(*(sp.cancel(a) for a in each.args))
    )


def energy_gradient(net: SymbolicNet, loss: Any, *, is_held: bool) -> list[Any]:
    """Return ∂F/∂ĥ_l as columns, F = ℓ + Σ ‖e_l‖²/(2α(n_l + ε)); ``is_held``: the precisions not differentiated."""
    gammas = [sp.Symbol(f"gamma{k}", positive=True) for k in range(len(net.weight))]
    values = {g: 1 / (ALPHA * (net.normaliser(k) + EPSILON)) for k, g in enumerate(gammas)}
    energy = loss(list(net.h[-1]), 0) + sum(g * sum(e**2 for e in net.error(k)) / 2 for k, g in enumerate(gammas))
    if not is_held:
        energy = energy.subs(values)
    return [sp.Matrix([sp.diff(energy, s).subs(values) for s in h]) for h in net.h]


def bridge_field(effort: Effort) -> Evidence:
    """The symbolic flows with precisions differentiated and held, in numbers, against ActivityFlow's."""
    worst, count = 0.0, 0
    for activation in SMOOTH:
        for loss in LOSS_NAMES:
            for has_bias, epsilon in ((False, 0.0), (True, 0.0), (True, 0.3)):
                draw = Draw((2, 2, 2, 2), activation, loss, has_bias, seed=12)
                net, values, symbolic = symbolic_twin(draw)
                values |= {ALPHA: 0.7, EPSILON: epsilon}
                for kind, is_held in (("exact", False), ("self_consistent", True)):
                    system = running(draw, StepPrecision(0.7, kind, epsilon), output="free", is_scaled=False)
                    flow = system.flow(draw.weights())
                    rates = flow.vector_field(0.0, draw.activity(), Inputs(*draw.sample()))
                    slopes = energy_gradient(net, symbolic, is_held=is_held)
                    for rate, slope in zip(rates, slopes, strict=True):
                        for value, expression in zip(rate.flatten(), slope, strict=True):
                            expected = -number(expression, values)
                            gap = abs(expected - float(value)) / (1 + abs(expected))
                            worst, count = float(np.maximum(worst, gap)), count + 1
    return Evidence(
        Leg.BRIDGE,
        "ActivityFlow of kinds exact and self_consistent",
        judge(worst <= 1e-13 and count >= 200),  # some thirty roundings each
        "≤ 1e-13 over tanh, identity, softplus; both losses; with and without biases and ε",
        f"{worst:.2g} over {count} numbers",
    )
