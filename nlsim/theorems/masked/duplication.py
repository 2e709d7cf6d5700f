"""masked.duplication: an input given twice counts twice, unless shares say otherwise."""

from __future__ import annotations

import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.systems.masked.layer import masked_affine, observed_fraction
from nlsim.systems.masked.shares import group_shares
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, layers, masked, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def split(neuron: Neuron) -> tuple[Neuron, dict[sp.Symbol, sp.Expr]]:
    """Return a neuron with one input more, and what makes its last two inputs halves of the last one."""
    wider = Neuron(neuron.p + 1)
    halves = {wider.w[k]: neuron.w[-1] / 2 for k in (-2, -1)}
    halves |= {wider.x[-1]: neuron.x[-1], wider.m[-1]: neuron.m[-1]}
    return wider, halves


def change(neuron: Neuron) -> sp.Expr:
    """Return b (m_p − μ)/(p + 1)."""
    return neuron.b * (neuron.m[-1] - neuron.fraction) / (neuron.p + 1)


def prove_split(effort: Effort) -> Evidence:
    """Split the last input in two of half the weight, with equal and with halved shares."""
    differences = []
    for p in SIZES[:3]:
        neuron = Neuron(p)
        wider, halves = split(neuron)
        # the pair is split in the definition itself
        differences.append(wider.defined().subs(halves, simultaneous=True) - neuron.defined() - change(neuron))
        shares = neuron.shares
        halved = [*shares[:-1], shares[-1] / 2, shares[-1] / 2]
        value = wider.defined(shares=halved).subs(halves, simultaneous=True)
        differences.append(value - neuron.defined(shares=shares))
    return prove("change of a split: b (m_j − μ)/(p + 1), with shares π_j/2 none", "any m, 1 to 3 inputs", differences)


def bridge_split(effort: Effort) -> Evidence:
    """Definition plus change gives the numbers of the running layer with the last input split."""

    def running(layer: Layer, mask: torch.Tensor) -> torch.Tensor:
        values, wider = (torch.cat([each, each[:, -1:]], -1) for each in (layer.values, mask))
        weight = torch.cat([layer.weight[:, :-1], layer.weight[:, -1:] / 2, layer.weight[:, -1:] / 2], -1)
        return masked_affine(values, wider, weight, layer.bias)

    return bridge("definition + change = masked_affine, split", lambda n: n.defined() + change(n), running)


def encodings(effort: Effort) -> Evidence:
    """Spread every variable over columns: with group shares the layer is the one of the variables."""

    def error_of(case: tuple[Layer, list[int]]) -> float:
        layer, widths = case
        columns = torch.tensor(widths[: layer.inputs])
        mask = layer.mask
        values, wider = (each.repeat_interleave(columns, -1) for each in (layer.values, mask))
        weight = (layer.weight / columns).repeat_interleave(columns, -1)
        shares = group_shares(columns.tolist())
        made = masked_affine(values, wider, weight, layer.bias, shares=shares)
        ends = observed_fraction(torch.stack([torch.ones(len(shares)), torch.zeros(len(shares))]), shares.dtype, shares)
        wrong = float((ends[:, 0] != torch.tensor([1.0, 0.0])).sum() + (abs(float(shares.sum()) - 1) > 1e-14))
        return wrong + layer.error(made, masked(layer, mask))

    cases = st.tuples(layers(8), st.lists(st.integers(1, 6), min_size=8, max_size=8))
    tolerance = 3 * ROUND_OFF  # up to 48 columns are summed in place of 13 numbers
    expected = f"≤ {tolerance:g} of Σ|wx| + 2|b|; fraction exactly 1 and 0 at the ends; 1 to 6 columns a variable"
    return check_property("group shares", expected, effort, cases, error_of, tolerance)


def equal_shares_control(effort: Effort) -> Evidence:
    """Keep 1/p: a split changes the neuron, and columns that are always observed dilute the unknown."""
    layer = Layer(3, rows=12, seed=2)
    mask = layer.mask
    twice = torch.tensor([3, 1, 1])
    weight = (layer.weight / twice).repeat_interleave(twice, -1)
    made = masked_affine(
        layer.values.repeat_interleave(twice, -1), mask.repeat_interleave(twice, -1), weight, layer.bias
    )
    apart = layer.error(made, masked(layer, mask))
    padded = torch.cat([torch.zeros_like(mask), torch.ones(layer.rows, 9, dtype=torch.bool)], -1)
    silent = torch.cat([layer.weight, torch.zeros(layer.neurons, 9, dtype=torch.float64)], -1)
    left = masked_affine(torch.zeros(layer.rows, 12, dtype=torch.float64), padded, silent, layer.bias) / layer.bias
    return control(
        "equal shares over columns; nine columns of no information",
        apart > 0.01 and bool(((left - 0.75).abs() <= 1e-15).all()),
        "> 0.01 apart; 9/12 of the bias although nothing is known",
        f"{apart:.2f}; {float(left[0, 0]):g}",
    )


DUPLICATION = Theorem(
    key="masked.duplication",
    title="An input given twice counts twice, unless shares say otherwise",
    statement=(
        "Splitting input j into two of weight w_j/2 changes a by b (m_j − μ)/(p + 1). With shares π_j/2 for the halves "
        "nothing changes; with π = 1/(G C_g) for the C_g columns of each of G variables the bias does not depend on "
        "the encoding."
    ),
    hypotheses=("columns of a variable are missing together", "shares sum to 1"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640",
    about=(masked_affine, observed_fraction, group_shares),
    checks=(prove_split, bridge_split, encodings, equal_shares_control),
)
