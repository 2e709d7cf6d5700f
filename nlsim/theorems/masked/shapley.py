"""masked.shapley: in the first layer attribution is exact, through a network it is complete."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.masked.counterfactual import (
    Model,
    contributions,
    removal_effect,
    shapley_by_enumeration,
    shapley_by_permutation,
)
from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron import SIZES, Layer, Neuron, control, layers, prove, with_neutralizers
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

ROUND_OFF = 1e-13
"""Sums over at most 2⁶ masks of neurons, each right to 6e-15 of Σ|wx| + 2|b| + |w_c|; what is seen is below 1e-14."""
MOST = 6
FirstLayer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


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


def network(layer: Layer, first: FirstLayer) -> Model:
    """Return a tanh network with two outputs above a first layer."""
    read_out = torch.as_tensor(generator(layer.seed, "read-out").normal(size=(2, layer.neurons)))

    def model(values: Tensor, shown: Tensor) -> Tensor:
        return torch.tanh(2 * first(values, shown, layer.weight, layer.bias)) @ read_out.mT

    return model


def averaged_over_orders(layer: Layer, row: int) -> Tensor:
    """Return the mean gain of each input over all p! orders, shape ``(input, output)``; neutralizers, no enumeration.

    The definition: no chance of a subset is written down, and what runs is not asked.
    """
    p = layer.inputs
    masks = torch.as_tensor(np.arange(2**p)[:, None] >> np.arange(p) & 1).bool() & layer.mask[row]
    answers = network(layer, with_neutralizers)(layer.values[row].expand(masks.shape), masks).numpy()
    orders = np.array(list(itertools.permutations(range(p))))
    after = np.cumsum(2**orders, -1)
    gains = answers[after] - answers[after - 2**orders]  # (order, step, output)
    rows = [gains[orders == j].mean(0) for j in range(p)]
    return torch.as_tensor(np.stack(rows))


def through_a_network(layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ φ_j enumerated, Σ φ_j from two orders, Σ_j Δ_j, and f(m) − f(∅), of a tanh network; all rows."""
    model = network(layer, masked_affine)
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
    """Shapley values of a network's outputs sum up to what is to be explained, sampled from two orders too.

    Enumerated ones are gains averaged over all orders, of neutralizers, in the first sample. Every layer is tried as
    it is and with everything observed: up to two players Shapley values are those of many other rules.
    """

    def error_of(layer: Layer) -> float:
        return float(np.max([error_as_it_is(each) for each in (layer, replace(layer, density=1.0))]))

    def error_as_it_is(layer: Layer) -> float:
        exact, sampled, _, whole = through_a_network(layer)
        sums = torch.maximum((exact - whole).abs(), (sampled - whole).abs()).max()
        each = shapley_by_enumeration(network(layer, masked_affine), layer.values[0], layer.mask[0])
        return float(torch.maximum(sums, (each - averaged_over_orders(layer, 0)).abs().max()))

    tolerance = 1e-13  # up to 64 outputs below 10 are added
    expected = f"Σ φ_j = f(m) − f(∅), enumerated and from two orders; φ_j over all orders; ≤ {tolerance:g}"
    return check_property("complete through tanh", expected, effort, layers(MOST, 3), error_of, tolerance)


def sampled_orders(effort: Effort) -> Evidence:
    """Draw pairs of orders, 64 times 50: the mean is the Shapley value within five standard errors; more is closer."""
    layer = Layer(5, 4, 1, seed=2, density=1.0)
    model, x, m = network(layer, masked_affine), layer.values[0], layer.mask[0]
    exact = averaged_over_orders(layer, 0)
    means = torch.stack([shapley_by_permutation(model, x, m, permutations=50, seed=seed) for seed in range(64)])
    error = means.std(0) / 8
    worst = float(((means.mean(0) - exact).abs() / error).max())
    # one pair of orders: its variance is 50 times that of the mean of 50 of them, of independent orders
    singles = torch.stack([shapley_by_permutation(model, x, m, permutations=1, seed=seed) for seed in range(64)])
    ratio = float(singles.var(0).sum() / means.var(0).sum() / 50)
    return Evidence(
        Leg.PROPERTY,
        "Shapley values of a tanh network from random orders",
        judge(worst <= 5 and 0.5 <= ratio <= 2 and float(error.max()) < 0.05),
        # a variance from 64 draws is known to √(2/63) = 18 % for each of ten numbers, of which some go together
        "the mean over all orders within 5 standard errors < 0.05; variance falls by 50 for 50 pairs, to a factor 2",
        f"at most {worst:.1f} standard errors of {float(error.max()):.3f}; factor {50 * ratio:.0f}",
    )


def single_effects_control(effort: Effort) -> Evidence:
    """Effects of single inputs do not add up through tanh; and with the bias kept whole, not even in one layer."""
    layer = Layer(5, 4, 20, seed=2, density=1.0)
    *_, singles, whole = through_a_network(layer)
    gap = float((singles - whole).abs().max())
    other = network(layer, with_neutralizers)
    effects = [removal_effect(other, layer.values, layer.mask, (j,)) for j in range(layer.inputs)]
    apart = float((singles - torch.stack(effects).sum(0)).abs().max())

    def kept(values: Tensor, shown: Tensor) -> Tensor:
        return masked_affine(values, shown, layer.weight) + layer.bias  # zero imputation

    gains = [removal_effect(kept, layer.values, layer.mask, (j,)) for j in range(layer.inputs)]
    missing = kept(layer.values, layer.mask) - torch.stack(gains).sum(0)
    least, off = float(missing.abs().min()), layer.error(missing, layer.bias)
    return control(
        "Σ_j Δ_j through tanh; bias not masked",
        gap > 0.1 and apart <= ROUND_OFF and least >= 0.5 and off <= ROUND_OFF,
        f"Σ_j Δ_j misses f(m) − f(∅) by > 0.1, as with neutralizers; Σ_j Δ_j misses a by b ≥ 0.5; ≤ {ROUND_OFF:g}",
        f"{gap:.2f}, {apart:.2g}; {least:.2f}, {off:.2g}",
    )


SHAPLEY = Theorem(
    key="masked.shapley",
    title="What each input adds is exact in the first layer, and complete through a network",
    statement=(
        "The Shapley value of input j for a masked neuron is c_j = w_j x_j + (b − w_c)/p, whatever the other inputs "
        "are; Σ_j c_j = a(1) − a(∅), and removing any set S takes away exactly Σ_S c_j, so one random order is enough. "
        "Through a nonlinear network effects of single inputs do not add up; Shapley values do, also when they are "
        "sampled from any number of orders, and then their mean is right."
    ),
    hypotheses=("the bias is scaled by the observed fraction", "w_c = 0 without a compensatory weight"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640; Shapley, 1953",
    about=(contributions, removal_effect, shapley_by_enumeration, shapley_by_permutation, masked_affine),
    checks=(
        prove_contributions,
        bridge_attribution,
        first_layer,
        complete_through_a_network,
        sampled_orders,
        single_effects_control,
    ),
)
