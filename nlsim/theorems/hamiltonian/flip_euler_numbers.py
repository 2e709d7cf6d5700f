"""hamiltonian.sign-flip-euler: properties, orders, tables, control and counterexample on the running code."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.hamiltonian.averaged_flip import AveragedFlip, flip_factor, largest_flip_step, tracking_ratio
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import TrackBall
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant, hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.flip_numbers import flip_for, gap
from nlsim.theorems.hamiltonian.flip_runs import (
    NET_STEP,
    SCALAR,
    SCALAR_FREQUENCY,
    SCALAR_HORIZON,
    SCALAR_START,
    SCALAR_STEP,
    network_tracking,
    scalar_tracking,
)
from nlsim.theorems.hamiltonian.quadratic_runs import scalar_problems
from nlsim.theorems.hamiltonian.tracking_bridge import tracking_point
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort

PERIOD = 2 * math.pi / SCALAR_FREQUENCY


def _start(x: float, p: float) -> LinearQuadraticState:
    one = torch.ones(1, 1, dtype=torch.float64)
    return LinearQuadraticState(x * one, p * one)


def two_step_factor(effort: Effort) -> Evidence:
    """Free linear-quadratic systems under Euler: every pair of steps multiplies all of the state by 1 − τ²μ²."""
    pairs = 5

    def error_of(drawn: tuple[ScalarLinearQuadratic, float, float]) -> float:
        problem, scaled, p = drawn
        tau, start = scaled / problem.rate, _start(1.0, p)
        system = LinearQuadraticEquations(problem.matrices())
        end = flip_for(system, Constant(Inputs()), start, tau, 2 * pairs, EXPLICIT_EULER, tau)
        factor = flip_factor(problem.rate, tau) ** pairs
        return max(abs(float(end.activity) - factor), abs(float(end.costate) - factor * p)) / max(1.0, abs(factor))

    return check_property(
        f"{pairs} pairs of flipped Euler steps",
        # each pair adds and subtracts terms up to τ q, τ s, (τμ)² ≤ 4 times the state: some hundred roundings
        "Y(2kτ) = (1 − τ²μ²)^k Y(0) to 1e-12; a in ±2, q, r from 0.2 to 5, τμ to 2",
        effort,
        st.tuples(scalar_problems(), st.floats(0.05, 2.0), st.floats(-2.0, 2.0)),
        error_of,
        1e-12,
    )


def averaging_order(effort: Effort) -> Evidence:
    """Euler's flipped run against the averaged equation at a fixed slow time τ·T, as τ → 0."""
    slow, rows, slopes = 0.02, [], []
    net = tracking_point(3, seed=4)
    linear = LinearQuadraticEquations(replace(SCALAR, tracking_weight=1.0).matrices())
    for name, system, start, inputs, expected in (
        ("net of 3 neurons", TrackingEquations(net.problem), net.state, net.inputs, 1),
        ("linear-quadratic", linear, _start(0.3, -0.2), Inputs(), 2),
    ):
        steps, errors = [0.02, 0.01, 0.005], []
        for tau in steps:
            halves = round(slow / tau**2)
            end = flip_for(system, Constant(inputs), start, tau, halves, EXPLICIT_EULER, tau)
            # the averaged field is small, so a few large steps of RK4 are accurate
            averaged: AveragedFlip[Any] = AveragedFlip(system, hold(inputs), tau)
            follows = RK4.advance(averaged, hold(inputs), start, 0.0, halves * tau / 6, 6)
            errors.append(gap(end, follows))
        local = pairwise_orders(steps, errors)
        slopes.append(abs(local[-1] - expected))
        rows.append((name, *(f"{error:.2e}" for error in errors), f"{local[-1]:.3f}", str(expected)))
    return Evidence(
        Leg.ORDER,
        "Euler's run → averaged equation",
        judge(max(slopes) <= 0.05),
        "order 1 in τ for a net, 2 for the linear-quadratic system (its τ³ term vanishes), ± 0.05 at the finest pair",
        f"largest deviation {max(slopes):.2g}",
        (Table("largest gap at τT = 0.02", ("system", "τ = 0.02", "0.01", "0.005", "order", "expected"), tuple(rows)),),
    )


