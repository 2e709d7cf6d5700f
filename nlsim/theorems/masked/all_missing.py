"""masked.all-missing: a neuron that sees nothing is silent, and so is a network that carries the mask upwards."""

from __future__ import annotations

import itertools
from dataclasses import replace

import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.systems.masked.layer import masked_affine
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.propagation import Carry, MaskedStack, propagate
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import SIZES, Layer, Neuron, bridge, control, layers, prove, with_neutralizers
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

HIDDEN = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda a: a, "logistic": torch.sigmoid}


def prove_silence(effort: Effort) -> Evidence:
    """Set m = 0 in the definition."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        nothing = (0,) * p
        differences.append(neuron.at(neuron.defined(), nothing))
        differences.append(neuron.at(neuron.defined(shares=neuron.shares), nothing))
        differences.append(neuron.at(neuron.defined(level=neuron.level), nothing) - neuron.level)
    return prove("a(0) = 0; compensated, a(0) = w_c", "1 to 4 inputs, any shares, from the definition", differences)


def bridge_compensated(effort: Effort) -> Evidence:
    """The definition with and without w_c gives the numbers of the running layer, m = 0 among the masks."""
    return bridge("compensated definition = masked_affine", lambda n: n.defined(level=n.level), is_compensated=True)


def exactly_zero(effort: Effort) -> Evidence:
    """Any weights, zeros among them, huge biases and anything in the slots: 0.0, and w_c to the bit."""

    def error_of(case: tuple[Layer, float, float]) -> float:
        layer, scale, slot = case
        weight, bias, level = layer.weight * (layer.weight > 0), scale * layer.bias, layer.level
        values = torch.full_like(layer.values, slot)
        nothing = torch.zeros(values.shape, dtype=torch.bool)
        plain = masked_affine(values, nothing, weight, bias)
        compensated = masked_affine(values, nothing, weight, bias, compensation=level)
        return float((plain != 0).sum() + (compensated != level).sum())

    slots = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, 0.0])
    cases = st.tuples(layers(), st.sampled_from([1.0, 1e300]), slots)
    expected = "no number differs; w = 0, b up to 1e300, NaN and infinities in the slots"
    return check_property("exactly 0, exactly w_c", expected, effort, cases, error_of, 0.0)


def stack(seed: int, carry: Carry, activation: str) -> MaskedStack:
    """Return a network 3-5-4-2 with random biases."""
    widths = (3, 5, 4, 2)
    made = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layer, source = MaskedLinear(inputs, outputs, dtype=torch.float64), Layer(inputs, outputs, seed=seed + index)
        assert layer.bias is not None
        layer.weight.copy_(source.weight)
        layer.bias.copy_(source.bias)
        made.append(layer)
    return MaskedStack(made, HIDDEN[activation], carry=carry)


def carried_upwards(effort: Effort) -> Evidence:
    """Every pre-activation of a network that carries the mask is exactly 0 in the row that sees nothing."""

    def error_of(case: tuple[int, Carry, str]) -> float:
        seed, carry, activation = case
        net = stack(seed, carry, activation)
        values = Layer(3, rows=4, seed=seed).values
        values[1] = torch.nan
        made = propagate(list(net.layers), net.activation, values, carry=carry)  # type: ignore[arg-type]
        others = min(float(each[[0, 2, 3]].abs().max()) for each in made)
        return max(float(each[1].abs().max()) for each in made) if others > 0 else torch.inf

    cases = st.tuples(st.integers(0, 10_000), st.sampled_from(["soft", "hard"]), st.sampled_from(sorted(HIDDEN)))
    expected = "0 in every layer, soft and hard, also for the logistic φ; other rows are not 0"
    return check_property("networks that carry the mask", expected, effort, cases, error_of, 0.0)


def first_layer_only_control(effort: Effort) -> Evidence:
    """Mask the first layer alone: the output is what the rest makes of φ(0)."""
    nothing = torch.full((1, 3), torch.nan, dtype=torch.float64)
    sizes = {name: float(stack(1, "none", name)(nothing).abs().max()) for name in HIDDEN}
    net = stack(1, "none", "logistic")
    second = net.layers[1]
    assert isinstance(second, MaskedLinear)
    assert second.bias is not None
    made = propagate(list(net.layers), net.activation, nothing, carry="none")[1]  # type: ignore[arg-type]
    rest = float((made - (0.5 * second.weight.sum(-1) + second.bias)).abs().max())
    return control(
        "mask in the first layer only",
        min(sizes.values()) > 0.1 and rest <= 1e-14,
        "output > 0.1; logistic units send ½ Σ W up",
        ", ".join(f"{name} {size:.2f}" for name, size in sizes.items()) + f"; difference {rest:.1e}",
    )


def wrong_count_control(effort: Effort) -> Evidence:
    """Count p otherwise, or code a missing category as observed zeros: the rest of the bias is left over."""
    bias, p = 0.6, 4
    left = {other: float(Neuron(p).at(_miscounted(p, other), (0,) * p).subs("b", bias)) for other in (2, 3, 5)}
    is_off = all(abs(value - bias * (1 - p / other)) <= 1e-15 for other, value in left.items())
    columns = 3  # a category of three columns beside one number, both unknown
    coded = torch.tensor([[False, True, True, True]])
    ours = float(
        masked_affine(
            torch.zeros(1, 4, dtype=torch.float64),
            coded,
            torch.ones(1, 4, dtype=torch.float64),
            torch.full((1,), bias, dtype=torch.float64),
        )
    )
    return control(
        "p counted over a batch or other columns; one-hot zeros for missing",
        is_off and abs(ours - columns * bias / p) <= 1e-15,
        "b (1 − p/p'), not 0; C b/p, not 0",
        ", ".join(f"p' = {k}: {v:.2f}" for k, v in left.items()) + f"; one-hot {ours:.2f}",
    )


def _miscounted(p: int, other: int) -> sp.Expr:
    neuron = Neuron(p)
    b = sp.Symbol("b")
    fill = [-b / (other * w) for w in neuron.w]
    return sum(w * (m * x + (1 - m) * u) for w, m, x, u in zip(neuron.w, neuron.m, neuron.x, fill, strict=True)) + b


def normalisation_control(effort: Effort) -> Evidence:
    """Normalise over the batch afterwards: the silent row is moved away from 0."""
    layer = replace(Layer(seed=2), rows=6)
    mask = layer.mask
    mask[0] = False
    made = masked_affine(layer.values, mask, layer.weight, layer.bias)
    normalised = (made - made.mean(0)) / made.std(0)
    before, after = float(made[0].abs().max()), float(normalised[0].abs().max())
    return control(
        "batch normalisation afterwards", before == 0 and after > 0.1, "0, then > 0.1", f"{before}, {after:.2f}"
    )


def rounding_control(effort: Effort) -> Evidence:
    """Form the neutralizers one by one: their sum leaves round-off where the closed form leaves 0."""
    hits, total = 0, 400
    for seed in range(total):
        layer = Layer(7, 1, 1, seed=seed)
        nothing = torch.zeros(1, 7)
        hits += int(float(with_neutralizers(layer.values, nothing, layer.weight, layer.bias)) == 0.0)
    return control(
        "neutralizers one by one, 7 inputs, all missing",
        0 < hits < 0.9 * total,
        "exactly 0 in a part of the cases only",
        f"{hits / total:.0%} of {total}",
    )


ALL_MISSING = Theorem(
    key="masked.all-missing",
    title="Where nothing is seen, nothing is said",
    statement=(
        "For m = 0 the pre-activation is exactly 0 for every W, b and slot; compensated it is exactly w_c. In a "
        "network whose layers receive the mask μ or 1[μ > 0] of the layer below, every pre-activation is exactly 0."
    ),
    hypotheses=(
        "p counts all inputs of the neuron",
        "a missing category is missing in all its columns",
        "above the first layer: the mask is carried, and gates activities as well as biases",
        "nothing re-centres the pre-activation afterwards",
    ),
    source="Kia et al., 2022, arXiv:2206.01640; exactness and networks derived here",
    about=(masked_affine, propagate, MaskedStack),
    checks=(
        prove_silence,
        bridge_compensated,
        exactly_zero,
        carried_upwards,
        first_layer_only_control,
        wrong_count_control,
        normalisation_control,
        rounding_control,
    ),
)
