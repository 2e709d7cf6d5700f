"""inference.fixed-prediction: errors that settle around a held forward pass rest at backpropagation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.core.randomness import generator
from nlsim.core.system import Held
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.inference.baselines import GradientDescent
from nlsim.systems.inference.exact_backprop import FixedPredictionFlow, FixedPredictionLearning
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.variant_cases import Case, cases, relative, settled_gradient
from nlsim.theorems.inference.variant_symbols import WIDTHS, SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def symbolic_field(net: SymbolicNet, hidden: list[Any]) -> list[Any]:
    """Return −(ĥ_l − h_l) + φ'(h_l) ⊙ W_{l+1}ᵀ e_{l+1} of the hidden layers."""
    made = net.forward()
    errors = [*(h - p for h, p in zip(hidden, made, strict=False)), -net.loss_gradient(made[-1])]
    return [
        net.slope(made[k]).multiply_elementwise(net.weight(k + 1).T * errors[k + 1]) - errors[k]
        for k in range(net.depth - 1)
    ]


def prove_rest(effort: Effort) -> Evidence:
    """Put e = −δ into the field: it vanishes, and the local products are the derivatives of the loss."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        made, deltas = net.forward(), net.deltas()
        at_rest = [h - delta for h, delta in zip(made[:-1], deltas[:-1], strict=True)]
        for rate in symbolic_field(net, at_rest):
            differences += list(rate)
        sources, _ = net.predictions(made[:-1])
        for layer, (delta, source) in enumerate(zip(deltas, sources, strict=True)):
            differences += list(delta * source.T - net.gradient(layer))
    return identities(
        "the field vanishes at e_l = −δ_l, and δ_l ã_{l−1}ᵀ = dℓ/dW_l",
        "abstract activation and loss; the field is affine with matrix −1 plus a nilpotent one, so there is one rest",
        differences,
    )


def prove_nilpotence(effort: Effort) -> Evidence:
    """The Jacobian of the field is −1 plus a matrix whose power L − 1 is 0: the rest is unique and attracts."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        hidden = [net.free(layer) for layer in range(net.depth - 1)]
        entries = sp.Matrix([each for h in hidden for each in h])
        matrix = sp.Matrix([each for rate in symbolic_field(net, hidden) for each in rate]).jacobian(entries)
        power = (matrix + sp.eye(len(entries))) ** (net.depth - 1)
        differences += list(power)
        differences += [sp.diff(each, symbol) for each in matrix for symbol in entries]  # affine
    return identities("(J + 1)^(L−1) = 0 and J is constant", "on all nets", differences)


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic field with the running one away from rest."""
    tolerance, gaps = 1e-13, []  # some hundred roundings
    for widths in WIDTHS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=9)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            draw = generator(5, "fixed prediction activity")
            hidden = tuple(torch.as_tensor(draw.normal(size=(1, n))) for n in widths[1:-1])
            running = FixedPredictionFlow(case.network(), case.loss_of_output(), weights).vector_field(
                0.0, hidden, inputs
            )
            symbolic = symbolic_field(net, [net.free(layer) for layer in range(net.depth - 1)])
            values = values_of(net, weights, inputs, hidden)
            gaps += [largest_gap(s, r, values) for s, r in zip(symbolic, running, strict=True)]
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = running field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations",
        f"{worst:.2g} over {len(gaps)} layers",
    )


def rest_is_backpropagation(effort: Effort) -> Evidence:
    """Settle the running flow in L − 1 unit Euler steps, from anywhere."""

    def error_of(case: Case) -> float:
        system = FixedPredictionLearning(case.network(), case.loss_of_output(), GradientDescent(1.0))
        weights, inputs, reference = case.weights(), case.inputs(), case.gradients()
        draw = generator(case.seed, "start")
        state = system.initial_state(weights, inputs)
        state = replace(
            state, activity=tuple(h + torch.as_tensor(draw.normal(size=tuple(h.shape))) for h in state.activity)
        )
        state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 1.0, system.network.depth - 1)
        size = max(1.0, *(float(g.norm()) for g in reference))
        found = system.gradients(state, inputs)
        return float(np.max([float((f - g).norm()) for f, g in zip(found, reference, strict=True)])) / size

    return check_property(
        "gradients at rest = backpropagation",
        "≤ 1e-13 after L − 1 Euler steps of length 1 from a random start; depth 1 to 4, both losses",
        effort,
        cases(activations=("identity", "logistic", "relu", "softplus", "tanh")),
        error_of,
        1e-13,
    )


def moving_prediction_control(effort: Effort) -> Evidence:
    """Let predictions move with the activities, or stop before rest: backpropagation is missed."""
    case = Case(seed=4)
    reference = case.gradients()
    moved = relative(settled_gradient(case, (1.0, 1.0, 1.0), 1.0), reference)
    system = FixedPredictionLearning(case.network(), case.loss_of_output(), GradientDescent(1.0))
    inputs = case.inputs()
    state = system.initial_state(case.weights(), inputs)

    def after(time: float) -> float:
        settled = RK4.advance(system, Held(inputs), state, 0.0, 0.1, round(10 * time))
        return relative(system.gradients(settled, inputs), reference)

    early, late = after(0.5), after(45.0)
    return Evidence(
        Leg.CONTROL,
        "predictions not fixed; stopped early",
        judge(moved >= 0.1 and early >= 0.1 and late <= 1e-13),
        "error ≥ 0.1 with moving predictions at rest, and at t = 0.5 with fixed ones; ≤ 1e-13 at t = 45",
        f"{moved:.2f}, {early:.2f}; {late:.1e}",
    )


FIXED_PREDICTION = Theorem(
    key="inference.fixed-prediction",
    title="With predictions held at the forward pass, settled errors are those of backpropagation",
    statement=(
        "The flow dĥ_l/dt = −(ĥ_l − h_l) + φ'(h_l) ⊙ W_{l+1}ᵀ e_{l+1} with e_L = −∂ℓ/∂h_L has one rest state, which "
        "attracts every start: e_l = −∂ℓ/∂h_l, so e_l ã_{l−1}ᵀ is the step of backpropagation. Euler steps of "
        "length 1 reach it in L − 1 steps."
    ),
    hypotheses=(
        "predictions, sources and slopes are those of the forward pass",
        "φ differentiable at the forward pass",
        "unit precisions",
    ),
    source=(
        "Millidge, Tschantz and Buckley, Neural Computation 34, 2022 (fixed-prediction assumption); "
        "nilpotence and finite settling derived here"
    ),
    about=(FixedPredictionFlow, FixedPredictionLearning),
    checks=(
        prove_rest,
        prove_nilpotence,
        bridge_field,
        rest_is_backpropagation,
        moving_prediction_control,
    ),
)
