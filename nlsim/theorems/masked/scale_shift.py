"""masked.scale-shift: units of measurement do not matter, the zero of the scale does."""

from __future__ import annotations

import sympy as sp
import torch

from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, layers, masked, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def _shifts(p: int) -> list[sp.Symbol]:
    return [sp.Symbol(f"d{j + 1}", real=True) for j in range(p)]


def shifted(neuron: Neuron) -> sp.Expr:
    """Return the definition with x + δ for x and b − w·δ for b."""
    moves = _shifts(neuron.p)
    lost = sp.Add(*(w * d for w, d in zip(neuron.w, moves, strict=True)))
    changes = {x: x + d for x, d in zip(neuron.x, moves, strict=True)}
    return neuron.defined().subs({**changes, neuron.b: neuron.b - lost}, simultaneous=True)


def change(neuron: Neuron) -> sp.Expr:
    """Return Σ (m_j − μ) w_j δ_j."""
    columns = zip(neuron.m, neuron.w, _shifts(neuron.p), strict=True)
    return sp.Add(*((m - neuron.fraction) * w * d for m, w, d in columns))


def prove_scale_and_shift(effort: Effort) -> Evidence:
    """Rescale, then re-centre the definition."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        scales = [sp.Symbol(f"s{j}", positive=True) for j in range(p)]
        rescaled = {x: s * x for x, s in zip(neuron.x, scales, strict=True)}
        rescaled |= {w: w / s for w, s in zip(neuron.w, scales, strict=True)}
        differences.append(neuron.defined().subs(rescaled, simultaneous=True) - neuron.defined())
        differences.append(shifted(neuron) - neuron.defined() - change(neuron))
        differences += [neuron.at(change(neuron), (each,) * p) for each in (0, 1)]
    return prove(
        "a(s x, w/s) = a;  a(x + δ, b − w·δ) − a = Σ (m_j − μ) w_j δ_j", "any m; 0 at m = 0 and m = 1", differences
    )


MOVES = (0.75, -1.5, 0.25, 2.0)


def bridge_shifted(effort: Effort) -> Evidence:
    """The definition plus the change of a shift gives the numbers of the running layer, shifted."""

    def running(layer: Layer, mask: torch.Tensor) -> torch.Tensor:
        moves = torch.tensor(MOVES[: layer.inputs], dtype=torch.float64)
        return 0.1 * masked_affine(layer.values + moves, mask, layer.weight, layer.bias - layer.weight @ moves)

    # a tenth of it, for the shifts add to the numbers that round-off is measured by
    return bridge(
        "definition + change = masked_affine, shifted",
        lambda n: sp.Rational(1, 10) * (n.defined() + change(n)).subs(dict(zip(_shifts(n.p), MOVES, strict=False))),
        running,
    )


def random_layers(effort: Effort) -> Evidence:
    """Powers of two rescale to the bit; shifts change by the closed form; permuted inputs change nothing."""

    def error_of(layer: Layer) -> float:
        mask = layer.mask
        before = masked(layer, mask)
        scales = 2.0 ** torch.round(3 * layer.draw("scale", layer.inputs))
        scaled = masked_affine(layer.values * scales, mask, layer.weight / scales, layer.bias)
        moves = layer.draw("shift", layer.inputs)
        moved = masked_affine(layer.values + moves, mask, layer.weight, layer.bias - layer.weight @ moves)
        fraction = mask.double().mean(-1, keepdim=True)
        expected = ((mask.double() - fraction) * moves) @ layer.weight.T
        order = torch.argsort(layer.draw("order", layer.inputs))
        permuted = masked_affine(layer.values[:, order], mask[:, order], layer.weight[:, order], layer.bias)
        size = 1.0 + float((moves.abs() @ layer.weight.abs().T / layer.size).max())
        return (
            float((scaled != before).sum())
            + layer.error(moved - before, expected) / size
            + layer.error(permuted, before)
        )

    expected = f"0 bits; ≤ {ROUND_OFF:g} of Σ|wx| + 2|b| + Σ|wδ|"
    return check_property("rescaled, re-centred, permuted", expected, effort, layers(), error_of, ROUND_OFF)


def recentred_control(effort: Effort) -> Evidence:
    """Call a re-centred neuron the same one: true for complete and for empty samples, false between."""
    layer = Layer(seed=6, rows=12)
    moves = torch.ones(layer.inputs, dtype=torch.float64)
    found = []
    for mask in (torch.ones_like(layer.mask), torch.zeros_like(layer.mask), layer.mask):
        moved = masked_affine(layer.values + moves, mask, layer.weight, layer.bias - layer.weight @ moves)
        found.append(layer.error(moved, masked(layer, mask)))
    return control(
        "inputs not standardised (mean 1)",
        found[0] <= ROUND_OFF and found[1] == 0 and found[2] > 0.05,
        f"≤ {ROUND_OFF:g}, 0, > 0.05 for complete, empty and half samples",
        ", ".join(f"{each:.2g}" for each in found),
    )


SCALE_SHIFT = Theorem(
    key="masked.scale-shift",
    title="Units of measurement do not matter, the zero of the scale does",
    statement=(
        "x_j → s_j x_j with w_j → w_j/s_j leaves a unchanged for every mask. x → x + δ with b → b − w·δ leaves the "
        "complete neuron unchanged and changes others by Σ_j (m_j − μ) w_j δ_j."
    ),
    hypotheses=("equal shares 1/p",),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(masked_affine,),
    checks=(prove_scale_and_shift, bridge_shifted, random_layers, recentred_control),
)