def step_order(effort: Effort) -> Evidence:
    """Halve the step of a fixed tracking problem: the error doubles."""
    steps, errors, predicted = [PERIOD / round(PERIOD / tau) for tau in (0.04, 0.02, 0.01)], [], []
    for tau in steps:
        # over whole periods, after one in which the start is forgotten
        errors.append(float(scalar_tracking([100.0], step=tau, horizon=2 * PERIOD).relative))
        predicted.append(tracking_ratio(SCALAR, SCALAR_FREQUENCY, tau))
    slope = observed_order(steps, errors)
    expected = observed_order(steps, predicted)
    worst = max(abs(e / p - 1) for e, p in zip(errors, predicted, strict=True))
    rows = tuple((f"{t:.4f}", f"{e:.5f}", f"{p:.5f}") for t, e, p in zip(steps, errors, predicted, strict=True))
    return Evidence(
        Leg.ORDER,
        "tracking error against the step",
        # corrections to the averaged equation are of relative order τ²A² of the slow motion: (τω)², and of the
        # odd step of each pair, τω = 0.01 of the amplitude at right angles to an error of 0.05 or more
        judge(abs(slope - expected) <= 0.01 and worst <= 0.01 and slope < -0.95),
        "error like 1/τ (slope −1, by the formula between −0.98 and −1), formula within 1%",
        f"slope {slope:.4f} (formula {expected:.4f}), formula off by {worst:.2g}",
        (Table("relative error, q = 100, ω = 0.5, whole periods", ("τ", "measured", "formula"), rows),),
    )


def scalar_table(effort: Effort) -> Evidence:
    """The published effect of q, at the step of the published kind of run."""
    weights, published = [10.0, 100.0, 1000.0], [0.51, 0.070, 0.0070]
    rms = scalar_tracking(weights).rms.tolist()
    formula = [
        tracking_ratio(replace(SCALAR, tracking_weight=q), SCALAR_FREQUENCY, SCALAR_STEP) / math.sqrt(2)
        for q in weights
    ]
    worst = max(abs(found / known - 1) for found, known in zip(rms, published, strict=True))
    rows = tuple(
        (f"{q:g}", f"{found:.5f}", f"{f:.5f}", f"{known:g}")
        for q, found, f, known in zip(weights, rms, formula, published, strict=True)
    )
    return Evidence(
        Leg.PROPERTY,
        "scalar tracking: error falls with q",
        judge(worst <= 0.01),  # the reference numbers have two digits
        "rms 0.51, 0.070, 0.0070 for q = 10, 100, 1000 within 1%",
        f"off by {worst:.2g}",
        (
            Table(
                f"rms(x − z), second half of T = {SCALAR_HORIZON:g}, τ = {SCALAR_STEP:g}, x(0) = {SCALAR_START:g}",
                ("q", "measured", "formula, whole periods", "reference"),
                rows,
            ),
        ),
    )


def network_table(effort: Effort) -> Evidence:
    """The five-neuron net: no tracking at small q, close tracking at large q."""
    weights = [1.0, 10.0, 100.0, 1000.0]
    relative = network_tracking(weights, range(3)).relative
    low, high = relative.min(-1).values.tolist(), relative.max(-1).values.tolist()
    # measured: 1.001; 0.999 to 1.001; 0.2832 to 0.3419; 0.0121 to 0.0321 (the three starts). A run is repeatable but
    # for rounding, and following attracts: 2 % beyond either end is room enough, 0.2 % where nothing follows
    bounds = [(0.999, 1.0034), (0.9967, 1.0032), (0.2775, 0.3487), (0.01186, 0.03274)]
    is_inside = all(least <= a and b <= most for a, b, (least, most) in zip(low, high, bounds, strict=True))
    rows = tuple(
        (f"{q:g}", f"{a:.4f} to {b:.4f}", f"{least:g} to {most:g}")
        for q, a, b, (least, most) in zip(weights, low, high, bounds, strict=True)
    )
    return Evidence(
        Leg.PROPERTY,
        "net of 5 neurons: error falls with q",
        judge(is_inside),
        "relative rms 1, 1, 0.28 to 0.34, 0.012 to 0.032 for q = 1, 10, 100, 1000; 2 % beyond (0.2 % of the ones)",
        "; ".join(f"q = {q:g}: {a:.3g} to {b:.3g}" for q, a, b in zip(weights, low, high, strict=True)),
        (Table("second half of T = 400, τ = 0.05, three random starts", ("q", "measured", "allowed"), rows),),
    )


def track_ball(effort: Effort) -> Evidence:
    """The other published policy, a ball: chattering at the sphere within one step, and no tracking."""
    radius, tau, rows, is_kept = 2.0, 0.005, [], True
    run = scalar_tracking([100.0], step=tau, horizon=20.0, policy=TrackBall(radius))
    largest, error = float(run.largest), float(run.relative)
    # one step beyond the sphere: |F| ≤ ‖A‖ |Y| + q, and ‖A‖ ≤ 1 + max(s, q)
    reach = radius + tau * ((1 + SCALAR.tracking_weight) * radius + SCALAR.tracking_weight)
    is_kept = radius < largest <= reach
    rows.append((f"{radius:g}", f"{largest:.4f}", f"{reach:.4f}", f"{error:.4f}"))
    flipped = float(scalar_tracking([100.0], step=tau, horizon=20.0).relative)
    return Evidence(
        Leg.PROPERTY,
        "track ball: sliding on the sphere",
        # measured 0.8152 and 0.2211; sliding forgets: a start off by 1e-6 changes 4e-6, so 2 % covers rounding
        judge(is_kept and abs(error / 0.8152 - 1) < 0.02 and error > 3.5 * flipped),
        "largest |Y| beyond R by at most one step; relative error 0.815 ± 2 %, above 3.5 times the periodic flip's",
        f"|Y| ≤ {largest:.4f}; relative error {error:.3f}, periodic flip {flipped:.3f}",
        (Table("q = 100, τ = 0.005", ("R", "largest |Y|", "bound", "relative error"), tuple(rows)),),
    )


