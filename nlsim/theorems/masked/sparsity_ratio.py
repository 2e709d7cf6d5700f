"""masked.sparsity-ratio: the sparsity-normalised neuron, shrunk by the observed fraction."""

from __future__ import annotations

import sympy as sp
import torch
from torch import Tensor

from nlsim.systems.masked.layer import gate, masked_affine
from nlsim.theorems.evidence import Evidence
from nlsim.theorems.masked.neuron import ROUND_OFF, SIZES, Layer, Neuron, bridge, control, layers, masked, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def symbolic_normalised(neuron: Neuron) -> sp.Expr:
    """Return (p/k) Σ m w x + b."""
    seen = sp.Add(*(m * w * x for m, w, x in zip(neuron.m, neuron.w, neuron.x, strict=True)))
    return seen / neuron.fraction + neuron.b


def normalised(layer: Layer, mask: Tensor) -> Tensor:
    """Return the pre-activation of sparsity normalisation, NaN where nothing is observed."""
    boost = layer.inputs / mask.double().sum(-1, keepdim=True)
    return boost * (gate(layer.values, mask) @ layer.weight.T) + layer.bias


def prove_ratio(effort: Effort) -> Evidence:
    """The definition is μ times the normalised neuron, for any mask with μ ≠ 0."""
    differences = []
    for p in SIZES:
        neuron = Neuron(p)
        differences.append(neuron.defined() - neuron.fraction * symbolic_normalised(neuron))
    return prove("a = (k/p) a_SN", "any m with k ≠ 0, 1 to 4 inputs", differences)


def bridge_ratio(effort: Effort) -> Evidence:
    """μ a_SN, simplified so that k = 0 may be put in, gives the numbers of the running layer."""
    return bridge("μ a_SN = masked_affine", lambda n: sp.expand(sp.cancel(n.fraction * symbolic_normalised(n))))


def random_layers(effort: Effort) -> Evidence:
    """Ratio of the running layers, and of their rectified activities."""

    def error_of(layer: Layer) -> float:
        mask = layer.mask
        mask[:, 0] = True
        fraction = mask.double().mean(-1, keepdim=True)
        ours, other = masked(layer, mask), normalised(layer, mask)
        rectified = layer.error(torch.relu(ours), fraction * torch.relu(other))
        return max(layer.error(ours, fraction * other), rectified)

    expected = f"a and relu(a), ≤ {ROUND_OFF:g} of Σ|wx| + 2|b|, k ≥ 1"
    return check_property("ratio k/p", expected, effort, layers(), error_of, ROUND_OFF)


def saturating_control(effort: Effort) -> Evidence:
    """Ask it of tanh, which is not homogeneous; and at k = 0."""
    layer = Layer(rows=50, seed=1)
    mask = layer.mask
    mask[:, 0] = True
    fraction = mask.double().mean(-1, keepdim=True)
    gap = float((torch.tanh(masked(layer, mask)) - fraction * torch.tanh(normalised(layer, mask))).abs().max())
    nothing = torch.zeros_like(mask)
    undefined = normalised(layer, nothing).isnan()
    return control(
        "tanh for relu; nothing observed",
        gap > 0.1 and bool(undefined.all()) and bool((masked(layer, nothing) == 0).all()),
        "activities off by > 0.1; a_SN = 0/0 where a = 0",
        f"{gap:.2f}; {int(undefined.sum())} of {undefined.numel()} NaN",
    )


SPARSITY_RATIO = Theorem(
    key="masked.sparsity-ratio",
    title="Sparsity normalisation, shrunk by the observed fraction",
    statement=(
        "a = (k/p) a_SN with a_SN = (p/k) Σ_j m_j w_j x_j + b: the same half-spaces at lower amplitude. For a "
        "positively homogeneous φ (ReLU, identity) φ(a) = (k/p) φ(a_SN)."
    ),
    hypotheses=("k ≥ 1", "sparsity normalisation with constant p"),
    source="derived here; sparsity normalisation after Yi et al., 2020",
    about=(masked_affine,),
    checks=(prove_ratio, bridge_ratio, random_layers, saturating_control),
)
