"""masked.no-learning-in-blackout: what is not seen teaches nothing; sensitivities and contrastive gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.post_activation import PostActivationFlow
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.energy import MaskedEnergy, contrastive_gradient
from nlsim.systems.masked.learning import GatedSignal, with_constant
from nlsim.systems.masked.sensitivity import MaskedSensitivity, SensitivityState
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.masked.energy_jump import energy_net, prove_balance
from nlsim.theorems.masked.neuron_symbols import (
    INPUTS,
    NEURONS,
    SymbolicNeuron,
    identities,
    symbolic_neuron,
)
from nlsim.theorems.masked.no_learning_networks import NETWORK_CHECKS
from nlsim.theorems.masked.runs import Draw, Garbage, draws, run
from nlsim.theorems.masked.soft_mask_bounds import SMOOTH
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Sigma, SigmaPrime


def injections(neuron: SymbolicNeuron, phi: Any) -> tuple[list[Any], list[Any]]:
    """Return what φ(a) changes by with b_i and W_ij: derivatives of the definition, V = d = w_c = 0."""
    silent = dict.fromkeys([*neuron.v, *neuron.d, *neuron.k], 0)
    values = [phi(neuron.neutralized_drive(i).subs(silent)) for i in range(NEURONS)]
    by_bias = [sp.diff(value, neuron.b[i]) for i, value in enumerate(values)]
    by_weight = [sp.diff(value, neuron.w[i, j]) for i, value in enumerate(values) for j in range(INPUTS)]
    return by_bias, by_weight


def prove_injection(effort: Effort) -> Evidence:
    """Differentiate the definition, neutralizers included, by b and W."""
    neuron = symbolic_neuron()
    by_bias, by_weight = injections(neuron, Sigma)
    silent, mu = dict.fromkeys([*neuron.v, *neuron.d, *neuron.k], 0), sum(neuron.m) / INPUTS
    nothing = dict.fromkeys(neuron.m, 0)
    drives = [neuron.drive(i).subs(silent) for i in range(NEURONS)]
    expand = [neuron.neutralized_drive(i).subs(silent) for i in range(NEURONS)]
    differences = [e - d for e, d in zip(expand, drives, strict=True)]
    for i in range(NEURONS):
        # compared at the argument as the definition writes it: both arguments are equal by the lines above
        slope = SigmaPrime(expand[i])
        differences += [by_bias[i] - slope * mu, by_bias[i].subs(nothing)]
        for j in range(INPUTS):
            found = by_weight[INPUTS * i + j]
            differences += [found - slope * neuron.m[j] * neuron.u[j], found.subs(nothing)]
    # a derivative that relaxes to an injection I(t) is the leaky integral of it
    t, s, c = sp.symbols("t s c", positive=True)
    injected = sp.Function("I")
    trace = sp.exp(-c * t) * sp.Integral(c * sp.exp(c * s) * injected(s), (s, 0, t))
    differences.append(sp.diff(trace, t) - c * (injected(t) - trace))
    return identities(
        "∂φ(a)/∂b = φ'(a) μ, ∂φ(a)/∂W_j = φ'(a) m_j u_j; leaky integrals",
        "neutralizers differentiated too; 0 at m = 0",
        differences,
    )


def bridge_injection(effort: Effort) -> Evidence:
    """Compare the symbolic injections with those the running sensitivities relax to."""
    neuron, gaps = symbolic_neuron(), []
    for name in ("tanh", "logistic", "softplus"):
        by_bias, by_weight = injections(neuron, SYMBOLIC_ACTIVATIONS[name])
        symbolic = sp.lambdify([*neuron.w, *neuron.u, *neuron.m, *neuron.b], [*by_bias, *by_weight], "numpy")
        for case in range(6):
            draw = generator(case, "sensitivity bridge")
            w = draw.uniform(0.3, 1.5, (NEURONS, INPUTS)) * draw.choice((-1.0, 1.0), (NEURONS, INPUTS))
            m = draw.uniform(size=INPUTS) if case % 2 else draw.integers(0, 2, INPUTS).astype(float)
            u, b = draw.normal(size=INPUTS), draw.normal(size=NEURONS)
            running = MaskedSensitivity(MaskedNeuron(torch.as_tensor(w), ACTIVATIONS[name], torch.as_tensor(b)))
            inputs = Inputs(torch.as_tensor(u[None]), None, torch.as_tensor(m[None]))
            goal = running.targets(torch.zeros(1, NEURONS, dtype=torch.float64), inputs)
            found = np.concatenate([goal.bias.numpy().ravel(), goal.weight.numpy().ravel()])
            gaps.append(float(np.abs(found - np.array(symbolic(*w.flatten(), *u, *m, *b))).max()))
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic injections = running ones",
        judge(worst <= 1e-13),  # some tens of roundings of numbers below 5
        "difference ≤ 1e-13; three activations, hard and soft masks",
        f"{worst:.2g} over {len(gaps)} cases",
    )


def finite_difference(effort: Effort) -> Evidence:
    """Sensitivities at the end of a run through random masks against runs with b and W moved a little."""
    step, steps = 1e-5, 8

    def error_of(draw: Draw) -> float:
        system, dt = draw.neuron(), 0.3 / draw.speed
        signal = MaskedSignal(Constant(draw.given()), (draw.random_mask(0.5, 2 * dt),))
        joint = MaskedSensitivity(system)
        start = replace(joint.initial_state(draw.given()), neuron=draw.state())
        found: SensitivityState = run(joint, signal, start, EXPONENTIAL_SWEEP, dt, steps * dt)[-1].state
        assert system.bias is not None

        def end(**moved: Any) -> Tensor:
            last: Tensor = run(replace(system, **moved), signal, draw.state(), EXPONENTIAL_SWEEP, dt, steps * dt)[
                -1
            ].state
            return last

        worst = 0.0
        for i in range(draw.neurons):
            unit = torch.zeros_like(system.bias)
            unit[i] = step
            slope = (end(bias=system.bias + unit) - end(bias=system.bias - unit))[:, i] / (2 * step)
            worst = max(worst, float((slope - found.bias[:, i]).abs().max()))
            for j in range(draw.inputs):
                one = torch.zeros_like(system.weight)
                one[i, j] = step
                slope = (end(weight=system.weight + one) - end(weight=system.weight - one))[:, i] / (2 * step)
                worst = max(worst, float((slope - found.weight[:, i, j]).abs().max()))
        return worst

    return check_property(
        "sensitivities = finite differences of runs",
        # (1e-5)²/6 of a third derivative |φ'''||u|³ below 2·30: 1e-9; rounding 2e-16 · 20/1e-5 = 4e-10
        "≤ 5e-9 for every entry of b and W; smooth activations, both forms, masks redrawn four times",
        Effort(max(4, effort.examples // 6), effort.is_random),
        draws(activations=SMOOTH),
        error_of,
        5e-9,
    )


def blackout_property(effort: Effort) -> Evidence:
    """A blackout after a time of seeing: nothing is added, traces fade at c (or freeze); dead sensors leave none."""

    def error_of(draw: Draw) -> float:
        dt = 0.3 / draw.speed
        dark = 6 * dt
        masks = Outages((Outage(0, 0.0, 1e9), Outage(None, dark, 1e9)), draw.inputs)
        signal = Garbage(MaskedSignal(Constant(draw.given()), (masks,)))
        worst = 0.0
        for outage, left in (("forget", math.exp(-0.3 * 5)), ("hold", 1.0)):
            joint = MaskedSensitivity(draw.neuron(outage=outage))
            start = joint.initial_state(draw.given())
            ticks = run(joint, signal, start, EXPONENTIAL_SWEEP, dt, dark + 5 * dt, (dark,))
            records = [tick.state for tick in ticks if tick.is_record]
            seen, later = records[0], records[-1]
            for before, after in ((seen.bias, later.bias), (seen.weight, later.weight)):
                worst = max(worst, float((after - left * before).abs().max()))
            worst = max(worst, float(later.weight[..., 0].abs().max()))  # the dead sensor: exactly 0
            quiet = joint.targets(later.neuron, signal.piece(dark)(dark))
            worst = max(worst, float(quiet.bias.abs().max()), float(quiet.weight.abs().max()))
        return worst

    return check_property(
        "nothing is injected in a blackout; dead sensors never drift",
        # eleven exact steps in numbers below 10
        "traces times e^(−ct) (forget) or 1 (hold) to 1e-14; injections and dead sensors' traces exactly 0, NaN in the "
        "slots",
        Effort(max(1, effort.examples // 2), effort.is_random),
        draws(),
        error_of,
        1e-14,
    )


def at_rest(system: MaskedEnergy, inputs: Inputs, start: Tensor) -> Tensor:
    """Return the rest state of a net that contracts."""
    settled: Tensor = run(system, Constant(inputs), start, RK4, 0.5, 60.0)[-1].state
    return settled


def contrastive(effort: Effort) -> Evidence:
    """Contrastive gradients: exactly 0 in a blackout, and the gradient of the loss to first order in β otherwise."""
    draw = Draw(seed=21, norm=0.4, samples=2)
    target = draw.tensor("target", 2, 2)
    partial = Inputs(draw.given().input, target, torch.tensor([1.0, 0.0, 0.6], dtype=torch.float64))
    dark = replace(partial, mask=torch.zeros(3, dtype=torch.float64))
    free = energy_net(draw)
    zero = 0.0
    for inputs in (dark, replace(dark, input=torch.full_like(draw.given().input, math.nan))):  # type: ignore[arg-type]
        nudged = replace(free, nudge=0.5)
        rest = at_rest(free, inputs, draw.state())
        pulled = at_rest(nudged, inputs, draw.state())
        moved = float((pulled - rest).norm())
        found = contrastive_gradient(free, rest, nudged, pulled, inputs)
        zero = max(zero, *(float(each.abs().max()) for each in found))
    rest = at_rest(free, partial, draw.state())

    def loss(**moved: Any) -> float:
        settled = at_rest(replace(free, **moved), partial, rest)
        return 0.5 * float((settled[:, -2:] - target).square().sum())

    step, size = 1e-5, free.bias
    assert size is not None
    expected = []
    for name, value in (("weight", free.weight), ("bias", size)):
        slopes = torch.zeros_like(value)
        for place in np.ndindex(*value.shape):
            unit = torch.zeros_like(value)
            unit[place] = step
            slopes[place] = (loss(**{name: value + unit}) - loss(**{name: value - unit})) / (2 * step)
        expected.append(slopes)
    nudges = [0.08, 0.04, 0.02, 0.01]
    errors = []
    for beta in nudges:
        nudged = replace(free, nudge=beta)
        found = contrastive_gradient(free, rest, nudged, at_rest(nudged, partial, rest), partial)
        errors.append(max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True)))
    order = observed_order(nudges, errors)
    return Evidence(
        Leg.ORDER,
        "contrastive gradients",
        judge(zero == 0.0 and moved >= 0.1 and abs(order - 1) <= 0.1),
        "exactly 0 in a blackout, though the nudge moves the state by ≥ 0.1; else the gradient of the loss at rest, "
        "order 1 ± 0.1 in β",
        f"{zero:g} (moved by {moved:.2f}); order {order:.3f}, error {errors[-1]:.1e} at β = {nudges[-1]:g}",
    )


def imputation_control(effort: Effort) -> Evidence:
    """Under zero imputation the bias goes on being taught in a blackout; a sensitivity there is no stop of learning."""
    draw, t = Draw(seed=6), 20.0
    system = draw.neuron()
    bias = system.bias
    assert bias is not None
    blackout = draw.blackout(0.0, 1e9)
    gated = run(
        MaskedSensitivity(system), blackout, MaskedSensitivity(system).initial_state(draw.given()), RK4, 0.1, t
    )[-1].state
    # zero imputation: everything counts as seen, with 0 in the slots
    imputed = Constant(Inputs(torch.zeros(2, 3, dtype=torch.float64)))
    joint = MaskedSensitivity(system)
    drifting = run(joint, imputed, joint.initial_state(draw.given()), RK4, 0.1, t)[-1].state
    slope = 1 - torch.tanh(bias).square()
    gap = float((drifting.bias - slope).abs().max())
    seen = run(joint, Constant(draw.given()), joint.initial_state(draw.given()), RK4, 0.1, t)[-1].state
    fading = run(joint, blackout, seen, RK4, 0.1, 1.0)[-1].state
    still = float(fading.bias.norm() / seen.bias.norm())
    return Evidence(
        Leg.CONTROL,
        "zero imputation; traces of what was seen before",
        judge(
            float(gated.bias.abs().max()) == 0.0
            and gap <= 1e-7
            and float(drifting.bias.abs().min()) >= 0.05
            and abs(still - math.exp(-1)) <= 1e-6
        ),
        "∂x/∂b → φ'(b) ≥ 0.05 with imputed zeros, exactly 0 when gated from the start; what was seen before a blackout "
        "still counts e^(−1) after one time constant",
        f"imputed: at least {float(drifting.bias.abs().min()):.3f}, gap {gap:.1e}; gated "
        f"{float(gated.bias.abs().max()):g}; still {still:.6f}",
    )


NO_LEARNING_IN_BLACKOUT = Theorem(
    key="masked.no-learning-in-blackout",
    title="What is not seen teaches nothing",
    statement=(
        "With V = 0, ∂x_i/∂b_i and ∂x_i/∂W_ij are the leaky integrals of φ'(a_i) μ and φ'(a_i) m_j u_j: a blackout "
        "injects exactly nothing, traces of earlier inputs fade at rate c (or freeze, where neurons hold), and a dead "
        "sensor's weights have sensitivity 0. Contrastive gradients of an energy-based net by W and b are exactly 0 in "
        "a blackout, whatever the nudge. In networks that learn in time, a blackout gives W and b of the first layer "
        "exactly 0: in the jump of inference learning, ∂F/∂W_ij = −γ e_i m_j u_j and ∂F/∂b_i = −γ μ e_i, with the "
        "output clamped and e ≠ 0, and in the force on the weights' costates of Hamiltonian learning. Under zero "
        "imputation biases go on being taught."
    ),
    hypotheses=(
        "V = 0 for the sensitivities",
        "V = Vᵀ for the energy",
        "no decay of weights, no momentum, ε > 0 where errors are divided by n",
    ),
    source="derived here",
    about=(
        MaskedSensitivity,
        SensitivityState,
        MaskedEnergy,
        contrastive_gradient,
        GatedSignal,
        with_constant,
        InferenceLearning,
        PostActivationFlow,
        CostateReversal,
        SampleReset,
    ),
    checks=(
        prove_injection,
        prove_balance,
        bridge_injection,
        finite_difference,
        blackout_property,
        contrastive,
        imputation_control,
        *NETWORK_CHECKS,
    ),
)
