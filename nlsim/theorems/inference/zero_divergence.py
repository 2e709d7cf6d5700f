"""inference.z-il: with unit steps and each layer learning at its moment, inference is backpropagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.core.randomness import generator
from nlsim.systems.inference.baselines import GradientDescent
from nlsim.systems.inference.exact_backprop import ZeroDivergence, zero_divergence_gradients
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.variant_cases import Case, cases, relative
from nlsim.theorems.inference.variant_symbols import WIDTHS, SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

BREAK = Case(seed=4)
"""Depth 3, tanh, one sample at distance 1: the net of the controls."""


def symbolic_gradients(net: SymbolicNet, step: Any = 1, tidy: Callable[[Any], Any] = sp.expand) -> list[Any]:
    """Return −e_l ã_{l−1}ᵀ at time L − l by taking the activity steps with symbols, tidied up on the way."""
    hidden = net.forward()[:-1]
    found: list[Any] = [None] * net.depth
    for t in range(net.depth):
        sources, made = net.predictions(hidden)
        errors = [*(tidy(h - p) for h, p in zip(hidden, made, strict=False)), -net.loss_gradient(made[-1])]
        layer = net.depth - 1 - t
        found[layer] = -errors[layer] * sources[layer].T
        rates = [
            net.slope(h).multiply_elementwise(net.weight(k + 1).T * errors[k + 1]) - errors[k]
            for k, h in enumerate(hidden)
        ]
        hidden = [tidy(h + step * rate) for h, rate in zip(hidden, rates, strict=True)]
    return found


def prove_equality(effort: Effort) -> Evidence:
    """Take the steps with symbols: each layer's product is the derivative of the composed loss."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        for layer, found in enumerate(symbolic_gradients(net)):
            differences += list(found - net.gradient(layer))
    return identities(
        "−e_l(L − l) ã_{l−1}(L − l)ᵀ = dℓ/dW_l",
        f"abstract activation and loss, nets {', '.join('-'.join(map(str, w)) for w in WIDTHS)}",
        differences,
    )


def bridge_steps(effort: Effort) -> Evidence:
    """Compare the symbolic steps, at step lengths 1 and ½, with the code that runs."""
    tolerance, gaps = 1e-13, []  # some hundred roundings
    for widths in WIDTHS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=7)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            values = values_of(net, weights, inputs)
            for step in (1.0, 0.5):
                running = zero_divergence_gradients(case.network(), case.loss_of_output(), weights, inputs, step=step)
                symbolic = symbolic_gradients(net, step, lambda each: each)
                gaps += [largest_gap(s, r, values) for s, r in zip(symbolic, running, strict=True)]
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic steps = running steps",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations, step lengths 1 and ½",
        f"{worst:.2g} over {len(gaps)} layers",
    )


def equality(effort: Effort) -> Evidence:
    """The running code against backpropagation, weights learning in flight at any rate."""

    def error_of(drawn: tuple[Case, float]) -> float:
        case, rate = drawn
        weights, inputs, reference = case.weights(), case.inputs(), case.gradients()
        found = zero_divergence_gradients(case.network(), case.loss_of_output(), weights, inputs, rate=rate)
        size = max(1.0, *(float(g.norm()) for g in reference))
        gaps = [float((f - g).norm()) for f, g in zip(found, reference, strict=True)]
        system = ZeroDivergence(case.network(), case.loss_of_output(), GradientDescent(rate))
        jumped = system.jump(0.0, system.initial_state(weights, inputs), inputs, inputs).weight
        gaps += [float((j - (w - rate * g)).norm()) / rate for j, w, g in zip(jumped, weights, reference, strict=True)]
        return float(np.max(gaps)) / size

    return check_property(
        "gradient and jump = backpropagation",
        # a few hundred roundings of products through four layers; divided by a rate of 0.1 or more
        "≤ 1e-13; depth 1 to 4, both losses, batches of 1 to 3, weights learning in flight",
        effort,
        st.tuples(cases(activations=("identity", "logistic", "relu", "softplus", "tanh")), st.floats(0.1, 1.0)),
        error_of,
        1e-13,
    )


def broken_control(effort: Effort) -> Evidence:
    """Break each condition: a step of ½, a start off the forward pass, a moment too late (N11)."""
    network, loss = BREAK.network(), BREAK.loss_of_output()
    weights, inputs, reference = BREAK.weights(), BREAK.inputs(), BREAK.gradients()
    draw = generator(BREAK.seed, "z-il offset")
    offset = tuple(torch.as_tensor(0.5 * draw.normal(size=(1, n))) for n in BREAK.widths[1:-1])

    def against(**broken: Any) -> float:
        return relative(zero_divergence_gradients(network, loss, weights, inputs, **broken), reference)

    errors = {
        "step ½": against(step=0.5),
        "start perturbed": against(offset=offset),
        "one step late": against(delay=1),
    }
    kept = against()
    return Evidence(
        Leg.CONTROL,
        "one condition broken",
        judge(kept <= 1e-13 and all(error >= 0.3 for error in errors.values())),
        "relative error ≥ 0.3 each; all kept: ≤ 1e-13",
        ", ".join(f"{name} {error:.2f}" for name, error in errors.items()) + f"; kept {kept:.1e}",
    )


Z_IL = Theorem(
    key="inference.z-il",
    title="Zero-divergence inference learning is backpropagation",
    statement=(
        "Start from the forward pass, hold the output, take simultaneous activity steps of length 1, and let W_l "
        "learn by e_l ã_{l−1}ᵀ at time t = L − l: every weight change is that of backpropagation, at any learning "
        "rate, whether or not the weights that have learned are already changed."
    ),
    hypotheses=(
        "activities start at the forward pass",
        "activity steps of length exactly 1, unit precisions",
        "layer l learns at time L − l exactly",
        "output error −∂ℓ/∂p_L; for the squared error that of a clamped output",
    ),
    source="Song, Lukasiewicz, Xu and Bogacz, NeurIPS 2020; symbolic proof derived here",
    about=(ZeroDivergence, zero_divergence_gradients),
    checks=(prove_equality, bridge_steps, equality, broken_control),
)
