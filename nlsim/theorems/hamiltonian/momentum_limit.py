"""hamiltonian.momentum-limit: the limit system is the heavy ball, and its step is SGD with momentum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP, IMPLICIT_SWEEP, Sweep
from nlsim.systems.backprop import HeavyBall, HeavyBallState, backpropagate
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.signals import hold
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases, on_manifold
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero

Weights = tuple[torch.Tensor, ...]


def prove_step(effort: Effort) -> Evidence:
    """The semi-implicit step of the heavy ball and SGD's recursion are the same map, b = −m v/τ."""
    w, v, g, k = sp.symbols("w v g k", real=True)
    tau, m, theta = sp.symbols("tau m theta", positive=True)
    velocity = (1 - tau * theta) * v - tau / m * (g + k * w)
    weight = w + tau * velocity
    buffer, rate, momentum = -m * v / tau, tau**2 / m, 1 - tau * theta
    new_buffer = momentum * buffer + (g + k * w)
    answers = [is_zero(weight - (w - rate * new_buffer)), is_zero(-m * velocity / tau - new_buffer)]
    plain = weight.subs(theta, 1 / tau)
    answers.append(is_zero(plain - (w - rate * (g + k * w))))
    return Evidence(
        Leg.PROOF,
        "one step = one step of SGD",
        judge(every(answers)),
        "learning rate τ²/m, momentum 1 − τθ, weight decay k; at τθ = 1 plain gradient descent",
        f"{answers.count(True)} of {len(answers)} identities simplify to 0",
    )


def bridge_limit(effort: Effort) -> Evidence:
    """The limit of the derived weight equation, as numbers, equals the running heavy-ball field."""
    tolerance, worst = 1e-12, 0.0  # as for the field of the reversed system: some hundred roundings
    for activation, loss in (("tanh", "squared_error"), ("softplus", "cross_entropy")):
        bridge = build_bridge((2, 2, 2), activation, loss)
        problem, of = bridge.problem, bridge.symbolic
        passed = backpropagate(problem.network, problem.loss, bridge.state.weight, bridge.inputs)
        # the symbolic force at the point where activities and costates are those of backpropagation;
        # the limit has one speed, so every c_i is set to c
        for layer in range(problem.network.depth):
            for b, n in np.ndindex(*passed.activity[layer].shape):
                i = bridge.vertex(layer, n)
                bridge.values[of.x[b][i]] = float(passed.activity[layer][b, n])
                bridge.values[of.costate[b][i]] = float(passed.costate[layer][b, n])
                bridge.values[of.speed[i]] = bridge.values[of.c]
        velocities = tuple(-q for q in bridge.state.weight_costate)
        ball = HeavyBall(problem.network, problem.loss, 0.7, 0.3, 0.2)
        field = ball.vector_field(0.0, HeavyBallState(bridge.state.weight, velocities), bridge.inputs)
        for layer in range(problem.network.depth):
            for n, column in np.ndindex(*field.velocity[layer].shape):
                arc = (bridge.vertex(layer, n), bridge.source(layer, column))
                bridge.values[sp.Symbol("v", real=True)] = float(velocities[layer][n, column])
                expected = bridge.number(of.acceleration(arc))
                gap = abs(expected - float(field.velocity[layer][n, column]))
                worst = max(worst, gap / (1 + abs(expected)))
    return Evidence(
        Leg.BRIDGE,
        "limit of the symbolic weight equation = HeavyBall field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}",
        f"{worst:.2g}",
    )


def sgd(case: Case, batches: list[Inputs], tau: float, mass: float, theta: float, k: float) -> Weights:
    """Return the weights after torch's own SGD with gradients from torch's own autograd."""
    problem = case.problem()
    weights = [w.clone().requires_grad_() for w in case.weights()]
    optimiser = torch.optim.SGD(weights, lr=tau**2 / mass, momentum=1 - tau * theta, weight_decay=k)
    for inputs in batches:
        assert inputs.input is not None
        assert inputs.target is not None
        optimiser.zero_grad()
        with torch.enable_grad():
            output = problem.network.forward(tuple(weights), inputs.input)[-1]
            torch.autograd.backward(problem.loss.value(output, inputs.target).sum())
        optimiser.step()
    return tuple(w.detach() for w in weights)


def _batches(case: Case, count: int) -> list[Inputs]:
    return [replace(case, seed=case.seed + 1 + j).inputs() for j in range(count)]


