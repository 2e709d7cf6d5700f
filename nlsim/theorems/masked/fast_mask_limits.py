"""masked.fast-mask-limits: what neurons make of a fast random mask depends on what relaxes, output or potential."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Inputs
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal, RandomMask
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.masked.neuron_symbols import bridge_field
from nlsim.theorems.masked.runs import Draw, run
from nlsim.theorems.statement import Effort, Theorem

COUNT, RATE, SPAN = 3000, 0.6, 6.0
"""Independent members, observed rate, time constants of a run."""


@dataclass(frozen=True)
class Case:
    """Three neurons with four inputs whose masks flicker, and their limits by enumeration of all 16 masks."""

    activation: str = "tanh"
    form: str = "state"

    @property
    def draw(self) -> Draw:
        """Return the neurons; one input that all members share."""
        return Draw(seed=5, neurons=3, inputs=4, samples=1, activation=self.activation, form=self.form)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance over masks of what the state relaxes to: φ(C m), or C m in potential form."""
        c = self.draw.contributions()[0]
        mean = square = torch.zeros(3, dtype=torch.float64)
        phi = self.draw.neuron().activation.value if self.form == "state" else (lambda a: a)
        for mask in itertools.product((0.0, 1.0), repeat=4):
            seen = sum(mask)
            chance = RATE**seen * (1 - RATE) ** (4 - seen)
            value = phi(c @ torch.tensor(mask, dtype=torch.float64))
            mean, square = mean + chance * value, square + chance * value.square()
        return mean, square - mean.square()

    def ends(self, z: float, system: MaskedNeuron | None = None) -> Tensor:
        """Return the members' states, (COUNT, 3), after a run with masks redrawn every z time constants."""
        draw = self.draw
        u = draw.given().input
        assert u is not None
        inputs = Inputs(u.expand(COUNT, 4))
        masks = RandomMask(4, RATE, z, COUNT, seed=7)
        start = self.moments()[0].expand(COUNT, 3)
        found: Tensor = run(
            system or draw.neuron(), MaskedSignal(Constant(inputs), (masks,)), start, EXPONENTIAL_SWEEP, z, SPAN
        )[-1].state
        return found


def spread(z: float) -> float:
    """Return the factor on the variance when a leaky integrator sees draws held for z time constants.

    Σ_k ((1 − q) q^k)² = (1 − q)/(1 + q), q = e^(−z), less q^(2n) after n draws from a start without spread.
    """
    q = math.exp(-z)
    return (1 - q) / (1 + q) * (1 - math.exp(-2 * SPAN))


def mean_and_variance(effort: Effort) -> Evidence:
    """Both forms against the mean and variance that enumeration predicts, at several intervals."""
    rows, is_right = [], []
    for form in ("state", "potential"):
        case = Case(form=form)
        mean, variance = case.moments()
        for z in (0.1, 0.5):
            found, expected = case.ends(z), variance * spread(z)
            off = float(((found.mean(0) - mean).abs() / (expected / COUNT).sqrt()).max())
            # standard error of a variance, kurtosis taken from the sample
            fourth = (found - mean).pow(4).mean(0)
            error = ((fourth - expected.square()) / COUNT).sqrt()
            wide = float((((found - mean).square().mean(0) - expected).abs() / error).max())
            is_right += [off <= 5, wide <= 5]
            rows.append((form, f"{z:g}", f"{off:.2f}", f"{wide:.2f}"))
    return Evidence(
        Leg.PROPERTY,
        "mean and variance over independent masks",
        judge(all(is_right)),
        f"within 5 standard errors of E_m φ(Cm) (state) or ρ C 1 (potential), variance (1 − q)/(1 + q) of that of one "
        f"draw, q = e^(−cδ); {COUNT} members",
        "; ".join(f"{form} cδ = {z}: {off}, {wide}" for form, z, off, wide in rows),
        (Table("standard errors off", ("form", "c·interval", "mean", "variance"), tuple(rows)),),
    )


def fluctuation_order(effort: Effort) -> Evidence:
    """The distance from the limits falls like the square root of the interval."""
    steps = [0.05, 0.1, 0.2, 0.4]
    slopes = {}
    for form in ("state", "potential"):
        case = Case(form=form)
        mean = case.moments()[0]
        slopes[form] = observed_order(steps, [float((case.ends(z) - mean).square().mean().sqrt()) for z in steps])
    return Evidence(
        Leg.ORDER,
        "root mean square distance from the limit against the interval",
        # √tanh(z/2) alone has slope 0.498; the sample adds about 1/√(2·3000)/√Σ(log z)² = 0.01
        judge(all(abs(slope - 0.5) <= 0.05 for slope in slopes.values())),
        "slope ½ ± 0.05 in both forms",
        ", ".join(f"{form} {slope:.3f}" for form, slope in slopes.items()),
    )


