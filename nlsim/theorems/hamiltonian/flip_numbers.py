"""hamiltonian.sign-flip-identity: properties, orders and control on the running code."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.randomness import generator
from nlsim.core.state import leaves
from nlsim.core.system import Inputs, Signal
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.loop import Loop
from nlsim.integrate.stepper import Stepper
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import ConstantSign, PeriodicFlip, SignFlip
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant, SineTarget, hold
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.midpoint import ImplicitMidpoint
from nlsim.theorems.hamiltonian.quadratic_runs import ACCURATE, random_problem
from nlsim.theorems.hamiltonian.tracking_bridge import tracking_point
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort


def flip_for(
    system: Any, signal: Signal, state: Any, half_period: float, halves: int, stepper: Stepper, step: float
) -> Any:
    """Run a system under a periodic flip for so many half-periods, by the loop, and return the last state."""
    policy = PeriodicFlip(half_period)
    control = FixedStep(stepper, step)
    loop = Loop(SignFlip(system, policy), control, policy.drive(signal), state, until=halves * half_period)
    for _ in loop:
        pass
    return loop.state


def gap(found: Any, expected: Any) -> float:
    """Return the largest difference of any entry; NaN counts as infinite."""
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return max(float((f - e).abs().nan_to_num(torch.inf).max()) for f, e in pairs)


def flow_returns(effort: Effort) -> Evidence:
    """After whole periods of an accurate flow every net and linear-quadratic system is where it began."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        neurons, seed, half = drawn
        point = tracking_point(neurons, seed)
        net = flip_for(TrackingEquations(point.problem), Constant(point.inputs), point.state, half, 4, RK4, half / 16)
        quadratic = LinearQuadraticEquations(random_problem(neurons, seed))
        target = Constant(Inputs(None, point.state.costate))
        start = LinearQuadraticState(point.state.activity, point.state.costate)
        end = flip_for(quadratic, target, start, half, 4, RK4, half / 16)
        return max(gap(net, point.state), gap(end, start))

    return check_property(
        "whole periods of the flow = identity",
        # RK4 returns with global error of order (rate·dt)⁵: 0.3/16 times rates up to 6 is 0.1
        "two periods of RK4 at dt = h/16 return to 1e-7; random nets and linear-quadratic systems, h to 0.3",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(st.integers(1, 4), st.integers(0, 10**6), st.floats(0.02, 0.3)),
        error_of,
        1e-7,
    )


