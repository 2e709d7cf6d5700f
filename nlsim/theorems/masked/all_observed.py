"""masked.all-observed: where nothing is missing the layer is the ordinary one, to the bit."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from nlsim.systems.masked.layer import masked_affine, observed
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.window import window_fraction
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import SIZES, Layer, Neuron, bridge, control, gradients, layers, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_ordinary(effort: Effort) -> Evidence:
    """Set m = 1 in the definition."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        ordinary = sum(w * x for w, x in zip(neuron.w, neuron.x, strict=True)) + neuron.b
        for each in (neuron.defined(level=neuron.level), neuron.defined(shares=neuron.shares)):
            differences.append(neuron.at(each, (1,) * p) - ordinary)
    return prove("a(1) = w·x + b", "1 to 4 inputs, any shares, any w_c", differences)


def bridge_definition(effort: Effort) -> Evidence:
    """The compensated definition gives the numbers of the running layer, m = 1 among the masks."""
    return bridge("definition = masked_affine", lambda n: n.defined(level=n.level), is_compensated=True)


def same_bits(effort: Effort) -> Evidence:
    """Value and all derivatives are those of ``torch.nn.functional.linear``; complete rows also beside others."""

    def error_of(case: tuple[Layer, torch.dtype, str]) -> float:
        layer, dtype, form = case
        values, weight, bias = (each.to(dtype) for each in (layer.values, layer.weight, layer.bias))
        level = layer.level.to(dtype) if form == "compensated" else None
        shares = torch.softmax(layer.draw("shares", layer.inputs).to(dtype), 0) if form == "shares" else None

        def ours(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return masked_affine(x, observed(x), w, b, compensation=level, shares=shares)

        cotangent = layer.cotangent.to(dtype)
        dense = gradients(linear, cotangent, values, weight, bias)
        found = gradients(ours, cotangent, values, weight, bias)
        count = sum(int((one != other).sum()) for one, other in zip(dense, found, strict=True))
        holed = values.clone()
        holed[1::2, 0] = torch.nan
        beside = gradients(ours, cotangent, holed, weight, bias)
        # the row's own results: its value and its derivative by the input
        return float(count + sum(int((dense[i][::2] != beside[i][::2]).sum()) for i in (0, 1)))

    forms = st.sampled_from(["plain", "compensated", "shares"])
    cases = st.tuples(layers(40), st.sampled_from([torch.float32, torch.float64]), forms)
    expected = "no bit differs: value, ∂x, ∂W, ∂b; complete rows beside incomplete ones: value, ∂x"
    return check_property("bits of the dense layer", expected, effort, cases, error_of, 0.0)


def hidden_neutralizer_control(effort: Effort) -> Evidence:
    """Select between input and neutralizer with w_j = 0 and nothing missing: finite value, NaN derivatives."""
    values, mask = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool)
    weight, bias = torch.tensor([[0.5, 0.0]]), torch.ones(1)

    def naive(w: Tensor, b: Tensor) -> Tensor:
        return (torch.where(mask[:, None, :], values[:, None, :], -b[:, None] / (2 * w)) * w).sum(-1) + b

    def ours(w: Tensor, b: Tensor) -> Tensor:
        return masked_affine(values, mask, w, b)

    cotangent = torch.ones(1, 1)
    broken, sound = gradients(naive, cotangent, weight, bias), gradients(ours, cotangent, weight, bias)
    return control(
        "neutralizer in a select, w_j = 0, nothing missing",
        bool(broken[0].isfinite().all())
        and bool(broken[1][0, 1].isnan())
        and bool(broken[2].isnan().all())
        and all(bool(each.isfinite().all()) for each in sound),
        "value finite, ∂w_j and ∂b NaN; ours finite",
        f"value {float(broken[0]):g}, ∂w {broken[1][0].tolist()}, ∂b {broken[2].tolist()}; "
        f"ours ∂w {sound[1][0].tolist()}, ∂b {sound[2].tolist()}",
    )


def padding_control(effort: Effort) -> Evidence:
    """Count padding as missing: the border of a complete image has lost bias."""
    image = torch.ones(1, 1, 5, 5, dtype=torch.float64)
    lost = window_fraction(image, (3, 3), padding=(1, 1), padding_counts_as="missing")[0, 0]
    kept = window_fraction(image, (3, 3), padding=(1, 1), padding_counts_as="observed")[0, 0]
    found = [float(lost[0, 0]), float(lost[0, 2]), float(lost[2, 2])]
    return control(
        "padding counted as missing, 3×3 window",
        found == [4 / 9, 6 / 9, 1.0] and bool((kept == 1).all()),
        "4/9 in a corner, 6/9 at an edge, 1 inside; as observed 1 everywhere",
        ", ".join(f"{each:.4f}" for each in found),
    )


ALL_OBSERVED = Theorem(
    key="masked.all-observed",
    title="Where nothing is missing, the layer is the ordinary one",
    statement=(
        "For m = 1 the pre-activation is w·x + b, whatever the shares and w_c. The running dense layer returns the "
        "bits of the ordinary one, in value and in all derivatives, and the rows that are complete in a batch with "
        "incomplete ones have the bits that they have without them."
    ),
    hypotheses=("a weight of two axes", "float32 or float64 on the CPU, one thread (the bits)"),
    source="Kia et al., 2022, arXiv:2206.01640; bits derived and measured here",
    about=(masked_affine, MaskedLinear),
    checks=(prove_ordinary, bridge_definition, same_bits, hidden_neutralizer_control, padding_control),
)
