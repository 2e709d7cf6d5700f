"""masked.soft-mask-bounds: the state depends on the mask continuously, and follows a slow one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Signal
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import HeldMask, MaskedSignal, RandomMask, Reliability
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.neuron_symbols import NEURONS, bridge_field, identities, prove_drive, symbolic_neuron
from nlsim.theorems.masked.runs import LIPSCHITZ, Draw, draws, rows, run
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem


def prove_affine(effort: Effort) -> Evidence:
    """The drive at one mask minus that at another is C(m − m'), C not depending on either."""
    neuron = symbolic_neuron()
    other = {m: sp.Symbol(f"other{j}", real=True) for j, m in enumerate(neuron.m)}
    differences = []
    for i in range(NEURONS):
        drive = neuron.neutralized_drive(i)
        slopes = [sp.diff(drive, m) for m in neuron.m]
        change = sum(slope * (m - other[m]) for slope, m in zip(slopes, neuron.m, strict=True))
        differences.append(drive - drive.subs(other) - change)
        differences += [sp.diff(slope, m) for slope in slopes for m in neuron.m]
    return identities("a(m) − a(m') = C(m − m')", "for soft masks, w_c included", differences)


@dataclass(frozen=True, eq=False)
class Near:
    """A mask that departs from another by a fraction of what a third one differs: m + s (m' − m)."""

    mask: RandomMask
    other: RandomMask
    part: float

    def edge_after(self, t: float) -> float:
        """Return the next edge of either."""
        return min(self.mask.edge_after(t), self.other.edge_after(t))

    def piece(self, t: float) -> HeldMask:
        """Return the mixture."""
        one, other = self.mask.piece(t)(t), self.other.piece(t)(t)
        return HeldMask(one + self.part * (other - one))


def lipschitz_property(effort: Effort) -> Evidence:
    """Two masks, equal starts: how far the states part at any step, over what is allowed."""

    def error_of(drawn: tuple[Draw, float, float]) -> float:
        draw, z, part = drawn
        k, dt = LIPSCHITZ[draw.activation] * draw.norm, z / draw.speed
        size = torch.linalg.matrix_norm(draw.contributions(), 2)
        # the potential form is driven by C m itself, not through φ
        lipschitz = LIPSCHITZ[draw.activation] if draw.form == "state" else 1.0
        one = draw.random_mask(0.5, 3 * dt)
        near = Near(one, draw.random_mask(0.5, 3 * dt, seed=1), part)
        worst = 0.0
        for stepper in (EXPLICIT_EULER, EXPONENTIAL_SWEEP):
            times = [dt * n for n in range(1, 20)]
            here, there = (
                run(
                    draw.neuron(), MaskedSignal(Constant(draw.given()), (m,)), draw.state(), stepper, dt, 20 * dt, times
                )
                for m in (one, near)
            )
            apart = torch.zeros(draw.samples, dtype=torch.float64)
            for a, b in zip(here, there, strict=True):
                assert a.inputs.mask is not None
                assert b.inputs.mask is not None
                apart = torch.maximum(apart, rows(a.inputs.mask - b.inputs.mask))
                bound = lipschitz * size / (1 - k) * apart
                worst = max(worst, float((rows(a.state - b.state) - bound).max()))
        return worst

    return check_property(
        "states at two masks stay within L sup‖C‖ sup‖m − m'‖/(1 − L‖V‖)",
        # Euler with z ≤ 1 and the sweep keep the bound step by step; states below about 50, twenty steps
        "excess ≤ 1e-12 at every step; hard and soft masks, every activation; potential form without the factor L",
        effort,
        st.tuples(draws(norms=st.floats(0.05, 0.9)), st.floats(0.05, 1.0), st.sampled_from((1.0, 0.5, 1e-3))),
        error_of,
        1e-12,
    )


def waves(draw: Draw, frequency: float = 1.0) -> Reliability:
    """Return soft masks that move."""
    shape = (draw.samples, draw.inputs)
    level = torch.sigmoid(draw.tensor("level", *shape))
    room = torch.minimum(level, 1 - level)
    rates = frequency * (0.5 + torch.sigmoid(draw.tensor("frequency", *shape)))
    return Reliability(level, 0.9 * room, rates, 3.0 * draw.tensor("phase", *shape))


def lag(draw: Draw, soft: Reliability, t: float) -> tuple[Tensor, Tensor]:
    """Return φ(a(m(t))) and φ'(a) ⊙ C ṁ, from the definition."""
    c = draw.contributions()
    a = (c @ soft.at(t).unsqueeze(-1)).squeeze(-1)
    phi = draw.neuron().activation
    value = phi.value(a)
    return value, phi.slope(a, value) * (c @ soft.slope(t).unsqueeze(-1)).squeeze(-1)


SMOOTH = ("identity", "logistic", "softplus", "tanh")


def tracking_property(effort: Effort) -> Evidence:
    """The distance from the moving rest state against its bound, along the whole run."""

    def error_of(draw: Draw) -> float:
        soft, dt = waves(draw, draw.speed), 0.1 / draw.speed
        times = [dt * n for n in range(1, 80)]
        ticks = run(draw.neuron(), MaskedSignal(Constant(draw.given()), (soft,)), draw.state(), RK4, dt, 80 * dt, times)
        first = rows(draw.state() - lag(draw, soft, 0.0)[0])
        speeds = [rows(lag(draw, soft, 0.0)[1])]
        worst = 0.0
        for tick in ticks:
            rest, drift = lag(draw, soft, tick.t)
            speeds.append(rows(drift))
            seen = torch.stack(speeds)
            # what is missed between two samples: their difference where it moves, and near a crest (0.05)² times
            # half a second derivative of a few units
            highest = 1.01 * seen.amax(0) + seen.diff(dim=0).abs().amax(0)
            bound = torch.exp(torch.tensor(-draw.speed * tick.t, dtype=torch.float64)) * first + highest / draw.speed
            worst = max(worst, float((rows(tick.state - rest) - bound).max()))
        return worst

    return check_property(
        "a soft mask is tracked",
        # RK4 in steps of 0.1 time constants: 1e-7 of the gap, twenty times over, of states below 20
        "‖x − φ(a(m(t)))‖ ≤ e^(−ct)‖·‖₀ + sup‖φ'(a) ⊙ C ṁ‖/c, excess ≤ 1e-5; V = 0, smooth activations",
        Effort(max(1, effort.examples // 3), effort.is_random),
        draws(activations=SMOOTH, forms=("state",)),
        error_of,
        1e-5,
    )


def tracking_order(effort: Effort) -> Evidence:
    """The lag falls like 1/c, with the coefficient φ'(a) ⊙ C ṁ; a jump of the mask is not tracked at any c."""
    base = Draw(seed=4, samples=3)
    soft, t = waves(base), 0.5
    speeds = [50.0, 100.0, 200.0, 400.0]
    lags, coefficients, jumps = [], [], []
    for c in speeds:
        draw = replace(base, speed=c)
        rest, drift = lag(draw, soft, t)
        state = lag(draw, soft, 0.0)[0]
        last = run(draw.neuron(), MaskedSignal(Constant(draw.given()), (soft,)), state, RK4, 0.5 / c, t)[-1].state
        lags.append(float((last - rest).norm()))
        coefficients.append(float((c * (rest - last) - drift).norm() / drift.norm()))
        signal = draw.blackout(t, 2 * t)
        edge = run(draw.neuron(), signal, draw.state(), RK4, 0.5 / c, t)[-1].state
        jumps.append(float(edge.norm()))  # the rest state is φ(0) = 0 from here on
    order, stuck = observed_order(speeds, lags), observed_order(speeds, jumps)
    return Evidence(
        Leg.ORDER,
        "lag against c",
        judge(abs(order + 1) <= 0.05 and coefficients[-1] <= 0.01 and abs(stuck) <= 0.05 and jumps[-1] >= 0.1),
        "slope −1 ± 0.05, c·lag → φ'(a) ⊙ C ṁ within 1 % at c = 400; just after a jump slope 0 ± 0.05",
        f"slope {order:.4f}, off the coefficient by {100 * coefficients[-1]:.2f} %; jump: slope {stuck:.4f}",
    )


def kink(effort: Effort) -> Evidence:
    """At an edge of the mask the state is continuous and its velocity jumps by c (φ(a⁺) − φ(a⁻))."""
    draw = Draw(seed=6, norm=0.7, speed=2.0)
    system, signal, edge = draw.neuron(), draw.blackout(0.5, 1.0), 0.5
    tick = run(system, signal, draw.state(), RK4, 0.01, edge)[-1]
    before, after = signal.piece(0.4)(edge), signal.piece(edge)(edge)
    distances, spans = [], [1e-1, 1e-2, 1e-3, 1e-4]
    for span in spans:
        later = run(system, signal, draw.state(), RK4, 0.01, edge + span)[-1].state
        distances.append(float((later - tick.state).norm()))
    jump = system.vector_field(edge, tick.state, after) - system.vector_field(edge, tick.state, before)
    expected = draw.speed * (system.target(tick.state, after) - system.target(tick.state, before))
    velocity = float(system.vector_field(edge, tick.state, after).norm())
    ratio, order = distances[-1] / (spans[-1] * velocity), observed_order(spans[1:], distances[1:])
    gap = float((jump - expected).abs().max())
    return Evidence(
        Leg.PROPERTY,
        "a kink, not a jump",
        # the distance is v τ(1 + O(cτ)), at τ = 1e-4 within 1e-3; the loop's stretch ends at the edge to the bit
        judge(
            abs(ratio - 1) <= 1e-3 and abs(order - 1) <= 0.05 and tick.t == edge and gap <= 1e-14 < float(jump.norm())
        ),
        "the loop stops at the edge exactly; ‖x(t + τ) − x(t)‖ = ‖ẋ(t⁺)‖ τ to 1e-3 at τ = 1e-4, slope 1; ẋ jumps by "
        "c Δφ(a)",
        f"ratio {ratio:.6f}, slope {order:.4f}; velocity jumps by {float(jump.norm()):.3f}",
    )


def strong_coupling_control(effort: Effort) -> Evidence:
    """With L‖V‖ > 1 two almost equal masks may end in two states."""
    draw = Draw(neurons=1, inputs=1, samples=1)

    def ratio(gain: float) -> float:
        system = draw.neuron(
            recurrent=torch.full((1, 1), gain, dtype=torch.float64),
            weight=torch.ones(1, 1, dtype=torch.float64),
            bias=torch.zeros(1, dtype=torch.float64),
            intrinsic=torch.full((1,), -0.5, dtype=torch.float64),
        )
        ends: list[Any] = []
        for level in (0.5 - 5e-4, 0.5 + 5e-4):
            mask = torch.full((1,), level, dtype=torch.float64)
            signal: Signal = Constant(replace(draw.given(), input=torch.ones(1, 1, dtype=torch.float64), mask=mask))
            ends.append(run(system, signal, torch.zeros(1, 1, dtype=torch.float64), RK4, 0.2, 60.0)[-1].state)
        return float((ends[0] - ends[1]).abs()) / 1e-3

    weak, strong = ratio(0.5), ratio(1.5)
    return Evidence(
        Leg.CONTROL,
        "V = 1.5",
        judge(strong >= 100 and weak <= 2.0),  # L‖C‖/(1 − L‖V‖) = 1/(1 − ½)
        "ratio of distances ≥ 100 at V = 1.5; within the bound of 2 at V = ½",
        f"{strong:.0f}; {weak:.4f}",
    )


SOFT_MASK_BOUNDS = Theorem(
    key="masked.soft-mask-bounds",
    title="The state depends on the mask continuously, and follows a slow one",
    statement=(
        "Masks in [0, 1] mix measurement and neutralizer; the drive is affine in m. From equal states, "
        "sup‖x_m − x_m'‖ ≤ L sup‖C‖ sup‖m − m'‖/(1 − L‖V‖) (potential form: without the first L). With V = 0 and u "
        "held, ‖x − φ(a(m(t)))‖ ≤ e^{−ct}‖·‖₀ + sup‖φ'(a) ⊙ C ṁ‖/c, and c·lag tends to φ'(a) ⊙ C ṁ. A jump of the mask "
        "is a kink of the state."
    ),
    hypotheses=("L‖V‖₂ < 1 for the first bound", "V = 0, m differentiable, φ smooth for the second"),
    source="derived here",
    about=(MaskedNeuron, Reliability, RandomMask, MaskedSignal, HeldMask),
    checks=(
        prove_drive,
        prove_affine,
        bridge_field,
        lipschitz_property,
        tracking_property,
        tracking_order,
        kink,
        strong_coupling_control,
    ),
)
