"""inference.soft-target: where a soft clamp holds the output, in closed form and as a root."""

from __future__ import annotations

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.inference.target import heuristic_target, settle_cross_entropy, settle_squared_error
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import slope
from nlsim.theorems.inference.variant_symbols import identities
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Y, P, H = sp.symbols("y p h", real=True)
GAMMA, ALPHA, N = sp.symbols("gamma alpha n", positive=True)
CLOSED = (GAMMA * P + Y) / (GAMMA + 1)


def prove_closed_form(effort: Effort) -> Evidence:
    """The compromise is the minimum; with γ = 1/(α n) it is (p + α n y)/(1 + α n); its error shrinks as it should."""
    energy = (Y - H) ** 2 / 2 + GAMMA * (H - P) ** 2 / 2
    step = CLOSED.subs(GAMMA, 1 / (ALPHA * N))
    return identities(
        "argmin ½(y − h)² + γ(h − p)²/2",
        "h = (γp + y)/(γ + 1), curvature 1 + γ; with γ = 1/(αn): (p + αny)/(1 + αn), y − h = (y − p)/(1 + αn)",
        [
            sp.diff(energy, H).subs(H, CLOSED),
            sp.diff(energy, H, 2) - (1 + GAMMA),
            step - (P + ALPHA * N * Y) / (1 + ALPHA * N),
            Y - step - (Y - P) / (1 + ALPHA * N),
        ],
    )


def prove_uniqueness(effort: Effort) -> Evidence:
    """For three classes the curvature of the cross-entropy is a sum of squares, so with γ > 0 there is one root."""
    outputs = sp.symbols("h0:3", real=True)
    vector = sp.symbols("v0:3", real=True)
    parts = [sp.exp(h) for h in outputs]
    total = sum(parts)
    hessian = sp.hessian(sp.log(total), outputs)
    form = (sp.Matrix([vector]) * hessian * sp.Matrix(vector))[0]
    squares = sum(parts[i] * parts[j] * (vector[i] - vector[j]) ** 2 for i in range(3) for j in range(i + 1, 3)) / (
        total**2
    )
    return identities(
        "vᵀ ∂²(log Σ eʰ) v", "Σ_{i<j} s_i s_j (v_i − v_j)², s = softmax h, three classes", [form - squares]
    )


def bridge_closed_form(effort: Effort) -> Evidence:
    """Compare the closed form with the running function."""
    draw = generator(1, "soft target")
    y, p = (torch.as_tensor(draw.normal(size=(20, 3))) for _ in range(2))
    gamma = torch.as_tensor(10 ** draw.uniform(-4, 4, (20, 1)))
    expected = sp.lambdify((Y, P, GAMMA), CLOSED, "numpy")(y.numpy(), p.numpy(), gamma.numpy())
    gap = float(np.abs(expected - settle_squared_error(p, gamma, y).numpy()).max())
    # five roundings of numbers below 4
    return Evidence(
        Leg.BRIDGE, "closed form = running code", judge(gap <= 5e-15), "≤ 5e-15, γ 1e-4 to 1e4", f"{gap:.1e}"
    )


def one_sample(seed: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return a random prediction and a one-hot target."""
    draw = generator(seed, "soft target sample")
    p = torch.as_tensor(draw.normal(size=(1, classes)))
    return p, torch.nn.functional.one_hot(torch.as_tensor([seed % classes]), classes).to(p.dtype)


def root_property(effort: Effort) -> Evidence:
    """The running root solves γ(ĥ − p) = y − softmax ĥ, over eight decades of γ."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        seed, classes, exponent = drawn
        p, y = one_sample(seed, classes)
        gamma = 10**exponent
        h = settle_cross_entropy(p, gamma, y)
        residual = gamma * (h - p) - (y - torch.softmax(h, -1))
        return float(residual.abs().max()) / (1 + gamma * float(h.abs().max()))

    return check_property(
        "residual of the root",
        "≤ 1e-14 relative to its terms; 2 to 10 classes, γ from 1e-4 to 1e4",
        effort,
        st.tuples(st.integers(0, 10**6), st.integers(2, 10), st.floats(-4, 4)),
        error_of,
        1e-14,
    )


def heuristic_order(effort: Effort) -> Evidence:
    """Probabilities in place of outputs: the step is off by a share that falls like α n, and is O(1) at α n = 1."""
    sizes = (1e-2, 1e-3, 1e-4, 1e-5)
    rows, slopes = [], []
    for seed in range(3):
        p, y = one_sample(seed, 4)
        errors = []
        for size in sizes:
            exact = settle_cross_entropy(p, 1 / size, y) - p
            errors.append(float((heuristic_target(p, 1 / size, y) - p - exact).norm() / exact.norm()))
        slopes.append(slope(sizes, errors))
        rows += [(str(seed), f"{size:g}", f"{error:.2e}") for size, error in zip(sizes, errors, strict=True)]
    return Evidence(
        Leg.ORDER,
        "heuristic target against the root",
        judge(all(abs(p - 1) <= 0.05 for p in slopes)),
        "relative error of the step: slope 1 ± 0.05 in α n",
        ", ".join(f"{p:.3f}" for p in slopes),
        (Table("relative error of e_L", ("sample", "α n", "error"), tuple(rows)),),
    )


def heuristic_control(effort: Effort) -> Evidence:
    """At α n ≥ 0.2 the heuristic is no approximation (N8), and at large α n it stops short."""
    shares, short = [], []
    for seed in range(10):
        p, y = one_sample(seed, 4)
        exact = settle_cross_entropy(p, 1 / 0.22, y) - p
        shares.append(float((heuristic_target(p, 1 / 0.22, y) - p - exact).norm() / exact.norm()))
        far = [rule(p, 1 / 220.0, y) for rule in (settle_cross_entropy, heuristic_target)]
        losses = [float((torch.logsumexp(h, -1) - (h * y).sum(-1)).sum()) for h in far]
        short.append(losses[1] / losses[0])
    return Evidence(
        Leg.CONTROL,
        "softmax probabilities as outputs",
        judge(float(np.median(shares)) >= 0.05 and max(shares) >= 0.1 and min(short) >= 10),
        "at α n = 0.22 off by 0.1 or more at worst, 0.05 at the median; at α n = 220 leaves 10 times the loss",
        f"{max(shares):.2f}, {float(np.median(shares)):.2f}; {min(short):.0f} times and more",
    )


SOFT_TARGET = Theorem(
    key="inference.soft-target",
    title="A soft clamp rests at the proximal output: in closed form, or at a unique root",
    statement=(
        "argmin ℓ(y, ĥ) + γ‖ĥ − p‖²/2 is (γp + y)/(γ + 1) for the squared error, so e = αn/(1 + αn)(y − p) with "
        "γ = 1/(αn); for the cross-entropy it is the unique root of γ(ĥ − p) = y − softmax ĥ. Putting probabilities in "
        "the place of outputs is right only to first order in αn."
    ),
    hypotheses=("γ > 0", "targets of the cross-entropy ≥ 0"),
    source="released code of Alonso et al., NeurIPS 2022, for the squared error; root and orders derived here",
    about=(settle_squared_error, settle_cross_entropy, heuristic_target),
    checks=(
        prove_closed_form,
        prove_uniqueness,
        bridge_closed_form,
        root_property,
        heuristic_order,
        heuristic_control,
    ),
)
