"""inference.truncated-inference: how much of the output's error has come down to a layer after a short time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.randomness import generator
from nlsim.core.system import Held
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.backprop import backpropagate
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import Case
from nlsim.theorems.inference.variant_symbols import SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.statement import Effort, Theorem

NETS = ((1, 1, 1), (1, 1, 1, 1), (2, 1, 2, 1), (1, 1, 1, 1, 1))
DEEP = Case((5, 7, 6, 5, 4), seed=1)
"""Depth 4, tanh: signals of order t, t² and t³."""
TIMES = (0.02, 0.01, 0.005, 0.0025)


def symbolic_field(net: SymbolicNet) -> tuple[list[Any], list[Any]]:
    """Return dĥ/dt of the hidden layers and e_1 … e_{L−1}, with unit precisions and the output held at error −∂ℓ."""
    hidden = [net.free(layer) for layer in range(net.depth - 1)]
    _, made = net.predictions(hidden)
    errors = [*(h - p for h, p in zip(hidden, made, strict=False)), -net.loss_gradient(made[-1])]
    rates = [
        net.slope(h).multiply_elementwise(net.weight(k + 1).T * errors[k + 1]) - errors[k] for k, h in enumerate(hidden)
    ]
    return rates, errors[:-1]


def prove_leading_term(effort: Effort) -> Evidence:
    """Differentiate errors along the flow: at the forward pass dʲe_{L−k}/dtʲ = 0 for j < k, and −δ_{L−k} for j = k."""
    differences = []
    for widths in NETS:
        net = SymbolicNet(widths, has_concrete_loss=True)
        rates, errors = symbolic_field(net)
        symbols = [each for layer in range(net.depth - 1) for each in net.free(layer)]
        motion = [each for rate in rates for each in rate]
        forward = dict(zip(symbols, (each for h in net.forward()[:-1] for each in h), strict=True))
        deltas = net.deltas()
        for layer, error in enumerate(errors):
            k = net.depth - 1 - layer
            for entry, delta in zip(error, deltas[layer], strict=True):
                derivative = entry
                for _ in range(k):
                    differences.append(derivative.subs(forward, simultaneous=True))
                    derivative = sum(
                        (sp.diff(derivative, s) * f for s, f in zip(symbols, motion, strict=True)), sp.Integer(0)
                    )
                differences.append(derivative.subs(forward, simultaneous=True) + delta)
    return identities(
        "Taylor coefficients of e_{L−k}(t) at the forward pass",
        "0 below order k, −δ_{L−k}/k! at order k; abstract φ, squared error, up to 3 hidden layers",
        differences,
    )


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic field with the running one."""
    tolerance, gaps = 1e-13, []  # some hundred roundings
    for widths in NETS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=2)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            draw = generator(3, "truncated activity")
            hidden = tuple(torch.as_tensor(draw.normal(size=(1, n))) for n in widths[1:-1])
            flow = case.system(ConstantPrecision()).flow(weights)
            values = values_of(net, weights, inputs, hidden)
            pairs = zip(symbolic_field(net)[0], flow.vector_field(0.0, hidden, inputs), strict=True)
            gaps += [largest_gap(s, r, values) for s, r in pairs]
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = running field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations",
        f"{worst:.2g} over {len(gaps)} layers",
    )


def ratios(case: Case, time: float, start: tuple[Tensor, ...] | None = None) -> list[float]:
    """Return ‖e_{L−k}(t)‖/‖δ_{L−k}‖ for k = 1 … L − 1."""
    system = case.system(ConstantPrecision())
    weights, inputs = case.weights(), case.inputs()
    flow = system.flow(weights, inputs.input)
    moving = RK4.advance(flow, Held(inputs), start or system.begin(weights, inputs), 0.0, time / 64, 64)
    errors = flow.settling(moving, inputs).errors
    deltas = _deltas(case)
    return [float(errors[-1 - k].norm() / deltas[-1 - k].norm()) for k in range(1, len(deltas))]


def _deltas(case: Case) -> list[Tensor]:
    """Return ∂ℓ/∂h_l by way of ∂ℓ/∂x_l = W δ."""
    passed = backpropagate(case.network(), case.loss_of_output(), case.weights(), case.inputs())
    slopes = []
    for x, activation in zip(passed.activity, case.network().activations, strict=True):
        slopes.append(1 - x * x if activation.name == "tanh" else torch.ones_like(x))
    return [c * s for c, s in zip(passed.costate, slopes, strict=True)]


