"""masked.neutralizer-cancellation: neutralizers in an ordinary neuron are a mask on inputs and bias."""

from __future__ import annotations

import sympy as sp
import torch

from nlsim.systems.masked.layer import masked_affine, observed_fraction
from nlsim.systems.masked.module import MaskedLinear
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import (
    ROUND_OFF,
    SIZES,
    Layer,
    Neuron,
    bridge,
    control,
    layers,
    masked,
    prove,
    with_neutralizers,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_cancellation(effort: Effort) -> Evidence:
    """The weight of a missing input cancels; with shares π_j each takes π_j b away."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        seen = sum(m * w * x for m, w, x in zip(neuron.m, neuron.w, neuron.x, strict=True))
        differences.append(neuron.defined() - seen - neuron.fraction * neuron.b)
        weighed = sum(pi * m for pi, m in zip(neuron.shares, neuron.m, strict=True))
        differences.append(neuron.defined(shares=neuron.shares) - seen - weighed * neuron.b)
        differences += [sp.diff(neuron.at(neuron.defined(), (0,) * p), w) for w in neuron.w]
    return prove("Σ w (m x + (1 − m) u) + b = Σ m w x + μ b", "for any m, 1 to 4 inputs, any shares", differences)


def bridge_definition(effort: Effort) -> Evidence:
    """The definition, divisions included, gives the numbers of the running layer."""
    return bridge("ordinary neuron fed with neutralizers = masked_affine", lambda neuron: neuron.defined())


def random_layers(effort: Effort) -> Evidence:
    """Neutralizers formed one by one, on random layers."""

    def error_of(layer: Layer) -> float:
        explicit = with_neutralizers(layer.values, layer.mask, layer.weight, layer.bias)
        return layer.error(masked(layer, layer.mask), explicit)

    expected = f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b|; 1 to 11 inputs, |w| ≥ 0.1"
    return check_property("neutralizers one by one", expected, effort, layers(), error_of, ROUND_OFF)


def guarded_division_control(effort: Effort) -> Evidence:
    """Guard the division by w + ε: only the part w/(w + ε) of the share is taken away."""
    weight, bias = torch.tensor([[2.0, 1e-10]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    values, mask = torch.ones(1, 2, dtype=torch.float64), torch.tensor([[True, False]])
    guard = 1e-8
    guarded = float(2.0 + weight[0, 1] * (-bias / (2 * (weight[0, 1] + guard))) + bias)
    ours = float(masked_affine(values, mask, weight, bias))
    predicted = 3.0 - 0.5 * 1e-10 / (1e-10 + 1e-8)
    return control(
        "u = −b/(p (w + ε)), w = 1e-10, ε = 1e-8",
        abs(guarded - predicted) <= 1e-14 and ours == 2.5,
        "2.995 instead of 2.5",
        f"{guarded:.3f} against {ours:g}",
    )


def single_precision_control(effort: Effort) -> Evidence:
    """Form the neutralizer in single precision for tiny weights: it overflows; the closed form does not see it."""
    found = []
    for size in (1e-40, 1e-46):
        weight = torch.tensor([[1.0, size]], dtype=torch.float32)
        arguments = torch.ones(1, 2), torch.tensor([[True, False]]), weight, torch.ones(1)
        found.append((float(with_neutralizers(*arguments)), float(masked_affine(*arguments))))
    naive, ours = zip(*found, strict=True)
    return control(
        "neutralizers in float32 at w = 1e-40, 1e-46",
        naive[0] == -torch.inf and naive[1] != naive[1] and ours == (1.5, 1.5),
        "−inf and NaN; ours 1.5 twice",
        f"{naive[0]}, {naive[1]}; {ours[0]}, {ours[1]}",
    )


def single_precision_mask_control(effort: Effort) -> Evidence:
    """Average the boolean mask in single precision in a computation in double: eight digits are left."""
    mask = torch.tensor([[True, True, False]])
    exact = torch.tensor([[2.0 / 3.0]], dtype=torch.float64)
    careless = float((mask.float().mean(-1, keepdim=True).double() - exact).abs())
    ours = float((observed_fraction(mask, torch.float64) - exact).abs())
    return control(
        "fraction of a boolean mask taken in float32",
        careless > 1e-9 and ours <= 1.2e-16,
        "error of half a unit of float32, up to 3e-8; ours ≤ 1.2e-16",
        f"{careless:.1e}; {ours:.1e}",
    )


NEUTRALIZER_CANCELLATION = Theorem(
    key="masked.neutralizer-cancellation",
    title="Neutralizers amount to a mask on the inputs and the observed fraction on the bias",
    statement=(
        "An ordinary neuron whose missing inputs are replaced by u_j = −b/(p w_j) computes "
        "a = Σ_j m_j w_j x_j + μ(m) b with μ(m) = Σ_j m_j/p, also for soft masks; with u_j = −π_j b/w_j and Σ π_j = 1 "
        "it is μ = Σ_j π_j m_j. The right-hand sides do not divide and hold for w_j = 0."
    ),
    hypotheses=("w_j ≠ 0 where a neutralizer is formed", "p counts all inputs of the neuron, observed or not"),
    source="Kia et al., 2022, arXiv:2206.01640 (neutralizer; eq. 3 as numbered by a re-implementation); derived here",
    about=(masked_affine, MaskedLinear),
    checks=(
        prove_cancellation,
        bridge_definition,
        random_layers,
        guarded_division_control,
        single_precision_control,
        single_precision_mask_control,
    ),
)
