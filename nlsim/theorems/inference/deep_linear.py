"""Deep linear networks: where inference settles, what energy is left, and the tangent kernel in it."""

from __future__ import annotations

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacrev

from nlsim.systems.inference.energy import Layers, feedforward, free_energy, normalisers, predict
from nlsim.systems.inference.implicit_step import flatten, unflatten
from nlsim.systems.inference.linear import (
    hard_clamp,
    inference_hessian,
    settle_hidden,
    soft_clamp,
    spread,
    tangent_kernel,
)
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.linear_numbers import (
    SHAPES,
    bridge_hard,
    bridge_soft,
    draws,
    error_of_rest,
    hard_proof,
    identity,
    nonlinear_control,
    soft_proof,
    symbolic_tails,
)
from nlsim.theorems.inference.proximal_cases import Draw, number, symbolic_net, symbolic_twin
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero

# systems of up to 30 unknowns, precisions over two decades: condition below some 1e4
SOLVED = 1e-11


def soft_property(effort: Effort) -> Evidence:
    """Activities and F* of the soft clamp against NumPy's least squares."""
    return check_property(
        "soft clamp = least squares",
        f"activities and F* to {SOLVED:g}; depth 2 to 5, γ from 0.1 to 10, with and without biases",
        effort,
        draws(),
        lambda case: error_of_rest(case, is_hard=False),
        SOLVED,
    )


def hard_property(effort: Effort) -> Evidence:
    """Activities and F* of the hard clamp against NumPy's least squares, and block elimination against both."""

    def error_of(case: tuple[Draw, tuple[float, ...]]) -> float:
        draw, gamma = case
        network, weights, (given, target) = draw.network, draw.weights(), draw.sample()
        rest = hard_clamp(network, weights, given, target, gamma)
        settled = settle_hidden(network, weights, given, target, gamma)
        gap = (flatten(settled) - flatten(rest.activity[:-1])).abs().max() / (1 + flatten(settled).abs().max())
        shift = tuple(torch.sin(1.0 + 3.0 * h[:1]) for h in settled)  # any displacement

        def energy(hidden: Layers) -> Tensor:
            errors = predict(network, weights, given[:1], hidden).errors((*hidden, target[:1]))
            return free_energy(errors, gamma).sum()

        force = flatten(grad(energy)(tuple(h[:1] + d for h, d in zip(settled, shift, strict=True))))
        expected = inference_hessian(network, weights, gamma) @ flatten(shift)
        bent = (force - expected).abs().max() / (1 + expected.abs().max())
        return float(np.max([error_of_rest(case, is_hard=True), float(gap), float(bent)]))

    return check_property(
        "hard clamp = least squares = block elimination",
        f"activities and F* to {SOLVED:g}, and ∂F/∂ĥ = H δ at a displacement δ from rest",
        effort,
        draws(),
        error_of,
        SOLVED,
    )