def equals_sgd(effort: Effort) -> Evidence:
    """The sweeps of the reversed system at large c τ, and of the heavy ball, against torch.optim.SGD."""
    count = 12

    def error_of(drawn: tuple[Case, float, float, float]) -> float:
        case, tau, theta, k = drawn
        mass = 40 * tau**2 * case.samples  # a learning rate of 1/40 per sample: no chaos to amplify rounding
        batches = _batches(case, count)
        expected = sgd(case, batches, tau, mass, theta / tau, k)
        depth = len(case.widths) - 1
        problem = replace(case.problem(mass=mass), speed=(60 / tau,) * depth, dissipation=0.0, regularisation=k)
        ball = HeavyBall(problem.network, problem.loss, mass, theta / tau, k)
        slow = HeavyBallState(case.weights(), tuple(torch.zeros_like(w) for w in case.weights()))
        for inputs in batches:
            slow = IMPLICIT_SWEEP.advance(ball, hold(inputs), slow, 0.0, tau, 1)
        gaps = [_gap(slow.weight, expected)]
        # θ also attenuates finite-speed costates, so the fast system is compared at θ = 0 …
        undamped = sgd(case, batches, tau, mass, 0.0, k)
        fast = problem.initial_state(case.weights(), case.samples)
        for inputs in batches:
            fast = EXPONENTIAL_SWEEP.advance(CostateReversal(problem), hold(inputs), fast, 0.0, tau, 1)
        gaps.append(_gap(fast.weight, undamped))
        # … and, with θ, at a speed so large that the attenuation D θ/c is below rounding
        damped = replace(problem, speed=(1e17 / tau,) * depth, dissipation=theta / tau)
        fast = damped.initial_state(case.weights(), case.samples)
        for inputs in batches:
            fast = EXPONENTIAL_SWEEP.advance(CostateReversal(damped), hold(inputs), fast, 0.0, tau, 1)
        gaps.append(_gap(fast.weight, expected))
        return max(gaps)

    strategy = st.tuples(cases(max_depth=3), st.floats(0.01, 0.5), st.floats(0.05, 1.0), st.floats(0.0, 0.2))
    return check_property(
        f"{count} steps = {count} steps of torch.optim.SGD",
        # e⁻⁶⁰ of the fast block and a few thousand roundings of weights of size 1
        "weights equal to 1e-12: heavy ball under a sweep; reversed system at cτ = 60 (θ = 0) and 1e17",
        Effort(max(1, effort.examples // 2), effort.is_random),
        strategy,
        error_of,
        1e-12,
    )


def _gap(found: Weights, expected: Weights) -> float:
    return max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True))


MOVING = Case(widths=(2, 4, 2), samples=3, seed=1)


def trajectory_order(effort: Effort) -> Evidence:
    """At a fixed horizon the weights of the reversed system and of the heavy ball differ by O(1/c)."""
    mass, theta, horizon = 2.0, 1.0, 2.0
    signal = MOVING.signal()
    zero = tuple(torch.zeros_like(w) for w in MOVING.weights())
    reference = RK4.advance(
        HeavyBall(MOVING.problem().network, MOVING.problem().loss, mass, theta),
        signal.piece(0.0),
        HeavyBallState(MOVING.weights(), zero),
        0.0,
        horizon / 400,
        400,
    )
    speeds, errors = [80.0, 160.0, 320.0, 640.0], []
    for c in speeds:
        case = replace(MOVING, speed=c, dissipation=theta)
        problem = case.problem(mass=mass)
        state = on_manifold(problem, case.weights(), signal.at(0.0))
        steps = round(horizon * c / 0.8)
        state = RK4.advance(CostateReversal(problem), signal.piece(0.0), state, 0.0, horizon / steps, steps)
        errors.append(_gap(state.weight, reference.weight))
    slope = observed_order(speeds, errors)
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(speeds, errors))]
    rows = tuple((f"{c:g}", f"{e:.3e}", p) for c, e, p in zip(speeds, errors, local, strict=True))
    return Evidence(
        Leg.ORDER,
        "weight trajectories, c → ∞ at fixed horizon",
        judge(abs(slope + 1) <= 0.05),
        "slope −1 ± 0.05 in c",
        f"{slope:.4f}",
        (Table(f"|w_c − w_∞| at t = {horizon:g}", ("c", "error", "slope"), rows),),
    )


def order_of_update_control(effort: Effort) -> Evidence:
    """Move the weights with the old velocity (plain explicit Euler): it must not be SGD."""
    case, tau, theta = Case(widths=(3, 4, 2), seed=5), 0.1, 2.0
    mass = 40 * tau**2 * case.samples
    batches = _batches(case, 12)
    expected = sgd(case, batches, tau, mass, theta, 0.0)
    ball = HeavyBall(case.problem().network, case.problem().loss, mass, theta)
    gaps: dict[str, float] = {}
    steppers: tuple[Any, ...] = (EXPLICIT_EULER, IMPLICIT_SWEEP)
    for stepper in steppers:
        state = HeavyBallState(case.weights(), tuple(torch.zeros_like(w) for w in case.weights()))
        for inputs in batches:
            state = stepper.advance(ball, hold(inputs), state, 0.0, tau, 1)
        gaps[stepper.name] = _gap(state.weight, expected)
    return Evidence(
        Leg.CONTROL,
        "weights moved with the old velocity",
        judge(gaps["explicit_euler"] > 1e-3 and gaps["implicit_sweep"] < 1e-12),
        "differs from SGD by more than 1e-3, where the new velocity gives equality",
        f"old {gaps['explicit_euler']:.2g}, new {gaps['implicit_sweep']:.2g}",
    )


MOMENTUM_LIMIT = Theorem(
    key="hamiltonian.momentum-limit",
    title="As c → ∞ learning is the heavy ball, and its step is SGD with momentum",
    statement=(
        "The limit of the costate-only reversal moves the weights by m ẅ = −m θ ẇ − ∇(L + kV); at a fixed "
        "horizon the weights differ by O(1/c). One step τ with the new velocity is SGD with learning rate τ²/m, "
        "momentum 1 − τθ and weight decay k; at τθ = 1 it is plain gradient descent."
    ),
    hypotheses=(
        "equal speeds c_i = c",
        "φ = e^{θt}",
        "the weights move with the new velocity",
        "first step: buffer 0",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, Proposition 4 and eq. 20; the step derived here",
    about=(HeavyBall, CostateReversal, Sweep),
    checks=(
        prove_step,
        bridge_limit,
        equals_sgd,
        trajectory_order,
        order_of_update_control,
    ),
)
