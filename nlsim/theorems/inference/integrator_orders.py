"""inference.integrator-orders: methods for the activities have their orders, in activities and in weight updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from nlsim.analysis.orders import pairwise_orders
from nlsim.core.system import Held
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4, ExplicitRungeKutta
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision, Precision, StepPrecision
from nlsim.systems.inference.sequential import SequentialLearning
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.inference.other_systems import sequential_rest
from nlsim.theorems.inference.stability import stiffness
from nlsim.theorems.inference.variant_cases import Case, cases, flat, relative, rest, unflat
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

TIME = 1.6
STEPS = (16, 32, 64, 128, 256)
METHODS = (EXPLICIT_EULER, HEUN, RK4)
KINDS: tuple[tuple[str, Precision, str], ...] = (
    ("constant, clamped", ConstantPrecision(), "clamped"),
    ("exact α = 0.7, settled", StepPrecision(0.7, "exact"), "settled"),
)


def setting(precision: Precision, output: str) -> tuple[InferenceLearning, Any, Any]:
    """Return a system with its forward state and inputs: depth 3, tanh, two samples."""
    case = Case(samples=2, seed=6)
    system = replace(case.system(precision, output), is_scaled=True)
    inputs = case.inputs()
    return system, system.initial_state(case.weights(), inputs), inputs


def exact_activities(flow: Any, start: Layers, inputs: Any) -> Layers:
    """Return the activities at the end by SciPy's eighth-order method at a tolerance of 1e-13."""

    def field(t: float, point: Any) -> Any:
        return flat(flow.vector_field(t, unflat(torch.as_tensor(point), start), inputs)).numpy()

    solution = solve_ivp(field, (0.0, TIME), flat(start).numpy(), method="DOP853", rtol=1e-13, atol=1e-14)
    end: Layers = unflat(torch.as_tensor(np.array(solution.y[:, -1])), start)
    return end


def update_of(system: InferenceLearning, state: Any, activity: Layers, inputs: Any) -> Layers:
    """Return ΔW that the system's jump makes of activities."""
    jumped = system.jump(TIME, replace(state, activity=activity), inputs, inputs)
    return tuple(w - v for w, v in zip(jumped.weight, state.weight, strict=True))


def errors_of(method: ExplicitRungeKutta, precision: Precision, output: str) -> tuple[list[float], list[float]]:
    """Return relative errors of activities and of ΔW at the end, for each number of steps."""
    system, state, inputs = setting(precision, output)
    flow, start = system.moving(state, Held(inputs))
    activity = exact_activities(flow, start, inputs)
    update = update_of(system, state, activity, inputs)
    in_activity, in_update = [], []
    for steps in STEPS:
        found = method.advance(flow, Held(inputs), start, 0.0, TIME / steps, steps)
        in_activity.append(relative(found, activity))
        in_update.append(relative(update_of(system, state, found, inputs), update))
    return in_activity, in_update


def method_orders(effort: Effort) -> Evidence:
    """Halve the step: errors of activities and of weight updates fall by 2^order."""
    rows, is_good, measured = [], True, []
    for name, precision, output in KINDS:
        for method in METHODS:
            for quantity, errors in zip(("ĥ", "ΔW"), errors_of(method, precision, output), strict=True):
                last = pairwise_orders([TIME / n for n in STEPS], errors)[-1]
                is_good = is_good and abs(last - method.order) <= 0.1
                measured.append(f"{last:.2f}")
                rows.append((name, method.name, quantity, *(f"{e:.2e}" for e in errors), f"{last:.3f}"))
    columns = ("precision, output", "method", "of", *(f"{n} steps" for n in STEPS), "order")
    return Evidence(
        Leg.ORDER,
        "orders of activities and of ΔW",
        judge(is_good),
        "1, 1, 2, 2, 4, 4 ± 0.1 for Euler, Heun, RK4 (ĥ, ΔW), with constant and with differentiated precisions",
        ", ".join(measured),
        (Table(f"relative error at t = {TIME:g} against DOP853", columns, tuple(rows)),),
    )


