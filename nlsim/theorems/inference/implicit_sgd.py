"""inference.implicit-sgd: inference with activity-dependent precisions and the normalised step is implicit SGD."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacrev

from nlsim.systems.inference.energy import Layers, feedforward, normalisers, predict
from nlsim.systems.inference.implicit_sgd import ImplicitSGD
from nlsim.systems.inference.implicit_step import flatten, solve_in_activities, solve_in_weights, unflatten
from nlsim.systems.inference.minimum import minimise
from nlsim.systems.inference.proximal import ProximalProblem, certificate
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw, number, relative, symbolic_net, symbolic_twin
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import AbstractLoss, Sigma, SigmaPrime, every, is_zero

LOSS_NAMES = ("squared_error", "cross_entropy")


def _settled(expression: Any, at_weights: dict[Any, Any]) -> Any:
    """Put the new weights in, and carry out the forward pass inside φ, φ′ and the loss from the inside out."""
    put = expression.subs(at_weights, simultaneous=True)
    return put.replace(
        lambda each: isinstance(each, (sp.Function)), lambda each: each.func(*(sp.cancel(arg) for arg in each.args))
    )


def prove_equivalence(effort: Effort) -> Evidence:
    """∂G/∂ĥ and the residual W' − W + α ∂L/∂W'(θ') vanish together: one is a triangular map of the other."""
    answers: list[bool | None] = []
    cases = (((1, 1, 1), False), ((1, 1, 1, 1), False), ((1, 2, 1), True), ((2, 2, 2), False))
    alpha = sp.Symbol("alpha", positive=True)
    for widths, has_bias in cases:
        net = symbolic_net(widths, has_bias=has_bias, activation=Sigma)
        depth = len(net.weight)
        energy = net.energy(lambda out, _: AbstractLoss(*out), alpha)
        trial = [
            sp.Matrix(*w.shape, lambda i, j, k=k: sp.Symbol(f"v{k}_{i}_{j}", real=True))
            for k, w in enumerate(net.weight)
        ]
        new = [net.closest(layer) for layer in range(depth)]
        at = {v: value for V, N in zip(trial, new, strict=True) for v, value in zip(V, N, strict=True)}
        source = net.x
        for layer, V in enumerate(trial):
            augmented = source.col_join(sp.ones(1, 1)) if has_bias else source
            drive = V * augmented
            source = drive.applyfunc(Sigma) if layer + 1 < depth else drive
        objective = AbstractLoss(*source) + sum(
            (v - w) ** 2 / (2 * alpha)
            for V, W in zip(trial, net.weight, strict=True)
            for v, w in zip(V, W, strict=True)
        )
        answers.append(is_zero(_settled(objective, at) - energy))
        slope = [sp.Matrix([sp.diff(energy, each) for each in h]) for h in net.h]
        above: Any = None
        for layer in reversed(range(depth)):
            # q_l = (ε_l + δ_l): what the residual α q_l ãᵀ of the implicit step consists of
            pulled = slope[layer]
            if above is not None:
                columns = new[layer + 1][:, :-1] if has_bias else new[layer + 1]
                primes = net.h[layer].applyfunc(SigmaPrime)
                pulled = pulled + primes.multiply_elementwise(columns.T * above)
            above = pulled
            expected = pulled * net.source(layer).T
            for v, each in zip(trial[layer], expected, strict=True):
                answers.append(is_zero(_settled(sp.diff(objective, v), at) - each))
    return Evidence(
        Leg.PROOF,
        "J = G and ∂J/∂W' = q ãᵀ, q_L = ∂G/∂ĥ_L, q_l = ∂G/∂ĥ_l + φ′ ⊙ W'ᵀ q_{l+1}",
        judge(every(answers)),
        "for abstract φ and loss; nets 1-1-1, 1-1-1-1, 1-2-1 with biases, 2-2-2; so ∂G = 0 ⟺ ∂J = 0",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def prove_missing_term(effort: Effort) -> Evidence:
    """∂G/∂ĥ = e/(αn) − φ′ ⊙ [Wᵀe/(αn) + ‖e‖²/(αn²) φ(ĥ)], the same as feeding back through the updated weights."""
    alpha = sp.Symbol("alpha", positive=True)
    answers: list[bool | None] = []
    for widths, has_bias in (((1, 1, 1), False), ((1, 2, 2), False), ((1, 2, 2), True), ((1, 1, 2, 1), True)):
        net = symbolic_net(widths, has_bias=has_bias, activation=Sigma)
        energy = net.energy(lambda out, _: AbstractLoss(*out), alpha)
        for layer in range(len(net.weight) - 1):
            n, m, e = net.normaliser(layer), net.normaliser(layer + 1), net.error(layer + 1)
            primes, values = net.h[layer].applyfunc(SigmaPrime), net.h[layer].applyfunc(Sigma)
            old, new = ((w[:, :-1] if has_bias else w) for w in (net.weight[layer + 1], net.closest(layer + 1)))
            extra = sum(each**2 for each in e) / (alpha * m**2)
            by_term = net.error(layer) / (alpha * n) - primes.multiply_elementwise(
                old.T * e / (alpha * m) + extra * values
            )
            by_weights = net.error(layer) / (alpha * n) - primes.multiply_elementwise(new.T * e / (alpha * m))
            for k, h in enumerate(net.h[layer]):
                slope = sp.diff(energy, h)
                answers += [is_zero(slope - by_term[k]), is_zero(slope - by_weights[k])]
    return Evidence(
        Leg.PROOF,
        "the term that constant precisions leave out",
        judge(every(answers)),
        "gradient = anti-decay form = updated-weight form, abstract φ and loss, nets of up to 3 layers",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge_energy(effort: Effort) -> Evidence:
    """The energy and its gradient, symbolic and running, and the step they lead to."""
    worst, count = 0.0, 0
    alpha, alpha_value = sp.Symbol("alpha", positive=True), 0.7
    for activation in SMOOTH:
        for loss in LOSS_NAMES:
            for has_bias in (False, True):
                draw = Draw((2, 2, 2), activation, loss, has_bias, seed=11)
                net, values, symbolic = symbolic_twin(draw)
                values[alpha] = alpha_value
                problem, (given, target) = draw.problem(alpha_value), draw.sample()
                weights, activity = draw.weights(), draw.activity()
                energy = net.energy(symbolic, alpha)
                pairs = [(energy, problem.energy(weights, given, target, activity).sum())]

                def running(
                    h: Layers,
                    problem: ProximalProblem = problem,
                    weights: Layers = weights,
                    given: Tensor = given,
                    target: Tensor = target,
                ) -> Tensor:
                    return problem.energy(weights, given, target, h).sum()

                for symbols, slope in zip(net.h, grad(running)(activity), strict=True):
                    pairs += [(sp.diff(energy, s), v) for s, v in zip(symbols, slope.flatten(), strict=True)]
                for layer, w in enumerate(problem.update(weights, given, activity)):
                    pairs += list(zip(net.closest(layer), w.flatten(), strict=True))
                for expression, value in pairs:
                    expected = number(expression, values)
                    gap = abs(expected - float(value)) / (1 + abs(expected))
                    worst, count = float(np.maximum(worst, gap)), count + 1
    return Evidence(
        Leg.BRIDGE,
        "G, ∂G/∂ĥ and the step",
        judge(worst <= 1e-13),  # some twenty roundings each
        "≤ 1e-13 over tanh, identity, softplus; both losses; with and without biases",
        f"{worst:.2g} over {count} numbers",
    )


def certificates(effort: Effort) -> Evidence:
    """Minimise G, take the normalised step, and ask the gradient of the loss at the new weights."""

    def error_of(case: tuple[tuple[int, ...], str, str, bool, float, int]) -> float:
        widths, activation, loss, has_bias, exponent, seed = case
        draw = Draw(widths, activation, loss, has_bias, seed)
        step = solve_in_activities(draw.problem(10**exponent), draw.weights(), *draw.sample())
        return step.residual

    return check_property(
        "certificate of the step",
        "‖θ' − θ + α∇L(θ')‖ ≤ 1e-10 ‖θ' − θ‖; depth 2 to 6, α from 1e-2 to 1e2, both losses",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(
            st.lists(st.integers(2, 6), min_size=3, max_size=7).map(tuple),
            st.sampled_from(SMOOTH),
            st.sampled_from(LOSS_NAMES),
            st.booleans(),
            st.floats(-2.0, 2.0),
            st.integers(0, 10**6),
        ),
        error_of,
        1e-10,
    )


def two_ways(effort: Effort) -> Evidence:
    """Where α is too small for a second minimum, Newton on the weights finds the same step."""
    rows, worst = [], 0.0
    for activation in SMOOTH:
        for loss in LOSS_NAMES:
            draw = Draw((4, 5, 4, 3), activation, loss, seed=2)
            problem, weights, sample = draw.problem(0.05), draw.weights(), draw.sample()
            one, other = solve_in_activities(problem, weights, *sample), solve_in_weights(problem, weights, *sample)
            gap = relative(one.weights, other.weights, weights) if one.is_solved and other.is_solved else float("nan")
            worst = float(np.maximum(worst, gap))
            rows.append((activation, loss, f"{gap:.1e}", f"{one.residual:.1e}", f"{other.residual:.1e}"))
    return Evidence(
        Leg.PROPERTY,
        "Newton in the activities = Newton in the weights",
        judge(worst <= 1e-11),  # weights of size 1 hold a step of some 1e-2 to 1e-14
        "relative distance ≤ 1e-11 at α = 0.05",
        f"largest {worst:.1e}",
        (Table("steps", ("activation", "loss", "distance", "certificate", "of Newton"), tuple(rows)),),
    )


def corrected_field(
    problem: ProximalProblem, weights: Layers, sample: tuple[Tensor, Tensor], sign: float, h: Layers
) -> Layers:
    """Return α ∂F/∂ĥ with precisions held constant, the missing term being added with a factor: 1 is exact."""
    network, (given, target) = problem.network, sample
    made = predict(network, weights, given, h[:-1])
    errors, sizes = made.errors(h), normalisers(weights, made)
    field = []
    for layer in range(network.depth - 1):
        slope = network.activations[layer].slope(h[layer], made.source[layer + 1])
        pulled = network.pull_back(weights[layer + 1], errors[layer + 1]) / sizes[layer + 1]
        extra = errors[layer + 1].square().sum(-1, keepdim=True) / sizes[layer + 1].square() * made.source[layer + 1]
        field.append(errors[layer] / sizes[layer] - slope * (pulled + sign * extra))
    return (*field, errors[-1] / sizes[-1] + problem.rates[-1] * problem.loss.gradient(h[-1], target))


def rest_of_field(problem: ProximalProblem, weights: Layers, sample: tuple[Tensor, Tensor], sign: float) -> Layers:
    """Return where the corrected field vanishes, on the branch that begins at the feedforward activities."""
    like = feedforward(problem.network, weights, sample[0])
    point = flatten(like)
    for fraction in np.geomspace(0.01, 1.0, 12):
        rung = replace(problem, rate=tuple(float(fraction) * alpha for alpha in problem.rates))

        def field(row: Tensor, rung: ProximalProblem = rung) -> Tensor:
            return flatten(corrected_field(rung, weights, sample, sign, unflatten(row, like)))

        for _ in range(20):
            step = torch.linalg.solve(jacrev(field)(point), field(point))
            point = point - step
            if float(step.norm()) <= 1e-14 * (1 + float(point.norm())):
                break
    if not float(field(point).norm()) <= 1e-11:
        raise ArithmeticError("no rest state was found")  # the control would else compare arbitrary points
    return unflatten(point, like)


def correction_control(effort: Effort) -> Evidence:
    """Without the missing term, and with its sign turned, the step must not be implicit and cost more."""
    rows, is_ordered, least, largest_exact = [], [], float("inf"), 0.0
    for seed in range(4):
        draw = Draw(seed=20 + seed)
        problem, weights = draw.problem(1.0), draw.weights()
        sample = (draw.sample()[0], draw.near_target(1.0))
        costs, misses = [], []
        for sign in (1.0, 0.0, -1.0):
            new = problem.update(weights, sample[0], rest_of_field(problem, weights, sample, sign))
            costs.append(float(problem.objective(weights, new, *sample)))
            misses.append(float(certificate(problem, weights, new, *sample)))
        is_ordered.append(costs[0] < costs[1] < costs[2])
        least, largest_exact = min(least, misses[1]), max(largest_exact, misses[0])
        rows.append((str(seed), *(f"{each:.6f}" for each in costs), *(f"{each:.2g}" for each in misses)))
    columns = ("net", "J exact", "none", "flipped", "certificate exact", "none", "flipped")
    return Evidence(
        Leg.CONTROL,
        "the missing term left out, or its sign turned",
        judge(all(is_ordered) and least >= 0.05 and largest_exact <= 1e-10),
        "J: exact < none < flipped in 4 of 4 nets; certificate ≤ 1e-10 with the term, ≥ 0.05 without; α = 1, ρ = 1",
        f"{sum(is_ordered)} of 4 ordered; {largest_exact:.1g} with, {least:.2g} and more without",
        (Table("steps", columns, tuple(rows)),),
    )


def several_minima_control(effort: Effort) -> Evidence:
    """With two minima of J the distance to one must fail a step that the certificate passes."""
    draw = Draw((1, 1, 1), "identity", has_bias=False)
    one = torch.ones((1, 1), dtype=torch.float64)
    weights, problem = (0.3 * one, -0.3 * one), draw.problem(10.0)
    plus = solve_in_weights(problem, weights, one, one, start=(one, one))
    minus = solve_in_activities(problem, weights, one, one, start=(-one, one))
    distance = relative(minus.weights, plus.weights, weights)
    mirror = relative(minus.weights, tuple(-w for w in reversed(plus.weights)), weights)
    residual = max(plus.residual, minus.residual)
    return Evidence(
        Leg.CONTROL,
        "distance in place of the certificate",
        judge(distance > 0.5 and mirror <= 1e-12 and residual <= 1e-10),
        "w = (a, −a), α = 10: two implicit steps, images of one another under (w₁, w₂) → (−w₂, −w₁), far apart",
        f"distance {distance:.3g}, from the image {mirror:.1g}, certificates ≤ {residual:.1g}",
    )


IMPLICIT_SGD = Theorem(
    key="inference.implicit-sgd",
    title="One sample: inference with precisions 1/(α n(ĥ)) and the normalised step is implicit SGD",
    statement=(
        "Let G(ĥ) = ℓ(y, ĥ_L) + Σ_l ‖e_l‖²/(2α_l n_l(ĥ)), n_l = ‖ã_{l−1}‖². The normalised step maps stationary points "
        "of G to those of J(θ') = L(θ') + Σ_l ‖W'_l − W_l‖²/(2α_l), where θ' = θ − α∇L(θ'), and the forward pass maps "
        "them back; values agree, so minima do. The gradient of G has the term −φ′(ĥ_l) ⊙ φ(ĥ_l) ‖e_{l+1}‖²/(α n²) "
        "that inference with precisions held constant leaves out: feedback through the updated weights has it."
    ),
    hypotheses=(
        "one sample",
        "all weights plastic; ã ≠ 0 in every layer",
        "φ differentiable; nothing on the loss",
        "the step is unique for α below 1/ρ, −ρ the least curvature of L; beyond, the certificate tells",
    ),
    source="after Alonso et al., NeurIPS 2022, which states an approximation; this exact form is derived here",
    about=(ProximalProblem, certificate, solve_in_activities, solve_in_weights, minimise, ImplicitSGD),
    checks=(
        prove_equivalence,
        prove_missing_term,
        bridge_energy,
        certificates,
        two_ways,
        correction_control,
        several_minima_control,
    ),
)
