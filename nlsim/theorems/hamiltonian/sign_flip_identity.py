"""hamiltonian.sign-flip-identity: flipping the flow undoes it."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignedInputs, SignFlip, TrackBall
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian import flip_numbers as numbers
from nlsim.theorems.hamiltonian.quadratic_symbols import polynomial_is_zero, quadratic_model
from nlsim.theorems.hamiltonian.tracking_bridge import tracking_model, tracking_point
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import CYCLE, DIAMOND, SKIP, Model, every, is_zero, model

S = sp.Symbol("s", real=True)
"""The sign, left open: the identities hold for any s(t)."""


def energy_rate(of: Model, factor: Any) -> Any:
    """Return dH/dt along factor × the exact field of a graph (θ = 0), without the explicit time dependence."""
    total: Any = 0
    for i in of.graph.vertices:
        total += sp.diff(of.hamiltonian, of.x[0][i]) * factor * of.velocity(i)
        slope = of.costate_velocity(i, sign=1).subs(of.theta, 0)
        total += sp.diff(of.hamiltonian, of.costate[0][i]) * factor * slope
    for arc in of.weight:
        total += sp.diff(of.hamiltonian, of.weight[arc]) * factor * of.weight_velocity(arc)
        slope = of.weight_costate_velocity(arc, sign=1).subs(of.theta, 0)
        total += sp.diff(of.hamiltonian, of.weight_costate[arc]) * factor * slope
    return total


def prove_conservation(effort: Effort) -> Evidence:
    """dH/dt = ∂H/∂t under s(t) times the Hamilton equations: the sign drops out of it."""
    answers: list[bool | None] = []
    for of in (model(DIAMOND), model(SKIP), model(CYCLE), tracking_model(2)):
        answers.append(polynomial_is_zero(energy_rate(of, S)))
    for n in (1, 2, 3):
        quadratic = quadratic_model(n)
        h, still = quadratic.hamiltonian, {quadratic.dissipation: 0}
        rate: Any = 0
        for x, velocity in zip(quadratic.activity, quadratic.velocity(), strict=True):
            rate += sp.diff(h, x) * S * velocity
        for p, velocity in zip(quadratic.costate, quadratic.costate_velocity().subs(still), strict=True):
            rate += sp.diff(h, p) * S * velocity
        answers.append(polynomial_is_zero(rate))
    return Evidence(
        Leg.PROOF,
        "the Hamiltonian under any s(t)",
        judge(every(answers)),
        "H_x s x' + H_p s p' = 0 for symbolic s: graphs with cycles and shared neurons, abstract σ and L; LQ, n ≤ 3",
        f"{answers.count(True)} of {len(answers)} sums vanish",
    )


def prove_identity(effort: Effort) -> Evidence:
    """The linear-quadratic period map is the identity; with a moving target only −h² ∂F/∂t is left."""
    a, h = sp.Symbol("a", real=True), sp.Symbol("h", positive=True)
    q, mu = sp.symbols("q mu", positive=True)
    matrix = sp.Matrix([[a, -(mu**2 - a**2) / q], [-q, -a]])

    def flow(time: Any) -> Any:
        return sp.cosh(mu * time) * sp.eye(2) + sp.sinh(mu * time) / mu * matrix

    back_and_forth = flow(-h) * flow(h) - sp.eye(2)
    answers = [is_zero(each.rewrite(sp.exp)) for each in back_and_forth]
    # two half-periods of the exact flow of y′ = ±F(t, y), each as a Taylor series in h to second order:
    # y″ = F_t + F_y F forward, and F_y F − F_t for the reversed field
    t, y = sp.symbols("t y", real=True)
    field = sp.Function("F")

    def taylor(time: Any, point: Any, sign: int) -> Any:
        f = field(time, y)
        second = sp.diff(f, y) * f + sign * sp.diff(f, time)
        return point + (sign * h * f + h**2 / 2 * second).subs(y, point)

    middle = taylor(t, y, +1)
    clock = sp.Symbol("clock", real=True)
    end = taylor(clock, sp.Symbol("point", real=True), -1).subs({clock: t + h, sp.Symbol("point", real=True): middle})
    for order, expected in ((1, 0), (2, -sp.diff(field(t, y), t))):
        coefficient = sp.diff(end, h, order).doit().subs(h, 0).doit() / sp.factorial(order)
        answers.append(is_zero(coefficient - expected))
    return Evidence(
        Leg.PROOF,
        "period map of the flow",
        judge(every(answers)),
        "e^{−Ah} e^{Ah} = 1 for A² = μ²; in general Y(t + 2h) = Y(t) − h² ∂F/∂t + O(h³): no term in F alone",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge(effort: Effort) -> Evidence:
    """The flipped system that runs is s times the derived field, with the sign of the stretch or of the ball."""
    # sums of some ten products of numbers below 4, formed in two orders: a few hundred roundings
    tolerance, worst, count = 1e-12, 0.0, 0
    for neurons in (1, 2, 3):
        point = tracking_point(neurons, seed=10 + neurons)
        policy = PeriodicFlip(0.25)
        driven = policy.drive(Constant(point.inputs))
        exact = TrackingEquations(point.problem)
        for k in range(4):
            inputs: Inputs = driven.piece(0.25 * k)(0.25 * k)
            field = SignFlip(exact, policy).vector_field(0.25 * k, point.state, inputs)
            worst = max(worst, point.gap(field, sign=+1, factor=(-1) ** k))
            count += 1
        size = float(sum(leaf.square().sum() for leaf in vars(point.state).values())) ** 0.5
        for radius, sign in ((1.001 * size, +1), (0.999 * size, -1)):
            field = SignFlip(exact, TrackBall(radius)).vector_field(0.0, point.state, point.inputs)
            worst = max(worst, point.gap(field, sign=+1, factor=sign))
            count += 1
    return Evidence(
        Leg.BRIDGE,
        "running flipped field = s × symbolic field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; four stretches of a periodic flip, both sides of a ball, 1 to 3 neurons",
        f"{worst:.2g} over {count} fields",
    )


SIGN_FLIP_IDENTITY = Theorem(
    key="hamiltonian.sign-flip-identity",
    title="Flipping the sign of the flow undoes it: over a period nothing is left",
    statement=(
        "Under s(t) ∈ {−1, +1} times Hamilton's equations dH/dt = ∂H/∂t for any s(t). For an autonomous system "
        "a periodic flip brings the exact flow back to its start after each whole period, so nothing is learned. "
        "With moving data a period of half-length h leaves −h² ∂F/∂t + O(h³), which does not depend on how "
        "far the state is from where it should be. Time-symmetric methods return exactly at any step."
    ),
    hypotheses=(
        "φ ≡ 1, or un-normalised costates",
        "equal stretches of both signs",
        "the flow itself, or a method accurate or symmetric enough to stand for it",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, section 4.2 and eq. 23–24; the identity derived here",
    about=(SignFlip, PeriodicFlip, SignedInputs, TrackBall, TrackingEquations, LinearQuadraticEquations),
    checks=(
        prove_conservation,
        prove_identity,
        bridge,
        numbers.flow_returns,
        numbers.energy_is_kept,
        numbers.midpoint_returns,
        numbers.return_order,
        numbers.drift_order,
        numbers.euler_control,
    ),
)
