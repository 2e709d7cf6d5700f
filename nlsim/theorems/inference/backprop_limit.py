"""inference.backprop-limit: as the output loses its weight in the energy, settled gradients become backpropagation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.randomness import generator
from nlsim.systems.backprop import backpropagate
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.update import energy_gradient
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import Case, cases, relative, settled_gradient
from nlsim.theorems.inference.variant_symbols import WIDTHS, SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

LAMBDAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def symbolic_field(net: SymbolicNet, hidden: list[Any], weight: Any) -> list[Any]:
    """Return −∂F/∂ĥ of F = λ ℓ(y, p_L) + Σ_{l<L} ½‖e_l‖², by differentiation."""
    symbols = [net.free(layer) for layer in range(net.depth - 1)]
    _, made = net.predictions(symbols)
    energy = weight * net.loss(made[-1])
    for h, p in zip(symbols, made, strict=False):
        energy += sum((each**2 for each in h - p), sp.Integer(0)) / 2
    at = {s: v for h, given in zip(symbols, hidden, strict=True) for s, v in zip(h, given, strict=True)}
    return [h.applyfunc(lambda s: -sp.diff(energy, s).subs(at, simultaneous=True)) for h in symbols]


def prove_first_order(effort: Effort) -> Evidence:
    """Errors −λδ solve the rest equations to O(λ²), and λ⁻¹ ∂F/∂W is then the derivative of the loss."""
    scale = sp.Symbol("lambda", positive=True)
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        deltas = net.deltas()
        hidden: list[Any] = []
        for delta in deltas[:-1]:  # ĥ_l = p_l(ĥ_{l−1}) − λ δ_l
            _, made = net.predictions(hidden)
            hidden.append(made[-1] - scale * delta)
        for rate in symbolic_field(net, hidden, scale):
            for each in rate:
                differences += [each.subs(scale, 0), sp.diff(each, scale).subs(scale, 0).doit()]
        sources, _ = net.predictions(hidden)
        for layer, (delta, source) in enumerate(zip(deltas, sources, strict=True)):
            # ∂F/∂W_l = −e_l ãᵀ = λ δ_l ãᵀ below the top; λ ∂ℓ/∂p_L ãᵀ at the top
            differences += list((delta * source.T).subs(scale, 0) - net.gradient(layer))
    return identities(
        "rest equations at e = −λδ: coefficients of λ⁰ and λ¹; limit of λ⁻¹ ∂F/∂W",
        "all vanish and equal dℓ/dW, for abstract activation and loss",
        differences,
    )


def prove_regular(effort: Effort) -> Evidence:
    """At λ = 0 the Hessian of F is JᵀJ with J unit triangular: the rest state is a smooth function of λ."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        symbols = [each for layer in range(net.depth - 1) for each in net.free(layer)]
        forward = dict(zip(symbols, (each for h in net.forward()[:-1] for each in h), strict=True))
        rates = symbolic_field(net, [net.free(layer) for layer in range(net.depth - 1)], sp.Integer(0))
        hessian = -sp.Matrix([each for rate in rates for each in rate]).jacobian(symbols)
        differences.append(hessian.subs(forward, simultaneous=True).doit().det() - 1)
    return identities(
        "det ∂²F/∂ĥ² = 1 at λ = 0 and ĥ = h", "on all nets: the implicit function theorem applies", differences
    )


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic field and weight gradient with the running ones, the output clamped at precision λ."""
    tolerance, gaps, size = 1e-13, [], 0.3  # some hundred roundings
    for widths in WIDTHS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=3)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            draw = generator(6, "limit activity")
            hidden = tuple(torch.as_tensor(draw.normal(size=(1, n))) for n in widths[1:-1])
            precision = ConstantPrecision((*(1.0,) * (net.depth - 1), size))
            flow = ActivityFlow(case.network(), case.loss_of_output(), precision, "clamped", weights)
            symbols = [net.free(layer) for layer in range(net.depth - 1)]
            values = values_of(net, weights, inputs, hidden)
            running = [*flow.vector_field(0.0, hidden, inputs)]
            running += energy_gradient(case.network(), weights, flow.settling(hidden, inputs))
            sources, made = net.predictions(symbols)
            errors = [*(h - p for h, p in zip(symbols, made, strict=False)), size * (net.target - made[-1])]
            symbolic = symbolic_field(net, symbols, size)
            symbolic += [-e * a.T for e, a in zip(errors, sources, strict=True)]
            gaps += [largest_gap(s, r, values) for s, r in zip(symbolic, running, strict=True)]
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic field and ∂F/∂W = running ones",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations, λ = {size}",
        f"{worst:.2g} over {len(gaps)} layers",
    )


def limit_order(effort: Effort) -> Evidence:
    """Settle the running system at falling λ: the relative error of λ⁻¹ ∂F/∂W falls like λ."""
    rows, slopes = [], []
    for activation in ("tanh", "softplus", "identity"):
        case = Case(activation=activation, samples=2, seed=2)
        reference = case.gradients()
        errors = [relative(settled_gradient(case, (1.0, 1.0, size), 1 / size), reference) for size in LAMBDAS]
        slopes.append(observed_order(LAMBDAS[1:], errors[1:]))
        local = ["", *(f"{p:.3f}" for p in pairwise_orders(LAMBDAS, errors))]
        rows += [(activation, f"{s:g}", f"{e:.3e}", p) for s, e, p in zip(LAMBDAS, errors, local, strict=True)]
    return Evidence(
        Leg.ORDER,
        "error of λ⁻¹ ∂F/∂W in λ",
        judge(all(abs(slope - 1) <= 0.05 for slope in slopes)),
        "slope 1 ± 0.05 from λ = 1e-2 on; three activations, depth 3, two samples",
        ", ".join(f"{slope:.4f}" for slope in slopes),
        (Table("distance of settled gradients from backpropagation", ("φ", "λ", "error", "slope"), tuple(rows)),),
    )


def small_precision(effort: Effort) -> Evidence:
    """On random nets and both losses the error at λ is bounded by a multiple of λ."""

    def error_of(case: Case) -> float:
        # a loss enters a clamped energy as ½γ‖y − p‖² only; in general by the error −λ∂ℓ it makes, which to first
        # order is a target at −∂ℓ/∂h_L from the prediction
        passed = backpropagate(case.network(), case.loss_of_output(), case.weights(), case.inputs())
        reference = passed.gradient
        near = replace(case, loss="squared_error")
        inputs = replace(case.inputs(), target=passed.activity[-1] - passed.costate[-1])
        size = 1e-7
        gammas = (*(1.0 + 0.5 * layer for layer in range(case.network().depth - 1)), size)
        found = settled_gradient(near, gammas, case.samples / size, inputs)
        scale = max(1.0, *(float(g.norm()) for g in reference))
        return float(np.max([float((f - g).norm()) for f, g in zip(found, reference, strict=True)])) / scale

    return check_property(
        "λ = 1e-7",
        # an O(1) constant times 1e-7, and 1e-16/1e-7 of roundings
        "gradient error ≤ 1e-5 (constants below 100); depth 1 to 4, unequal hidden precisions, both losses' signals",
        Effort(max(1, effort.examples // 2), effort.is_random),
        cases(),
        error_of,
        1e-5,
    )


def equal_precision_control(effort: Effort) -> Evidence:
    """Keep the output's precision at 1, or lower that of all layers alike: no backpropagation."""
    case = Case(samples=2, seed=2)
    reference = case.gradients()
    kept = relative(settled_gradient(case, (1.0, 1.0, 1.0), 1.0), reference)
    alike = relative(settled_gradient(case, (1e-4, 1e-4, 1e-4), 1e4), reference)
    limit = relative(settled_gradient(case, (1.0, 1.0, 1e-4), 1e4), reference)
    return Evidence(
        Leg.CONTROL,
        "all precisions lowered alike",
        judge(min(kept, alike) >= 0.1 and abs(kept - alike) <= 1e-8 and limit <= 1e-3),
        "error ≥ 0.1 and the same as with all at 1; ≤ 1e-3 when only the output's is 1e-4",
        f"{alike:.3f} and {kept:.3f}; {limit:.1e}",
    )


INFERENCE_BACKPROP_LIMIT = Theorem(
    key="inference.backprop-limit",
    title="As the output's precision λ → 0, settled gradients are backpropagation",
    statement=(
        "With precision λ at the clamped output (or a loss weighted by λ) and fixed precisions in the hidden layers, "
        "the rest state that continues the forward pass has γ_l e_l = −λ ∂ℓ/∂h_l + O(λ²), so "
        "λ⁻¹ ∂F/∂W_l = ∂ℓ/∂W_l + O(λ). Only the ratio of the output's precision to the hidden ones counts."
    ),
    hypotheses=(
        "φ twice differentiable",
        "activities at the rest state that the forward pass continues into",
        "hidden precisions positive and fixed; unequal ones cancel from γ_l e_l",
    ),
    source="Whittington and Bogacz, Neural Computation 29, 2017; orders and symbolic proof derived here",
    about=(InferenceLearning, ActivityFlow, ConstantPrecision, energy_gradient),
    checks=(
        prove_first_order,
        prove_regular,
        bridge_field,
        limit_order,
        small_precision,
        equal_precision_control,
    ),
)
