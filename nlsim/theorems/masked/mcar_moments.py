"""masked.mcar-moments: under entries missing completely at random the whole pre-activation shrinks, bias and all."""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.systems.masked.counterfactual import contributions
from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.mechanism import MissingEntries
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.additivity import prove_moments
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, control, layers
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

DRAWS, INPUTS = 400_000, 6


def all_masks(inputs: int) -> Tensor:
    """Return the 2^p masks, shape ``(mask, input)``."""
    return torch.tensor(Neuron(inputs).masks(), dtype=torch.float64)


def chances(masks: Tensor, rho: float) -> Tensor:
    """Return the chance of each mask when inputs are observed independently, shape ``(mask,)``."""
    seen = masks.sum(-1)
    return rho**seen * (1 - rho) ** (masks.shape[-1] - seen)


def bridge_moments(effort: Effort) -> Evidence:
    """Symbolic moments of the definition, turned into numbers, against those of the running layer over all masks."""
    worst, count, tolerance = 0.0, 0, 1e-13  # 16 masks; squares of numbers below 10, relative to the largest
    rho = sp.Symbol("rho", positive=True)
    for p in SIZES:
        neuron, layer = Neuron(p), Layer(p, 3, 1, seed=p)
        first, second = sp.Integer(0), sp.Integer(0)
        for mask in neuron.masks():
            chance = rho ** sum(mask) * (1 - rho) ** (p - sum(mask))
            value = neuron.at(neuron.defined(), mask)
            first, second = first + chance * value, second + chance * value**2
        formula = sp.lambdify([*neuron.w, *neuron.x, neuron.b, rho], [first, second - first**2], "math")
        masks = all_masks(p)
        running = masked_affine(layer.values.expand(len(masks), p), masks, layer.weight, layer.bias)
        for rate in (0.2, 0.5, 0.9):
            weights = chances(masks, rate)[:, None]
            mean = (weights * running).sum(0)
            spread = (weights * (running - mean) ** 2).sum(0)
            for h in range(layer.neurons):
                numbers = [*layer.weight[h], *layer.values[0], layer.bias[h], rate]
                symbolic = formula(*(float(each) for each in numbers))
                size = float(layer.size[0, h])
                gaps = abs(symbolic[0] - float(mean[h])) / size, abs(symbolic[1] - float(spread[h])) / size**2
                worst, count = float(np.maximum(worst, np.max(gaps))), count + 2
    return Evidence(
        Leg.BRIDGE,
        "symbolic moments = moments of masked_affine over all masks",
        judge(worst <= tolerance and count > 50),
        f"≤ {tolerance:g} of Σ|wx| + 2|b|, and of its square",
        f"{worst:.2g} over {count} moments",
    )


def closed_form(effort: Effort) -> Evidence:
    """Average the running layer over all masks with their chances: ρ a(1) and ρ (1 − ρ) Σ c²."""

    def error_of(layer: Layer) -> float:
        masks, rho = all_masks(layer.inputs), layer.density or 0.35
        weights = chances(masks, rho)[:, None]
        complete = torch.ones(layer.rows, layer.inputs, dtype=torch.float64)
        whole = masked_affine(layer.values, complete, layer.weight, layer.bias)
        parts = contributions(layer.values, complete, layer.weight, layer.bias)
        worst = 0.0
        for row in range(layer.rows):
            running = masked_affine(layer.values[row].expand(masks.shape), masks, layer.weight, layer.bias)
            mean = (weights * running).sum(0)
            spread = (weights * (running - mean) ** 2).sum(0)
            size = layer.size[row]
            gaps = (mean - rho * whole[row]).abs() / size
            wider = (spread - rho * (1 - rho) * (parts[row] ** 2).sum(-1)).abs() / size**2
            worst = float(np.maximum(worst, float(torch.maximum(gaps, wider).max())))
        return worst

    tolerance = 2e-14  # 64 terms, chances that sum up to 1
    expected = f"E a = ρ a(1), Var a = ρ (1 − ρ) Σ c²; ≤ {tolerance:g}"
    return check_property("exact average over all masks", expected, effort, layers(6), error_of, tolerance)


def drawn_masks(rate: float, seed: int = 0, inputs: int = INPUTS) -> Tensor:
    """Return masks that the mechanism draws, shape ``(draw, input)``."""
    return torch.as_tensor(MissingEntries(1 - rate).observed(np.zeros((DRAWS, inputs)), seed))


def summed(layer: Layer) -> Tensor:
    """Return c_hj = w_hj x_j + b_h/p of the first sample, written out; shape ``(neuron, input)``."""
    return layer.values[0] * layer.weight + layer.bias[:, None] / layer.inputs


def scores(drawn: Tensor, parts: Tensor, rho: float) -> Tensor:
    """Return how many standard errors mean and variance of draws are off; shape ``(2, neuron)``.

    Fourth central moment of a sum of independent numbers, with E (m − ρ)⁴ = q (1 − 3 q), q = ρ (1 − ρ):
    Σ c⁴ (q (1 − 3 q) − 3 q²) + 3 q² (Σ c²)².
    """
    q = rho * (1 - rho)
    spread = q * (parts**2).sum(-1)
    fourth = (parts**4).sum(-1) * (q * (1 - 3 * q) - 3 * q**2) + 3 * spread**2
    mean = (drawn.mean(0) - rho * parts.sum(-1)).abs() / (spread / DRAWS).sqrt()
    return torch.stack((mean, (drawn.var(0) - spread).abs() / ((fourth - spread**2) / DRAWS).sqrt()))


