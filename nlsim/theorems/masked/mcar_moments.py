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
from nlsim.theorems.masked.neuron import SIZES, Layer, Neuron, control, layers
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

DRAWS = 20_000


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


def sampled(rate: float, seed: int = 0, inputs: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a under drawn masks, shape ``(draw, neuron)``, and a(1), Σ c², Σ c⁴ of one sample."""
    layer = Layer(inputs, 3, 1, seed=seed)
    mask = torch.as_tensor(MissingEntries(1 - rate).observed(np.zeros((DRAWS, inputs)), seed))
    values = layer.values.expand(DRAWS, inputs)
    drawn = masked_affine(values, mask, layer.weight, layer.bias)
    complete = torch.ones(1, inputs)
    whole = masked_affine(layer.values, complete, layer.weight, layer.bias)[0]
    parts = contributions(layer.values, complete, layer.weight, layer.bias)[0]
    return drawn, whole, (parts**2).sum(-1), (parts**4).sum(-1)


def sampled_masks(effort: Effort) -> Evidence:
    """Draw masks from the mechanism: mean and variance within five standard errors.

    Fourth central moment of a sum of independent numbers, with E (m − ρ)⁴ = q (1 − 3 q), q = ρ (1 − ρ):
    Σ c⁴ (q (1 − 3 q) − 3 q²) + 3 q² (Σ c²)².
    """
    scores = []
    for rho in (0.2, 0.5, 0.9):
        drawn, whole, squares, fourths = sampled(rho)
        q = rho * (1 - rho)
        spread = q * squares
        fourth = fourths * (q * (1 - 3 * q) - 3 * q**2) + 3 * spread**2
        errors = (spread / DRAWS).sqrt(), ((fourth - spread**2) / DRAWS).sqrt()
        scores.append(((drawn.mean(0) - rho * whole).abs() / errors[0]).max())
        scores.append(((drawn.var(0) - spread).abs() / errors[1]).max())
    worst = float(torch.stack(scores).max())
    return Evidence(
        Leg.PROPERTY,
        f"{DRAWS} masks of MissingEntries, ρ = 0.2, 0.5, 0.9",
        judge(worst <= 5),
        "mean and variance within 5 standard errors",
        f"at most {worst:.1f} standard errors",
    )


def broken_control(effort: Effort) -> Evidence:
    """Keep the bias whole: the mean misses ρ a(1) by (1 − ρ) b. Blank whole rows: the variance is another."""
    layer, rho = Layer(6, 3, 1, seed=0), 0.5
    _, whole, squares, _ = sampled(rho)
    mask = torch.as_tensor(MissingEntries(1 - rho).observed(np.zeros((DRAWS, 6)), 0))
    kept = masked_affine(layer.values.expand(DRAWS, 6), mask, layer.weight) + layer.bias
    error = (rho * (1 - rho) * squares / DRAWS).sqrt()
    biased = float(((kept.mean(0) - rho * whole).abs() / error).max())
    rows = MissingEntries(1 - rho).observed(np.zeros((DRAWS, 1)), 1)
    together = masked_affine(layer.values.expand(DRAWS, 6), torch.as_tensor(rows), layer.weight, layer.bias)
    ratio = (together.var(0) / (rho * (1 - rho) * squares)).log().abs().max()
    mean = float(((together.mean(0) - rho * whole).abs() / (together.std(0) / math.sqrt(DRAWS))).max())
    return control(
        "bias not masked; all inputs missing together",
        biased > 20 and float(ratio) > math.log(1.5) and mean <= 5,
        "mean off by > 20 standard errors; variance off by a factor > 1.5, mean right",
        f"{biased:.0f} standard errors; factor {math.exp(float(ratio)):.1f}, mean {mean:.1f} standard errors off",
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
