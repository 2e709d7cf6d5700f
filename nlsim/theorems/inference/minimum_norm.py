"""inference.minimum-norm-update: the normalised step is the smallest that makes the network give ĥ."""

from __future__ import annotations

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.systems.inference.energy import feedforward, nlms, normaliser, predict
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.proximal_cases import (
    SMOOTH,
    Draw,
    largest_gap,
    number,
    symbolic_twin,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero


def prove_least_norm(effort: Effort) -> Evidence:
    """Every M with M ã = e is e ãᵀ/n + N with N ã = 0, and ‖M‖² = ‖e‖²/n + ‖N‖²."""
    answers: list[bool | None] = []
    for rows, columns in ((1, 1), (2, 2), (2, 3), (3, 2)):
        M = sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"m_{i}_{j}", real=True))
        a = sp.Matrix([sp.Symbol(f"a_{j}", positive=True) for j in range(columns)])
        n, e = sum(each**2 for each in a), M * a
        smallest = e * a.T / n
        rest = M - smallest
        answers += [is_zero(each) for each in smallest * a - e]
        answers += [is_zero(each) for each in rest * a]
        size, errors = sum(each**2 for each in M), sum(each**2 for each in e)
        answers.append(is_zero(size - errors / n - sum(each**2 for each in rest)))
    return Evidence(
        Leg.PROOF,
        "Pythagoras for M = e ãᵀ/n + N",
        judge(every(answers)),
        "e ãᵀ/n ã = e, N ã = 0, ‖M‖² = ‖e‖²/n + ‖N‖² for 1 × 1, 2 × 2, 2 × 3, 3 × 2",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_update(effort: Effort) -> Evidence:
    """Compare W + e ãᵀ/n, turned into numbers, with the running step."""
    worst, count = 0.0, 0
    for activation in SMOOTH:
        for has_bias in (False, True):
            draw = Draw((2, 3, 2), activation, has_bias=has_bias, seed=3)
            net, values, _ = symbolic_twin(draw)
            network, activity = draw.network, draw.activity()
            made = predict(network, draw.weights(), draw.sample()[0], activity[:-1])
            new = nlms(network, draw.weights(), made, made.errors(activity))
            for layer, w in enumerate(new):
                for i, j in np.ndindex(*w.shape):
                    gap = abs(number(net.closest(layer)[i, j], values) - float(w[i, j]))
                    worst, count = float(np.maximum(worst, gap)), count + 1
    return Evidence(
        Leg.BRIDGE,
        "W + e ãᵀ/n = nlms",
        judge(worst <= 1e-13 and count > 50),  # some ten roundings of numbers of size 1 to 10
        "≤ 1e-13 over tanh, identity, softplus; with and without biases",
        f"{worst:.2g} over {count} weights",
    )


def realisation(effort: Effort) -> Evidence:
    """The new forward pass gives ĥ, and least squares finds no smaller step."""

    def error_of(case: tuple[tuple[int, ...], str, bool, int]) -> float:
        widths, activation, has_bias, seed = case
        draw = Draw(widths, activation, has_bias=has_bias, seed=seed)
        network, weights, activity, given = draw.network, draw.weights(), draw.activity(), draw.sample()[0]
        made = predict(network, weights, given, activity[:-1])
        new = nlms(network, weights, made, made.errors(activity))
        # a unit of round-off of a_{l-1} is magnified by the weights above it
        errors = [largest_gap(feedforward(network, new, given), activity) / (1 + _magnification(new))]
        for w, other, a, e in zip(weights, new, made.source, made.errors(activity), strict=True):
            source = torch.cat((a, torch.ones_like(a[:, :1])), -1) if has_bias else a
            least = np.linalg.lstsq(source.numpy(), e.numpy(), rcond=None)[0].T
            errors.append(float(np.abs((other - w).numpy() - least).max()) / (1 + float(np.abs(least).max())))
        return max(errors) if not np.isnan(errors).any() else float("nan")

    return check_property(
        "new forward pass = ĥ; step = minimum-norm solution of NumPy's least squares",
        "≤ 1e-13 relative, for activities that minimise nothing; depth 1 to 5",
        effort,
        st.tuples(
            st.lists(st.integers(1, 6), min_size=2, max_size=6).map(tuple),
            st.sampled_from([*SMOOTH, "logistic"]),
            st.booleans(),
            st.integers(0, 10**6),
        ),
        error_of,
        1e-13,
    )


def _magnification(weights: tuple[torch.Tensor, ...]) -> float:
    product = 1.0
    for w in weights:
        product *= 1 + float(w.norm())
    return product


def normaliser_control(effort: Effort) -> Evidence:
    """With n at the feedforward activities, or without the 1 of the bias, the forward pass must miss ĥ."""
    draw = Draw(seed=5)
    network, weights, activity, given = draw.network, draw.weights(), draw.activity(), draw.sample()[0]
    made = predict(network, weights, given, activity[:-1])
    before = predict(network, weights, given, feedforward(network, weights, given)[:-1])
    gaps = []
    stale = [normaliser(w, a) for w, a in zip(weights, before.source, strict=True)]
    for sizes in (stale, [a.square().sum() for a in made.source]):
        parts = zip(weights, made.source, made.errors(activity), sizes, strict=True)
        new = tuple(w + network.weight_gradient(e / n, a, w) for w, a, e, n in parts)
        gaps.append(largest_gap(feedforward(network, new, given), activity))
    return Evidence(
        Leg.CONTROL,
        "wrong normalisers",
        judge(min(gaps) > 0.05),
        "ĥ missed by more than 0.05 with n of the feedforward activities, and with n without the bias",
        ", ".join(f"{each:.2g}" for each in gaps),
    )


MINIMUM_NORM_UPDATE = Theorem(
    key="inference.minimum-norm-update",
    title="The normalised step is the smallest that realises the activities",
    statement=(
        "Among all W' with W'ã = ĥ the closest to W in the Frobenius norm is W + e ãᵀ/‖ã‖², e = ĥ − Wã, at the squared "
        "distance ‖e‖²/‖ã‖². After that step in all layers the forward pass on the same sample gives ĥ, layer by "
        "layer, whatever ĥ is."
    ),
    hypotheses=("one sample", "ã ≠ 0 in every layer, as biases ensure"),
    source="after Alonso et al., NeurIPS 2022, on normalised updates; derived here",
    about=(nlms, normaliser, predict, feedforward),
    checks=(prove_least_norm, bridge_update, realisation, normaliser_control),
)