def envelope(effort: Effort) -> Evidence:
    """∂F*/∂W_l is the local gradient −γ_l e_l ãᵀ at rest."""

    def error_of(case: tuple[Draw, tuple[float, ...]]) -> float:
        draw, gamma = case
        network, weights, (given, target) = draw.network, draw.weights(), draw.sample()
        rest = soft_clamp(network, weights, given, target, gamma)
        made = predict(network, weights, given, rest.activity[:-1])

        def left(row: Tensor) -> Tensor:
            return soft_clamp(network, unflatten(row, weights), given, target, gamma).energy.sum()

        parts = zip(gamma, rest.errors, made.source, weights, strict=True)
        local = tuple(-network.weight_gradient(g * e, a, w) for g, e, a, w in parts)
        slope = grad(left)(flatten(weights))
        return float((slope - flatten(local)).abs().max() / (1 + slope.abs().max()))

    return check_property(
        "envelope",
        f"∂F*/∂W = local gradient at rest, by differentiating the closed form, to {SOLVED:g}",
        Effort(max(1, effort.examples // 2), effort.is_random),
        draws(depth=4),
        error_of,
        SOLVED,
    )


def soft_control(effort: Effort) -> Evidence:
    """A tanh between the layers, under a soft clamp."""
    return nonlinear_control(is_hard=False)


def hard_control(effort: Effort) -> Evidence:
    """A tanh between the layers, under a hard clamp."""
    return nonlinear_control(is_hard=True)


def prove_kernel(effort: Effort) -> Evidence:
    """Σ_l n_l T_l T_lᵀ = (∂h_L/∂θ)(∂h_L/∂θ)ᵀ by differentiating the network."""
    answers: list[bool | None] = []
    for widths, has_bias in SHAPES:
        net = symbolic_net(widths, has_bias=has_bias, activation=identity)
        h, sizes = net.x, []
        for w in net.weight:
            source = h.col_join(sp.ones(1, 1)) if has_bias else h
            sizes.append(sum(each**2 for each in source))
            h = w * source
        theta = [each for w in net.weight for each in w]
        J = h.jacobian(theta)
        K = sum((n * t * t.T for n, t in zip(sizes, symbolic_tails(net), strict=True)), sp.zeros(widths[-1]))
        answers += [is_zero(each) for each in J * J.T - K]
    return Evidence(
        Leg.PROOF,
        "Θ = Σ n_l T_l T_lᵀ",
        judge(every(answers)),
        "equal to J Jᵀ, J the derivative of the output by all weights and biases; nets of up to 3 layers of 2",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_kernel(effort: Effort) -> Evidence:
    """The symbolic kernel, turned into numbers, and the running one."""
    worst = 0.0
    for has_bias in (False, True):
        draw = Draw((2, 3, 2, 2), "identity", has_bias=has_bias, seed=8)
        net, values, _ = symbolic_twin(draw)
        h, sizes = net.x, []
        for w in net.weight:
            source = h.col_join(sp.ones(1, 1)) if has_bias else h
            sizes.append(sum(each**2 for each in source))
            h = w * source
        K = sum((n * t * t.T for n, t in zip(sizes, symbolic_tails(net), strict=True)), sp.zeros(2))
        running = tangent_kernel(draw.network, draw.weights(), draw.sample()[0])[0]
        gaps = [abs(number(each, values) - float(v)) for each, v in zip(K, running.flatten(), strict=True)]
        worst = float(np.max([worst, *gaps]))
    return Evidence(Leg.BRIDGE, "Θ", judge(worst <= 1e-12), "≤ 1e-12, with and without biases", f"{worst:.2g}")


def kernel_property(effort: Effort) -> Evidence:
    """K = αΘ by automatic differentiation, and the output left by the step is (I + αΘ)⁻¹ r in the new weights."""

    def error_of(case: tuple[tuple[Draw, tuple[float, ...]], float]) -> float:
        (draw, _), alpha = case
        draw = Draw(draw.widths, "identity", has_bias=draw.has_bias, seed=draw.seed)
        network, weights, (given, target) = draw.network, draw.weights(), draw.sample()
        h = feedforward(network, weights, given)
        sizes = normalisers(weights, predict(network, weights, given, h[:-1]))

        def output(row: Tensor) -> Tensor:
            return feedforward(network, unflatten(row, weights), given)[-1][0]

        J = jacrev(output)(flatten(weights))
        kernel = J @ J.mT
        precisions = tuple(1 / (alpha * n) for n in sizes)
        gap = (spread(network, weights, precisions)[0] - alpha * kernel).abs().max() / (alpha * kernel.abs().max())
        rest = soft_clamp(network, weights, given, target, precisions)
        new = draw.problem(alpha).update(weights, given, rest.activity)
        left = target - feedforward(network, new, given)[-1]
        one = torch.eye(len(kernel), dtype=torch.float64)
        expected = torch.linalg.solve(one + alpha * kernel, (target - h[-1])[0])
        return float(torch.maximum(gap, (left[0] - expected).abs().max() / (1 + h[-1].abs().max())))

    return check_property(
        "K = αΘ; the new weights leave (I + αΘ)⁻¹ r",
        f"≤ {SOLVED:g}; α from 1e-2 to 1e2, Θ by automatic differentiation",
        effort,
        st.tuples(draws(depth=4), st.floats(0.01, 100.0)),
        error_of,
        SOLVED,
    )


def kernel_control(effort: Effort) -> Evidence:
    """Equal precisions in all layers must not give the kernel, unless the layers' normalisers agree."""
    draw = Draw((4, 5, 5, 3), "identity", seed=4)
    network, weights, given = draw.network, draw.weights(), draw.sample()[0]
    sizes = normalisers(weights, predict(network, weights, given, feedforward(network, weights, given)[:-1]))
    kernel = tangent_kernel(network, weights, given)
    equal = spread(network, weights, (1 / sizes[-1],) * 3)
    gap = float((equal - kernel).norm() / kernel.norm())
    return Evidence(Leg.CONTROL, "equal precisions", judge(gap > 0.1), "K off by more than 0.1 of Θ", f"{gap:.2g}")


DEEP_LINEAR_TARGET = Theorem(
    key="inference.deep-linear-target",
    title="Deep linear networks under a soft clamp: the settled output in closed form",
    statement=(
        "With constant precisions, T_l = W_L ⋯ W_{l+1}, K = Σ_l T_l T_lᵀ/γ_l and r = y − h_L, the activities that "
        "minimise ½‖y − ĥ_L‖² + Σ γ_l ‖e_l‖²/2 have y − ĥ_L = (I + K)⁻¹ r, γ_l e_l = T_lᵀ (I + K)⁻¹ r, and leave "
        "F* = ½ rᵀ (I + K)⁻¹ r. ∂F*/∂W_l is the local gradient −γ_l e_l ãᵀ."
    ),
    hypotheses=("linear layers, biases allowed", "γ_l > 0 constant during inference", "squared error"),
    source="derived here; the soft-clamp form of Innocenti et al., NeurIPS 2024",
    about=(soft_clamp, spread),
    checks=(soft_proof, bridge_soft, soft_property, envelope, soft_control),
)

EQUILIBRATED_ENERGY = Theorem(
    key="inference.equilibrated-energy",
    title="Deep linear networks under a hard clamp: the energy left is a rescaled squared error",
    statement=(
        "With ĥ_L = y the settled energy is F* = ½ rᵀ S⁻¹ r, S = Σ_l T_l T_lᵀ/γ_l, so with unit hidden precisions and "
        "output precision λ S = I/λ + Σ_{l<L} T_l T_lᵀ. The hidden activities solve the block-tridiagonal system "
        "with diagonal blocks γ_l I + γ_{l+1} W_{l+1}ᵀ W_{l+1} and off-diagonal blocks −γ_{l+1} W_{l+1}."
    ),
    hypotheses=("linear layers, biases allowed", "γ_l > 0 constant during inference", "output clamped"),
    source="Innocenti, Achour, Singh and Buckley, NeurIPS 2024, on the equilibrated energy",
    about=(hard_clamp, settle_hidden, inference_hessian),
    checks=(hard_proof, bridge_hard, hard_property, hard_control),
)

TANGENT_KERNEL = Theorem(
    key="inference.tangent-kernel",
    title="Feedforward precisions make inference a Levenberg–Marquardt step of the output",
    statement=(
        "In a linear network with γ_l = 1/(α n_l) at the feedforward activities, K = αΘ, Θ = Σ_l n_l T_l T_lᵀ being "
        "the neural tangent kernel at the sample. After inference and the normalised step the output misses its "
        "target by (I + αΘ)⁻¹ r."
    ),
    hypotheses=("linear layers, biases allowed", "one sample", "precisions held at their feedforward values"),
    source="derived here",
    about=(tangent_kernel, spread, soft_clamp),
    checks=(prove_kernel, bridge_kernel, kernel_property, kernel_control),
)
