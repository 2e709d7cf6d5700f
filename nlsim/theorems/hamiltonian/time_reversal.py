"""hamiltonian.time-reversal: minus the field runs an autonomous system backward."""

from __future__ import annotations

from typing import Any

import sympy as sp
from hypothesis import strategies as st

from nlsim.core.state import leaves
from nlsim.core.system import Inputs, Piece
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import ConstantSign, SignFlip
from nlsim.systems.hamiltonian.tracking import TrackingEquations, TrackingReversal
from nlsim.systems.signals import SineTarget, hold
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.quadratic_runs import ACCURATE, random_problem
from nlsim.theorems.hamiltonian.tracking_bridge import TrackingPoint, tracking_point
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import every, is_zero


def prove(effort: Effort) -> Evidence:
    """The chain rule on an abstract field, and the linear-quadratic flow written out."""
    s, t, horizon = sp.symbols("s t T", real=True)
    y, z = sp.Function("y"), sp.Function("z")
    fields = [sp.Function("F"), sp.Function("G")]
    answers: list[bool | None] = []
    for function, field in zip((y, z), fields, strict=True):
        mirrored = sp.diff(function(horizon - s), s).doit()

        # y′(t) = F(t, y(t), z(t)), z′(t) = G(t, y(t), z(t)), put in wherever a derivative is taken
        def on_solution(body: Any, old: Any, new: Any, field: Any = field) -> Any:
            return field(new[0], y(new[0]), z(new[0]))

        expected = -field(horizon - s, y(horizon - s), z(horizon - s))
        answers.append(mirrored.replace(sp.Subs, on_solution) == expected)
    a = sp.Symbol("a", real=True)
    q, mu = sp.symbols("q mu", positive=True)
    matrix = sp.Matrix([[a, -(mu**2 - a**2) / q], [-q, -a]])

    def flow(time: Any) -> Any:
        return sp.cosh(mu * time) * sp.eye(2) + sp.sinh(mu * time) / mu * matrix

    answers += [is_zero(each) for each in sp.diff(flow(t), t) - matrix * flow(t)]
    answers += [is_zero(each) for each in sp.diff(flow(horizon - s), s) + matrix * flow(horizon - s)]
    return Evidence(
        Leg.PROOF,
        "chain rule, and the linear-quadratic flow",
        judge(every(answers)),
        "d/ds y(T − s) = −F(T − s, y(T − s)) for an abstract field of two variables, and for e^{At} with A² = μ²",
        f"{answers.count(True)} of {len(answers)} identities hold",
    )


def bridge(effort: Effort) -> Evidence:
    """The system that runs under s = −1 is minus the field derived from the Hamiltonian."""
    # sums of some ten products of numbers below 4, formed in two orders: a few hundred roundings
    tolerance, worst, count = 1e-12, 0.0, 0
    for neurons in (1, 2, 3):
        point = tracking_point(neurons, seed=neurons)
        for value in (+1, -1):
            flipped = SignFlip(TrackingEquations(point.problem), ConstantSign(value))
            field = flipped.vector_field(0.0, point.state, point.inputs)
            worst = max(worst, point.gap(field, sign=+1, factor=value))
            count += 1
    return Evidence(
        Leg.BRIDGE,
        "running reversed field = −(symbolic field)",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; dense nets of 1, 2 and 3 neurons, both signs",
        f"{worst:.2g} over {count} fields",
    )


def retraced(forward: Any, backward: Any, piece: Piece, back_piece: Piece, state: Any, horizon: float) -> float:
    """Run forward for T and backward for T; return how far from the path the way back is.

    Looked at on half the way back and at its end, relative to 1 + the largest entry of the path.
    """
    half = ACCURATE.reach(forward, piece, state, 0.0, horizon / 2, 10_000).state
    end = ACCURATE.reach(forward, piece, half, horizon / 2, horizon, 10_000).state
    half_back = ACCURATE.reach(backward, back_piece, end, 0.0, horizon / 2, 10_000).state
    start_back = ACCURATE.reach(backward, back_piece, half_back, horizon / 2, horizon, 10_000).state
    size = 1 + max(float(leaf.abs().max()) for leaf in leaves(end))
    return max(_gap(half_back, half), _gap(start_back, state)) / size


def _gap(found: Any, expected: Any) -> float:
    return max(float((f - e).abs().max()) for f, e in zip(leaves(found), leaves(expected), strict=True))


def retraces(effort: Effort) -> Evidence:
    """Nets and linear-quadratic systems at a fixed target, there and back."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        neurons, seed, horizon = drawn
        point = tracking_point(neurons, seed)
        here = hold(point.inputs)
        errors = []
        for system in (TrackingEquations(point.problem), TrackingReversal(point.problem)):
            errors.append(retraced(system, SignFlip(system, ConstantSign(-1)), here, here, point.state, horizon))
        quadratic = LinearQuadraticEquations(random_problem(neurons, seed))
        target = hold(Inputs(None, point.state.costate))
        state = LinearQuadraticState(point.state.activity, point.state.costate)
        errors.append(retraced(quadratic, SignFlip(quadratic, ConstantSign(-1)), target, target, state, horizon))
        return max(errors)

    return check_property(
        "there and back",
        # local errors of 1e-11, magnified on the way by e^{rate × 2T}, at most some hundred
        "the reversed run passes y(T/2) and y(0) to 1e-10; nets, exact or with costates reversed, linear-quadratic",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(st.integers(1, 4), st.integers(0, 10**6), st.floats(0.2, 1.0)),
        error_of,
        1e-10,
    )


def broken_control(effort: Effort) -> Evidence:
    """Reverse only the costates; or let the target move: the path is not retraced."""
    point: TrackingPoint = tracking_point(3, seed=5)
    exact, horizon = TrackingEquations(point.problem), 1.0
    backward = SignFlip(exact, ConstantSign(-1))
    here, moving = hold(point.inputs), SineTarget(1.0, 3.0).at
    errors = {
        "costates only": retraced(exact, TrackingReversal(point.problem), here, here, point.state, horizon),
        "moving target": retraced(exact, backward, moving, moving, point.state, horizon),
        "mirrored target": retraced(exact, backward, moving, lambda s: moving(horizon - s), point.state, horizon),
    }
    return Evidence(
        Leg.CONTROL,
        "half of the field reversed; a moving target",
        judge(errors["costates only"] > 1e-2 and errors["moving target"] > 1e-3 and errors["mirrored target"] < 1e-10),
        "costates only: off by more than 1e-2; a target that moves on: 1e-3; the target mirrored, z(T − s): "
        "retraced to 1e-10",
        ", ".join(f"{name} {error:.2g}" for name, error in errors.items()),
    )


TIME_REVERSAL = Theorem(
    key="hamiltonian.time-reversal",
    title="Minus the field runs an autonomous system backward in time",
    statement=(
        "If ẏ = F(y) on [0, T], then ŷ(s) = y(T − s) solves ŷ' = −F(ŷ), ŷ(0) = y(T). With F(t, y) it "
        "solves ŷ' = −F(T − s, ŷ): what drives the system must be mirrored too. Costate-only reversal reverses "
        "half of the field and does not retrace anything."
    ),
    hypotheses=("all of the field changes sign", "autonomous, or with inputs mirrored in time"),
    source="Betti & Gori, Nature-Inspired Local Propagation, Proposition 3",
    about=(SignFlip, ConstantSign, TrackingEquations, TrackingReversal, LinearQuadraticEquations),
    checks=(prove, bridge, retraces, broken_control),
)