def jensen_gap(effort: Effort) -> Evidence:
    """What the two forms say to others differs by a Jensen gap; with linear φ there is none."""
    found, tables = {}, []
    for activation in ("tanh", "relu", "identity"):
        outputs = []
        for form in ("state", "potential"):
            case = Case(activation, form)
            outputs.append(case.draw.neuron().output(case.ends(0.02)).mean(0))
        state, potential = Case(activation), Case(activation, "potential")
        predicted = state.moments()[0] - potential.draw.neuron().output(potential.moments()[0])
        measured = outputs[0] - outputs[1]
        found[activation] = (float(measured.abs().max()), float((measured - predicted).abs().max()), predicted)
        tables.append((activation, f"{found[activation][0]:.4f}", f"{float(predicted.abs().max()):.4f}"))
    # φ(v) is off φ(E v) by φ'' Var v/2, Var v = 0.01 Var of a draw: below 0.03; the means by 5 standard errors, 0.01
    has_gap = all(found[name][0] >= 0.1 and found[name][1] <= 0.04 for name in ("tanh", "relu"))
    linear = Case("identity")
    u = linear.draw.contributions()[0].sum(-1)
    complete = float((linear.moments()[0] - RATE * u).abs().max())
    return Evidence(
        Leg.PROPERTY,
        "the gap between the forms",
        judge(has_gap and found["identity"][0] <= 1e-12 and complete <= 1e-14),
        "tanh, ReLU: largest gap ≥ 0.1, as enumeration says to 0.04; identity: none, both ρ times the complete drive",
        "; ".join(f"{name} {gap:.4f} (off by {off:.3f})" for name, (gap, off, _) in found.items()),
        (Table("gap between outputs at c·interval = 0.02", ("φ", "measured", "enumerated"), tuple(tables)),),
    )


def recurrent_limit(effort: Effort) -> Evidence:
    """With recurrence the limits are the roots of x = E_m φ(Cm + Vx) and of v = ρ C 1 + V φ(v)."""
    gaps = []
    for form in ("state", "potential"):
        case = Case(form=form)
        draw = replace(case.draw, norm=0.6)
        system = draw.neuron()
        matrix = system.recurrent
        assert matrix is not None
        c = draw.contributions()[0]
        x = torch.zeros(3, dtype=torch.float64)
        for _ in range(200):  # contracts by 0.6
            feedback = matrix @ (x if form == "state" else torch.tanh(x))
            target = torch.zeros(3, dtype=torch.float64)
            for mask in itertools.product((0.0, 1.0), repeat=4):
                seen = sum(mask)
                a = c @ torch.tensor(mask, dtype=torch.float64) + feedback
                target = target + RATE**seen * (1 - RATE) ** (4 - seen) * (torch.tanh(a) if form == "state" else a)
            x = target
        gaps.append([float((replace(case).ends(z, system).mean(0) - x).abs().max()) for z in (0.4, 0.1, 0.025)])
    worst = max(each[-1] for each in gaps)
    return Evidence(
        Leg.PROPERTY,
        "limits with recurrence",
        # bias of first order in the interval, 0.025 · 0.3, and five standard errors, 5 · 0.12/√3000 = 0.01
        judge(worst <= 0.02),
        "means within 0.02 of the roots at c·interval = 0.025",
        "; ".join(
            f"{form}: " + ", ".join(f"{gap:.4f}" for gap in each)
            for form, each in zip(("state", "potential"), gaps, strict=True)
        ),
    )


def averaged_mask_control(effort: Effort) -> Evidence:
    """Average the mask instead of stepping with it: wrong for the state form, exact for linear φ."""

    def gap(activation: str) -> float:
        case = Case(activation)
        u = case.draw.given().input
        signal = Constant(Inputs(u, None, torch.full((4,), RATE, dtype=torch.float64)))
        start: Any = case.moments()[0].expand(1, 3)
        state = run(case.draw.neuron(), signal, start, EXPONENTIAL_SWEEP, 0.5, 40.0)[-1].state
        return float((state - case.moments()[0]).abs().max())

    curved, linear = gap("tanh"), gap("identity")
    return Evidence(
        Leg.CONTROL,
        "the mask averaged to ρ",
        judge(curved >= 0.1 and linear <= 1e-14),
        "off E_m φ(Cm) by ≥ 0.1 with tanh; exact with the identity",
        f"{curved:.4f}; {linear:.1e}",
    )


FAST_MASK_LIMITS = Theorem(
    key="masked.fast-mask-limits",
    title="A fast random mask: the state form averages outputs, the potential form averages drives",
    statement=(
        "Masks drawn anew, entry by entry with rate ρ, every δ → 0: the state form tends to x = E_m φ(Cm + Vx), the "
        "potential form to v = ρ C 1 + V φ(v). With V = 0 the mean is exact at every δ and the variance is "
        "(1 − e^{−cδ})/(1 + e^{−cδ}) times that of one draw, so distances fall like √δ. Outputs differ by the Jensen "
        "gap of φ, none where φ is linear; there both give ρ times the complete drive."
    ),
    hypotheses=("masks independent of each other and of u", "u held", "L‖V‖₂ < 1 where there is recurrence"),
    source="derived here",
    about=(MaskedNeuron, RandomMask),
    checks=(
        bridge_field,
        mean_and_variance,
        fluctuation_order,
        jensen_gap,
        recurrent_limit,
        averaged_mask_control,
    ),
)
