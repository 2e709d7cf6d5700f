"""One layer at every rate, the step of infinite rate, and the origin of deep linear networks."""

from __future__ import annotations

from functools import partial

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacrev

from nlsim.analysis.orders import observed_order
from nlsim.systems.inference.baselines import BackpropagationProximal
from nlsim.systems.inference.closed_form import cross_entropy_target, linear_step
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.inference.implicit_step import flatten, solve_in_activities, unflatten
from nlsim.systems.inference.linear import hard_clamp
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.other_systems import one_layer_baseline
from nlsim.theorems.inference.proximal_cases import Draw, number, symbolic_net, symbolic_twin
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero


def prove_contraction(effort: Effort) -> Evidence:
    """W' = W + α/(1 + αn) r ãᵀ solves W' = W + α (y − W'ã) ãᵀ and leaves r/(1 + αn)."""
    alpha = sp.Symbol("alpha", positive=True)
    answers: list[bool | None] = []
    for widths, has_bias in (((1, 1), False), ((2, 2), True), ((3, 1), False)):
        net = symbolic_net(widths, has_bias=has_bias, activation=lambda a: a)
        W, a, n = net.weight[0], net.source(0), net.normaliser(0)
        r = net.y - W * a
        new = W + alpha / (1 + alpha * n) * r * a.T
        left = net.y - new * a
        answers += [is_zero(each) for each in new - W - alpha * left * a.T]
        answers += [is_zero(each) for each in left - r / (1 + alpha * n)]
    n = sp.Symbol("n", positive=True)
    answers.append((1 / (1 + alpha * n)).is_positive and (1 - 1 / (1 + alpha * n)).simplify().is_positive)
    return Evidence(
        Leg.PROOF,
        "implicit equation and contraction",
        judge(every(answers)),
        "W' solves the implicit equation; residual r/(1 + αn), 0 < 1/(1 + αn) < 1; 1-1, 2-2 with biases, 3-1",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_linear_step(effort: Effort) -> Evidence:
    """The symbolic step, in numbers, and the running closed form."""
    draw = Draw((3, 2), "identity", seed=2)
    net, values, _ = symbolic_twin(draw)
    a, n = net.source(0), net.normaliser(0)
    expected = net.weight[0] + sp.Rational(7, 10) / (1 + sp.Rational(7, 10) * n) * (net.y - net.weight[0] * a) * a.T
    given, target = draw.sample()
    source = torch.cat((given, torch.ones_like(given[:, :1])), -1)
    running = linear_step(draw.weights()[0], source, target, 0.7)
    worst = max(abs(number(e, values) - float(v)) for e, v in zip(expected, running.flatten(), strict=True))
    return Evidence(Leg.BRIDGE, "linear step", judge(worst <= 1e-14), "≤ 1e-14", f"{worst:.2g}")


def contraction(effort: Effort) -> Evidence:
    """Ratio of residuals after and before, and the loss under cross-entropy, at any rate."""

    def error_of(case: tuple[int, int, float, int]) -> float:
        inputs, outputs, exponent, seed = case
        draw = Draw((inputs, outputs), seed=seed)
        (given, target), W, alpha = draw.sample(), draw.weights()[0], 10**exponent
        source = torch.cat((given, torch.ones_like(given)[:, :1]), -1)
        before, n = target - source @ W.mT, source.square().sum()
        after = target - source @ linear_step(W, source, target, alpha).mT
        gap = (after - before / (1 + alpha * n)).abs().max() / (1 + before.abs().max() + target.abs().max())
        simplex = torch.softmax(target, -1)
        h = cross_entropy_target(source @ W.mT, alpha * n, simplex)
        rest = h - source @ W.mT - alpha * n * (simplex - torch.softmax(h, -1))
        return float(torch.maximum(gap, rest.abs().max() / (1 + alpha * n + h.abs().max())))

    return check_property(
        "residual ratio 1/(1 + αn); cross-entropy root",
        "both to 1e-13, relative; α from 1e-3 to 1e4",
        effort,
        st.tuples(st.integers(1, 8), st.integers(2, 6), st.floats(-3.0, 4.0), st.integers(0, 10**6)),
        error_of,
        1e-13,
    )


def explicit_control(effort: Effort) -> Evidence:
    """Explicit SGD has the factor 1 − αn: above α = 2/n the residual must grow."""
    draw = Draw((5, 3), seed=1)
    (given, target), W = draw.sample(), draw.weights()[0]
    source = torch.cat((given, torch.ones_like(given[:, :1])), -1)
    n = float(source.square().sum())
    ratios = []
    for alpha in (1.9 / n, 2.1 / n):
        before = target - source @ W.mT
        after = target - source @ (W + alpha * before.mT @ source).mT
        ratios.append(float(after.norm() / before.norm()))
    return Evidence(
        Leg.CONTROL,
        "explicit SGD on either side of α = 2/n",
        judge(abs(ratios[0] - 0.9) <= 1e-12 and abs(ratios[1] - 1.1) <= 1e-12),
        "residual ratios 0.9 and 1.1",
        f"{ratios[0]:.12g}, {ratios[1]:.12g}",
    )


ONE_LAYER_CONTRACTION = Theorem(
    key="inference.one-layer-contraction",
    title="One layer: the implicit step contracts at every learning rate",
    statement=(
        "With squared error and n = ‖ã‖² the implicit step leaves the residual (y − h)/(1 + αn), a contraction for "
        "every α > 0; explicit SGD has the factor 1 − αn and is stable for α < 2/n only. In terms of normalised least "
        "mean squares the rate is αn/(1 + αn) < 1. Under cross-entropy the settled output is the unique root of "
        "ĥ = p + αn (y − softmax ĥ)."
    ),
    hypotheses=("one layer", "one sample"),
    source="Toulis & Airoldi, Annals of Statistics 45(4), 2017; Haykin, Adaptive Filter Theory",
    about=(linear_step, cross_entropy_target, BackpropagationProximal),
    checks=(prove_contraction, bridge_linear_step, contraction, one_layer_baseline, explicit_control),
)


def _settled(draw: Draw, row: Tensor) -> Tensor:
    given, target = draw.sample()
    return hard_clamp(
        draw.network, unflatten(row, draw.weights()), given, target, (1.0,) * draw.network.depth
    ).energy.mean()


def _loss(draw: Draw, row: Tensor) -> Tensor:
    given, target = draw.sample()
    return SQUARED_ERROR.value(feedforward(draw.network, unflatten(row, draw.weights()), given)[-1], target).mean()


def prove_strict_saddle(effort: Effort) -> Evidence:
    """Along W_L = t u vᵀ F* = ½ yᵀ(I + t²uuᵀ)⁻¹y, of curvature −(u·y)² at 0; the loss is flat there."""
    t = sp.Symbol("t", real=True)
    answers: list[bool | None] = []
    for width in (1, 2, 3):
        y = sp.Matrix([sp.Symbol(f"y{k}", real=True) for k in range(width)])
        u = sp.Matrix([sp.Symbol(f"u{k}", real=True) for k in range(width)])
        # with all other weights 0, T_{L−1} = W_L and T_l = 0 below: S = I + |v|² t² uuᵀ, |v| = 1
        S = sp.eye(width) + t**2 * u * u.T
        energy = (y.T * S.adjugate() * y)[0] / S.det() / 2
        answers.append(is_zero(sp.diff(energy, t).subs(t, 0)))
        answers.append(is_zero(sp.diff(energy, t, 2).subs(t, 0) + (u.T * y)[0] ** 2))
    # the loss of a scalar chain of three layers has no second derivative at the origin
    w = sp.symbols("w1:4", real=True)
    x, z = sp.symbols("x z", real=True)
    loss = (z - w[0] * w[1] * w[2] * x) ** 2 / 2
    answers += [is_zero(sp.diff(loss, a, b).subs(dict.fromkeys(w, 0))) for a in w for b in w]
    return Evidence(
        Leg.PROOF,
        "curvatures at the origin",
        judge(every(answers)),
        "F* has slope 0 and curvature −(u·y)² along W_L = t u vᵀ, outputs 1 to 3; the loss of 3 layers has none",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_strict_saddle(effort: Effort) -> Evidence:
    """F* along W_L = t u vᵀ, symbolic in numbers, and the running settled energy."""
    draw = Draw((2, 3, 3, 2), "identity", has_bias=False, seed=3)
    target = draw.sample()[1][0]
    u, v = torch.tensor([0.6, -0.8], dtype=torch.float64), torch.tensor([2.0, 1.0, -2.0], dtype=torch.float64) / 3
    worst = 0.0
    for t in (0.3, 1.0, 4.0):
        weights = (*(0 * w for w in draw.weights()[:-1]), t * torch.outer(u, v))
        running = float(_settled(draw, flatten(weights)))
        S = np.eye(2) + t**2 * np.outer(u, u)
        worst = max(worst, abs(running - 0.5 * float(target.numpy() @ np.linalg.solve(S, target.numpy()))))
    return Evidence(Leg.BRIDGE, "F* along a ray", judge(worst <= 1e-14), "≤ 1e-14", f"{worst:.2g}")


def origin(effort: Effort) -> Evidence:
    """Least curvature of the settled energy at the origin of random networks, against −λ_max(Σ yyᵀ/B)."""

    def error_of(case: tuple[tuple[int, ...], int, int]) -> float:
        widths, samples, seed = case
        draw = Draw(widths, "identity", has_bias=False, seed=seed, samples=samples)
        zero = 0 * flatten(draw.weights())
        target = draw.sample()[1]
        found = torch.linalg.eigvalsh(jacrev(grad(partial(_settled, draw)))(zero))[0]
        expected = -torch.linalg.eigvalsh(target.mT @ target / samples)[-1]
        flat = jacrev(grad(partial(_loss, draw)))(zero).abs().max()
        return float(torch.maximum((found - expected).abs() / (1 - expected), flat))

    return check_property(
        "λ_min ∂²F*(0) = −λ_max(Σ yyᵀ/B), ∂²L(0) = 0",
        "≤ 1e-12; 2 to 3 hidden layers",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(
            st.lists(st.integers(1, 3), min_size=4, max_size=5).map(tuple), st.integers(1, 4), st.integers(0, 10**6)
        ),
        error_of,
        1e-12,
    )


def one_hidden_control(effort: Effort) -> Evidence:
    """With one hidden layer the loss must have curvature at the origin: there its saddle is strict too."""
    draw = Draw((2, 3, 2), "identity", has_bias=False, seed=3)
    zero = 0 * flatten(draw.weights())
    curvature = jacrev(grad(partial(_loss, draw)))(zero)
    least = float(torch.linalg.eigvalsh(curvature)[0])
    return Evidence(
        Leg.CONTROL, "one hidden layer", judge(least < -0.01), "least curvature of the loss below −0.01", f"{least:.3g}"
    )


STRICT_SADDLE = Theorem(
    key="inference.strict-saddle",
    title="The origin of a deep linear network is a strict saddle of the settled energy",
    statement=(
        "With two hidden layers or more the loss has no curvature at the origin, where all weights are 0, while the "
        "settled energy F* (hard clamp, unit precisions) has the least curvature −λ_max(Σ_b y_b y_bᵀ/B) < 0."
    ),
    hypotheses=("linear layers without biases", "some target is not 0"),
    source="Innocenti, Achour, Singh and Buckley, NeurIPS 2024",
    about=(hard_clamp,),
    checks=(prove_strict_saddle, bridge_strict_saddle, origin, one_hidden_control),
)


def nearest_interpolant(draw: Draw, near: Layers) -> Layers:
    """Return the weights nearest to the old ones that give the target, by Newton on the equations of Lagrange."""
    weights, (given, target) = draw.weights(), draw.sample()
    start, outputs = flatten(weights), target.shape[-1]

    def equations(point: Tensor) -> Tensor:
        row, multiplier = point[:-outputs], point[-outputs:]

        def pulled(own: Tensor) -> Tensor:
            return (multiplier * (feedforward(draw.network, unflatten(own, weights), given)[-1][0] - target[0])).sum()

        missed = feedforward(draw.network, unflatten(row, weights), given)[-1][0] - target[0]
        return torch.cat((row - start + grad(pulled)(row), missed))

    point = torch.cat((flatten(near), torch.zeros(outputs, dtype=torch.float64)))
    J = jacrev(lambda row: feedforward(draw.network, unflatten(row, weights), given)[-1][0])(flatten(near))
    point[-outputs:] = torch.linalg.lstsq(J.mT, (start - flatten(near)).unsqueeze(-1)).solution[:, 0]
    for _ in range(15):
        point = point - torch.linalg.solve(jacrev(equations)(point), equations(point))
    if not float(equations(point).norm()) <= 1e-11:
        raise ArithmeticError("no interpolant was found")
    return unflatten(point[:-outputs], weights)


def interpolation_order(effort: Effort) -> Evidence:
    """Distance of the implicit step to the nearest interpolant, at rates from 1e2 to 1e5."""
    rows, slopes = [], []
    for activation in ("tanh", "identity", "softplus"):
        draw = Draw((5, 7, 6, 4), activation, seed=1)
        weights, (given, _) = draw.weights(), draw.sample()
        rates, distances, target = (1e2, 1e3, 1e4, 1e5), [], draw.sample()[1]
        limit = nearest_interpolant(draw, solve_in_activities(draw.problem(1e5), weights, given, target).weights)
        for alpha in rates:
            step = solve_in_activities(draw.problem(alpha), weights, given, target)
            distances.append(float((flatten(step.weights) - flatten(limit)).norm()))
        slopes.append(observed_order(rates, distances))
        rows.append((activation, *(f"{each:.2e}" for each in distances), f"{slopes[-1]:.4f}"))
    return Evidence(
        Leg.ORDER,
        "distance to the nearest interpolant",
        judge(max(abs(each + 1) for each in slopes) <= 0.05),
        "slope −1 ± 0.05 in α, from 1e2 to 1e5",
        ", ".join(f"{each:.4f}" for each in slopes),
        (Table("distances", ("activation", "α = 1e2", "1e3", "1e4", "1e5", "slope"), tuple(rows)),),
    )


def other_interpolant_control(effort: Effort) -> Evidence:
    """The step to another interpolant, that of the last layer alone, must not be the limit, and be longer."""
    draw = Draw((5, 7, 6, 4), seed=1)
    weights, (given, target) = draw.weights(), draw.sample()
    step = solve_in_activities(draw.problem(1e5), weights, given, target)
    limit = nearest_interpolant(draw, step.weights)
    before = feedforward(draw.network, weights, given)
    source = draw.network.activations[-2].value(before[-2])
    e = (target - before[-1]) / (source.square().sum() + 1)
    other = (*weights[:-1], weights[-1] + draw.network.weight_gradient(e, source, weights[-1]))
    lengths = [float((flatten(each) - flatten(weights)).norm()) for each in (limit, other)]
    distance = float((flatten(step.weights) - flatten(other)).norm())
    is_exact = float((feedforward(draw.network, other, given)[-1] - target).abs().max()) <= 1e-12
    return Evidence(
        Leg.CONTROL,
        "an interpolant that is not the nearest",
        judge(is_exact and lengths[1] > 1.1 * lengths[0] and distance > 0.1 * lengths[0]),
        "longer by a tenth at least, and as far from the step of α = 1e5",
        f"lengths {lengths[0]:.4f} and {lengths[1]:.4f}; distance {distance:.3g}",
    )


INTERPOLATION_LIMIT = Theorem(
    key="inference.interpolation-limit",
    title="At infinite rate the implicit step is the nearest interpolation",
    statement=(
        "As α → ∞ the implicit step of one sample tends to argmin ‖θ' − θ‖ subject to h_L(θ') = y, at the rate O(1/α): "
        "the deep analogue of the projection of normalised least mean squares."
    ),
    hypotheses=("squared error", "one sample, target within reach", "the branch of one minimum is followed"),
    source="derived here; Kaczmarz's projection for one linear layer",
    about=(solve_in_activities,),
    checks=(interpolation_order, other_interpolant_control),
)
