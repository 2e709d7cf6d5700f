"""hamiltonian.backprop-limit: bridge, properties, orders and controls on the running code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from nlsim.analysis.orders import observed_order, pairwise_orders, richardson
from nlsim.core.state import clone
from nlsim.core.system import Inputs
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import beyond_stability
from nlsim.integrate.explicit import RK4
from nlsim.integrate.relaxation import IMPLICIT_SWEEP
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.observables import relative_error
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, costate_gradient
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases, on_manifold
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort

EPSILON = torch.finfo(torch.float64).eps

MOVING = Case(widths=(3, 6, 5, 2), samples=4, seed=3)
"""Depth 3, tanh: the net of the order and the table."""


def bridge_field(effort: Effort) -> Evidence:
    """Compare the derived symbolic fields (R) and (H) with the torch fields at random points."""
    # A field value is a sum of at most some 30 products of numbers below 10, evaluated twice: the two
    # forms differ by a few hundred roundings of 2e-16.
    tolerance, worst, count = 1e-12, 0.0, 0
    for widths, activation, loss in (
        ((2, 2, 2), "tanh", "squared_error"),
        ((1, 2, 1, 2), "logistic", "cross_entropy"),
        ((2, 1, 2), "softplus", "squared_error"),
        ((2, 2, 1), "relu", "squared_error"),
        ((2, 2), "identity", "cross_entropy"),
    ):
        bridge = build_bridge(widths, activation, loss)
        for system, sign in ((CostateReversal(bridge.problem), -1), (HamiltonEquations(bridge.problem), +1)):
            running = system.vector_field(0.0, bridge.state, bridge.inputs)
            worst = max(worst, bridge.gaps(running, sign=sign))
            count += 1
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = torch field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; both systems, 5 activations, 2 losses, unequal speeds, batch 2",
        f"{worst:.2g} over {count} fields",
    )


def settle(
    problem: LearningProblem[LayeredNetwork], weights: tuple[torch.Tensor, ...], inputs: Inputs
) -> LearningState:
    """Run the reversed system at a static input until it rests (frozen weights).

    An implicit sweep with c τ = 10⁴ shrinks the distance to rest by 10⁴ a step and layer: twelve steps and
    twice the depth more leave round-off only.
    """
    system = CostateReversal(problem)
    state = problem.initial_state(weights, len(inputs.input if inputs.input is not None else ()))
    dt = 1e4 / float(problem.mean_speed)
    return IMPLICIT_SWEEP.advance(system, hold(inputs), state, 0.0, dt, 12 + 2 * problem.network.depth)


def static_exactness(effort: Effort) -> Evidence:
    """At static input and θ = 0 the rest state carries the backpropagation gradient at every c."""

    def error_of(case: Case) -> float:
        problem, weights, inputs = case.problem(), case.weights(), case.inputs()
        rest = settle(problem, weights, inputs)
        reference = backpropagate(problem.network, problem.loss, weights, inputs).gradient
        found = costate_gradient(problem, rest, inputs)
        # absolute below size 1: where the gradient itself vanishes only rounding is left to compare
        size = max(1.0, *(float(g.norm()) for g in reference))
        field = CostateReversal(problem).vector_field(0.0, rest, inputs)
        still = max(float(f.norm()) for f in (*field.activity, *field.costate)) / case.speed
        gap = max(float((f - g).norm()) for f, g in zip(found, reference, strict=True))
        return max(gap, still) / size

    return check_property(
        "static input, θ = 0: exact at any c",
        "at rest vector field/c and gradient error ≤ 1e-13; c from 0.5 to 50, depth 1 to 4, all activations and losses",
        effort,
        cases(),
        error_of,
        1e-13,
    )


def attenuation(effort: Effort) -> Evidence:
    """At static input and θ > 0 the costate of layer l rests at (c/(c+θ))^(D−l+1) of backpropagation's."""

    def error_of(case: Case) -> float:
        problem, weights, inputs = case.problem(), case.weights(), case.inputs()
        rest = settle(problem, weights, inputs)
        exact = backpropagate(problem.network, problem.loss, weights, inputs).costate
        worst = 0.0
        for layer, pi in enumerate(exact, start=1):
            factor = (case.speed / (case.speed + case.dissipation)) ** (problem.network.depth - layer + 1)
            gap = (rest.costate[layer - 1] - factor * pi).norm()
            worst = max(worst, float(gap) / max(1.0, float(pi.norm())))
        return worst

    return check_property(
        "static input, θ > 0: attenuation",
        "π_l = (c/(c+θ))^(D−l+1) π_BP,l to 1e-13 for θ up to 10",
        effort,
        cases(max_dissipation=10.0),
        error_of,
        1e-13,
    )


