"""inference.stability: the loss of the trained sample never rises, whatever α and however short inference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.systems.inference.baselines import BackpropagationSteps, GradientDescent
from nlsim.systems.inference.energy import Layers, feedforward, free_energy, nlms, predict
from nlsim.systems.inference.incremental import IncrementalLearning
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import StepPrecision
from nlsim.systems.inference.update import NormalisedLeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.inference.other_systems import joint_descent
from nlsim.theorems.inference.variant_cases import Case, cases, flat, unflat
from nlsim.theorems.inference.variant_symbols import WIDTHS, SymbolicNet, concrete, identities, largest_gap, values_of
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

ROUNDING = 1e-13
"""What a loss may rise by rounding, relative to 1 + loss: some hundred roundings."""


def symbolic_step(net: SymbolicNet, hidden: list[Any]) -> list[Any]:
    """Return W + e ãᵀ/‖ã‖² of all layers, from all activities, the output included."""
    sources, made = net.predictions(hidden[:-1])
    return [
        net.weight(k) + (h - p) * a.T / (a.T * a)[0]
        for k, (h, p, a) in enumerate(zip(hidden, made, sources, strict=True))
    ]


def prove_chain(effort: Effort) -> Evidence:
    """ℓ(new weights) = ℓ(ĥ_L); F − ℓ(ĥ_L) is a sum of squares; F = ℓ at the forward pass."""
    differences = []
    for widths in WIDTHS:
        net = SymbolicNet(widths)
        hidden = [net.free(layer) for layer in range(net.depth)]
        source = net.given
        for h, w in zip(hidden, symbolic_step(net, hidden), strict=True):
            # induction: the layer below is realised, so its φ(ĥ) is what comes in
            differences += list((w * source - h).applyfunc(sp.simplify))
            source = h.applyfunc(net.activation)
        forward = net.forward()
        _, made = net.predictions(forward[:-1])
        differences += [each for h, p in zip(forward, made, strict=True) for each in h - p]
    return identities(
        "new forward pass = ĥ; errors vanish at the forward pass",
        "for every ĥ and abstract φ: so ℓ(θ') = ℓ(ĥ_L) ≤ ℓ(ĥ_L) + Σγ‖e‖²/2 = F(ĥ) ≤ F(h) = ℓ(θ) once F has not risen",
        differences,
    )


def bridge_update(effort: Effort) -> Evidence:
    """Compare the symbolic step and energy with the running update and energy at random activities."""
    tolerance, gaps, gamma = 1e-13, [], 0.4  # some hundred roundings
    for widths in WIDTHS:
        for activation in ("tanh", "softplus", "logistic"):
            case = Case(widths, activation, has_bias=False, seed=5)
            net, weights, inputs = concrete(widths, activation), case.weights(), case.inputs()
            draw = generator(8, "stability activity")
            hidden = tuple(torch.as_tensor(draw.normal(size=(1, n))) for n in widths[1:])
            made = predict(case.network(), weights, _given(inputs), hidden[:-1])
            running = nlms(case.network(), weights, made, made.errors(hidden))
            symbols = [net.free(layer) for layer in range(net.depth)]
            values = values_of(net, weights, inputs, hidden)
            gaps += [largest_gap(s, r, values) for s, r in zip(symbolic_step(net, symbols), running, strict=True)]
            _, predicted = net.predictions(symbols[:-1])
            energy = net.loss(symbols[-1]) + sum(
                sp.Float(gamma) * each**2 / 2 for h, p in zip(symbols, predicted, strict=True) for each in h - p
            )
            found = free_energy(
                made.errors(hidden),
                (gamma,) * net.depth,
                loss=SQUARED_ERROR,
                output=hidden[-1],
                target=inputs.target,
            )
            gaps.append(largest_gap([energy], found, values))
    worst = float(np.max(gaps))
    return Evidence(
        Leg.BRIDGE,
        "symbolic step and energy = running ones",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; three activations, any ĥ",
        f"{worst:.2g} over {len(gaps)} comparisons",
    )


def _given(inputs: Inputs) -> Tensor:
    assert inputs.input is not None
    return inputs.input


def loss_at(system: Any, weights: Layers, inputs: Inputs) -> float:
    """Return the summed loss of the network's own output."""
    assert inputs.target is not None
    return float(system.loss.value(feedforward(system.network, weights, _given(inputs))[-1], inputs.target).sum())


def stiffness(flow: Any, moving: Layers, inputs: Inputs) -> float:
    """Return λ_max of −∂(field)/∂ĥ."""

    def field(point: Tensor) -> Tensor:
        return flat(flow.vector_field(0.0, unflat(point, moving), inputs))

    return float(torch.linalg.eigvals(-torch.func.jacrev(field)(flat(moving))).real.max())


