"""masked.blackout-decay: where nothing is seen, a neuron forgets at its own rate and becomes neutral."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.masked.neuron_symbols import NEURONS, bridge_field, identities, prove_drive, symbolic_neuron
from nlsim.theorems.masked.runs import Draw, Garbage, HiddenEdges, draws, run
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma

SPANS = (0.3, 1.1, 0.4)
"""How long everything is seen, nothing, and everything again."""


def prove_decay(effort: Effort) -> Evidence:
    """The field of a blackout is c (φ(0) − x) whatever W, b and u, and the decay solves it."""
    neuron = symbolic_neuron()
    nothing = {**dict.fromkeys(neuron.m, 0), **dict.fromkeys((*neuron.v, *neuron.d, *neuron.k), 0)}
    differences = []
    for i, rate in enumerate(neuron.field("state", "forget", Sigma)):
        differences.append(rate.subs(nothing) - neuron.c * (Sigma(sp.Integer(0)) - neuron.x[i]))
    for i, rate in enumerate(neuron.field("potential", "forget", Sigma)):
        differences.append(rate.subs(nothing) + neuron.c * neuron.x[i])
    t, start, rest = sp.symbols("t x0 r", real=True)
    x = rest + (start - rest) * sp.exp(-neuron.c * t)
    differences += [sp.diff(x, t) - neuron.c * (rest - x), x.subs(t, 0) - start]
    return identities(
        "ẋ = c (φ(0) − x), v̇ = −c v; x = φ(0) + (x₀ − φ(0)) e^(−ct)",
        f"abstract φ, {NEURONS} neurons, w_c = d = V = 0",
        differences,
    )


def piecewise(draw: Draw, t: float) -> Tensor:
    """Return the closed form of a run through the spans, made with numpy from the definition."""
    neuron, u = draw.neuron(), draw.given().input
    assert neuron.bias is not None
    assert u is not None
    dense = u.numpy() @ neuron.weight.numpy().T + neuron.bias.numpy()
    phi: dict[str, Any] = {
        "tanh": np.tanh,
        "logistic": lambda a: 1 / (1 + np.exp(-a)),
        "identity": lambda a: a,
        "relu": lambda a: np.maximum(a, 0),
        "softplus": lambda a: np.log1p(np.exp(a)),
    }
    sigma = phi[draw.activation] if draw.form == "state" else phi["identity"]
    x = draw.state().numpy()
    for a, span in zip((dense, 0 * dense, dense), SPANS, strict=True):
        passed = min(span, max(0.0, t))
        x = sigma(a) + (x - sigma(a)) * math.exp(-draw.speed * passed)
        t -= span
    return torch.as_tensor(x)


def decay_property(effort: Effort) -> Evidence:
    """The loop through a blackout with exact steppers, missing slots holding NaN."""
    first, second, total = SPANS[0], SPANS[0] + SPANS[1], sum(SPANS)

    def error_of(drawn: tuple[Draw, float]) -> float:
        draw, dt = drawn
        errors = []
        for stepper in (EXPONENTIAL_SWEEP, EXPONENTIAL_EULER):
            signal = Garbage(draw.blackout(first, second))
            ticks = run(draw.neuron(), signal, draw.state(), stepper, dt, total, (0.2, first + 0.5, second - 0.01))
            errors += [float((tick.state - piecewise(draw, tick.t)).abs().max()) for tick in ticks]
        return float(np.max(errors))

    return check_property(
        "the loop through a blackout = closed form",
        # at most 1.8/0.02 = 90 steps, a few roundings each of numbers below about 20; gaps shrink in between
        "≤ 1e-12 with the exponential sweep and exponential Euler at any dt; every activation, both forms, NaN in the "
        "slots",
        effort,
        st.tuples(draws(), st.floats(0.02, 2.0)),
        error_of,
        1e-12,
    )


def neutral_limits(effort: Effort) -> Evidence:
    """After a long blackout every activation is at its neutral value."""
    rows, gaps = [], []
    for name, expected in (("tanh", 0.0), ("logistic", 0.5), ("softplus", math.log(2)), ("relu", 0.0)):
        draw = Draw(activation=name)
        state = run(draw.neuron(), draw.blackout(0.0, 50.0), draw.state(), RK4, 0.1, 50.0)[-1].state
        gaps.append(float((state - expected).abs().max()))
        rows.append((name, f"{float(state.mean()):.15f}", f"{expected:.15f}"))
    return Evidence(
        Leg.PROPERTY,
        "neutral values after 50 time constants",
        judge(max(gaps) <= 1e-14),  # e^(−50) = 2e-22 and a rounding
        "φ(0) to 1e-14: tanh and ReLU 0, logistic ½, softplus log 2",
        f"largest gap {max(gaps):.1e}",
        (Table("neutral values", ("φ", "mean of the state", "φ(0)"), tuple(rows)),),
    )


def landing_order(effort: Effort) -> Evidence:
    """Explicit steppers through a blackout: they keep their order because the loop lands on the edges."""
    draw, counts = Draw(seed=3, speed=6.0), (80, 160, 320, 640)
    total = sum(SPANS)
    exact = piecewise(draw, total)
    signal = draw.blackout(SPANS[0], SPANS[0] + SPANS[1])

    def slope(stepper: Any, shown: Any) -> tuple[float, float]:
        errors = []
        for n in counts:
            # 0.3 n/1.8 is no whole number: the edges are no multiples of dt
            last = run(draw.neuron(), shown, draw.state(), stepper, total / (n + 0.37), total)[-1]
            errors.append(float((last.state - exact).abs().max()))
        return observed_order([1 / n for n in counts], errors), errors[-1]

    seen = {each.name: (each.order, *slope(each, signal)) for each in (EXPLICIT_EULER, HEUN, RK4)}
    hidden, lost = slope(RK4, HiddenEdges(signal))
    is_kept = all(abs(found - order) <= 0.1 for order, found, _ in seen.values())
    return Evidence(
        Leg.ORDER,
        "explicit steppers across the edges of a mask",
        judge(is_kept and hidden <= 2.0 and lost >= 100 * seen["rk4"][2]),
        "declared orders 1, 2, 4 ± 0.1; RK4 below 2 and 100 times worse where the edges are hidden from the loop",
        ", ".join(f"{name} {found:.2f}" for name, (_, found, _) in seen.items())
        + f"; edges hidden: {hidden:.2f}, error {lost:.1e} against {seen['rk4'][2]:.1e}",
    )


def euler_threshold(effort: Effort) -> Evidence:
    """Explicit Euler in a blackout: monotone up to c dt = 1, alternating up to 2, growing beyond."""
    draw = Draw(seed=1, speed=2.0)
    found = []
    for z in (0.5, 1.0, 1.5, 2 - 1e-3, 2.0, 2 + 1e-3):
        dt, n = z / draw.speed, 200
        state = run(draw.neuron(), draw.blackout(0.0, 1e9), draw.state(), EXPLICIT_EULER, dt, n * dt)[-1].state
        ratio = float(state.norm() / draw.state().norm())
        expected = abs(1 - z) ** n
        found.append((z, ratio, expected, abs(ratio - expected) <= 1e-10 * expected + 1e-15))
    return Evidence(
        Leg.PROPERTY,
        "explicit Euler: |1 − c dt|ⁿ, stable iff c dt < 2",
        judge(all(each[-1] for each in found) and found[3][1] < 1 < found[5][1]),
        "the state after 200 steps shrinks by |1 − c dt|²⁰⁰ to 1e-10; below 2 it decays, above it grows",
        "; ".join(f"c dt = {z:g}: {ratio:.4g} ({expected:.4g})" for z, ratio, expected, _ in found),
    )


def bias_control(effort: Effort) -> Evidence:
    """Keep the bias in a blackout, as zero imputation does, or an intrinsic bias: the state is not neutral."""
    draw = Draw(seed=2)
    neuron, blackout = draw.neuron(), draw.blackout(0.0, 60.0)
    bias = neuron.bias
    assert bias is not None
    imputed = replace(neuron, bias=None, intrinsic=bias)  # full bias, missing inputs 0

    def rest(system: MaskedNeuron) -> Tensor:
        found: Tensor = run(system, blackout, draw.state(), RK4, 0.1, 60.0)[-1].state
        return found

    neutral, imputing = float(rest(neuron).norm()), rest(imputed)
    gap = float((imputing - torch.tanh(bias)).abs().max())
    level = draw.tensor("level", draw.neurons)
    learned = float((rest(replace(neuron, compensation=level)) - torch.tanh(level)).abs().max())
    return Evidence(
        Leg.CONTROL,
        "full bias (zero imputation) and w_c",
        judge(neutral <= 1e-14 and gap <= 1e-14 and float(imputing.norm()) >= 0.5 and learned <= 1e-14),
        "rest at φ(b), norm ≥ 0.5, where the bias is not gated; at φ(w_c) with a compensation; at φ(0) = 0 else",
        f"zero imputation: norm {float(imputing.norm()):.3f}, gap to φ(b) {gap:.1e}; w_c: gap {learned:.1e}; gated: "
        f"{neutral:.1e}",
    )


BLACKOUT_DECAY = Theorem(
    key="masked.blackout-decay",
    title="Where nothing is seen, a neuron forgets at its own rate and becomes neutral",
    statement=(
        "With m = 0 the drive is exactly 0 for every W, b and u, and x(t) = φ(0) + (x(t₀) − φ(0)) e^{−c(t−t₀)} "
        "(potential form: v(t₀) e^{−c(t−t₀)}). Exponential steps are exact under piecewise constant masks; explicit "
        "Euler is stable iff c·dt < 2 and monotone iff c·dt ≤ 1; steppers keep their order across edges of the mask."
    ),
    hypotheses=("V = 0, d = 0, w_c = 0", "the loop lands on the edges of the mask"),
    source="neutralizers: Kia et al., 2022, arXiv:2206.01640; the continuous-time neuron is derived here",
    about=(MaskedNeuron, MaskedSignal, Outages, Outage, Inputs),
    checks=(
        prove_drive,
        prove_decay,
        bridge_field,
        decay_property,
        neutral_limits,
        euler_threshold,
        landing_order,
        bias_control,
    ),
)