def sampled_masks(effort: Effort) -> Evidence:
    """Draw masks from the mechanism: each a is the sum of what is seen; mean and variance within five standard errors.

    The layer is held to round-off draw by draw, so what is left to chance is the mechanism. Its rate and its
    independence show best where all contributions are equal and a counts what is seen, and pair by pair.
    """
    layer = Layer(INPUTS, 3, 1, seed=0)
    parts = summed(layer)
    one = torch.ones(1, INPUTS, dtype=torch.float64)
    found, gap = [], 0.0
    for rho in (0.2, 0.5, 0.9):
        mask = drawn_masks(rho)
        drawn = masked_affine(layer.values.expand(mask.shape), mask, layer.weight, layer.bias)
        gap = float(np.maximum(gap, layer.error(drawn, mask.double() @ parts.mT)))
        found.append(scores(drawn, parts, rho).max())
        # w = 1, x = 1 − b/p with b = ½: every c is 1
        count = masked_affine((one - 0.5 / INPUTS).expand(mask.shape), mask, one, 0.5 * one[0, :1])
        found.append(scores(count, one, rho).max())
        # correlations of independent inputs are within 1/√DRAWS of 0
        found.append(torch.corrcoef(mask.mT.double()).triu(1).abs().max() * math.sqrt(DRAWS))
    worst = float(torch.stack(found).max())
    return Evidence(
        Leg.PROPERTY,
        f"{DRAWS} masks of MissingEntries, ρ = 0.2, 0.5, 0.9",
        judge(worst <= 5 and gap <= ROUND_OFF),
        f"mean, variance and correlations within 5 standard errors; every a = Σ m c to {ROUND_OFF:g}",
        f"at most {worst:.1f} standard errors; {gap:.2g}",
    )


def broken_control(effort: Effort) -> Evidence:
    """Keep the bias whole: the mean misses ρ a(1) by (1 − ρ) b. Blank whole rows: the variance is ρ (1 − ρ) a(1)²."""
    layer, rho = Layer(INPUTS, 3, 1, seed=0), 0.5
    parts = summed(layer)
    whole, mask = parts.sum(-1), drawn_masks(rho)
    values = layer.values.expand(mask.shape)
    kept = masked_affine(values, mask, layer.weight) + layer.bias
    signal = (layer.values[0] * layer.weight) ** 2
    error = (rho * (1 - rho) * signal.sum(-1) / DRAWS).sqrt()
    miss = kept.mean(0) - rho * whole
    biased = float((miss.abs() / error).min())
    as_expected = float(((miss - (1 - rho) * layer.bias).abs() / error).max())
    rows = drawn_masks(rho, 1, 1)
    together = masked_affine(values, rows, layer.weight, layer.bias)
    # a is a(1) or 0: its sample variance follows from the share of rows that are seen
    share = float(rows.double().mean())
    ratio = together.var(0) / (rho * (1 - rho) * (parts**2).sum(-1))
    known = whole**2 * share * (1 - share) * DRAWS / (DRAWS - 1) / (rho * (1 - rho) * (parts**2).sum(-1))
    off, factor = float((ratio / known - 1).abs().max()), math.exp(float(ratio.log().abs().max()))
    tolerance = 1e-10  # sums of DRAWS numbers: 4e5 · 1.1e-16, twice
    mean = float(((together.mean(0) - rho * whole).abs() / (together.std(0) / math.sqrt(DRAWS))).max())
    return control(
        "bias not masked; all inputs missing together",
        biased > 20 and as_expected <= 5 and factor > 1.5 and off <= tolerance and mean <= 5,
        "mean off by > 20 standard errors, by (1 − ρ) b within 5; variance that of a(1) or 0 to "
        f"{tolerance:g}, a factor > 1.5 from ρ (1 − ρ) Σ c²",
        f"{biased:.0f} and {as_expected:.1f} standard errors; factor {factor:.1f}, {off:.1g} from what is "
        f"known, mean {mean:.1f} standard errors off",
    )


MCAR_MOMENTS = Theorem(
    key="masked.mcar-moments",
    title="Missing completely at random, the whole pre-activation shrinks",
    statement=(
        "With each input observed independently with chance ρ, x fixed: E a = ρ a(1) and Var a = ρ (1 − ρ) Σ_j c_j², "
        "c_j = w_j x_j + b/p. The mean shrinks bias and all: it is dropout of contributions without rescaling. With "
        "the bias kept whole the mean is ρ w·x + b."
    ),
    hypotheses=("entries missing independently of each other and of the inputs", "the bias is masked"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(MissingEntries, masked_affine, contributions),
    checks=(prove_moments, bridge_moments, closed_form, sampled_masks, broken_control),
)
