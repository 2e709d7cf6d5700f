"""hamiltonian.sgd-dictionary: the symbolic proofs and their bridge to the running code."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch

from nlsim.core.system import Inputs
from nlsim.integrate.ordered import ORDERED_EULER, ORDERED_EULER_OLD, OrderedEuler
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.robust import HamiltonianLearning
from nlsim.systems.hamiltonian.sgd_dictionary import from_learning_problem, from_sgd
from nlsim.systems.hamiltonian.state_space import output_form
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort
from nlsim.theorems.symbols import (
    CHAIN_2,
    CHAIN_3,
    CYCLE,
    DIAMOND,
    SKIP,
    Model,
    Sigma,
    every,
    is_zero,
    model,
)

TAU, BETA, ETA, PHI, DECAY = sp.symbols("tau beta eta phi k", positive=True)
RATE, MOMENTUM, DAMPENING = sp.symbols("gamma mu rho", positive=True)
DICTIONARY = {BETA: RATE / TAU, ETA: (1 - MOMENTUM) / TAU, PHI: (1 - DAMPENING) / TAU}
"""The table, read from right to left."""


def _report(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def learning_step(weight: Any, omega: Any, force: Any, *, phi: Any = PHI, is_old: bool = False) -> tuple[Any, Any]:
    """Return (θ, ω) after a step of eq. 20–21, the weights moving with the new ω or with the old."""
    new = (1 - TAU * ETA) * omega + TAU * phi * force
    return weight - TAU * BETA * (omega if is_old else new), new


def prove_step(effort: Effort) -> Evidence:
    """One step is one step of SGD with ω as buffer; torch's first step is the one with φ = 1/τ."""
    w, omega, g = sp.symbols("w omega g", real=True)
    force = g + DECAY * w
    weight, new = (each.subs(DICTIONARY) for each in learning_step(w, omega, force))
    buffer = MOMENTUM * omega + (1 - DAMPENING) * force
    answers = [is_zero(new - buffer), is_zero(weight - (w - RATE * buffer))]
    weight, new = (each.subs(DICTIONARY) for each in learning_step(w, sp.Integer(0), force, phi=1 / TAU))
    answers += [is_zero(new - force), is_zero(weight - (w - RATE * force))]
    return _report(
        "one step = one step of SGD",
        "γ = βτ, μ = 1 − τη, ρ = 1 − τφ, decay k; from ω = 0 with φ = 1/τ torch's undamped first step",
        answers,
    )


def prove_delay(effort: Effort) -> Evidence:
    """Moved with the old ω, the weights follow SGD along the gradients of one step before."""
    gradient = sp.Function("g")
    start = sp.Symbol("w0", real=True)
    weight, omega = start, sp.Integer(0)
    found = [weight]
    for step in range(5):
        weight, omega = learning_step(weight, omega, gradient(step, weight), is_old=True)
        weight, omega = weight.subs(DICTIONARY), omega.subs(DICTIONARY)
        found.append(weight)
    expected, buffer = [start, start], sp.Integer(0)
    for step in range(1, 5):
        buffer = MOMENTUM * buffer + (1 - DAMPENING) * gradient(step - 1, expected[step - 1])
        expected.append(expected[step] - RATE * buffer)
    answers = [is_zero(f - e) for f, e in zip(found, expected, strict=True)]
    return _report("weights moved with the old ω", "θ_k+1 = θ_k − γ b_k, b_k = μ b_k−1 + (1 − ρ) g_k−1(θ_k−1)", answers)


def prove_robust_hamiltonian(effort: Effort) -> Evidence:
    """From the variational problem to eq. E1–E4: the factor e^{ηt} goes into the costates as dissipation."""
    t, h, w, v = sp.symbols("t h theta v", real=True)
    z, omega = sp.symbols("z omega", real=True)
    loss, f = sp.Function("L")(h, w), sp.Function("f")(h, w)
    growth = sp.exp(ETA * t)
    root = sp.sqrt(BETA)  # β ⊙ β is renamed β
    full = growth * (loss * PHI + v**2 / 2) + growth * z * f + growth * omega * root * v
    (best,) = sp.solve(sp.diff(full, v), v)
    robust = loss * PHI + z * f
    answers = [is_zero(best + root * omega), is_zero(root * best + BETA * omega)]
    for position, costate in ((h, z), (w, omega)):
        # d(e^{ηt} p)/dt = −∂/∂y, so dp/dt = −e^{−ηt} ∂/∂y − η p
        velocity = -sp.diff(full.subs(v, best), position) / growth - ETA * costate
        answers.append(is_zero(velocity - (-sp.diff(robust, position) - ETA * costate)))
    return _report(
        "robust Hamiltonian",
        "minimiser θ̄ = −√β ω, dθ/dt = −β ω, dp/dt = −∂H'/∂y − η p with H' = φ L + z f",
        answers,
    )


