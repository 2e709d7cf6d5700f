"""inference.error-form: errors as coordinates of inference change its road, not its end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.systems.activation import IDENTITY
from nlsim.systems.inference.error_form import ErrorFlow, ErrorFormLearning
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.update import LeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.variant_cases import Case, cases, flat, rest, unflat
from nlsim.theorems.inference.variant_symbols import WIDTHS, SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

DEPTHS = (4, 8, 16, 32)


def symbolic_slopes(net: SymbolicNet) -> tuple[list[Any], list[Any], list[Any]]:
    """Return ∂E/∂ε of the hidden layers, z(ε), and ∂F/∂ĥ; clamped output, unit precisions, loss as its energy."""
    symbols = [net.free(layer) for layer in range(net.depth - 1)]  # ε here, ĥ below
    z: list[Any] = []
    for epsilon in symbols:
        _, made = net.predictions(z)
        z.append(made[-1] + epsilon)
    _, made = net.predictions(z)
    energy = net.loss(made[-1]) + sum((each**2 for s in symbols for each in s), sp.Integer(0)) / 2
    in_errors = [s.applyfunc(lambda each: sp.diff(energy, each)) for s in symbols]
    _, made = net.predictions(symbols)
    plain = net.loss(made[-1])
    for h, p in zip(symbols, made, strict=False):
        plain += sum((each**2 for each in h - p), sp.Integer(0)) / 2
    in_states = [s.applyfunc(lambda each: sp.diff(plain, each)) for s in symbols]
    return in_errors, z, in_states


def prove_same_rest(effort: Effort) -> Evidence:
    """∂E/∂ε = Jᵀ ∂F/∂ĥ with J = ∂z/∂ε unit triangular: both vanish together. At ε = 0 it is backpropagation."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        in_errors, z, in_states = symbolic_slopes(net)
        symbols = [each for layer in range(net.depth - 1) for each in net.free(layer)]
        put = dict(zip(symbols, (each for h in z for each in h), strict=True))
        slopes = sp.Matrix([each.subs(put, simultaneous=True).doit() for s in in_states for each in s])
        jacobian = sp.Matrix([each for h in z for each in h]).jacobian(symbols)
        differences += list(sp.Matrix([each for s in in_errors for each in s]) - jacobian.T * slopes)
        differences += [jacobian[i, j] - int(i == j) for i in range(len(symbols)) for j in range(i, len(symbols))]
        at_zero = dict.fromkeys(symbols, 0)
        for slope, delta in zip(in_errors, net.deltas(), strict=False):
            differences += [a.subs(at_zero) - b for a, b in zip(slope, delta, strict=True)]
    return identities(
        "∂E/∂ε = Jᵀ ∂F/∂ĥ, J unit lower triangular; ∂E/∂ε at 0 = ∂ℓ/∂h",
        "abstract activation and loss; so both forms have the same rest states",
        differences,
    )


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic slopes with the running field of the errors."""
    tolerance, gaps = 1e-13, []  # some hundred roundings
    for widths in WIDTHS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=4)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            draw = generator(2, "error form")
            errors = tuple(torch.as_tensor(draw.normal(size=(1, n))) for n in widths[1:-1])
            flow = ErrorFlow(case.network(), SQUARED_ERROR, ConstantPrecision(), "clamped", weights)
            running = flow.vector_field(0.0, errors, inputs)
            values = values_of(net, weights, inputs, errors)
            symbolic, _, _ = symbolic_slopes(net)
            gaps += [largest_gap(-s, r, values) for s, r in zip(symbolic, running, strict=True)]
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic slopes = running field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations",
        f"{worst:.2g} over {len(gaps)} layers",
    )


def same_rest(effort: Effort) -> Evidence:
    """Settle the state form, carry its errors over: the error form rests there too, and makes the same update."""

    def error_of(case: Case) -> float:
        output = "free" if case.loss == "cross_entropy" else "clamped"
        form = (case.network(), case.loss_of_output(), ConstantPrecision(1.3), output, LeastMeanSquares(1.0))
        plain, own = InferenceLearning(*form), ErrorFormLearning(*form)
        weights, inputs = case.weights(), case.inputs()
        flow = plain.flow(weights, inputs.input)
        settled = rest(flow, plain.begin(weights, inputs), inputs, time=5.0)
        seen = flow.settling(settled, inputs)
        errors = seen.errors[: len(settled)]
        other = own.flow(weights)
        field = other.vector_field(0.0, errors, inputs)
        again = other.settling(errors, inputs)
        gaps = [float(f.abs().max()) for f in field]
        gaps += [float((a - b).abs().max()) for a, b in zip(again.errors, seen.errors, strict=True)]
        return float(np.max([0.0, *gaps])) / max(1.0, *(float(h.abs().max()) for h in seen.activity))

    return check_property(
        "field of the error form at rest states of the state form",
        "≤ 1e-10, with the same errors of all layers; depth 1 to 4, clamped and free outputs",
        Effort(max(1, effort.examples // 2), effort.is_random),
        cases(),
        error_of,
        1e-10,
    )


def condition(flow: Any, moving: Any, inputs: Any) -> float:
    """Return λ_max/λ_min of the Hessian of the energy."""

    def field(point: Tensor) -> Tensor:
        return flat(flow.vector_field(0.0, unflat(point, moving), inputs))

    hessian = -torch.func.jacrev(field)(flat(moving))
    values = torch.linalg.eigvalsh(0.5 * (hessian + hessian.T))
    return float(values[-1] / values[0])


def conditioning(effort: Effort) -> Evidence:
    """Orthogonal weights, free output: L + 1 against cot²(π/(2(L + 1)))."""
    rows, is_good = [], True
    for depth in DEPTHS:
        network = LayeredNetwork((6,) * (depth + 1), (IDENTITY,) * depth, False)
        draw = generator(depth, "orthogonal")
        weights = tuple(torch.linalg.qr(torch.as_tensor(draw.normal(size=(6, 6))))[0] for _ in range(depth))
        inputs = Case((6, 6), "identity").inputs()
        form = (network, SQUARED_ERROR, ConstantPrecision(), "free", LeastMeanSquares(1.0))
        own, plain = ErrorFormLearning(*form), InferenceLearning(*form)
        kappas = (
            condition(own.flow(weights), own.begin(weights, inputs), inputs),
            condition(plain.flow(weights), plain.begin(weights, inputs), inputs),
        )
        expected = (depth + 1.0, 1 / math.tan(math.pi / (2 * (depth + 1))) ** 2)
        is_good = is_good and all(abs(k / e - 1) <= 1e-10 for k, e in zip(kappas, expected, strict=True))
        rows.append((str(depth), *(f"{k:.4f}" for k in kappas), *(f"{e:.4f}" for e in expected)))
    return Evidence(
        Leg.PROPERTY,
        "conditioning with orthogonal weights",
        judge(is_good),
        "κ = L + 1 (errors) and cot²(π/(2(L+1))) ≈ 4L²/π² (states) to 1e-10",
        "; ".join(f"L = {row[0]}: {row[1]}, {row[2]}" for row in rows),
        (Table("condition numbers", ("L", "errors", "states", "L + 1", "cot²"), tuple(rows)),),
    )


def state_form_control(effort: Effort) -> Evidence:
    """The first step of the state form reaches one layer only: no backpropagation."""
    case = Case(seed=2)
    form = (case.network(), case.loss_of_output(), ConstantPrecision(), "clamped", LeastMeanSquares(1.0))
    plain, own = InferenceLearning(*form), ErrorFormLearning(*form)
    weights, inputs = case.weights(), case.inputs()
    state, other = plain.initial_state(weights, inputs), own.initial_state(weights, inputs)
    after = EXPLICIT_EULER.advance(plain, Held(inputs), state, 0.0, 1.0, 1)
    moved = EXPLICIT_EULER.advance(own, Held(inputs), other, 0.0, 1.0, 1)
    first = float(plain.settling(after, inputs).errors[0].abs().max())
    reached = float(moved.error[0].abs().max())
    return Evidence(
        Leg.CONTROL,
        "first step of the state form",
        judge(first <= 1e-15 and reached >= 1e-2),
        "layer 1 of 3 hears nothing, in the error form it does",
        f"‖e_1‖ {first:.1g} and {reached:.2g}",
    )


ERROR_FORM = Theorem(
    key="inference.error-form",
    title="Inference in error coordinates has the same rest states, and begins with backpropagation",
    statement=(
        "With z_l = W_l φ̃(z_{l−1}) + ε_l the energy Σγ‖ε‖²/2 + ℓ has the rest states of the state form: "
        "∂E/∂ε = Jᵀ ∂F/∂ĥ with J unit triangular. At ε = 0 its gradient is that of backpropagation. With orthogonal "
        "weights, unit precisions and a free output the Hessian's condition number is L + 1, that of the state form "
        "cot²(π/(2(L+1)))."
    ),
    hypotheses=("constant precisions", "φ differentiable", "conditioning: linear square layers, squared error"),
    source="Goemaere et al. 2025; the exact condition number of the state form derived here",
    about=(ErrorFormLearning, ErrorFlow, ActivityFlow),
    checks=(prove_same_rest, bridge_field, same_rest, conditioning, state_form_control),
)
