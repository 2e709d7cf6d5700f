"""masked.zero-weight-gradient: a missing input teaches its weight nothing, and the bias its fraction."""

from __future__ import annotations

import sympy as sp
import torch
from torch import Tensor

from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.module import MaskedLinear
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, gradients, layers, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_gradients(effort: Effort) -> Evidence:
    """Differentiate the definition, through the neutralizer."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        value = neuron.defined(level=neuron.level)
        for w, x, m in zip(neuron.w, neuron.x, neuron.m, strict=True):
            differences += [sp.diff(value, w) - m * x, sp.diff(value, x) - m * w]
            differences.append(sp.diff(value, m) - (w * x + (neuron.b - neuron.level) / p))
        differences.append(sp.diff(value, neuron.b) - neuron.fraction)
        differences.append(sp.diff(value, neuron.level) - (1 - neuron.fraction))
    expected = "∂w_j = m_j x_j, ∂x_j = m_j w_j, ∂m_j = w_j x_j + (b − w_c)/p, ∂b = μ, ∂w_c = 1 − μ; any m"
    return prove("derivatives of the definition", expected, differences)


def bridge_gradient(effort: Effort) -> Evidence:
    """Derivatives of the definition by w_1, turned into numbers, are those of the running layer."""

    def running(layer: Layer, mask: Tensor) -> Tensor:
        made = []
        for h in range(layer.neurons):
            cotangent = torch.zeros(layer.rows, layer.neurons, dtype=torch.float64)
            rows = []
            for r in range(layer.rows):
                one = cotangent.clone()
                one[r, h] = 1.0
                rows.append(
                    gradients(lambda w: masked_affine(layer.values, mask, w, layer.bias), one, layer.weight)[1][h, 0]
                )
            made.append(torch.stack(rows))
        return torch.stack(made, -1)

    return bridge(
        "∂/∂w_1 of the definition = derivative of masked_affine", lambda n: sp.diff(n.defined(), n.w[0]), running
    )


def closed_forms(effort: Effort) -> Evidence:
    """Batch derivatives of the running layer against the closed forms; exactly 0 where nothing was seen."""

    def error_of(layer: Layer) -> float:
        mask, delta = layer.mask, layer.cotangent
        number = mask.double()

        def run(x: Tensor, w: Tensor, b: Tensor, level: Tensor) -> Tensor:
            return masked_affine(x.masked_fill(~mask, torch.nan), mask, w, b, compensation=level)

        _, dx, dw, db, dlevel = gradients(run, delta, layer.values, layer.weight, layer.bias, layer.level)
        fraction = number.mean(-1, keepdim=True)
        never = ~mask.any(0)
        leaks = float((dw[:, never] != 0).sum() + (dx[~mask] != 0).sum())
        size = 1.0 + float(delta.abs().sum()) * float(layer.values.abs().max() + layer.weight.abs().max())
        gaps = (
            dx - number * (delta @ layer.weight),
            dw - delta.T @ (number * layer.values),
            db - (delta * fraction).sum(0),
            dlevel - (delta * (1 - fraction)).sum(0),
        )
        return leaks + max(float(gap.abs().max()) for gap in gaps) / size

    expected = f"≤ {ROUND_OFF:g} of Σ|δ| (max|x| + max|w|); exactly 0 for weights and slots never observed"
    return check_property("derivatives of a batch", expected, effort, layers(), error_of, ROUND_OFF)


def soft_mask_gradient(effort: Effort) -> Evidence:
    """The derivative by a soft mask is δ c_j."""

    def error_of(layer: Layer) -> float:
        def run(mask: Tensor) -> Tensor:
            return masked_affine(layer.values, mask, layer.weight, layer.bias, compensation=layer.level)

        _, found = gradients(run, layer.cotangent, layer.soft_mask)
        each = layer.values[:, None, :] * layer.weight + ((layer.bias - layer.level) / layer.inputs)[:, None]
        expected = (layer.cotangent[..., None] * each).sum(1)
        return float(
            (found - expected).abs().max() / (1 + float((layer.cotangent.abs()[..., None] * each.abs()).sum()))
        )

    expected = f"Σ_h δ_h (w x + (b − w_c)/p), ≤ {ROUND_OFF:g}"
    return check_property("derivative by the mask", expected, effort, layers(), error_of, ROUND_OFF)


def detached_control(effort: Effort) -> Evidence:
    """Hold the neutralizer constant in the backward pass: equal value, another algorithm."""
    weight = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    bias, values = torch.tensor([0.6], dtype=torch.float64), torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True]])

    def detached(w: Tensor, b: Tensor) -> Tensor:
        fill = (-b[:, None] / (3 * w)).detach()
        return (torch.where(mask[:, None, :], values[:, None, :], fill) * w).sum(-1) + b

    cotangent = torch.ones(1, 1, dtype=torch.float64)
    broken = gradients(detached, cotangent, weight, bias)
    ours = gradients(lambda w, b: masked_affine(values, mask, w, b), cotangent, weight, bias)
    constant = torch.tensor([1.0, 0.2, 3.0, 1.0], dtype=torch.float64)
    true = torch.tensor([1.0, 0.0, 3.0, 2.0 / 3.0], dtype=torch.float64)
    found = [torch.cat([each[1][0], each[2]]) for each in (broken, ours)]
    gaps = [float((one - other).abs().max()) for one, other in zip(found, (constant, true), strict=True)]
    return control(
        "neutralizer detached",
        float((broken[0] - ours[0]).abs()) <= 1e-14 and max(gaps) <= 1e-15,
        "value equal; (1, 0.2, 3; 1) instead of (1, 0, 3; 2/3)",
        f"{[round(float(each), 4) for each in found[0]]}, {[round(float(each), 4) for each in found[1]]}",
    )


ZERO_WEIGHT_GRADIENT = Theorem(
    key="masked.zero-weight-gradient",
    title="A missing input teaches its weight nothing",
    statement=(
        "With δ = ∂L/∂a: ∂L/∂w_j = δ m_j x_j, ∂L/∂b = δ μ, ∂L/∂w_c = δ (1 − μ), ∂L/∂x_j = δ m_j w_j and, for soft "
        "masks, ∂L/∂m_j = δ (w_j x_j + (b − w_c)/p). Differentiating through the neutralizer gives the same; in the "
        "running layer the derivatives of what was never observed are exactly 0."
    ),
    hypotheses=("the neutralizer is differentiated, not held constant", "∂m_j: m_j > 0, where the slot is known"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(masked_affine, MaskedLinear),
    checks=(prove_gradients, bridge_gradient, closed_forms, soft_mask_gradient, detached_control),
)
