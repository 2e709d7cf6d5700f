"""inference.single-plastic-layer: where one layer learns, plain inference is implicit SGD already."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad

from nlsim.systems.inference.energy import feedforward, normaliser
from nlsim.systems.inference.implicit_step import unflatten
from nlsim.systems.inference.minimum import MinimumEnding, minimise
from nlsim.systems.inference.proximal import certificate
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.implicit_sgd import rest_of_field
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw, number, symbolic_net, symbolic_twin
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import AbstractLoss, Sigma, every, is_zero


def _plastic_step(draw: Draw, alpha: float, layer: int) -> tuple[Any, ...]:
    """Return the weights after inference in one layer's activity, the layers above being noise-free, and the ending.

    F(ĥ) = ℓ(y, f_{>m}(ĥ)) + ‖ĥ − p_m‖²/(2α n_m): n_m is a constant, for the layers below do not move.
    """
    network, weights, (given, target) = draw.network, draw.weights(), draw.sample()
    problem = draw.problem(alpha)
    before = feedforward(network, weights, given)
    source = given if layer == 0 else network.activations[layer - 1].value(before[layer - 1])
    p, n = before[layer], normaliser(weights[layer], source)

    def energy(row: Tensor) -> Tensor:
        h = unflatten(row, (p,))[0]
        cost = (h - p).square().sum() / (2 * n[0, 0])
        for k in range(layer + 1, network.depth):
            h = network.pre_activation(weights[k], network.activations[k - 1].value(h))
        return (cost + alpha * problem.loss.value(h, target).sum()) / (1 + alpha)

    found = minimise(energy, p.flatten())
    e = found.point.reshape(p.shape) - p
    new = list(weights)
    new[layer] = weights[layer] + network.weight_gradient(e / n, source, weights[layer])
    return problem, weights, tuple(new), given, target, found.ending


def prove_one_layer(effort: Effort) -> Evidence:
    """∂F/∂ĥ ãᵀ = (W' − W)/α + ∂L/∂W_m at W' = W + e ãᵀ/n, for an abstract function of ĥ behind the layer."""
    alpha = sp.Symbol("alpha", positive=True)
    answers: list[bool | None] = []
    for widths, has_bias in (((1, 1), False), ((2, 2), False), ((2, 2), True), ((3, 2), False)):
        net = symbolic_net(widths, has_bias=has_bias, activation=Sigma)
        W, h, a = net.weight[0], net.h[0], net.source(0)
        behind = AbstractLoss(*h)  # all that follows the layer, of one sample: any function of its activity
        energy = behind + sum(e**2 for e in net.error(0)) / (2 * alpha * net.normaliser(0))
        V = sp.Matrix(*W.shape, lambda i, j: sp.Symbol(f"v_{i}_{j}", real=True))
        objective = AbstractLoss(*(V * a)) + sum((v - w) ** 2 for v, w in zip(V, W, strict=True)) / (2 * alpha)
        at = dict(zip(V, net.closest(0), strict=True))
        slope = sp.Matrix([sp.diff(energy, each) for each in h])
        for v, each in zip(V, slope * a.T, strict=True):
            put = sp.diff(objective, v).subs(at, simultaneous=True)
            settled = put.replace(
                lambda f: isinstance(f, sp.Function), lambda f: f.func(*(sp.cancel(arg) for arg in f.args))
            )
            answers.append(is_zero(settled - each))
    return Evidence(
        Leg.PROOF,
        "∂J/∂W' = ∂F/∂ĥ ãᵀ",
        judge(every(answers)),
        "for an abstract function behind the layer; 1-1, 2-2 with and without biases, 3-2",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_one_layer(effort: Effort) -> Evidence:
    """The symbolic ∂F/∂ĥ of one layer, in numbers, against the running energy's gradient, both losses."""
    worst = 0.0
    alpha = sp.Symbol("alpha", positive=True)
    for loss in ("squared_error", "cross_entropy"):
        draw = Draw((3, 2), "identity", loss, seed=9)
        net, values, symbolic = symbolic_twin(draw)
        values[alpha] = 0.6
        gradient = grad(lambda h, of=draw: of.problem(0.6).energy(of.weights(), *of.sample(), (h,)).sum())(
            draw.activity()[0]
        )
        for s, v in zip(net.h[0], gradient.flatten(), strict=True):
            worst = float(np.maximum(worst, abs(number(sp.diff(net.energy(symbolic, alpha), s), values) - float(v))))
    return Evidence(Leg.BRIDGE, "∂F/∂ĥ", judge(worst <= 1e-13), "≤ 1e-13 for both losses", f"{worst:.2g}")


def one_plastic_layer(effort: Effort) -> Evidence:
    """Any layer of any network, by the gradient of the loss at the new weights."""

    def error_of(case: tuple[str, str, bool, int, float, int]) -> float:
        activation, loss, has_bias, layer, exponent, seed = case
        draw = Draw((4, 5, 4, 3), activation, loss, has_bias, seed)
        alpha = 10**exponent
        problem, weights, new, given, target, ending = _plastic_step(draw, alpha, layer)
        if ending is not MinimumEnding.CONVERGED:
            return float("inf")
        moved = new[layer] - weights[layer]
        miss = moved + alpha * problem.gradient(new, given, target)[layer]
        return float(miss.norm() / moved.norm())

    return check_property(
        "one plastic layer",
        "certificate ≤ 1e-11 in the layer that learns; any of 3 layers, α from 1e-2 to 1e2, both losses",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(
            st.sampled_from(SMOOTH),
            st.sampled_from(("squared_error", "cross_entropy")),
            st.booleans(),
            st.integers(0, 2),
            st.floats(-2.0, 2.0),
            st.integers(0, 10**6),
        ),
        error_of,
        1e-11,
    )


def two_layers_control(effort: Effort) -> Evidence:
    """Two plastic layers with precisions held constant must miss the implicit step."""
    misses = []
    for seed in range(3):
        draw = Draw((5, 7, 4), seed=40 + seed)
        problem, weights = draw.problem(1.0), draw.weights()
        sample = (draw.sample()[0], draw.near_target(1.0))
        new = problem.update(weights, sample[0], rest_of_field(problem, weights, sample, 0.0))
        misses.append(float(certificate(problem, weights, new, *sample)))
    return Evidence(
        Leg.CONTROL,
        "two plastic layers",
        judge(min(misses) >= 0.02),
        "certificate ≥ 0.02 without the missing term, α = 1, ρ = 1",
        ", ".join(f"{each:.2g}" for each in misses),
    )


SINGLE_PLASTIC_LAYER = Theorem(
    key="inference.single-plastic-layer",
    title="With one plastic layer plain inference is implicit SGD",
    statement=(
        "If only layer m learns and the layers above it are noise-free, minimising ℓ(y, f_{>m}(ĥ_m)) + ‖e_m‖²/(2α n_m) "
        "and taking the normalised step is implicit SGD in W_m: n_m does not depend on ĥ_m, so nothing is left out. "
        "A single layer is the case m = L."
    ),
    hypotheses=("one sample", "one plastic layer", "the settled activity is a minimum"),
    source="derived here, after Alonso et al., NeurIPS 2022",
    about=(minimise, normaliser, feedforward),
    checks=(prove_one_layer, bridge_one_layer, one_plastic_layer, two_layers_control),
)
