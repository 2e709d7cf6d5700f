"""masked.additivity: every input brings its signal and its share of the bias, and the pre-activation is their sum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, layers, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_sum(effort: Effort) -> Evidence:
    """The definition is Σ m_j c_j for any m, so inputs may be revealed in any order."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        pairs = zip(neuron.m, neuron.contributions(), strict=True)
        differences.append(neuron.defined() - sum(m * c for m, c in pairs))
        pairs = zip(neuron.m, neuron.contributions(), strict=True)
        differences += [sp.diff(neuron.defined(), m) - c for m, c in pairs]
    return prove("a = Σ m_j c_j, ∂a/∂m_j = c_j, c_j = w_j x_j + b/p", "any m, 1 to 4 inputs", differences)


def prove_attribution(effort: Effort) -> Evidence:
    """Average the gain of each input over all orders, from the definition: c_j; they sum to a(1)."""
    differences = []
    for p in SIZES[:3]:
        neuron = Neuron(p)
        value = {mask: neuron.at(neuron.defined(), mask) for mask in neuron.masks()}
        orders = list(itertools.permutations(range(p)))
        shapley: list[sp.Expr] = [sp.Integer(0)] * p
        for order in orders:
            seen = [0] * p
            for j in order:
                before = value[tuple(seen)]
                seen[j] = 1
                shapley[j] += (value[tuple(seen)] - before) / len(orders)
        differences += [one - c for one, c in zip(shapley, neuron.contributions(), strict=True)]
        differences.append(sum(shapley) - value[(1,) * p])
    return prove("Shapley value of input j = c_j", "all orders of 1 to 3 inputs", differences)


def prove_moments(effort: Effort) -> Evidence:
    """Sum over all masks with independent chances ρ: E a = ρ a(1), Var a = ρ (1 − ρ) Σ c²."""
    rho = sp.Symbol("rho", positive=True)
    differences = []
    for p in SIZES[:3]:
        neuron = Neuron(p)
        moments = [sp.Integer(0), sp.Integer(0)]
        for mask in neuron.masks():
            chance = rho ** sum(mask) * (1 - rho) ** (p - sum(mask))
            value = neuron.at(neuron.defined(), mask)
            moments = [moments[0] + chance * value, moments[1] + chance * value**2]
        whole = neuron.at(neuron.defined(), (1,) * p)
        differences.append(moments[0] - rho * whole)
        spread = rho * (1 - rho) * sum(c**2 for c in neuron.contributions())
        differences.append(moments[1] - moments[0] ** 2 - spread)
    return prove("mean and variance under an MCAR mask", "all masks of 1 to 3 inputs, any ρ", differences)


def bridge_sum(effort: Effort) -> Evidence:
    """Σ m_j c_j gives the numbers of the running layer."""

    def summed(neuron: Neuron) -> sp.Expr:
        return sp.Add(*(m * c for m, c in zip(neuron.m, neuron.contributions(), strict=True)))

    return bridge("Σ m_j c_j = masked_affine", summed)


def revealed_in_any_order(effort: Effort) -> Evidence:
    """Reveal inputs one by one: each step adds c_j, whatever came before; soft masks mix linearly."""

    def error_of(layer: Layer) -> float:
        def value(mask: Tensor) -> Tensor:
            return masked_affine(layer.values, mask, layer.weight, layer.bias)

        contributions = layer.values[:, None, :] * layer.weight + layer.bias[:, None] / layer.inputs
        mask = torch.zeros_like(layer.mask)
        before, worst = value(mask), 0.0
        for j in generator(layer.seed, "order").permutation(layer.inputs):
            mask = mask.clone()
            mask[:, j] = True
            after = value(mask)
            worst = max(worst, layer.error(after - before, contributions[..., j]))
            before = after
        one, other = layer.soft_mask, layer.mask.double()
        mixed = value(0.3 * one + 0.7 * other)
        return max(worst, layer.error(mixed, 0.3 * value(one) + 0.7 * value(other)))

    expected = f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b|"
    return check_property("gains and mixtures", expected, effort, layers(), error_of, ROUND_OFF)


def zero_imputation_control(effort: Effort) -> Evidence:
    """Keep the bias whole: v(∅) = b, and the gains w_j x_j do not sum to a(1)."""
    layer = Layer(seed=3)
    nothing = torch.zeros(layer.rows, layer.inputs)
    kept = masked_affine(layer.values, nothing, layer.weight) + layer.bias
    gains = layer.values @ layer.weight.T
    whole = masked_affine(layer.values, torch.ones_like(nothing), layer.weight, layer.bias)
    at_nothing, missing = float(kept.abs().min()), float((whole - gains).abs().min())
    return control(
        "bias not masked (zero imputation)",
        at_nothing >= 0.5 and missing >= 0.5,
        "|v(∅)| = |b| ≥ 0.5; the gains leave b out",
        f"{at_nothing:.2f}; {missing:.2f}",
    )


def bolder_when_masked(effort: Effort) -> Evidence:
    """Count how often half the inputs speak louder than all: arctan(2 √(k/(p − k)))/π, not never."""
    p, cases = 8, 20_000
    draw = torch.as_tensor(generator(0, "contributions").normal(size=(cases, p)))
    weight, bias = torch.ones(1, p, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    whole = masked_affine(draw, torch.ones(cases, p), weight, bias).abs()
    cells, is_close = [], True
    for k in (2, 4, 6):
        mask = (torch.arange(p) < k).expand(cases, p)
        rate = float((masked_affine(draw, mask, weight, bias).abs() > whole).double().mean())
        expected = math.atan(2 * math.sqrt(k / (p - k))) / math.pi
        error = math.sqrt(expected * (1 - expected) / cases)
        is_close &= abs(rate - expected) <= 5 * error
        cells.append(f"{k}/{p}: {rate:.3f} (expected {expected:.3f} ± {error:.3f})")
    pair = torch.tensor([[3.0, -2.9]], dtype=torch.float64)
    masks = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    complete, halved = masked_affine(pair.expand(2, 2), masks, weight[:, :2], bias)[:, 0].tolist()
    is_seen = is_close and abs(complete - 0.1) <= 1e-15 and halved == 3.0
    return Evidence(
        Leg.CONTROL,
        "never bolder when an input is removed",
        judge(bool(np.all(is_seen))),
        "false: c = (3, −2.9) gives 0.1, then 3; in 35 % of Gaussian cases at half, within 5 standard errors",
        f"{complete:.1f}, {halved:g}; " + "; ".join(cells),
    )


ADDITIVITY = Theorem(
    key="masked.additivity",
    title="The pre-activation is a sum of contributions, one an input",
    statement=(
        "a(m) = Σ_j m_j c_j with c_j = w_j x_j + b/p for any real m: affine in the mask, independent of the order in "
        "which inputs are revealed, Shapley value c_j, and under an MCAR mask of rate ρ mean ρ a(1) and variance "
        "ρ (1 − ρ) Σ_j c_j². It shrinks on average, not case by case: with centred Gaussian contributions and k of p "
        "observed |a| grows with probability arctan(2 √(k/(p − k)))/π."
    ),
    hypotheses=("b is scaled by the observed fraction", "mean and variance: inputs observed independently, x fixed"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(masked_affine,),
    checks=(
        prove_sum,
        prove_attribution,
        prove_moments,
        bridge_sum,
        revealed_in_any_order,
        zero_imputation_control,
        bolder_when_masked,
    ),
)
