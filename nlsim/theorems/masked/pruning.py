"""masked.pruning: a missing input is an input that is not there."""

from __future__ import annotations

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.systems.masked.layer import gate, masked_affine
from nlsim.systems.masked.module import MaskedLinear
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, gradients, layers, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_deletion(effort: Effort) -> Evidence:
    """In the definition, with m_j = 0, nothing depends on w_j or x_j; deleting input j with bias μ b is the same."""
    differences = []
    for p in SIZES[1:]:
        neuron = Neuron(p)
        for mask in neuron.masks():
            value = neuron.at(neuron.defined(), mask)
            kept = [j for j in range(p) if mask[j]]
            shorter = sum(neuron.w[j] * neuron.x[j] for j in kept) + sp.Rational(len(kept), p) * neuron.b
            differences.append(value - shorter)
            gone = [s for j in range(p) if not mask[j] for s in (neuron.w[j], neuron.x[j])]
            differences += [sp.diff(value, symbol) for symbol in gone]
    return prove("a = Σ over observed w x + μ b", "all masks of 2 to 4 inputs; ∂a/∂w_j = ∂a/∂x_j = 0", differences)


def bridge_definition(effort: Effort) -> Evidence:
    """The definition gives the numbers of the running layer."""
    return bridge("definition = masked_affine", lambda neuron: neuron.defined())


def slots_do_not_matter(effort: Effort) -> Evidence:
    """Overwrite missing slots: value and all derivatives keep their bits."""

    def error_of(case: tuple[Layer, float]) -> float:
        layer, slot = case
        mask = layer.mask

        def run(x: Tensor, w: Tensor, b: Tensor, level: Tensor) -> Tensor:
            return masked_affine(x, mask, w, b, compensation=level)

        holed = layer.values.masked_fill(~mask, slot)
        leaves = layer.weight, layer.bias, layer.level
        one = gradients(run, layer.cotangent, layer.values, *leaves)
        other = gradients(run, layer.cotangent, holed, *leaves)
        return float(sum(int((a != b).sum()) for a, b in zip(one, other, strict=True)))

    slots = st.sampled_from([float("nan"), float("inf"), -float("inf"), -7.25, 1e308])
    cases = st.tuples(layers(), slots)
    expected = "no bit of value, ∂x, ∂W, ∂b, ∂w_c differs; NaN, infinities, numbers"
    return check_property("what missing slots hold", expected, effort, cases, error_of, 0.0)


def deleted_input(effort: Effort) -> Evidence:
    """Delete the missing inputs of a row and scale the bias: the same to round-off, also w_j as large as can be."""

    def error_of(layer: Layer) -> float:
        mask = layer.mask[0]
        loud = layer.weight.masked_fill(~mask, 1e308)
        made = masked_affine(layer.values[:1], mask[None], loud, layer.bias)
        shorter = layer.values[:1, mask] @ layer.weight[:, mask].T + mask.double().mean() * layer.bias
        return float(((made - shorter).abs() / layer.size[:1]).max())

    expected = f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b|; weights of missing inputs 1e308"
    return check_property("inputs deleted", expected, effort, layers(), error_of, ROUND_OFF)


def multiplied_mask_control(effort: Effort) -> Evidence:
    """Multiply by the mask in place of selecting, or count p anew after the deletion."""
    layer = Layer(density=0.5, seed=1)
    mask = layer.mask
    holed = layer.values.masked_fill(~mask, torch.nan)
    product, ours = (holed * mask).isnan().sum(), gate(holed, mask).isnan().sum()
    soft = (holed * (mask * layer.soft_mask)).isnan().sum()
    soft_ours = gate(holed, mask * layer.soft_mask).isnan().sum()
    recounted = layer.error(
        gate(holed, mask) @ layer.weight.T + layer.bias, masked_affine(holed, mask, layer.weight, layer.bias)
    )
    return control(
        "mask multiplied onto NaN; p counted anew",
        bool(product > 0) and bool(soft > 0) and bool(ours == 0) and bool(soft_ours == 0) and recounted > 0.01,
        "NaN in the product, hard and soft, none in ours; the deleted neuron needs μ b, not b: > 0.01",
        f"{int(product)} and {int(soft)} NaN; {int(ours)} and {int(soft_ours)}; {recounted:.2f}",
    )


PRUNING = Theorem(
    key="masked.pruning",
    title="A missing input is an input that is not there",
    statement=(
        "With m_j = 0 neither the pre-activation nor any derivative depends on w_j or on what slot j holds: they are "
        "those of the neuron with input j deleted and bias μ b."
    ),
    hypotheses=("the mask selects; it is not multiplied onto the slot", "μ counts the inputs of the whole neuron"),
    source="Kia et al., 2022, arXiv:2206.01640 (pruning); derived here",
    about=(gate, masked_affine, MaskedLinear),
    checks=(prove_deletion, bridge_definition, slots_do_not_matter, deleted_input, multiplied_mask_control),
)