def settle(system: InferenceLearning, start: Layers, weights: Layers, inputs: Inputs, steps: int) -> Layers:
    """Take Euler steps below 2/λ_max that never raise the energy: begin at 1/λ_max, halve a step that would."""
    flow = system.flow(weights, _given(inputs))
    if not start:
        return start
    stiff = stiffness(flow, start, inputs)
    if not stiff > 0:
        raise ArithmeticError("the flow does not pull anywhere at the forward pass")
    dt = 1.0 / stiff
    moving, energy = start, float(flow.energy(0.0, start, inputs).sum())
    begun, force = energy, float(flat(flow.vector_field(0.0, start, inputs)).norm())
    for _ in range(steps):
        for _ in range(60):
            trial = EXPLICIT_EULER.advance(flow, Held(inputs), moving, 0.0, dt, 1)
            after = float(flow.energy(0.0, trial, inputs).sum())
            if after <= energy:
                moving, energy = trial, after
                break
            dt /= 2
    if steps and force > 1e-6 and not energy < begun:
        raise ArithmeticError("no step along the flow lowers the energy, so nothing was tested")
    return moving


def step_of(case: Case, alpha: float) -> InferenceLearning:
    """Return the system whose jump is a step of size α: precisions of the feedforward activities, output at rest."""
    system = case.system(StepPrecision(alpha, "feedforward"), "settled", NormalisedLeastMeanSquares())
    return replace(system, is_scaled=True)


def never_rises(effort: Effort) -> Evidence:
    """Train on one sample with α up to 1e5 and any number of inference steps: the loss does not rise."""

    def error_of(drawn: tuple[Case, float, int]) -> float:
        case, exponent, steps = drawn
        system, weights, inputs = step_of(case, 10**exponent), case.weights(), case.inputs()
        state = system.initial_state(weights, inputs)
        state = replace(state, activity=settle(system, state.activity, weights, inputs, steps))
        after = system.jump(0.0, state, inputs, inputs).weight
        before = loss_at(system, weights, inputs)
        return (loss_at(system, after, inputs) - before) / (1 + before)

    return check_property(
        "loss after − loss before",
        f"≤ {ROUNDING:g} (rounding); α from 1e-3 to 1e5, 0 to 30 inference steps, both losses, depth 1 to 4, biases",
        effort,
        st.tuples(cases(samples=1), st.floats(-3, 5), st.integers(0, 30)),
        error_of,
        ROUNDING,
    )


def long_step_control(effort: Effort) -> Evidence:
    """Steps of 1.05 · 2/λ_max on a linear net: inference diverges, and so does the loss (N12)."""
    case = Case(activation="identity", seed=2)
    system, weights, inputs = step_of(case, 1.0), case.weights(), case.inputs()
    state = system.initial_state(weights, inputs)
    flow = system.flow(weights, _given(inputs))
    limit = 2.0 / stiffness(flow, state.activity, inputs)
    ratios = {}
    for factor in (0.95, 1.05):
        moving = EXPLICIT_EULER.advance(flow, Held(inputs), state.activity, 0.0, factor * limit, 400)
        after = system.jump(0.0, replace(state, activity=moving), inputs, inputs).weight
        ratios[factor] = loss_at(system, after, inputs) / loss_at(system, weights, inputs)
    return Evidence(
        Leg.CONTROL,
        "inference steps of 1.05 · 2/λ_max",
        # the stiffest mode grows by |1 − 2.1| = 1.1 a step: 1.1^800 = 1e33 in the loss
        judge(ratios[0.95] <= 1 and ratios[1.05] >= 1e10),
        "loss multiplied by more than 1e10 after 400 steps; not raised at 0.95 · 2/λ_max",
        f"{ratios[1.05]:.1e}; {ratios[0.95]:.2g}",
    )


def tangent_limit(case: Case) -> float:
    """Return 2/λ_max of the neural tangent kernel of the one sample."""
    network, weights, inputs = case.network(), case.weights(), case.inputs()

    def output(point: Tensor) -> Tensor:
        return feedforward(network, unflat(point, weights), _given(inputs))[-1].reshape(-1)

    jacobian = torch.func.jacrev(output)(flat(weights))
    return 2.0 / float(torch.linalg.eigvalsh(jacobian @ jacobian.T).max())


def explicit_control(effort: Effort) -> Evidence:
    """Explicit SGD above 2/λ_max of the tangent kernel raises the loss where inference lowers it (N13)."""
    risen, lowered, kept, cases_ = 0, 0, 0, 20
    for seed in range(cases_):
        case = Case(distance=0.1, seed=seed)
        weights, inputs, limit = case.weights(), case.inputs(), tangent_limit(case)
        network, loss = case.network(), case.loss_of_output()
        # the residual along the stiffest direction, so that the limit is that of this very sample
        made = feedforward(network, weights, _given(inputs))[-1]
        inputs = replace(inputs, target=made + 0.1 * stiffest(case))
        losses = {}
        for factor in (0.8, 1.25):
            system = BackpropagationSteps(network, loss, GradientDescent(factor * limit))
            after = system.jump(0.0, system.initial_state(weights, inputs), inputs, inputs).weight
            losses[factor] = loss_at(system, after, inputs)
        before = loss_at(system, weights, inputs)
        own = step_of(case, 1.25 * limit)
        state = own.initial_state(weights, inputs)
        state = replace(state, activity=settle(own, state.activity, weights, inputs, 20))
        risen += losses[1.25] > before
        kept += losses[0.8] <= before
        lowered += loss_at(own, own.jump(0.0, state, inputs, inputs).weight, inputs) < before
    return Evidence(
        Leg.CONTROL,
        "explicit SGD at α = 1.25 · 2/λ_max(Θ)",
        judge(risen == kept == lowered == cases_),
        "loss rises in all 20 nets; falls at 0.8 · 2/λ_max(Θ), and with inference learning at the larger α",
        f"rises in {risen}; falls in {kept} and {lowered}",
    )


