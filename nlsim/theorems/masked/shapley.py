"""masked.shapley: in the first layer attribution is exact, through a network it is complete."""

from __future__ import annotations

import itertools

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.masked.counterfactual import (
    contributions,
    removal_effect,
    shapley_by_enumeration,
    shapley_by_permutation,
)
from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron import SIZES, Layer, Neuron, control, layers, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

ROUND_OFF = 1e-13
"""Sums over at most 2⁶ masks of neurons, each right to 6e-15 of Σ|wx| + 2|b| + |w_c|; what is seen is below 1e-14."""
MOST = 6


def symbolic_shapley(neuron: Neuron, level: sp.Expr) -> list[sp.Expr]:
    """Return Σ_{S∌j} |S|! (p − |S| − 1)!/p! (a(S ∪ j) − a(S)) of the definition with neutralizers."""
    p, defined = neuron.p, neuron.defined(level=level)
    value = {mask: neuron.at(defined, mask) for mask in neuron.masks()}
    rows = []
    for j in range(p):
        absent = [mask for mask in value if mask[j] == 0]
        chances = [sp.factorial(sum(m)) * sp.factorial(p - sum(m) - 1) / sp.factorial(p) for m in absent]
        gains = [value[(*m[:j], 1, *m[j + 1 :])] - value[m] for m in absent]
        rows.append(sp.Add(*(chance * gain for chance, gain in zip(chances, gains, strict=True))))
    return rows


def prove_contributions(effort: Effort) -> Evidence:
    """From the definition: φ_j = w_j x_j + (b − w_c)/p, and Σ_j φ_j = a(1) − a(0)."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        values = symbolic_shapley(neuron, neuron.level)
        share = (neuron.b - neuron.level) / p
        differences += [phi - w * x - share for phi, w, x in zip(values, neuron.w, neuron.x, strict=True)]
        defined = neuron.defined(level=neuron.level)
        whole = neuron.at(defined, (1,) * p) - neuron.at(defined, (0,) * p)
        differences.append(sp.Add(*values) - whole)
    return prove("φ_j = w_j x_j + (b − w_c)/p, Σ φ_j = a(1) − a(0)", "all masks of 1 to 4 inputs", differences)


def bridge_attribution(effort: Effort) -> Evidence:
    """Symbolic Shapley values, turned into numbers, against the running attribution, closed and enumerated."""
    worst, count = 0.0, 0
    for p, is_compensated in itertools.product(SIZES, (False, True)):
        neuron, layer = Neuron(p), Layer(p, 3, 2, seed=p)
        level = layer.level if is_compensated else torch.zeros_like(layer.level)
        symbols = [*neuron.w, *neuron.x, neuron.b, neuron.level]
        formula = sp.lambdify(symbols, symbolic_shapley(neuron, neuron.level), "math")
        everything = torch.ones_like(layer.mask)
        closed = contributions(layer.values, everything, layer.weight, layer.bias, compensation=level)
        for r, h in np.ndindex(layer.rows, layer.neurons):
            numbers = [*layer.weight[h], *layer.values[r], layer.bias[h], level[h]]
            symbolic = torch.tensor(formula(*(float(each) for each in numbers)), dtype=torch.float64)
            summed = enumerated(layer, r, everything, level)[:, h]
            for running in (closed[r, h], summed):
                gaps = (symbolic - running).abs() / layer.size[r, h]
                worst, count = float(np.maximum(worst, float(gaps.max()))), count + p
    return Evidence(
        Leg.BRIDGE,
        "symbolic Shapley values = contributions = enumeration over masked_affine",
        judge(worst <= ROUND_OFF and count > 100),
        f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b| + |w_c|, with and without w_c",
        f"{worst:.2g} over {count} values",
    )


def enumerated(layer: Layer, row: int, mask: Tensor, level: Tensor) -> Tensor:
    """Return the enumerated Shapley values of one row of the running layer, shape ``(input, neuron)``."""

    def model(values: Tensor, shown: Tensor) -> Tensor:
        return masked_affine(values, shown, layer.weight, layer.bias, compensation=level)

    return shapley_by_enumeration(model, layer.values[row], mask[row])


def first_layer(effort: Effort) -> Evidence:
    """Enumerate, sample one order, and remove sets, in random incomplete layers: all the same contributions."""

    def error_of(layer: Layer) -> float:
        def model(values: Tensor, shown: Tensor) -> Tensor:
            return masked_affine(values, shown, layer.weight, layer.bias, compensation=layer.level)

        parts = contributions(layer.values, layer.mask, layer.weight, layer.bias, compensation=layer.level)
        removed = np.flatnonzero(generator(layer.seed, "removed").random(layer.inputs) < 0.5).tolist()
        effect = removal_effect(model, layer.values, layer.mask, removed)
        worst = layer.error(effect, parts[..., removed].sum(-1))
        for row in range(layer.rows):
            x, m = layer.values[row], layer.mask[row]
            one = shapley_by_permutation(model, x, m, permutations=1, seed=layer.seed)
            for found in (shapley_by_enumeration(model, x, m), one):
                gaps = (found.mT - parts[row]).abs() / layer.size[row, :, None]
                worst = float(np.maximum(worst, float(gaps.max())))
        return worst

    expected = f"φ_j = c_j by enumeration and by one order, Δ_S = Σ_S c_j; ≤ {ROUND_OFF:g}"
    return check_property("exact in the first layer", expected, effort, layers(MOST), error_of, ROUND_OFF)


def through_a_network(layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ φ_j enumerated, Σ φ_j from two orders, Σ_j Δ_j, and f(m) − f(∅), of a tanh network; all rows."""
    read_out = torch.as_tensor(generator(layer.seed, "read-out").normal(size=(2, layer.neurons)))

    def model(values: Tensor, shown: Tensor) -> Tensor:
        return torch.tanh(2 * masked_affine(values, shown, layer.weight, layer.bias)) @ read_out.mT

    sums: list[list[Tensor]] = [[], [], []]
    for row in range(layer.rows):
        x, m = layer.values[row], layer.mask[row]
        sums[0].append(shapley_by_enumeration(model, x, m).sum(0))
        sums[1].append(shapley_by_permutation(model, x, m, permutations=2, seed=layer.seed).sum(0))
        singles = [removal_effect(model, x[None], m[None], (j,))[0] for j in range(layer.inputs)]
        sums[2].append(torch.stack(singles).sum(0))
    nothing = torch.zeros_like(layer.mask)
    whole = model(layer.values, layer.mask) - model(layer.values, nothing)
    return torch.stack(sums[0]), torch.stack(sums[1]), torch.stack(sums[2]), whole