def early_time_order(effort: Effort) -> Evidence:
    """Follow the running flow for short times: slope k in t and the factor 1/k!."""
    found = {time: ratios(DEEP, time) for time in TIMES}
    slopes = [observed_order(TIMES, [found[time][k] for time in TIMES]) for k in range(3)]
    # e = t^k/k! δ (1 + O(t)), the constant of O(t) a few units
    factors = [found[TIMES[-1]][k] / (TIMES[-1] ** (k + 1) / math.factorial(k + 1)) for k in range(3)]
    is_good = all(abs(p - k) <= 0.05 for k, p in enumerate(slopes, 1)) and all(abs(f - 1) <= 0.02 for f in factors)
    rows = tuple((f"{time:g}", *(f"{each:.3e}" for each in found[time])) for time in TIMES)
    return Evidence(
        Leg.ORDER,
        "‖e_{L−k}‖/‖δ_{L−k}‖ in t",
        judge(is_good),
        f"slopes 1, 2, 3 ± 0.05; divided by t^k/k! at t = {TIMES[-1]:g}: 1 ± 0.02",
        f"slopes {', '.join(f'{p:.3f}' for p in slopes)}; factors {', '.join(f'{f:.4f}' for f in factors)}",
        (Table("share of backpropagation's signal", ("t", "L−1", "L−2", "L−3"), rows),),
    )


def released_budget(effort: Effort) -> Evidence:
    """25 Euler steps of 0.015: the third layer from the top has seen under a hundredth of its signal."""
    shares = []
    for seed in range(10):
        case = Case((5, 7, 6, 5, 4), seed=seed)
        system, weights, inputs = case.system(ConstantPrecision()), case.weights(), case.inputs()
        flow = system.flow(weights, inputs.input)
        moving = EXPLICIT_EULER.advance(flow, Held(inputs), system.begin(weights, inputs), 0.0, 0.015, 25)
        shares.append(float(flow.settling(moving, inputs).errors[0].norm() / _deltas(case)[0].norm()))
    limit = 0.375**3 / 6
    return Evidence(
        Leg.PROPERTY,
        "25 steps of 0.015 (t = 0.375), third hidden layer from the top",
        judge(all(share <= limit for share in shares)),
        f"share of the signal below t³/3! = {limit:.2g}: own errors decay, and Euler is late",
        f"{min(shares):.1e} to {max(shares):.1e} in 10 nets",
    )


def random_start_control(effort: Effort) -> Evidence:
    """Begin off the forward pass: errors do not begin at 0, and do not follow powers of t."""
    system = DEEP.system(ConstantPrecision())
    draw = generator(4, "start")
    forward = system.begin(DEEP.weights(), DEEP.inputs())
    start = tuple(h + 0.1 * torch.as_tensor(draw.normal(size=tuple(h.shape))) for h in forward)
    found = [ratios(DEEP, time, start) for time in TIMES]
    slopes = [observed_order(TIMES, [each[k] for each in found]) for k in range(3)]
    return Evidence(
        Leg.CONTROL,
        "start off the forward pass",
        judge(all(abs(p) <= 0.2 for p in slopes)),
        "slopes 0 ± 0.2 instead of 1, 2, 3",
        ", ".join(f"{p:.3f}" for p in slopes),
    )


TRUNCATED_INFERENCE = Theorem(
    key="inference.truncated-inference",
    title="After a short time t the k-th layer below the output has t^k/k! of backpropagation's error",
    statement=(
        "From the forward pass with unit precisions, e_{L−k}(t) = −t^k/k! ∂ℓ/∂h_{L−k} + O(t^{k+1}): stopping inference "
        "early makes the updates of early layers small by a power of the time, whatever the energy."
    ),
    hypotheses=(
        "activities begin at the forward pass",
        "unit precisions, output clamped (squared error), or with its error −∂ℓ/∂p_L",
        "φ smooth",
    ),
    source="derived here",
    about=(ActivityFlow, InferenceLearning),
    checks=(prove_leading_term, bridge_field, early_time_order, released_budget, random_start_control),
)