def stiffest(case: Case) -> Tensor:
    """Return the unit eigenvector of the tangent kernel's largest eigenvalue, as an output."""
    network, weights, inputs = case.network(), case.weights(), case.inputs()

    def output(point: Tensor) -> Tensor:
        return feedforward(network, unflat(point, weights), _given(inputs))[-1].reshape(-1)

    jacobian = torch.func.jacrev(output)(flat(weights))
    vectors: Tensor = torch.linalg.eigh(jacobian @ jacobian.T).eigenvectors
    return vectors[:, -1][None, :]


def random_start_control(effort: Effort) -> Evidence:
    """Begin inference off the forward pass: F does not begin at the loss, and the loss may rise (N17)."""
    risen, count = {True: 0, False: 0}, 100
    for seed in range(count):
        case = Case(distance=0.1, seed=seed)
        system, weights, inputs = step_of(case, 1.0), case.weights(), case.inputs()
        draw = generator(seed, "start")
        forward = system.begin(weights, inputs)
        steps = int(draw.integers(0, 6))
        for is_random in (True, False):
            start = forward
            if is_random:
                start = tuple(h + torch.as_tensor(draw.normal(size=tuple(h.shape))) for h in forward)
            state = replace(
                system.initial_state(weights, inputs), activity=settle(system, start, weights, inputs, steps)
            )
            after = loss_at(system, system.jump(0.0, state, inputs, inputs).weight, inputs)
            before = loss_at(system, weights, inputs)
            risen[is_random] += after > before * (1 + ROUNDING)
    return Evidence(
        Leg.CONTROL,
        "random initial activities",
        judge(risen[True] >= 20 and risen[False] == 0),
        "loss rises in at least 20 of 100 cases (unit noise, distance 0.1, up to 5 steps); from the forward pass in 0",
        f"{risen[True]} and {risen[False]}",
    )


def overshoot_control(effort: Effort) -> Evidence:
    """A normalised rate of 2.5: the new forward pass is no longer ĥ, and the loss rises."""
    risen, kept, count = 0, 0, 20
    for seed in range(count):
        case = Case(distance=0.1, seed=seed)
        weights, inputs = case.weights(), case.inputs()
        for rate in (1.0, 2.5):
            system = replace(step_of(case, 1e3), update=NormalisedLeastMeanSquares(rate))
            state = system.initial_state(weights, inputs)
            state = replace(state, activity=settle(system, state.activity, weights, inputs, 20))
            after = loss_at(system, system.jump(0.0, state, inputs, inputs).weight, inputs)
            if rate == 1.0:
                kept += after <= loss_at(system, weights, inputs)
            else:
                risen += after > loss_at(system, weights, inputs)
    return Evidence(
        Leg.CONTROL,
        "normalised rate 2.5 instead of 1",
        judge(risen >= count // 2 and kept == count),
        "loss rises in at least half of 20 nets at α = 1e3; with rate 1 in none",
        f"rises in {risen}; with rate 1 in {count - kept}",
    )


STABILITY = Theorem(
    key="inference.stability",
    title="Inference learning never raises the loss of the sample it learns from",
    statement=(
        "Inference that begins at the forward pass and never raises a free energy with constant precisions, followed "
        "by unit-rate normalised updates of all layers, gives ℓ(θ') = ℓ(y, ĥ_L) ≤ F(ĥ) ≤ F(h) = ℓ(θ): for every α, "
        "however many inference steps are taken, and for any loss. Explicit SGD does so only below a bound on α."
    ),
    hypotheses=(
        "one sample at a time",
        "activities begin at the forward pass",
        "precisions held during inference; steps that do not raise F, such as those below 2/λ_max(∂²F)",
        "normalised rate 1 and ε = 0 in every layer",
        "the loss is part of F (soft clamp)",
    ),
    source=(
        "Alonso, Millidge, Krichmar and Neftci, NeurIPS 2022, claim stability across learning rates; "
        "this statement and its proof are derived here"
    ),
    about=(
        InferenceLearning,
        StepPrecision,
        NormalisedLeastMeanSquares,
        BackpropagationSteps,
        IncrementalLearning,
        nlms,
        free_energy,
    ),
    checks=(
        prove_chain,
        bridge_update,
        never_rises,
        joint_descent,
        long_step_control,
        explicit_control,
        random_start_control,
        overshoot_control,
    ),
)