def complete_through_a_network(effort: Effort) -> Evidence:
    """Shapley values of a network's outputs sum up to what is to be explained, sampled from two orders too."""

    def error_of(layer: Layer) -> float:
        exact, sampled, _, whole = through_a_network(layer)
        return float(torch.maximum((exact - whole).abs(), (sampled - whole).abs()).max())

    tolerance = 1e-13  # up to 64 outputs below 10 are added
    expected = f"Σ φ_j = f(m) − f(∅), enumerated and from two orders, ≤ {tolerance:g}"
    return check_property("complete through tanh", expected, effort, layers(MOST), error_of, tolerance)


def single_effects_control(effort: Effort) -> Evidence:
    """Effects of single inputs do not add up through tanh; and with the bias kept whole, not even in one layer."""
    layer = Layer(5, 4, 20, seed=2, density=1.0)
    *_, singles, whole = through_a_network(layer)
    gap = float((singles - whole).abs().max())
    kept = layer.values @ layer.weight.T + layer.bias  # zero imputation: each effect is w_j x_j
    missing = float((kept - (layer.values[:, None] * layer.weight).sum(-1)).abs().min())
    return control(
        "Σ_j Δ_j through tanh; bias not masked",
        gap > 0.1 and missing > 0.01,
        "Σ_j Δ_j misses f(m) − f(∅) by > 0.1; Σ w_j x_j misses a by |b|",
        f"{gap:.2f}; {missing:.2f}",
    )


SHAPLEY = Theorem(
    key="masked.shapley",
    title="What each input adds is exact in the first layer, and complete through a network",
    statement=(
        "The Shapley value of input j for a masked neuron is c_j = w_j x_j + (b − w_c)/p, whatever the other inputs "
        "are; Σ_j c_j = a(1) − a(∅), and removing any set S takes away exactly Σ_S c_j, so one random order is enough. "
        "Through a nonlinear network effects of single inputs do not add up; Shapley values do, also when they are "
        "sampled from any number of orders."
    ),
    hypotheses=("the bias is scaled by the observed fraction", "w_c = 0 without a compensatory weight"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640; Shapley, 1953",
    about=(contributions, removal_effect, shapley_by_enumeration, shapley_by_permutation, masked_affine),
    checks=(
        prove_contributions,
        bridge_attribution,
        first_layer,
        complete_through_a_network,
        single_effects_control,
    ),
)