def _learning_hamiltonian(of: Model) -> Any:
    """Write down H' = φ (L + k|θ|²/2) + Σ z_i c_i (σ(a_i) − h_i) with the symbols of a graph."""
    total = PHI * of.k * sum(w**2 for w in of.weight.values()) / 2 + PHI * of.loss[0]
    for i in of.graph.vertices:
        total += of.costate[0][i] * of.speed[i] * (Sigma(of.pre_activation(i)) - of.x[0][i])
    return total


def prove_same_system(effort: Effort) -> Evidence:
    """On every graph Hamiltonian Learning with s = −1 is the costate-only reversal."""
    answers = []
    for graph in (CHAIN_2, CHAIN_3, DIAMOND, SKIP, CYCLE):
        of = model(graph, has_equal_speeds=False)
        words = {BETA: 1 / (of.m * of.c), ETA: of.theta, PHI: of.c}
        hamiltonian = _learning_hamiltonian(of)
        for i in graph.vertices:
            z = of.costate[0][i]
            field = (sp.diff(hamiltonian, of.x[0][i]) - ETA * z).subs(words)
            answers.append(is_zero(field - of.costate_velocity(i)))
            answers.append(is_zero(sp.diff(hamiltonian, z) - of.velocity(i)))
        for arc, omega in of.weight_costate.items():
            field = (sp.diff(hamiltonian, of.weight[arc]) - ETA * omega).subs(words)
            answers.append(is_zero(field - of.weight_costate_velocity(arc)))
            answers.append(is_zero((-BETA * omega).subs(words) - of.weight_velocity(arc)))
    return _report(
        "Hamiltonian Learning = costate-only reversal",
        "h = x, z = p_x/φ, ω = p_w/φ, β = 1/(mc), η = θ, φ_HL L = c ℓ: all four equations, on all graphs",
        answers,
    )


def bridge_field(effort: Effort) -> Evidence:
    """The derived symbolic field, as numbers, equals the running field of Hamiltonian Learning."""
    tolerance, worst, count = 1e-12, 0.0, 0  # some hundred roundings of sums of numbers below 10
    for widths, activation, loss in (
        ((2, 2, 2), "tanh", "squared_error"),
        ((1, 2, 1, 2), "logistic", "cross_entropy"),
        ((2, 1, 2), "softplus", "squared_error"),
        ((2, 2, 1), "relu", "squared_error"),
        ((2, 2), "identity", "cross_entropy"),
    ):
        bridge = build_bridge(widths, activation, loss)
        running = from_learning_problem(bridge.problem).vector_field(0.0, bridge.state, bridge.inputs)
        worst = max(worst, bridge.gaps(running, sign=-1))
        count += 1
    return Evidence(
        Leg.BRIDGE,
        "symbolic field = field of Hamiltonian Learning",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; 5 activations, 2 losses, unequal speeds, biases, batch 2",
        f"{worst:.2g} over {count} fields",
    )


def bridge_step(effort: Effort) -> Evidence:
    """The step of the proofs, as numbers, equals the running step, for both orders of the update."""
    settings, steps = {RATE: 0.3, MOMENTUM: 0.6, DAMPENING: 0.2, TAU: 0.37, DECAY: 0.1}, 4
    source, target, start = 0.8, -0.4, 0.5
    w = sp.Symbol("w", real=True)
    force = sp.diff((sp.tanh(w * source) - target) ** 2 / 2, w) + DECAY * w
    worst = 0.0
    steppers: tuple[OrderedEuler, ...] = (ORDERED_EULER, ORDERED_EULER_OLD)
    for stepper in steppers:
        numbers = {key: value.subs(settings) for key, value in DICTIONARY.items()} | settings
        weight, omega = sp.Float(start, 30), sp.Float(0, 30)
        constants = from_sgd(0.3, 0.6, 0.2, tau=0.37, weight_decay=0.1)
        network = output_form(LayeredNetwork((1, 1), (TANH,), has_bias=False))
        learning = HamiltonianLearning(network, SQUARED_ERROR, constants)
        state = learning.initial_state((_one(start),), 1)
        for step in range(steps):
            phi = 1 / TAU if step == 0 else PHI
            force_now = force.subs(w, weight)
            both = learning_step(weight, omega, force_now, phi=phi, is_old=stepper.moves_with_old)
            weight, omega = (sp.N(each.subs(numbers), 30) for each in both)
            held = hold(Inputs(_one(source), _one(target)))
            state = stepper.advance(learning, held, state, step * 0.37, 0.37, 1)
            worst = max(worst, abs(float(weight) - float(state.weight[0])))
            worst = max(worst, abs(float(omega) - float(state.weight_costate[0])))
    return Evidence(
        Leg.BRIDGE,
        "symbolic step = running step",
        judge(worst <= 1e-14),  # 4 steps of some ten roundings of numbers below 1
        f"difference ≤ 1e-14 over {steps} steps of one neuron, new and old ω",
        f"{worst:.2g}",
    )


def _one(value: float) -> torch.Tensor:
    return torch.full((1, 1), value, dtype=torch.float64)
