"""masked.bias-inflation: as an estimator a single masked layer overrates the constant, by a factor that is known."""

from __future__ import annotations

import itertools
import math

import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.masked.mechanism import MissingEntries
from nlsim.systems.masked.module import MaskedLinear
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.compensatory_weight import prove_inflation
from nlsim.theorems.masked.neuron import SIZES, control, prove
from nlsim.theorems.statement import Effort, Theorem

ROWS, INPUTS, CONSTANT = 20_000, 10, 2.0


def prove_any_fraction(effort: Effort) -> Evidence:
    """Minimise E (w·g + μ b̂ − w_*·x − b)² with E g = 0: b̂ = b E μ/E μ², for any law of the observed fraction μ."""
    fit, b = sp.symbols("fit b", real=True)
    differences = []
    for levels in (2, 3):
        mu = sp.symbols(f"mu1:{levels + 1}", positive=True)
        free = sp.symbols(f"q1:{levels}", positive=True)
        chances = [*free, 1 - sum(free)]
        loss = sum(q * (m * fit - b) ** 2 for q, m in zip(chances, mu, strict=True))
        found = sp.solve(sp.diff(loss, fit), fit)[0]
        mean = sum(q * m for q, m in zip(chances, mu, strict=True))
        square = sum(q * m**2 for q, m in zip(chances, mu, strict=True))
        differences.append(found - b * mean / square)
    p, rho = sp.symbols("p rho", positive=True)
    # k is binomial: E k = pρ, E k² = pρ (1 − ρ) + p²ρ²
    square = (p * rho * (1 - rho) + p**2 * rho**2) / p**2
    differences.append(rho / square - 1 / (rho + (1 - rho) / p))
    return prove("b̂ = b E μ/E μ²", "any law of μ on 2 or 3 values; binomial: b/(ρ + (1 − ρ)/p)", differences)


def bridge_stationary(effort: Effort) -> Evidence:
    """Put the symbolic b̂ into the running layer: autograd's gradient of the exact mean loss vanishes there."""
    symbols = sp.symbols("b rho p", positive=True)
    formula = sp.lambdify(symbols, symbols[0] / (symbols[1] + (1 - symbols[1]) / symbols[2]), "math")
    worst, off, tolerance = 0.0, math.inf, 1e-14  # 256 terms with chances that sum up to 1, numbers below 20
    for p, rho in itertools.product(SIZES, (0.25, 0.5, 0.9)):
        corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=p)), dtype=torch.float64)  # centred
        masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=p)), dtype=torch.float64)
        values, shown = corners.repeat_interleave(len(masks), 0), masks.repeat(len(corners), 1)
        chance = rho ** shown.sum(-1) * (1 - rho) ** (p - shown.sum(-1)) / len(corners)
        weight = torch.as_tensor(generator(p, "weight").normal(size=p))
        target = values @ weight + CONSTANT
        for level, is_right in ((formula(CONSTANT, rho, p), True), (CONSTANT, False)):
            slopes = gradient(values, shown, chance, target, weight, level)
            if is_right:
                worst = max(worst, *(float(each.abs().max()) for each in slopes))
            elif p > 1:
                off = min(off, float(slopes[1].abs().max()))
    return Evidence(
        Leg.BRIDGE,
        "gradient of MaskedLinear's mean loss at (w_*, b̂)",
        judge(worst <= tolerance and off > 0.01),
        f"≤ {tolerance:g} at the symbolic b̂; > 0.01 at b itself",
        f"{worst:.1g}; {off:.2g}",
    )


def gradient(
    values: Tensor, mask: Tensor, chance: Tensor, target: Tensor, weight: Tensor, level: float
) -> tuple[Tensor, ...]:
    """Return the derivatives of Σ chance (a − target)²/2 by weight and bias of a running layer."""
    layer = MaskedLinear(values.shape[1], 1, dtype=torch.float64)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        layer.bias.fill_(level)
    with torch.enable_grad():
        loss = (chance * (layer(values, mask)[:, 0] - target) ** 2).sum() / 2
        return torch.autograd.grad(loss, (layer.weight, layer.bias))


def columns(values: Tensor, mask: Tensor, *, is_compensated: bool = False) -> Tensor:
    """Return what each coefficient of a running layer is multiplied by, shape ``(sample, coefficient)``."""
    p, count = values.shape[1], values.shape[1] + 1 + int(is_compensated)
    layer = MaskedLinear(p, count, is_compensated=is_compensated, dtype=torch.float64)
    unit = torch.eye(count, dtype=torch.float64)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(unit[:, :p])
        layer.bias.copy_(unit[:, p])
        if layer.compensation is not None:
            layer.compensation.copy_(unit[:, -1])
        answer: Tensor = layer(values, mask)
    return answer


