"""masked.compensatory-weight: between neutral and zero imputation, and what a least-squares fit makes of the bias."""

from __future__ import annotations

import itertools

import sympy as sp
import torch
from torch import Tensor

from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.module import MaskedLinear
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron import (
    ROUND_OFF,
    SIZES,
    Layer,
    Neuron,
    bridge,
    control,
    gradients,
    layers,
    masked,
    prove,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_interpolation(effort: Effort) -> Evidence:
    """From the definition: the constant part runs from w_c to b; w_c = b is zero imputation."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        value = neuron.defined(level=neuron.level)
        seen = sum(m * w * x for m, w, x in zip(neuron.m, neuron.w, neuron.x, strict=True))
        mu = neuron.fraction
        differences.append(value - seen - mu * neuron.b - (1 - mu) * neuron.level)
        differences.append(value.subs(neuron.level, neuron.b) - seen - neuron.b)
        differences.append(value.subs(neuron.level, 0) - neuron.defined())
    return prove("a = Σ m w x + μ b + (1 − μ) w_c", "any m; w_c = b: Σ m w x + b; w_c = 0: as without", differences)


def prove_inflation(effort: Effort) -> Evidence:
    """Normal equations over all masks: b̂ = b/(ρ + (1 − ρ)/p); with w_c, b̂ = ŵ_c = b."""
    rho, b = sp.Symbol("rho", positive=True), sp.Symbol("b", real=True)
    fit, level = sp.symbols("fit level", real=True)
    differences = []
    for p in SIZES:
        chances = [(sp.Rational(k, p), sp.binomial(p, k) * rho**k * (1 - rho) ** (p - k)) for k in range(p + 1)]
        # centred independent inputs: the signal's normal equations are those of ŵ = w, and these are left
        equation = sum(chance * mu * (mu * fit - b) for mu, chance in chances)
        differences.append(sp.solve(equation, fit)[0] - b / (rho + (1 - rho) / p))
        if p > 1:
            misfit = [(chance, mu, mu * fit + (1 - mu) * level - b) for mu, chance in chances]
            rows = [sum(c * mu * gap for c, mu, gap in misfit), sum(c * (1 - mu) * gap for c, mu, gap in misfit)]
            found = sp.solve(rows, [fit, level])
            differences += [found[fit] - b, found[level] - b]
    return prove("least squares over all masks", "b̂ = b/(ρ + (1 − ρ)/p); compensated b̂ = ŵ_c = b", differences)


def bridge_compensated(effort: Effort) -> Evidence:
    """The compensated definition gives the numbers of the running layer."""
    return bridge("definition with w_c = masked_affine", lambda n: n.defined(level=n.level), is_compensated=True)


def special_values(effort: Effort) -> Evidence:
    """w_c = 0 to the bit; w_c = b and zero imputation to round-off; no derivative without missing inputs."""

    def error_of(layer: Layer) -> float:
        mask = layer.mask
        nil = masked_affine(layer.values, mask, layer.weight, layer.bias, compensation=0 * layer.level)
        differs = float((nil != masked(layer, mask)).sum())
        zeros = torch.nn.functional.linear(layer.values.masked_fill(~mask, 0.0), layer.weight, layer.bias)
        alike = masked_affine(layer.values, mask, layer.weight, layer.bias, compensation=layer.bias)
        complete = torch.ones_like(mask)

        def run(level: Tensor) -> Tensor:
            return masked_affine(layer.values, complete, layer.weight, layer.bias, compensation=level)

        _, gradient = gradients(run, layer.cotangent, layer.level)
        return differs + float((gradient != 0).sum()) + layer.error(alike, zeros)

    expected = f"0 bits; ≤ {ROUND_OFF:g} of Σ|wx| + 2|b| + |w_c|; ∂w_c exactly 0 on complete rows"
    return check_property("w_c = 0, w_c = b", expected, effort, layers(), error_of, ROUND_OFF)


def fitted_bias(effort: Effort) -> Evidence:
    """Fit the running layer by least squares on every mask and every input in {−1, 1}^p, with their chances."""
    p, bias = 4, 2.0
    weight = torch.tensor([0.7, -1.2, 0.4, 2.0], dtype=torch.float64)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=p)), dtype=torch.float64)
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=p)), dtype=torch.float64)
    values = corners.repeat_interleave(len(masks), 0)
    mask = masks.repeat(len(corners), 1)
    target = values @ weight + bias
    gaps, cells = [], []
    for rho in (0.25, 0.5, 0.9):
        root = (rho ** mask.sum(-1) * (1 - rho) ** (p - mask.sum(-1))).sqrt()[:, None]
        for is_compensated in (False, True):
            # the layer is linear in its coefficients: unit coefficients give the columns of the design
            count = p + 1 + int(is_compensated)
            unit = torch.eye(count, dtype=torch.float64)
            level = unit[:, -1] if is_compensated else None
            design = masked_affine(values, mask, unit[:, :p], unit[:, p], compensation=level)
            found = torch.linalg.lstsq(root * design, root * target[:, None]).solution[:, 0]
            constant = bias if is_compensated else bias / (rho + (1 - rho) / p)
            expected = torch.cat([weight, torch.full((count - p,), constant, dtype=torch.float64)])
            gaps.append(float((found - expected).abs().max()))
            cells.append(f"{float(found[p]):.3f}")
    worst = max(gaps)
    return Evidence(
        Leg.PROPERTY,
        "exact least squares, p = 4, b = 2",
        judge(worst <= 1e-13),  # 256 rows, condition number below 10, numbers of size 3
        "ŵ = w, b̂ = b/(ρ + (1 − ρ)/p), compensated b̂ = ŵ_c = b; ≤ 1e-13",
        f"{worst:.1g}; b̂ without and with w_c at ρ = 0.25, 0.5, 0.9: {', '.join(cells)}",
    )


def not_neutral_control(effort: Effort) -> Evidence:
    """With w_c ≠ 0 the unseen is no longer neutral; and the other weighting μ w_c is another rule."""
    layer = Layer(seed=4)
    nothing = torch.zeros_like(layer.mask)
    unseen = float(masked(layer, nothing, is_compensated=True).abs().min())
    mask = layer.mask
    fraction = mask.double().mean(-1, keepdim=True)
    swapped = layer.error(masked(layer, mask) + fraction * layer.level, masked(layer, mask, is_compensated=True))
    return control(
        "neutral with w_c; μ w_c for (1 − μ) w_c",
        unseen > 0.01 and swapped > 0.01,
        "a(0) = w_c ≠ 0; > 0.01 apart",
        f"{unseen:.2f}; {swapped:.2f}",
    )


COMPENSATORY_WEIGHT = Theorem(
    key="masked.compensatory-weight",
    title="The compensatory weight leads from neutral to zero imputation",
    statement=(
        "With neutralizers (w_c − b)/(p w_j) the pre-activation is Σ m w x + μ b + (1 − μ) w_c: w_c = 0 is the layer "
        "without, w_c = b zero imputation, and complete samples leave w_c as it is. Fitted by least squares to a "
        "linear target under an MCAR mask of rate ρ, the layer without w_c inflates the bias to b/(ρ + (1 − ρ)/p); "
        "with w_c both fit b, which is zero imputation again."
    ),
    hypotheses=("fit: independent centred inputs, mask independent of them, p > 1, 0 < ρ < 1",),
    source="Kia et al., 2022, arXiv:2206.01640 (mPROMISSING; factor r/p after a re-implementation); fit derived here",
    about=(masked_affine, MaskedLinear),
    checks=(
        prove_interpolation,
        prove_inflation,
        bridge_compensated,
        special_values,
        fitted_bias,
        not_neutral_control,
    ),
)