def same_rest(effort: Effort) -> Evidence:
    """All methods come to the rest state that Newton's method finds."""

    def error_of(case: Case) -> float:
        system = case.system(ConstantPrecision((1.0,) * case.network().depth))
        weights, inputs = case.weights(), case.inputs()
        flow, start = system.flow(weights, inputs.input), system.begin(weights, inputs)
        expected = rest(flow, start, inputs, time=10.0)
        dt = 0.5 / stiffness(flow, expected, inputs)
        softest = flow_softness(flow, expected, inputs)
        steps = round(35.0 / (softest * dt))  # e^{−35} of the distance is left, 6e-16
        gaps = [0.0]
        for method in METHODS:
            found = method.advance(flow, Held(inputs), start, 0.0, dt, steps)
            gaps += [float((f - e).abs().max()) for f, e in zip(found, expected, strict=True)]
        return float(np.max(gaps)) / max(1.0, *(float(h.abs().max()) for h in expected))

    return check_property(
        "where Euler, Heun and RK4 rest",
        # round-off of the field, 1e-15, divided by the smallest curvature, at least 1e-2 here
        "the same state to 1e-12",
        Effort(max(1, effort.examples // 10), effort.is_random),
        cases(activations=("tanh", "identity"), min_depth=2, max_depth=3).filter(lambda c: c.loss == "squared_error"),
        error_of,
        1e-12,
    )


def flow_softness(flow: Any, moving: Layers, inputs: Any) -> float:
    """Return the smallest decay rate at a state."""

    def field(point: Any) -> Any:
        return flat(flow.vector_field(0.0, unflat(point, moving), inputs))

    return float(torch.linalg.eigvals(-torch.func.jacrev(field)(flat(moving))).real.min())


def contraction(effort: Effort) -> Evidence:
    """Near rest a step of Euler's method contracts by max|1 − τλ|, and grows beyond τ = 2/λ_max."""
    case = Case(activation="identity", seed=6)
    system = case.system(ConstantPrecision())
    weights, inputs = case.weights(), case.inputs()
    flow, start = system.flow(weights, inputs.input), system.begin(weights, inputs)
    expected = rest(flow, start, inputs)

    def field(point: Tensor) -> Tensor:
        return flat(flow.vector_field(0.0, unflat(point, expected), inputs))

    rates, modes = torch.linalg.eigh(-torch.func.jacrev(field)(flat(expected)))
    gaps, measured = [], []
    for share in (0.2, 0.5, 0.95, 1.02):
        dt = share * 2.0 / float(rates[-1])
        factors = []
        for mode in (modes[:, 0], modes[:, -1]):
            away = unflat(flat(expected) + mode, expected)
            after = EXPLICIT_EULER.advance(flow, Held(inputs), away, 0.0, dt, 20)
            factors.append(float((flat(after) - flat(expected)).norm()) ** (1 / 20))
        predicted = max(abs(1 - dt * float(rates[0])), abs(1 - dt * float(rates[-1])))
        gaps.append(abs(max(factors) - predicted))
        measured.append(f"{max(factors):.5f} ({predicted:.5f})")
    return Evidence(
        Leg.PROPERTY,
        "contraction of Euler steps, linear net",
        # twenty steps of some ten roundings each, next to a distance that shrinks at most to 0.03
        judge(max(gaps) <= 1e-12),
        "max|1 − τλ| to 1e-12 at τ = 0.2, 0.5, 0.95, 1.02 of 2/λ_max; above 1 in the last",
        ", ".join(measured),
    )


def wrong_weights_control(effort: Effort) -> Evidence:
    """Give Heun's stages the weights 0.4 and 0.6: order 1."""
    broken = replace(HEUN, name="heun with wrong weights", weights=(0.4, 0.6))
    steps = [TIME / n for n in STEPS]
    slopes = [pairwise_orders(steps, errors)[-1] for errors in errors_of(broken, *KINDS[0][1:])]
    return Evidence(
        Leg.CONTROL,
        "Heun with weights 0.4, 0.6",
        judge(all(abs(p - 1) <= 0.1 for p in slopes)),
        "order 1 ± 0.1 in activities and in ΔW",
        ", ".join(f"{p:.2f}" for p in slopes),
    )


INTEGRATOR_ORDERS = Theorem(
    key="inference.integrator-orders",
    title="Integrators of the activity flow have orders 1, 2, 4, and the weight updates inherit them",
    statement=(
        "At a fixed time the activities of explicit Euler, Heun and RK4 are 1, 2 and 4 orders accurate in the step, "
        "and so are the weight updates made of them. At rest the method does not matter: all have the same rest "
        "states, and Euler reaches one if and only if τ < 2/λ_max(∂²F), contracting by max|1 − τλ| a step."
    ),
    hypotheses=("φ smooth", "steps in the range of stability"),
    source="textbook orders; for the activity flow derived and measured here",
    about=(ActivityFlow, InferenceLearning, SequentialLearning, ExplicitRungeKutta),
    checks=(method_orders, same_rest, sequential_rest, contraction, wrong_weights_control),
)
