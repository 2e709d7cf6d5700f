"""masked.contraction: weakly coupled neurons forget their state at a known rate, whatever is masked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.system import Signal
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron_symbols import bridge_field
from nlsim.theorems.masked.runs import LIPSCHITZ, Draw, draws, rows, run
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

STEPS = 40


def excess(draw: Draw, signal: Signal, stepper: Any, dt: float, factor: Callable[[float], float]) -> float:
    """Return by how much two runs under the same signal come closer too slowly, relative to their first distance.

    ``factor(k)`` is the bound on the distance after a step, relative to that before it, with k = L‖V‖.
    """
    system, k = draw.neuron(), LIPSCHITZ[draw.activation] * draw.norm
    until = STEPS * dt
    times = [dt * n for n in range(1, STEPS)]
    starts = draw.state("one"), draw.state("other")
    one, other = ([t for t in run(system, signal, s, stepper, dt, until, times) if t.is_record] for s in starts)
    first = rows(starts[0] - starts[1])
    gaps = [rows(a.state - b.state) / first for a, b in zip(one, other, strict=True)]
    # a stretch cut by an edge takes more and shorter steps, and the bound of a step is convex in its length: the
    # product over shorter steps may exceed factor(k), so the signal's edges are multiples of dt
    return float(max((gap - factor(k) ** (n + 1)).max() for n, gap in enumerate(gaps)))


def step_property(effort: Effort) -> Evidence:
    """The steps themselves contract, by their own factor."""

    def error_of(drawn: tuple[Draw, float]) -> float:
        draw, z = drawn
        dt = z / draw.speed
        signal = MaskedSignal(Constant(draw.given()), (draw.random_mask(0.5, 3 * dt),))
        euler = excess(draw, signal, EXPLICIT_EULER, dt, lambda k: 1 - z * (1 - k))
        left = math.exp(-z)
        return max(0.0, euler, excess(draw, signal, EXPONENTIAL_SWEEP, dt, lambda k: left + (1 - left) * k))

    return check_property(
        "every step contracts under random masks",
        # relative distances of at most 1, in states below about 20 and some forty steps
        "‖Δ‖ after n steps ≤ fⁿ‖Δ₀‖ to 1e-12, f = 1 − z(1 − L‖V‖) for Euler with z = c·dt ≤ 1 and e^(−z) + "
        "(1 − e^(−z)) L‖V‖ for the sweep; every activation, both forms",
        effort,
        st.tuples(draws(norms=st.floats(0.05, 0.95)), st.floats(0.01, 1.0)),
        error_of,
        1e-12,
    )


def flow_property(effort: Effort) -> Evidence:
    """The flow, followed by RK4 in steps of 0.05/c."""

    def error_of(draw: Draw) -> float:
        dt = 0.05 / draw.speed
        signal = MaskedSignal(Constant(draw.given()), (draw.random_mask(0.5, 3 * dt),))
        return max(0.0, excess(draw, signal, RK4, dt, lambda k: math.exp(-0.05 * (1 - k))))

    return check_property(
        "the flow contracts under random masks",
        # RK4 on a field of rate at most c(1 + k) ≤ 2c: local error (0.1)⁵/120 = 8e-8 relative to the distance, forty
        # steps: 3.3e-6; kinks of ReLU are crossed in few steps, each to (0.1)² of the distance times the kink's share
        "‖Δ(t)‖ ≤ e^(−c(1−L‖V‖)t)‖Δ₀‖ to 4e-6; smooth activations, both forms",
        Effort(max(1, effort.examples // 2), effort.is_random),
        draws(activations=("identity", "logistic", "softplus", "tanh"), norms=st.floats(0.05, 0.95)),
        error_of,
        4e-6,
    )


def pair(norm: float, scale: float, phi: Any = TANH) -> tuple[MaskedNeuron, Tensor]:
    """Return neurons with V = ‖V‖ e eᵀ, and a state along e of a given size."""
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    draw = Draw(neurons=2, samples=1)
    return draw.neuron(recurrent=norm * direction.mT @ direction, activation=phi), scale * direction


def rate_is_attained(effort: Effort) -> Evidence:
    """Near the origin, along the first direction of V, tanh neurons decay at c (1 − ‖V‖) and no faster."""
    found = []
    for norm in (0.3, 0.6, 0.9):
        system, state = pair(norm, 1e-6)
        signal = Draw(neurons=2, samples=1).blackout(0.0, 1e9)
        t = 3.0
        last = run(system, signal, state, RK4, 0.01, t)[-1].state
        rate = -math.log(float(last.norm() / state.norm())) / t
        found.append((norm, rate))
    worst = max(abs(rate - (1 - norm)) for norm, rate in found)
    return Evidence(
        Leg.PROPERTY,
        "the rate is attained",
        judge(worst <= 1e-9),  # RK4: 0.01⁴/120 of a rate below 1; tanh departs from its slope by 1e-12/3
        "decay rate c(1 − ‖V‖) to 1e-9 along the first direction of V, in a blackout",
        ", ".join(f"‖V‖ = {norm}: {rate:.9f}" for norm, rate in found),
    )


def blackout_rest(effort: Effort) -> Evidence:
    """In a blackout with φ(0) = 0 contraction leads to 0, in both forms."""

    def error_of(draw: Draw) -> float:
        rate = 1 - LIPSCHITZ[draw.activation] * draw.norm
        until = 30 / (draw.speed * rate)
        system = draw.neuron()
        last = run(system, draw.blackout(0.0, 1e9), draw.state(), EXPONENTIAL_SWEEP, 0.2 / draw.speed, until)[-1].state
        return float(np.max(rows(last).numpy()))

    return check_property(
        "blackouts lead to 0 where φ(0) = 0",
        # after time 30/(c(1 − k)) the flow is at e^(−30) = 1e-13 of a norm below 10; a step of 0.2 makes
        # f = e^(−z) + (1 − e^(−z)) k, whose rate −log f/z is at least 0.9(1 − k): e^(−27) = 2e-12
        "norm ≤ 2e-11 after a time of 30/(c(1 − ‖V‖)); tanh, ReLU, identity, both forms",
        Effort(max(1, effort.examples // 2), effort.is_random),
        draws(activations=("identity", "relu", "tanh"), norms=st.floats(0.05, 0.8)),
        error_of,
        2e-11,
    )


def coupling_control(effort: Effort) -> Evidence:
    """With L‖V‖ > 1 two states part, however close they begin."""
    system, state = pair(1.5, 1e-3)
    signal = Draw(neurons=2, samples=1).blackout(0.0, 1e9)
    one, other = (run(system, signal, sign * state, RK4, 0.05, 40.0)[-1].state for sign in (1.0, -1.0))
    ratio = float((one - other).norm() / (2 * state.norm()))
    weak, _ = pair(0.9, 1e-3)
    one, other = (run(weak, signal, sign * state, RK4, 0.05, 40.0)[-1].state for sign in (1.0, -1.0))
    kept = float((one - other).norm() / (2 * state.norm()))
    return Evidence(
        Leg.CONTROL,
        "‖V‖ = 1.5",
        judge(ratio >= 100 and kept <= 0.05),  # at ‖V‖ = 0.9, e^(−0.1 · 40) = 0.018
        "the distance grows by 100 or more with tanh; at ‖V‖ = 0.9 it shrinks below 0.05",
        f"×{ratio:.0f}; ×{kept:.3f}",
    )


CONTRACTION = Theorem(
    key="masked.contraction",
    title="Weakly coupled neurons contract at c (1 − L‖V‖), whatever is masked",
    statement=(
        "Where L‖V‖₂ < 1, L the Lipschitz constant of φ, two states under the same inputs and masks approach each "
        "other at least as e^{−c(1−L‖V‖)t}, in state and in potential form; a blackout with φ(0) = 0 then leads to 0 "
        "from everywhere. Explicit Euler contracts by 1 − c·dt(1 − L‖V‖) a step for c·dt ≤ 1, the exponential sweep by "
        "e^{−c·dt} + (1 − e^{−c·dt}) L‖V‖ at any step."
    ),
    hypotheses=("L‖V‖₂ < 1", "neurons forget", "masks measurable in time, nothing else"),
    source="derived here",
    about=(MaskedNeuron,),
    checks=(bridge_field, step_property, flow_property, rate_is_attained, blackout_rest, coupling_control),
)
