"""masked.convolution: neutralizers in every window of a convolution are a mask and a local fraction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, unfold

from nlsim.core.randomness import generator
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.window import PaddingCountsAs, window_fraction
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron import control, prove
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

IMAGE, KERNEL = (3, 3), (2, 2)


@dataclass(frozen=True)
class Picture:
    """A random masked convolution; everything is a function of the seed."""

    channels: int = 2
    kernels: int = 3
    kernel: tuple[int, int] = (2, 3)
    size: tuple[int, int] = (6, 7)
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    policy: PaddingCountsAs = "observed"
    seed: int = 0

    def draw(self, purpose: str, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.as_tensor(generator(self.seed, purpose).normal(size=shape))

    def layer(self) -> MaskedConv2d:
        """Return the running layer, weights at least 0.1 in size."""
        made = MaskedConv2d(
            self.channels,
            self.kernels,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            padding_counts_as=self.policy,
            dtype=torch.float64,
        )
        weight = self.draw("weight", *made.weight.shape)
        assert made.bias is not None
        with torch.no_grad():
            made.weight.copy_(weight + 0.1 * weight.sign())
            made.bias.copy_(self.draw("bias", self.kernels))
        return made

    def values(self) -> Tensor:
        """Return two images."""
        return self.draw("values", 2, self.channels, *self.size)

    def mask(self) -> Tensor:
        """Return their boolean mask."""
        return self.draw("mask", 2, self.channels, *self.size) > 0

    def windows(self, image: Tensor) -> Tensor:
        """Return the entries under each window, shape ``(2, C k_h k_w, place)``; padding is 0."""
        found: Tensor = unfold(image, self.kernel, self.dilation, self.padding, self.stride)
        return found

    def explicit(self) -> Tensor:
        """Return what neutralizers put into every window of every kernel give."""
        layer, values, mask = self.layer(), self.values(), self.mask().double()
        assert layer.bias is not None
        weight, bias = layer.weight.detach().flatten(1), layer.bias.detach()
        seen = self.windows(mask)
        if self.policy == "observed":
            seen = seen + 1 - self.windows(torch.ones_like(mask))
        fill = -bias[:, None] / (weight.shape[1] * weight)  # kernel, tap
        filled = torch.where(seen[:, None] > 0, self.windows(values)[:, None], fill[None, :, :, None])
        return (filled * weight[None, :, :, None]).sum(2) + bias[:, None]


def pictures() -> st.SearchStrategy[Picture]:
    """Return random convolutions."""
    sides = st.integers(1, 3)
    return st.builds(
        Picture,
        channels=sides,
        kernels=sides,
        kernel=st.tuples(sides, sides),
        size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
        stride=st.integers(1, 2),
        padding=st.integers(0, 2),
        dilation=st.integers(1, 2),
        policy=st.sampled_from(["observed", "missing"]),
        seed=st.integers(0, 10_000),
    )


def symbolic_image() -> tuple[sp.Matrix, sp.Matrix, sp.Matrix, sp.Symbol]:
    """Return kernel, image, mask and bias as symbols."""
    kernel = sp.Matrix(*KERNEL, lambda i, j: sp.Symbol(f"k{i}{j}", real=True, nonzero=True))
    image, mask = (sp.Matrix(*IMAGE, lambda i, j, s=s: sp.Symbol(f"{s}{i}{j}", real=True)) for s in "xm")
    return kernel, image, mask, sp.Symbol("b", real=True)


def places() -> list[tuple[int, int]]:
    """Return the corners of all windows."""
    return list(itertools.product(range(IMAGE[0] - KERNEL[0] + 1), range(IMAGE[1] - KERNEL[1] + 1)))


def symbolic_window(row: int, column: int) -> sp.Expr:
    """Return an ordinary convolution at one place, fed with neutralizers −b/(|K| K)."""
    kernel, image, mask, b = symbolic_image()
    taps = list(itertools.product(range(KERNEL[0]), range(KERNEL[1])))
    value = b
    for i, j in taps:
        fill = -b / (len(taps) * kernel[i, j])
        m, x = mask[row + i, column + j], image[row + i, column + j]
        value += kernel[i, j] * (m * x + (1 - m) * fill)
    return value


def prove_window(effort: Effort) -> Evidence:
    """Every window of a 3×3 image under a 2×2 kernel: K ∗ (m ⊙ x) + b (1 ∗ m)/4."""
    kernel, image, mask, b = symbolic_image()
    differences = []
    for row, column in places():
        seen, count = sp.Integer(0), sp.Integer(0)
        for i, j in itertools.product(range(KERNEL[0]), range(KERNEL[1])):
            seen += kernel[i, j] * mask[row + i, column + j] * image[row + i, column + j]
            count += mask[row + i, column + j]
        differences.append(symbolic_window(row, column) - seen - b * count / 4)
    return prove("window fed with neutralizers = K ∗ (m ⊙ x) + b (1 ∗ m)/|K|", "all windows, any m", differences)


def bridge_window(effort: Effort) -> Evidence:
    """The symbolic windows give the numbers of the running layer."""
    kernel, image, mask, b = symbolic_image()
    symbols = [*kernel, *image, *mask, b]
    formulas = [sp.lambdify(symbols, symbolic_window(*place), "math") for place in places()]
    worst, count = 0.0, 0
    for seed in range(8):
        picture = Picture(1, 1, KERNEL, IMAGE, padding=0, seed=seed)
        layer, values, seen = picture.layer(), picture.values(), picture.mask().double()
        running = layer(values, seen).flatten(1)
        assert layer.bias is not None
        for sample in range(2):
            numbers = [*layer.weight.flatten(), *values[sample].flatten(), *seen[sample].flatten(), layer.bias[0]]
            found = [formula(*(float(each) for each in numbers)) for formula in formulas]
            gaps = [abs(one - float(other)) for one, other in zip(found, running[sample], strict=True)]
            worst, count = float(np.maximum(worst, max(gaps))), count + len(gaps)
    return Evidence(
        Leg.BRIDGE,
        "symbolic windows = MaskedConv2d",
        judge(worst <= 2e-14 and count == 64),  # five numbers of size up to 3, neutralizers up to 10: 20 roundings
        "≤ 2e-14 at all places of 16 masked images",
        f"{worst:.2g} at {count} places",
    )


def explicit_windows(effort: Effort) -> Evidence:
    """Neutralizers in every window; strides, dilations and both readings of the padding."""

    def error_of(picture: Picture) -> float:
        holed = picture.values().masked_fill(~picture.mask(), torch.nan)
        running = picture.layer()(holed)
        return float((running.flatten(2) - picture.explicit()).abs().max())

    expected = "≤ 1e-13; up to 27 taps, 2 images, 1 to 3 kernels"
    # 28 numbers of size up to 12 (|w|, |x| ≤ 4): 2 · 28 · 1.1e-16 · 12 = 7e-14
    return check_property("neutralizers window by window", expected, effort, pictures(), error_of, 1e-13)


def partial_convolution(effort: Effort) -> Evidence:
    """The fraction times the partial convolution (|K|/k) K ∗ (m ⊙ x) + b, 0 where nothing is under the window."""

    def error_of(picture: Picture) -> float:
        layer, mask = picture.layer(), picture.mask().double()
        steps = picture.stride, picture.padding, picture.dilation
        ones = torch.ones(1, picture.channels, *picture.kernel, dtype=torch.float64)
        count = conv2d(mask, ones, None, *steps)
        if picture.policy == "observed":
            count = count + ones.sum() - conv2d(torch.ones_like(mask), ones, None, *steps)
        signal = conv2d(mask * picture.values(), layer.weight, None, *steps)
        assert layer.bias is not None
        partial = torch.where(count > 0, ones.sum() / count * signal + layer.bias[:, None, None], 0.0)
        return float((layer(picture.values(), mask) - count / ones.sum() * partial).abs().max())

    expected = "≤ 1e-13"
    return check_property("fraction × partial convolution", expected, effort, pictures(), error_of, 1e-13)


def complete_and_empty(effort: Effort) -> Evidence:
    """Complete: the ordinary convolution, with padding observed. Empty, no padding: exactly 0."""

    def error_of(picture: Picture) -> float:
        layer, values = picture.layer(), picture.values()
        nothing = layer(torch.full_like(values, torch.nan))
        at = window_fraction(
            torch.zeros(2, 1, *picture.size, dtype=torch.float64),
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            padding_counts_as=picture.policy,
        )
        empty = float((nothing[(at == 0).expand_as(nothing)] != 0).sum())
        whole = replace(picture, policy="observed").layer()(values)
        dense = conv2d(values, layer.weight, layer.bias, picture.stride, picture.padding, picture.dilation)
        return empty + float((whole - dense).abs().sum())

    expected = "≤ 1e-12 over all outputs; 0 to the bit where the window is empty"
    # up to 2 · 3 · 144 outputs, each off by some units of 1e-15 at most
    return check_property("complete and empty images", expected, effort, pictures(), error_of, 1e-12)


def global_fraction_control(effort: Effort) -> Evidence:
    """Take the fraction of the whole image for that of the window, or the other reading of the padding."""
    picture = Picture(seed=3)
    layer, values, mask = picture.layer(), picture.values(), picture.mask()
    assert layer.bias is not None
    signal = conv2d(values.masked_fill(~mask, 0.0), layer.weight, None, 1, 1)
    whole = mask.double().mean((1, 2, 3), keepdim=True)
    coarse = signal + whole * layer.bias[:, None, None]
    other = Picture(seed=3, policy="missing").layer()(values, mask)
    reference = picture.explicit().view_as(coarse)
    gaps = [float((each - reference).abs().max()) for each in (coarse, other, layer(values, mask))]
    return control(
        "fraction of the image; padding read otherwise",
        min(gaps[:2]) > 0.1 and gaps[2] <= 1e-13,
        "> 0.1, > 0.1; ours ≤ 1e-13",
        ", ".join(f"{each:.2g}" for each in gaps),
    )


CONVOLUTION = Theorem(
    key="masked.convolution",
    title="In a convolution the fraction is local",
    statement=(
        "A convolution fed, window by window, with neutralizers −b/(|K| K_τ) computes K ∗ (m ⊙ x) + b (1 ∗ m)/|K| with "
        "|K| = C_in k_h k_w: the local fraction times the partial convolution. With padding counted as observed a "
        "complete image gives the ordinary convolution; counted as missing, a 3×3 window keeps 4/9 of the bias in a "
        "corner and 6/9 at an edge."
    ),
    hypotheses=("zero padding", "what padding counts as is said"),
    source="derived here from Kia et al., 2022, arXiv:2206.01640; partial convolution after Liu et al., 2018",
    about=(MaskedConv2d, window_fraction),
    checks=(
        prove_window,
        bridge_window,
        explicit_windows,
        partial_convolution,
        complete_and_empty,
        global_fraction_control,
    ),
)
