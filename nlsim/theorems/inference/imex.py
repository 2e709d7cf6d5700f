"""inference.imex: plain inference is backward Euler with the feedback weights left behind."""

from __future__ import annotations

from typing import Any

import sympy as sp
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev

from nlsim.analysis.orders import observed_order
from nlsim.systems.inference.energy import Layers, feedforward, predict
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.implicit_step import flatten, solve_in_activities, unflatten
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.inference.proximal import certificate
from nlsim.systems.inference.rest import find_rest
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.field_algebra import ALPHA, EPSILON, bridge_field, energy_gradient, settled
from nlsim.theorems.inference.order_algebra import prove_defect
from nlsim.theorems.inference.proximal_cases import SMOOTH, Draw, symbolic_net
from nlsim.theorems.inference.running import step_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import AbstractLoss, Sigma, SigmaPrime, every, is_zero


def mixed_gradient(draw: Draw, sample: tuple[Tensor, Tensor], forward: Layers, feedback: Layers) -> Layers:
    """Return g(θ_f, θ_b): back-propagation whose activities are of θ_f and whose feedback goes through θ_b."""
    network, problem = draw.network, draw.problem(1.0)
    activity = feedforward(network, forward, sample[0])
    made = predict(network, forward, sample[0], activity[:-1])
    delta, found = problem.loss.gradient(activity[-1], sample[1]), list[Tensor]()
    for layer in reversed(range(network.depth)):
        found.append(network.weight_gradient(delta, made.source[layer], forward[layer]))
        if layer:
            slope = network.activations[layer - 1].slope(activity[layer - 1], made.source[layer])
            delta = slope * network.pull_back(feedback[layer], delta)
    return tuple(reversed(found))


