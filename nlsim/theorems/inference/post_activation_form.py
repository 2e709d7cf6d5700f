"""inference.post-activation-form: states behind the nonlinearity need a precision for every unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Inputs
from nlsim.systems.backprop import backpropagate
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.post_activation import PostActivationFlow
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import SMOOTH, Case, cases, flat, relative, rest, unflat
from nlsim.theorems.inference.variant_symbols import identities
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

DISTANCES = (1e-1, 1e-2, 1e-3, 1e-4)
NET = Case(has_bias=False, seed=3)


def implicit_weights(case: Case, alpha: float, inputs: Inputs) -> Layers:
    """Return the root of θ' − θ + α ∇L(θ') that continues θ, by Newton's method in weight space."""
    weights, network, loss = case.weights(), case.network(), case.loss_of_output()
    start = flat(weights)

    def residual(point: Tensor) -> Tensor:
        gradient = flat(backpropagate(network, loss, unflat(point, weights), inputs).gradient)
        return point - start + alpha * gradient

    point = start
    for _ in range(30):
        change = torch.linalg.solve(torch.func.jacrev(residual)(point), residual(point))
        point = point - change
        if float(change.norm()) <= 1e-15 * float(start.norm()):
            break
    found: Layers = unflat(point, weights)
    return found


def step_error(case: Case, kind: str, alpha: float = 1.0) -> float:
    """Return the distance of the settled step from the implicit one, relative to that."""
    inputs, weights = case.inputs(), case.weights()
    flow = PostActivationFlow(case.network(), case.loss_of_output(), weights, alpha, kind)
    assert inputs.input is not None
    settled = rest(flow, flow.begin(inputs.input), inputs)
    exact = implicit_weights(case, alpha, inputs)
    made = flow.update(settled, inputs)
    return relative(
        tuple(w - v for w, v in zip(made, weights, strict=True)),
        tuple(w - v for w, v in zip(exact, weights, strict=True)),
    )


def prove_curvature(effort: Effort) -> Evidence:
    """Expand the cost of realising ĥ around the prediction: its curvature is 1/(α n φ'²), unit by unit."""
    p, eta = sp.symbols("p eta", real=True)
    alpha, n = sp.symbols("alpha n", positive=True)
    differences = []
    for value, inverse in (
        (sp.tanh, sp.atanh),
        (lambda a: 1 / (1 + sp.exp(-a)), lambda y: sp.log(y / (1 - y))),
        (lambda a: sp.log(1 + sp.exp(a)), lambda y: sp.log(sp.exp(y) - 1)),
    ):
        slope = sp.diff(value(p), p)
        cost = (inverse(eta) - p) ** 2 / (2 * alpha * n)
        at = {eta: value(p)}
        # φ⁻¹(φ(p)) = p, so only (φ⁻¹)'² of the second derivative is left; (φ⁻¹)' is checked to be 1/φ'
        differences.append(sp.simplify((sp.diff(inverse(eta), eta).subs(at) * slope - 1).rewrite(sp.exp)))
        second = sp.diff(cost, eta, 2).subs(inverse(eta), p).subs(at)
        differences.append(sp.simplify((second * slope**2 * alpha * n - 1).rewrite(sp.exp)))
    return identities("∂²/∂ĥ² ‖φ⁻¹(ĥ) − p‖²/(2αn) at ĥ = φ(p)", "1/(α n φ'(p)²); tanh, logistic, softplus", differences)


def realisation(effort: Effort) -> Evidence:
    """After the update with φ⁻¹ the forward pass of one sample is ĥ, whatever ĥ is."""

    def error_of(case: Case) -> float:
        inputs = case.inputs()
        flow = PostActivationFlow(case.network(), case.loss_of_output(), case.weights(), 1.0)
        assert inputs.input is not None
        hidden = flow.begin(inputs.input)
        # somewhere else in the range of φ: the activities of other weights
        moved = replace(flow, weights=tuple(0.8 * w for w in case.weights())).begin(inputs.input) if hidden else hidden
        made = case.network().forward(flow.update(moved, inputs), inputs.input)
        return float(np.max([0.0, *(float((a - b).abs().max()) for a, b in zip(made, moved, strict=False))]))

    return check_property(
        "new forward pass = ĥ",
        # φ⁻¹ magnifies roundings by 1/φ', φ by φ': some hundred roundings are left
        "≤ 1e-12; depth 1 to 4, four activations",
        effort,
        cases(activations=SMOOTH, samples=1),
        error_of,
        1e-12,
    )


def unit_order(effort: Effort) -> Evidence:
    """With per-unit precisions the step's relative error falls like the residual."""
    errors = [step_error(replace(NET, distance=rho), "unit") for rho in DISTANCES]
    slope = observed_order(DISTANCES[1:], errors[1:])
    rows = tuple((f"{rho:g}", f"{error:.2e}") for rho, error in zip(DISTANCES, errors, strict=True))
    return Evidence(
        Leg.ORDER,
        "per-unit precisions: error of the step in ρ",
        judge(abs(slope - 1) <= 0.05),
        "slope 1 ± 0.05 at α = 1",
        f"{slope:.4f}",
        (Table("distance from the implicit step, relative to it", ("ρ", "error"), rows),),
    )


def layer_control(effort: Effort) -> Evidence:
    """With one precision a layer the error does not fall (N7); where φ' = 1 everywhere it does."""
    errors = [step_error(replace(NET, distance=rho), "layer") for rho in DISTANCES]
    slope = observed_order(DISTANCES, errors)
    straight = [step_error(replace(NET, distance=rho, activation="identity"), "layer") for rho in DISTANCES]
    again = observed_order(DISTANCES[1:], straight[1:])
    return Evidence(
        Leg.CONTROL,
        "one precision a layer",
        judge(abs(slope) <= 0.05 and min(errors) >= 0.1 and abs(again - 1) <= 0.05),
        "error ≥ 0.1 at every ρ, slope 0 ± 0.05; slope 1 returns with linear layers",
        f"{', '.join(f'{error:.3f}' for error in errors)}; slope {slope:.3f}; linear {again:.3f}",
    )


POST_ACTIVATION_FORM = Theorem(
    key="inference.post-activation-form",
    title="With post-activation states an implicit step needs a precision for every unit",
    statement=(
        "When the state of a layer is its output, realising ĥ_l costs ‖φ⁻¹(ĥ_l) − p_l‖²/(2αn_l), of curvature "
        "1/(αn_l φ'(p_l)²) unit by unit. With those precisions and the update (φ⁻¹(ĥ_l) − p_l)h̃ᵀ/n_l the step is "
        "implicit SGD up to a relative O(ρ) in the residual ρ; with one precision a layer it is off by O(1)."
    ),
    hypotheses=("one sample", "φ invertible and smooth", "precisions held while the energy is differentiated"),
    source="derived here; the convention is that of the IL-SGD code of Alonso et al., NeurIPS 2022",
    about=(PostActivationFlow,),
    checks=(prove_curvature, realisation, unit_order, layer_control),
)