def energy_is_kept(effort: Effort) -> Evidence:
    """H after stretches of random lengths and signs; and dH/dt = ∂H/∂t with a moving target."""

    def error_of(drawn: tuple[int, int]) -> float:
        neurons, seed = drawn
        point, draw = tracking_point(neurons, seed), generator(seed, "signs")
        exact, here = TrackingEquations(point.problem), hold(point.inputs)
        before = exact.hamiltonian(0.0, point.state, point.inputs)
        state, t = point.state, 0.0
        for _ in range(4):
            until = t + float(draw.uniform(0.02, 0.2))
            flipped = SignFlip(exact, ConstantSign(int(draw.choice((-1, 1)))))
            state, t = ACCURATE.reach(flipped, here, state, t, until, 10_000).state, until
        kept = float((exact.hamiltonian(t, state, point.inputs) - before).abs() / (1 + before.abs()))
        return max(kept, _rate_gap(exact, state, -1), _rate_gap(exact, state, +1))

    return check_property(
        "H under any s(t)",
        # local errors of 1e-11; the rates are sums of some hundred products
        "H kept to 1e-9 over stretches of random sign and length; dH/dt = ∂H/∂t to 1e-9 with a moving target",
        Effort(max(1, effort.examples // 4), effort.is_random),
        st.tuples(st.integers(1, 4), st.integers(0, 10**6)),
        error_of,
        1e-9,
    )


def _rate_gap(exact: TrackingEquations, state: Any, sign: int) -> float:
    """Return |dH/dt − ∂H/∂t|/(1 + |∂H/∂t|) at t = 0.7 with a target in motion, by autograd."""
    moving, t = SineTarget(1.0, 3.0).at, torch.tensor(0.7, dtype=torch.float64)

    def energy(time: Any, point: Any) -> torch.Tensor:
        return exact.hamiltonian(time, point, moving(time))

    with torch.enable_grad():
        partial, slope = torch.func.grad(energy, argnums=(0, 1))(t, state)
    velocity = SignFlip(exact, ConstantSign(sign)).vector_field(0.7, state, moving(t))
    through_state = sum((s * f).sum() for s, f in zip(leaves(slope), leaves(velocity), strict=True))
    return float(torch.as_tensor(through_state).abs() / (1 + partial.abs()))


def midpoint_returns(effort: Effort) -> Evidence:
    """The implicit midpoint rule is symmetric: flipped at every step it stands still, at any step."""

    def error_of(drawn: tuple[int, int, float]) -> float:
        neurons, seed, scaled = drawn
        point, midpoint = tracking_point(neurons, seed), ImplicitMidpoint()
        net = flip_for(
            TrackingEquations(point.problem), Constant(point.inputs), point.state, 0.2 * scaled, 4, midpoint, scaled
        )
        scalar = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)
        quadratic = LinearQuadraticEquations(scalar.matrices())
        start = LinearQuadraticState(point.state.activity[:, :1], point.state.costate[:, :1])
        tau = scaled / scalar.rate
        end = flip_for(quadratic, Constant(Inputs()), start, tau, 4, midpoint, tau)
        return max(gap(net, point.state), gap(end, start))

    return check_property(
        "implicit midpoint, flip at every step",
        # Newton to 1e-14 of slopes that may be some hundred, over four steps
        "back at the start to 1e-10 after 4 steps; τμ from 0.05 to 1.8 (linear-quadratic), τ to 0.36 (nets)",
        Effort(max(1, effort.examples // 8), effort.is_random),
        st.tuples(st.integers(1, 2), st.integers(0, 10**6), st.floats(0.05, 1.8)),
        error_of,
        1e-10,
    )


def return_order(effort: Effort) -> Evidence:
    """By how much methods miss the start after a period: the flow is the identity, the method is not.

    Φ_{−h} Φ_h = 1 + 2C h^{p+1} for odd p; for even p this term cancels and the next one is left.
    """
    point, half = tracking_point(3, seed=4), 0.2
    exact, rows, worst = TrackingEquations(point.problem), [], 0.0
    for stepper, expected in ((EXPLICIT_EULER, 1), (HEUN, 3), (RK4, 5)):
        counts, errors = [16, 32, 64, 128] if stepper is not RK4 else [8, 16, 32, 64], []
        for n in counts:
            end = flip_for(exact, Constant(point.inputs), point.state, half, 2, stepper, half / n)
            errors.append(gap(end, point.state))
        steps = [half / n for n in counts]
        last = pairwise_orders(steps, errors)[-1]
        worst = max(worst, abs(last - expected))
        rows.append((stepper.name, *(f"{error:.2e}" for error in errors), f"{last:.3f}", str(expected)))
    return Evidence(
        Leg.ORDER,
        "how far from the start a period ends",
        judge(worst <= 0.05),
        "order p for odd p, p + 1 for even p: Euler 1, Heun 3, RK4 5, within 0.05 at the finest pair",
        f"largest deviation {worst:.2g}",
        (
            Table(
                "|Y(2h) − Y(0)|, steps halved from left to right",
                ("method", "1", "2", "3", "4", "order", "p̂"),
                tuple(rows),
            ),
        ),
    )


def drift_order(effort: Effort) -> Evidence:
    """With a moving target one period of the flow leaves −h² ∂F/∂t and a remainder of third order."""
    scalar = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)
    exact, signal = LinearQuadraticEquations(scalar.matrices()), SineTarget(1.0, 0.5)
    start = LinearQuadraticState(*(torch.full((1, 1), v, dtype=torch.float64) for v in (0.3, -0.2)))
    halves, remainders, ratios = [0.008, 0.004, 0.002, 0.001], [], []
    for half in halves:
        end = flip_for(exact, signal, start, half, 2, RK4, half / 8)
        # F depends on t through q z(t) in the costate only, and ż(0) = ω
        predicted = -(half**2) * scalar.tracking_weight * signal.frequency
        drift = float(end.costate - start.costate)
        ratios.append(drift / predicted)
        remainders.append(max(abs(drift - predicted), abs(float(end.activity - start.activity))))
    slope = observed_order(halves, remainders)
    rows = tuple((f"{h:g}", f"{r:.4f}", f"{e:.2e}") for h, r, e in zip(halves, ratios, remainders, strict=True))
    return Evidence(
        Leg.ORDER,
        "drift in one period with a moving target",
        judge(abs(slope - 3) <= 0.05 and abs(ratios[-1] - 1) < 1e-3),
        "drift −h² ∂F/∂t, remainder of order 3 ± 0.05",
        f"ratio {ratios[-1]:.6f}, remainder of order {slope:.3f}",
        (Table("scalar linear-quadratic tracking", ("h", "drift/−h² ∂F/∂t", "remainder"), rows),),
    )


def euler_control(effort: Effort) -> Evidence:
    """Not symmetric, or not the whole field, or unequal stretches: no return."""
    point, half = tracking_point(3, seed=4), 0.2
    exact, here = TrackingEquations(point.problem), Constant(point.inputs)
    euler = gap(flip_for(exact, here, point.state, half, 2, EXPLICIT_EULER, half / 16), point.state)
    uneven = gap(flip_for(exact, here, point.state, half, 3, RK4, half / 16), point.state)
    whole = gap(flip_for(exact, here, point.state, half, 2, RK4, half / 16), point.state)
    return Evidence(
        Leg.CONTROL,
        "Euler's method; a period and a half",
        judge(euler > 1e-3 and uneven > 1e-1 and whole < 1e-9),
        "both end elsewhere, by more than 1e-3 and 1e-1, where RK4 over a whole period returns to 1e-9",
        f"Euler {euler:.2g}, one stretch too many {uneven:.2g}, whole period {whole:.2g}",
    )
