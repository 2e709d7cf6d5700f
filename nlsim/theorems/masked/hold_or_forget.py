"""masked.hold-or-forget: two designs of an outage, one that freezes the state and one that lets it go."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.system import Held, Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.exponential import ETDRK2, ETDRK4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.layer import observed_fraction
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.masked.neuron_symbols import bridge_field, identities, symbolic_neuron
from nlsim.theorems.masked.runs import Draw, Garbage, draws, run
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma

STEPPERS = (
    EXPLICIT_EULER,
    HEUN,
    RK4,
    EXPONENTIAL_EULER,
    EXPONENTIAL_SWEEP,
    IMPLICIT_SWEEP,
    ETDRK2,
    ETDRK4,
)


def prove_designs(effort: Effort) -> Evidence:
    """The holding field is μ times the forgetting one: 0 in a blackout, the same rest states elsewhere."""
    neuron = symbolic_neuron()
    mu = sum(neuron.m) / len(neuron.m)
    differences = []
    for form in ("state", "potential"):
        forget, hold = (neuron.field(form, outage, Sigma) for outage in ("forget", "hold"))
        differences += [h - mu * f for h, f in zip(hold, forget, strict=True)]
        differences += [h.subs(dict.fromkeys(neuron.m, 0)) for h in hold]
        differences += [(h - f).subs(dict.fromkeys(neuron.m, 1)) for h, f in zip(hold, forget, strict=True)]
    return identities("f_hold = μ(m) f_forget", "0 at m = 0 for any V, d, w_c; equal at m = 1", differences)


def freeze_property(effort: Effort) -> Evidence:
    """A blackout, by every stepper: the holding state keeps its bits."""

    def error_of(drawn: tuple[Draw, Any, float]) -> float:
        draw, stepper, z = drawn
        system = draw.neuron(outage="hold", intrinsic=draw.tensor("intrinsic", draw.neurons))
        dt, start = z / draw.speed, draw.state()
        signal = Garbage(draw.blackout(0.0, 100 * dt))
        last = run(system, signal, start, stepper, dt, 20 * dt)[-1].state
        return float((last - start).abs().max())

    return check_property(
        "hold: frozen to the bit",
        f"exactly 0 after 20 steps of {len(STEPPERS)} steppers, any V, d, φ, both forms, NaN in the slots",
        effort,
        st.tuples(draws(norms=st.floats(0.1, 3.0)), st.sampled_from(STEPPERS), st.floats(0.01, 2.0)),
        error_of,
        0.0,
    )


def partial_outage(effort: Effort) -> Evidence:
    """With some inputs seen, held: both go to φ(a), forgetting at c and holding at c μ."""

    def error_of(drawn: tuple[Draw, int]) -> float:
        draw, bits = drawn
        mask = torch.tensor([float(bits >> j & 1) for j in range(draw.inputs)], dtype=torch.float64)
        mu, t = float(mask.mean()), 1.3 / draw.speed
        inputs = Inputs(draw.given().input, None, mask)
        a = (draw.contributions() @ mask.unsqueeze(-1)).squeeze(-1)
        rest = draw.neuron().activation.value(a) if draw.form == "state" else a
        worst = 0.0
        for outage, rate in (("forget", 1.0), ("hold", mu)):
            system = draw.neuron(outage=outage)
            last: Tensor = run(system, Constant(inputs), draw.state(), EXPONENTIAL_SWEEP, 0.3 / draw.speed, t)[-1].state
            expected = rest + (draw.state() - rest) * math.exp(-1.3 * rate)
            worst = max(worst, float((last - expected).abs().max()))
        return worst

    return check_property(
        "partial outages: rates c and c μ, one rest state",
        # five exact steps and a product with three or fewer inputs, in numbers below 20
        "closed form to 1e-13 with the exponential sweep, V = 0; every mask, every activation, both forms",
        effort,
        st.tuples(draws(), st.integers(0, 31)),
        error_of,
        1e-13,
    )


def designs_differ(effort: Effort) -> Evidence:
    """The same neurons, state and blackout: one design keeps what the other loses."""
    draw, t = Draw(seed=12, speed=2.0), 3.0
    rows, gaps = [], []
    for form in ("state", "potential"):
        start = draw.state()
        for outage, expected in (("forget", math.exp(-draw.speed * t)), ("hold", 1.0)):
            system = draw.neuron(outage=outage, form=form)
            last = run(system, draw.blackout(0.0, 1e9), start, RK4, 0.01, t)[-1].state
            ratio = float(last.norm() / start.norm())
            gaps.append(abs(ratio / expected - 1))
            rows.append((form, outage, f"{ratio:.9f}", f"{expected:.9f}"))
    return Evidence(
        Leg.PROPERTY,
        "forget decays as e^(−ct), hold keeps",
        # RK4 with c·dt = 0.02: 0.02⁵/120 a step, 300 steps, 8e-9 of the ratio
        judge(float(np.max(gaps)) <= 1e-8),
        "‖x(3)‖/‖x(0)‖ = e^(−6) and 1, to 1e-8",
        "; ".join(f"{form}, {outage}: {ratio}" for form, outage, ratio, _ in rows),
        (Table("blackout of 3, c = 2", ("form", "outage", "ratio", "expected"), tuple(rows)),),
    )


def mixed_up_control(effort: Effort) -> Evidence:
    """Take one design for the other, or leave a single input seen: nothing is frozen."""
    draw = Draw(seed=12)
    start, blackout = draw.state(), draw.blackout(0.0, 1e9).piece(0.0)(0.0)
    forgot = draw.neuron().vector_field(0.0, start, blackout).norm()
    held = draw.neuron(outage="hold")
    assert blackout.mask is not None
    glimpse = replace(blackout, mask=torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    moved = EXPLICIT_EULER.advance(held, Held(glimpse), start, 0.0, 0.1, 20)
    frozen = EXPLICIT_EULER.advance(held, Held(blackout), start, 0.0, 0.1, 20)
    off, kept = float((moved - start).norm()), float((frozen - start).norm())
    return Evidence(
        Leg.CONTROL,
        "the other design; one input seen",
        judge(float(forgot) >= 0.1 and off >= 0.1 and kept == 0.0),
        "forgetting field ≥ 0.1 in a blackout; holding state moves by ≥ 0.1 with one input seen, by 0 with none",
        f"{float(forgot):.3f}; {off:.3f}; {kept:g}",
    )


HOLD_OR_FORGET = Theorem(
    key="masked.hold-or-forget",
    title="Two designs of an outage: forgetting decays, holding freezes",
    statement=(
        "Holding neurons, ẋ = c μ(m)(−x + φ(a)), stand still to the bit in a blackout whatever V, d and φ: every state "
        "is a rest state. Forgetting ones decay as e^{−ct}. At any mask with μ > 0 both have the same rest states, "
        "reached at rates c μ and c (V = 0)."
    ),
    hypotheses=("masks held",),
    source="derived here",
    about=(MaskedNeuron, observed_fraction),
    checks=(prove_designs, bridge_field, freeze_property, partial_outage, designs_differ, mixed_up_control),
)