def stability_control(effort: Effort) -> Evidence:
    """Bisect on the step: beyond √2/μ the flipped run grows; and long stretches of one sign stop tracking."""
    system, start = LinearQuadraticEquations(SCALAR.matrices()), _start(0.3, -0.2)

    def grows(scaled: float) -> bool:
        tau = scaled / SCALAR.rate
        end = flip_for(system, Constant(Inputs()), start, tau, 40, EXPLICIT_EULER, tau)
        return abs(float(end.activity)) > abs(float(start.activity))

    low, high = 0.1, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    border = low / SCALAR.rate
    limit = largest_flip_step(SCALAR.rate)
    sides = [grows(1.40), grows(1.43)]
    half = SCALAR_STEP * SCALAR.rate
    scan = {
        n: float(scalar_tracking([100.0], half_period=n * SCALAR_STEP, horizon=20.0).relative) for n in (1, 4, 10, 20)
    }
    rows = tuple((str(n), f"{n * half:.2f}", f"{error:.4f}") for n, error in scan.items())
    # measured; on the way to μ·half-period = 6.3 rounding grows by e^6.3 only, so 2 % is more than machines differ by
    measured = {1: 0.1138, 4: 0.1298, 10: 0.2628, 20: 2.030}
    is_degraded = all(abs(scan[n] / error - 1) < 0.02 for n, error in measured.items())
    return Evidence(
        Leg.CONTROL,
        "steps beyond √2/μ; half-periods beyond 3/μ",
        judge(abs(border / limit - 1) < 1e-4 and sides == [False, True] and is_degraded),
        "decay at τμ = 1.40, growth at 1.43, border √2 to 1e-4; error 0.114, 0.130, 0.263 and 2.03 (lost) ± 2 % at "
        "μ·half-period = 0.3, 1.3, 3.2 and 6.3",
        f"border τμ = {border * SCALAR.rate:.6f}; error {scan[1]:.3f} at every step, {scan[10]:.3f} at every "
        f"10, {scan[20]:.2f} at every 20",
        (Table("flip every n steps, q = 100", ("n", "μ·half-period", "relative error"), rows),),
    )


def flow_does_not_track(effort: Effort) -> Evidence:
    """The same flips with an accurate method: no tracking at any step, scalar or net."""
    rows, misses = [], []
    euler = float(scalar_tracking([100.0]).rms)
    for tau, horizon in ((SCALAR_STEP, SCALAR_HORIZON), (SCALAR_STEP / 2, SCALAR_HORIZON / 4)):
        flow = float(scalar_tracking([100.0], step=tau, horizon=horizon, stepper=RK4).rms)
        # what standing still at x(0) would miss, over the same window
        t = torch.arange(horizon / 2, horizon, SCALAR_STEP, dtype=torch.float64)
        still = float((SCALAR_START - torch.sin(SCALAR_FREQUENCY * t)).square().mean().sqrt())
        misses.append(flow / still)
        rows.append((f"scalar, τ = {tau:g}, T = {horizon:g}", f"{flow:.4f}", f"{still:.4f}"))
    accurate = network_tracking([1000.0], range(3), horizon=80.0, stepper=RK4).relative
    numerical = network_tracking([1000.0], range(3), horizon=80.0).relative
    rows.append((f"net, q = 1000, τ = {NET_STEP:g}, T = 80, relative", f"≥ {float(accurate.min()):.3f}", ""))
    is_refuted = all(abs(each - 1) < 0.03 for each in misses) and euler < 0.1
    is_refuted = is_refuted and float(accurate.min()) > 0.5 and float(numerical.max()) < 0.1
    return Evidence(
        Leg.COUNTEREXAMPLE,
        "tracking with a flip at every step, RK4 in place of Euler; scalar: a = −1, b = 1, q = 100, r = 0.1",
        judge(is_refuted),
        "scalar: RK4 within 3% of never moving from x(0), where Euler's rms is below 0.1; net: RK4's relative error "
        "above 0.5, Euler's below 0.1",
        f"RK4 / standing still {misses[0]:.4f}, {misses[1]:.4f}; Euler {euler:.4f}; net RK4 "
        f"{float(accurate.min()):.2f} to {float(accurate.max()):.2f}, Euler at most {float(numerical.max()):.3f}",
        (Table("rms error of the flipped flow", ("run", "RK4", "standing still"), tuple(rows)),),
    )