def prove_imex(effort: Effort) -> Evidence:
    """(W' − W)/α + g(θ', θ) = q ãᵀ with q_L = −f_L, q_l = −f_l + φ′ ⊙ Wᵀ q_{l+1}, f the flow with γ held."""
    answers: list[bool | None] = []
    for widths, has_bias in (((1, 1, 1), False), ((1, 1, 1, 1), False), ((1, 2, 1), True), ((2, 2, 2), False)):
        net = symbolic_net(widths, has_bias=has_bias, activation=Sigma)
        depth = len(net.weight)
        minus_flow = energy_gradient(net, lambda out, _: AbstractLoss(*out), is_held=True)
        minus_flow = [each.subs(EPSILON, 0) for each in minus_flow]
        # the forward pass of the new weights, then feedback through the old ones
        new, passed, source = [net.closest(k) for k in range(depth)], list[Any](), net.x
        sources = []
        for w in new:
            sources.append(source.col_join(sp.ones(1, 1)) if has_bias else source)
            passed.append((w * sources[-1]).applyfunc(settled))
            source = passed[-1].applyfunc(Sigma)
        answers += [
            is_zero(p - h) for made, own in zip(passed, net.h, strict=True) for p, h in zip(made, own, strict=True)
        ]
        outputs = sp.Matrix([sp.Symbol(f"o{k}", real=True) for k in range(widths[-1])])
        at = dict(zip(outputs, passed[-1], strict=True))
        delta = sp.Matrix([sp.diff(AbstractLoss(*outputs), o) for o in outputs]).subs(at)
        q = minus_flow[-1]
        for k in reversed(range(depth)):
            residual = (new[k] - net.weight[k]) / ALPHA + delta * sources[k].T
            answers += [is_zero(settled(r) - each) for r, each in zip(residual, q * net.source(k).T, strict=True)]
            if k:
                matrix = net.weight[k][:, :-1] if has_bias else net.weight[k]
                primes = passed[k - 1].applyfunc(SigmaPrime)
                delta = primes.multiply_elementwise(matrix.T * delta)
                q = minus_flow[k - 1] + net.h[k - 1].applyfunc(SigmaPrime).multiply_elementwise(matrix.T * q)
    return Evidence(
        Leg.PROOF,
        "θ' − θ + α g(θ', θ) is a triangular map of the flow",
        judge(every(answers)),
        "for abstract φ and loss; nets 1-1-1, 1-1-1-1, 1-2-1 with biases, 2-2-2",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def imex_residuals(effort: Effort) -> Evidence:
    """Settle and jump the running system, then ask back-propagation with the old feedback weights."""

    def error_of(case: tuple[tuple[int, ...], str, str, bool, float, int]) -> float:
        widths, activation, loss, has_bias, exponent, seed = case
        draw, alpha = Draw(widths, activation, loss, has_bias, seed), 10**exponent
        weights, new = draw.weights(), step_of(draw, "self_consistent", alpha)
        slopes = mixed_gradient(draw, draw.sample(), new, weights)
        missed = flatten(new) - flatten(weights) + alpha * flatten(slopes)
        return float(missed.norm() / (flatten(new) - flatten(weights)).norm())

    return check_property(
        "‖θ' − θ + α g(θ', θ)‖/‖θ' − θ‖",
        "≤ 1e-12; depth 2 to 5, α from 0.01 to 10, both losses",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(
            st.lists(st.integers(2, 6), min_size=3, max_size=6).map(tuple),
            st.sampled_from(SMOOTH),
            st.sampled_from(("squared_error", "cross_entropy")),
            st.booleans(),
            st.floats(-2.0, 1.0),
            st.integers(0, 10**6),
        ),
        error_of,
        1e-12,
    )


def defect_order(effort: Effort) -> Evidence:
    """Distance to the implicit step against −α² (∂g/∂θ_b) g, as a vector."""
    draw, rates, mismatches, rows = Draw(seed=1), (1e-2, 3e-3, 1e-3, 3e-4), [], []
    sample, weights = (draw.sample()[0], draw.near_target(1.0)), draw.weights()
    gradient = mixed_gradient(draw, sample, weights, weights)

    def by_feedback(row: Tensor) -> Tensor:
        return flatten(mixed_gradient(draw, sample, weights, unflatten(row, weights)))

    slope = jacrev(by_feedback)(flatten(weights)) @ flatten(gradient)
    for alpha in rates:
        new = step_of(draw, "self_consistent", alpha, sample)
        exact = solve_in_activities(draw.problem(alpha), weights, *sample).weights
        measured, expected = flatten(new) - flatten(exact), -(alpha**2) * slope
        mismatches.append(float((measured - expected).norm() / expected.norm()))
        norms = (f"{float(each.norm()):.3e}" for each in (expected, measured))
        rows.append((f"{alpha:g}", *norms, f"{mismatches[-1]:.2e}"))
    order = observed_order(rates, mismatches)
    return Evidence(
        Leg.ORDER,
        "θ_IL − θ' against −α² (∂g/∂θ_b) g",
        judge(abs(order - 1) <= 0.05 and mismatches[-2] <= 0.05),
        "relative mismatch of the vectors of slope 1 ± 0.05 in α, and ≤ 0.05 at α = 1e-3",
        f"slope {order:.3f}, {mismatches[-2]:.2g} at 1e-3",
        (Table("defect at ρ = 1", ("α", "predicted norm", "measured norm", "mismatch"), tuple(rows)),),
    )


def certificate_control(effort: Effort) -> Evidence:
    """The step must not be implicit: the feedback weights are the old ones, which is seen at α = 1, ρ = 1."""
    plain, exact = list[float](), list[float]()
    for seed in range(4):
        draw = Draw(seed=20 + seed)
        sample, problem, weights = (draw.sample()[0], draw.near_target(1.0)), draw.problem(1.0), draw.weights()
        for kind, found in (("self_consistent", plain), ("exact", exact)):
            found.append(float(certificate(problem, weights, step_of(draw, kind, 1.0, sample), *sample)))
    return Evidence(
        Leg.CONTROL,
        "the certificate of an implicit step",
        judge(min(plain) >= 0.05 and max(exact) <= 1e-10),
        "‖θ' − θ + α∇L(θ')‖/‖θ' − θ‖ ≥ 0.05 for the self-consistent rule in 4 nets, ≤ 1e-10 for the exact one",
        f"{', '.join(f'{c:.2g}' for c in plain)}; exact ≤ {max(exact):.1g}",
    )


IMEX = Theorem(
    key="inference.imex",
    title="Plain inference is backward Euler forward and explicit in its feedback",
    statement=(
        "Let g(θ_f, θ_b) be the gradient back-propagated with forward weights θ_f and feedback weights θ_b. Inference "
        "at rest with γ_l = 1/(α n_l(ĥ)) held while the energy is differentiated, followed by the normalised step, "
        "gives θ_IL = θ − α g(θ_IL, θ), where implicit SGD is θ' = θ − α g(θ', θ'). So "
        "θ_IL − θ' = −α² (∂g/∂θ_b) g + O(α³)."
    ),
    hypotheses=("one sample", "ã ≠ 0 in every layer", "activities at rest", "for the defect: φ and the loss smooth"),
    source="derived here, after Alonso et al., NeurIPS 2022",
    about=(InferenceLearning, ActivityFlow, StepPrecision, NormalisedLeastMeanSquares, find_rest),
    checks=(prove_imex, prove_defect, bridge_field, imex_residuals, defect_order, certificate_control),
)