def least_squares(design: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return coefficients and their standard errors; errors need not be alike from row to row (White 1980)."""
    inverse = torch.linalg.inv(design.mT @ design)
    found = inverse @ (design.mT @ target)
    scores = design * (target - design @ found)[:, None]
    return found, (inverse @ (scores.mT @ scores) @ inverse).diagonal().sqrt()


def sample(rho: float, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs with mean ``shift``, masks, targets w_*·x + 2 + noise, and w_*."""
    draw = generator(1, "estimator")
    values = torch.as_tensor(draw.normal(shift, 1.0, (ROWS, INPUTS)))
    weight = torch.as_tensor(draw.uniform(-1.0, 1.0, INPUTS))
    mask = torch.as_tensor(MissingEntries(1 - rho).observed(values.numpy(), seed=2))
    target = values @ weight + CONSTANT + torch.as_tensor(draw.normal(0.0, 0.1, ROWS))
    return values, mask, target, weight


def fitted(effort: Effort) -> Evidence:
    """Fit drawn data: the constant is b/(ρ + (1 − ρ)/p), complete samples are overrated by b̂ − b; three remedies."""
    scores, cells = [], []
    for rho in (0.25, 0.5, 0.9):
        values, mask, target, weight = sample(rho)
        inflated = CONSTANT / (rho + (1 - rho) / INPUTS)
        plain = columns(values, mask)
        found, error = least_squares(plain, target)
        scores.append((found - torch.cat((weight, weight.new_tensor([inflated])))).abs() / error)
        complete = columns(values, torch.ones_like(mask)) @ found - values @ weight  # what is said of a known sample
        off = float(complete.mean()) - CONSTANT
        scores.append((complete.mean() - inflated).abs()[None] / (error[-1] + error[:-1].norm() / math.sqrt(ROWS)))
        both, its_error = least_squares(columns(values, mask, is_compensated=True), target)
        scores.append((both[-2:] - CONSTANT).abs() / its_error[-2:])
        centred, error_centred = least_squares(plain, target - target.mean())
        # the mean of the target is b to one part in √ROWS of its deviation
        scores.append(centred[-1:].abs() / (error_centred[-1] + target.std() / math.sqrt(ROWS) / rho))
        later, error_later = least_squares(torch.cat((plain, torch.ones(ROWS, 1, dtype=torch.float64)), -1), target)
        total = later[-2] + later[-1]
        scores.append((total - CONSTANT).abs()[None] / error_later[-2:].sum())
        cells.append(
            f"{rho}: {float(found[-1]):.2f} ({inflated:.2f}), complete {off:+.2f}, with w_c {float(both[-2]):.3f} and "
            f"{float(both[-1]):.3f}, centred {float(centred[-1]):+.3f}, later bias {float(total):.3f}"
        )
    worst = float(torch.cat(scores).max())
    return Evidence(
        Leg.PROPERTY,
        f"least squares on {ROWS} drawn samples, p = {INPUTS}, b = {CONSTANT:g}",
        judge(worst <= 5),
        "ŵ = w_*, b̂ = b/(ρ + (1 − ρ)/p); with w_c, a centred target or a later bias the constant is right; "
        "5 standard errors",
        f"at most {worst:.1f}; at ρ = " + "; ".join(cells),
    )


def broken_control(effort: Effort) -> Evidence:
    """Fit inputs that are not centred; and always hide the same number of inputs."""
    rho = 0.5
    values, mask, target, weight = sample(rho, shift=1.0)
    found, error = least_squares(columns(values, mask), target)
    misses = float((found[:-1] - weight).abs().max() / error[:-1].max())
    off = float((found[-1] - CONSTANT / (rho + (1 - rho) / INPUTS)).abs() / error[-1])
    values, _, target, _ = sample(rho)
    order = generator(3, "fixed count").random((ROWS, INPUTS)).argsort(-1)
    constant, its_error = least_squares(columns(values, torch.as_tensor(order < INPUTS // 2)), target)
    fixed = abs(float(constant[-1]) - 2 * CONSTANT) / float(its_error[-1])
    apart = abs(float(constant[-1]) - CONSTANT / (rho + (1 - rho) / INPUTS)) / float(its_error[-1])
    return control(
        "inputs of mean 1; five of ten seen in every sample",
        misses > 20 and off > 20 and fixed <= 5 and apart > 20,
        "ŵ and b̂ off by > 20 standard errors; b̂ = b/μ = 4, not 3.64",
        f"{misses:.0f} and {off:.0f}; {float(constant[-1]):.3f}, {fixed:.1f} and {apart:.0f} standard errors off",
    )


BIAS_INFLATION = Theorem(
    key="masked.bias-inflation",
    title="A single masked layer overrates the constant of a linear target",
    statement=(
        "Fitted by least squares to y = w_*·x + b + noise with entries missing completely at random (rate of what is "
        "observed ρ), a masked neuron finds ŵ = w_* but b̂ = b E μ/E μ² = b/(ρ + (1 − ρ)/p), and overrates complete "
        "samples by b̂ − b. A compensatory weight (b̂ = ŵ_c = b, mean imputation again), a centred target or an "
        "unmasked bias in a later layer remedy it."
    ),
    hypotheses=("independent centred inputs", "mask independent of inputs and target", "p > 1, 0 < ρ < 1"),
    source="derived here for the layer of Kia et al., 2022, arXiv:2206.01640",
    about=(MaskedLinear, MissingEntries),
    checks=(prove_any_fraction, prove_inflation, bridge_stationary, fitted, broken_control),
)