def moving_gradients(case: Case, end: float = 2.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the costate gradient at time ``end`` under moving inputs, and backpropagation's.

    The run begins 40/c earlier on the slow manifold, so what is left of the start is about e⁻⁴⁰; RK4 at
    c dt = 0.05 follows the smooth solution to about 1e-9 of the lag that is measured.
    """
    problem, signal = case.problem(), case.signal()
    begin = end - 40 / case.speed
    state = on_manifold(problem, case.weights(), signal.at(begin))
    steps = 800
    state = RK4.advance(CostateReversal(problem), signal.piece(begin), state, begin, (end - begin) / steps, steps)
    inputs = signal.at(end)
    reference = backpropagate(problem.network, problem.loss, state.weight, inputs).gradient
    return list(costate_gradient(problem, state, inputs)), list(reference)


def gradient_order(effort: Effort) -> Evidence:
    """Under moving inputs the gradient lags by O(1/c), and Richardson extrapolation in 1/c removes that."""
    speeds = [120.0, 240.0, 480.0, 960.0, 1920.0]  # 40 × frequency × depth and up
    runs = [moving_gradients(replace(MOVING, speed=c)) for c in speeds]
    errors = [_distance(found, reference) for found, reference in runs]
    extrapolated = []
    for (coarse, _), (fine, reference) in pairwise(runs):
        better = [torch.as_tensor(richardson(a, b)) for a, b in zip(coarse, fine, strict=True)]
        extrapolated.append(_distance(better, reference))
    slope, improved = observed_order(speeds, errors), observed_order(speeds[1:], extrapolated)
    damped = [_distance(*moving_gradients(replace(MOVING, speed=c, dissipation=1.0))) for c in speeds[:3]]
    with_theta = observed_order(speeds[:3], damped)
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(speeds, errors))]
    rows = tuple(
        (f"{c:g}", f"{e:.3e}", p, f"{r:.3e}" if r else "")
        for c, e, p, r in zip(speeds, errors, local, [0.0, *extrapolated], strict=True)
    )
    return Evidence(
        Leg.ORDER,
        "moving input: error in 1/c",
        judge(abs(slope + 1) <= 0.05 and abs(improved + 2) <= 0.1 and abs(with_theta + 1) <= 0.05),
        "slope −1 ± 0.05 in c; −2 ± 0.1 after Richardson extrapolation; −1 ± 0.05 with θ = 1",
        f"{slope:.4f}; {improved:.4f}; {with_theta:.4f}",
        (Table("gradient error under moving input, depth 3", ("c", "error", "slope", "Richardson"), rows),),
    )


def stepper_table(effort: Effort) -> Evidence:
    """At fixed dt let c → ∞: which steppers keep the limit."""
    dt, end = 0.05, 2.0
    speeds = [10.0**p for p in range(1, 7)]
    names = ("implicit_sweep", "exponential_sweep", "exponential_euler", "explicit_euler")
    errors = {name: [_fixed_step_error(name, c, dt, end) for c in speeds] for name in names}
    implicit, exponential, simultaneous = (errors[name] for name in names[:3])
    beyond = [c * dt >= STEPPERS["explicit_euler"].stability_limit for c in speeds]
    # the implicit sweep leaves 1/(1 + cτ) of a gap; slope over cτ ≥ 50, until rounding matters
    slope = observed_order(speeds[2:], [_number(e) for e in implicit[2:]])
    # two evaluations of a gradient through depth 3 differ by some hundred roundings
    at_round_off = all(_number(e) <= 500 * EPSILON for c, e in zip(speeds, exponential, strict=True) if c * dt >= 40)
    saturated = [_number(e) for c, e in zip(speeds, simultaneous, strict=True) if c * dt >= 40]
    is_saturated = min(saturated) > 0.01 and max(saturated) < 1.01 * min(saturated)
    is_refused = all((e.startswith("refused")) == b for e, b in zip(errors["explicit_euler"], beyond, strict=True))
    rows = tuple((f"{c:.0e}", f"{c * dt:g}", *(errors[name][row] for name in names)) for row, c in enumerate(speeds))
    return Evidence(
        Leg.ORDER,
        "fixed dt, c → ∞: asymptotic preservation",
        judge(abs(slope + 1) <= 0.05 and at_round_off and is_saturated and is_refused),
        "implicit sweep: slope −1 ± 0.05; exponential sweep: round-off for c·dt ≥ 40; "
        "exponential Euler saturates; explicit Euler refused for c·dt ≥ 2",
        f"slope {slope:.4f}; {max(_number(e) for c, e in zip(speeds, exponential, strict=True) if c * dt >= 40):.1e}; "
        f"{min(saturated):.3f} to {max(saturated):.3f}; refused in {sum(beyond)} of {len(speeds)}",
        (Table(f"relative gradient error against c at dt = {dt:g}", ("c", "c·dt", *names), rows),),
    )


def _fixed_step_error(name: str, c: float, dt: float, end: float) -> str:
    """Return the gradient error after a run with moving inputs, or why there is none, as a cell."""
    case = replace(MOVING, speed=c)
    problem, signal = case.problem(), case.signal()
    system, stepper = CostateReversal(problem), STEPPERS[name]
    refusal = beyond_stability(stepper, system, dt)
    if refusal is not None:
        return f"refused: dt < {refusal.largest_step:g}"
    state = on_manifold(problem, case.weights(), signal.at(0.0))
    state = stepper.advance(system, signal.piece(0.0), clone(state), 0.0, dt, round(end / dt))
    inputs = signal.at(end)
    reference = backpropagate(problem.network, problem.loss, state.weight, inputs).gradient
    return f"{float(relative_error(costate_gradient(problem, state, inputs), reference)):.2e}"


def _number(cell: str) -> float:
    return float(cell) if not cell.startswith("refused") else math.nan


def unit_delay_control(effort: Effort) -> Evidence:
    """Break the order of the sweep (all layers at once): the error must stop falling."""
    errors = [_number(_fixed_step_error("exponential_euler", c, 0.05, 2.0)) for c in (1e3, 1e6)]
    ratio = errors[1] / errors[0]
    return Evidence(
        Leg.CONTROL,
        "layers updated at once instead of in order",
        judge(ratio > 0.99 and errors[1] > 0.01),
        "error at c = 1e6 is that at c = 1e3 (unit delays remain), not 1000 times smaller",
        f"{errors[0]:.3f} and {errors[1]:.3f}, ratio {ratio:.4f}",
    )


def forward_control(effort: Effort) -> Evidence:
    """Do not reverse the costates: run forward, the exact Hamilton equations blow up at about rate c.

    Between t = 6/c and 12/c the costate of layer l of D grows like e^{ct} (ct)^{D−l}, so the rate in units of c
    lies between 1 and 1 + (D−1) ln 2/6, give or take the motion of the inputs (ω/c ≤ 0.1 per unit of ct).
    """
    rates = []
    for c in (10.0, 20.0, 40.0):
        case = replace(MOVING, speed=c)
        problem, signal = case.problem(), case.signal()
        system = HamiltonEquations(problem)
        state = problem.initial_state(case.weights(), case.samples)
        sizes = []
        for half in range(2):
            begin = 6 * half / c
            state = RK4.advance(system, signal.piece(begin), state, begin, 0.02 / c, 300)
            sizes.append(float(torch.cat([pi.flatten() for pi in state.costate]).norm()))
        rates.append(math.log(sizes[1] / sizes[0]) / 6)
    highest = 1 + (problem.network.depth - 1) * math.log(2) / 6
    return Evidence(
        Leg.CONTROL,
        "costates not reversed",
        judge(all(0.9 <= rate <= highest + 0.1 for rate in rates)),
        f"costates grow like e^{{ct}}(ct)^{{D−1}}: rate/c in [1, {highest:.3f}] ± 0.1 at c = 10, 20, 40, moving input",
        ", ".join(f"{rate:.3f}" for rate in rates),
    )


def _distance(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    return float(relative_error(tuple(found), tuple(expected)))
