"""masked.missing-indicator: a missing-indicator network with tied coefficients, and one feature more than zeros."""

from __future__ import annotations

import sympy as sp
import torch
from torch import Tensor

from nlsim.systems.masked.layer import gate, masked_affine
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, layers, masked, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def symbolic_indicator(neuron: Neuron, coefficients: list[sp.Expr]) -> sp.Expr:
    """Return Σ m w x + b + Σ (1 − m_j) γ_j."""
    columns = zip(neuron.m, neuron.w, neuron.x, coefficients, strict=True)
    return neuron.b + sp.Add(*(m * w * x + (1 - m) * gamma for m, w, x, gamma in columns))


def indicator(layer: Layer, mask: Tensor, coefficients: Tensor) -> Tensor:
    """Return the pre-activation of a layer on (m ⊙ x, 1 − m); coefficients of shape ``(neuron, input)``."""
    features = torch.cat([gate(layer.values, mask), 1.0 - mask.double()], -1)
    return torch.nn.functional.linear(features, torch.cat([layer.weight, coefficients], -1), layer.bias)


def prove_tied(effort: Effort) -> Evidence:
    """Tie γ_j = (w_c − b)/p; conversely only these coefficients do."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        value = neuron.defined(level=neuron.level)
        tied = [(neuron.level - neuron.b) / p] * p
        differences.append(value - symbolic_indicator(neuron, tied))
        free = [sp.Symbol(f"g{j}") for j in range(p)]
        gap = sp.expand(value - symbolic_indicator(neuron, free))
        # the gap is Σ (1 − m_j) (tied − γ_j), so it vanishes for all masks at the tied coefficients alone
        rest = sum((1 - m) * (t - g) for m, t, g in zip(neuron.m, tied, free, strict=True))
        differences.append(gap - rest)
    return prove("indicator with γ_j = (w_c − b)/p", "any m; w_c = 0 gives γ_j = −b/p", differences)


def bridge_tied(effort: Effort) -> Evidence:
    """The tied indicator gives the numbers of the running layer."""
    return bridge(
        "tied indicator = masked_affine",
        lambda n: symbolic_indicator(n, [(n.level - n.b) / n.p] * n.p),
        is_compensated=True,
    )


def wider_dense_layers(effort: Effort) -> Evidence:
    """Ordinary layers of torch on (m ⊙ x, 1 − m), tied, and without bias on (m ⊙ x, μ, 1 − μ)."""

    def error_of(layer: Layer) -> float:
        mask = layer.mask
        fraction = mask.double().mean(-1, keepdim=True)
        tied = ((layer.level - layer.bias) / layer.inputs)[:, None].expand(-1, layer.inputs)
        compensated = masked(layer, mask, is_compensated=True)
        features = torch.cat([gate(layer.values, mask), fraction, 1.0 - fraction], -1)
        weights = torch.cat([layer.weight, layer.bias[:, None], layer.level[:, None]], -1)
        plain = torch.nn.functional.linear(features[:, :-1], weights[:, :-1])
        return max(
            layer.error(compensated, indicator(layer, mask, tied)),
            layer.error(compensated, torch.nn.functional.linear(features, weights)),
            layer.error(masked(layer, mask), plain),
        )

    expected = f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b| + |w_c|"
    return check_property("tied indicator; one feature more", expected, effort, layers(), error_of, ROUND_OFF)


def untied_control(effort: Effort) -> Evidence:
    """Free coefficients: another function; without a bias nothing at all distinguishes it from zeros."""
    layer = Layer(seed=5, rows=20)
    mask = layer.mask
    tied = (-layer.bias / layer.inputs)[:, None] * torch.arange(1, layer.inputs + 1)
    free = layer.error(masked(layer, mask), indicator(layer, mask, tied))
    zeros = gate(layer.values, mask) @ layer.weight.T
    nil = masked_affine(layer.values, mask, layer.weight, torch.zeros_like(layer.bias))
    is_equal = torch.equal(nil, torch.nn.functional.linear(gate(layer.values, mask), layer.weight, 0 * layer.bias))
    return control(
        "untied coefficients; b = 0",
        free > 0.01 and is_equal and float((nil - zeros).abs().max()) <= 1e-14,
        "> 0.01 apart; with b = 0 no bit apart from zero imputation",
        f"{free:.2f}; equal: {is_equal}",
    )


MISSING_INDICATOR = Theorem(
    key="masked.missing-indicator",
    title="A missing-indicator layer with tied coefficients",
    statement=(
        "a equals the indicator layer Σ m_j w_j x_j + b + Σ (1 − m_j) γ_j at γ_j = (w_c − b)/p, and at these "
        "coefficients alone; it is the bias-free dense layer on (m ⊙ x, μ, 1 − μ) with weights (w, b, w_c). With b = 0 "
        "and w_c = 0 it is zero imputation."
    ),
    hypotheses=("all masks may occur (uniqueness)",),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(masked_affine, gate),
    checks=(prove_tied, bridge_tied, wider_dense_layers, untied_control),
)
