"""hamiltonian.boundary-value-limit: infinitely fast signals leave the Euler–Lagrange problem of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.state import state_class
from nlsim.core.system import Inputs
from nlsim.integrate.boundary import TwoPointProblem
from nlsim.integrate.collocation import solve_two_point
from nlsim.integrate.explicit import RK4
from nlsim.integrate.flattening import two_point_problem, unflatten
from nlsim.systems.backprop import HeavyBall
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian import boundary_value_proof as proof
from nlsim.theorems.hamiltonian.boundary_value_proof import roots
from nlsim.theorems.hamiltonian.nets import Case, on_manifold
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Layers = tuple[Tensor, ...]


@state_class
class Extremal:
    """Weights, and their normalised costates divided by c: minus mass times velocity."""

    weight: Layers
    momentum: Layers


@dataclass(frozen=True)
class EulerLagrange:
    """The limit problem as a system: dW/dt = −q/m, dq/dt = −∇ℓ_BP − θ q, W(0) given, q(T) = 0."""

    ball: HeavyBall

    def vector_field(self, t: float, state: Extremal, inputs: Inputs) -> Extremal:
        """Return the Euler–Lagrange equations of ∫ (m|dW/dt|²/2 + ℓ_BP) φ dt as a first-order system."""
        force = self.ball.force(state.weight, inputs)
        return Extremal(
            tuple(-q / self.ball.mass for q in state.momentum),
            tuple(f - self.ball.dissipation * q for f, q in zip(force, state.momentum, strict=True)),
        )


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic exact equations with the running ones on linear nets, at random points."""
    tolerance = 1e-12  # some hundred roundings of numbers below 10
    worst = 0.0
    for widths in ((1, 1), (2, 2, 1)):
        bridge = build_bridge(widths, "identity", "squared_error")
        running = HamiltonEquations(bridge.problem).vector_field(0.0, bridge.state, bridge.inputs)
        worst = max(worst, bridge.gaps(running, sign=+1))
    return Evidence(
        Leg.BRIDGE,
        "symbolic exact equations = torch field",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g} on linear nets of depth 1 and 2",
        f"{worst:.2g}",
    )


def scalar(h: float, mass: float, theta: float) -> TwoPointProblem:
    """Return the limit problem of ℓ = h w²/2 from w(0) = 1."""
    matrix = torch.tensor([[0.0, -1 / mass], [-h, -theta]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return TwoPointProblem(lambda times, z: z @ matrix.mT, one, 0 * one, lambda times, z: matrix.expand(len(z), 2, 2))


def solves_closed_form(effort: Effort) -> Evidence:
    """The running two-point solver against the closed form, over random constants."""

    def error_of(drawn: tuple[float, float, float, float]) -> float:
        h, mass, theta, end = drawn
        r1, r2 = (float(r) for r in roots(h / mass, theta))
        steps = math.ceil(end * max(r1, -r2) * 20)
        solution = solve_two_point(scalar(h, mass, theta), [end * n / steps for n in range(steps + 1)])
        if not solution.ending.is_success:
            return math.inf
        exact = [_number(t, end, r1, r2) for t in solution.times.tolist()]
        return float((solution.state[:, 0] - torch.tensor(exact, dtype=torch.float64)).abs().max())

    return check_property(
        "two-point solver = closed form",
        # Gauss-4 with h|r| ≤ 1/20: local error z⁵/720 a step and unit of amplitude, 20 steps a unit of time |r| t,
        # decaying amplitude: (1/20)⁴/720 · max t e^{−t} < 4e-9, both roots together below 1e-8
        "|w − closed form| ≤ 1e-8 at steps of 1/(20 max|r|); h, m from 0.2 to 5, θ from −1 to 2, T from 1 to 8",
        Effort(max(1, effort.examples // 3), effort.is_random),
        st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.floats(-1.0, 2.0), st.floats(1.0, 8.0)),
        error_of,
        1e-8,
    )


def _number(t: float, end: float, r1: float, r2: float) -> float:
    """Return the closed form without overflow."""
    ratio = r2 / r1 * math.exp((r2 - r1) * end)
    return (math.exp(r2 * t) - ratio * math.exp(r1 * t)) / (1 - ratio)


NET = Case((2, 2, 1), samples=1, seed=4, dissipation=0.5)
MASS, END = 1.0, 2.0
"""The net of the order: depth 2, tanh, moving inputs; from its slow manifold at t = 0."""


def layered_grid(end: float, speed: float) -> list[float]:
    """Return nodes that resolve layers of width 1/c at both ends and grow to end/40 between them."""
    nodes = [0.0]
    while nodes[-1] < end / 2:
        # a layer e^{−ct} resolved evenly by a method of order 4 wants steps that grow like e^{ct/5}
        step = min(end / 40, 0.25 / speed * math.exp(min(speed * nodes[-1] / 5, 50)))
        nodes.append(nodes[-1] + step)
    left = [t * end / 2 / nodes[-1] for t in nodes]
    return left + [end - t for t in reversed(left[:-1])]


def exact_weights(case: Case, grid: list[float]) -> list[Tensor]:
    """Return the weights of the exact problem at the nodes of the grid."""
    problem, signal = case.problem(mass=MASS), case.signal()
    start = on_manifold(problem, case.weights(), signal.at(0.0))
    boundary = replace(start, costate=tuple(torch.zeros_like(x) for x in start.costate))
    solution = solve_two_point(two_point_problem(HamiltonEquations(problem), signal, boundary), grid)
    if not solution.ending.is_success:
        raise ArithmeticError(solution.detail)
    return list(unflatten(solution.points, boundary).weight)


def limit_weights(case: Case, grid: list[float]) -> list[Tensor]:
    """Return the weights of the limit problem at the nodes of the grid."""
    problem = case.problem(mass=MASS)
    weights = case.weights()
    boundary = Extremal(weights, tuple(torch.zeros_like(w) for w in weights))
    system = EulerLagrange(HeavyBall(problem.network, problem.loss, MASS, case.dissipation))
    solution = solve_two_point(two_point_problem(system, case.signal(), boundary), grid)
    if not solution.ending.is_success:
        raise ArithmeticError(solution.detail)
    return list(unflatten(solution.points, boundary).weight)


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference over weights and times."""
    return max(float((f - e).abs().max()) for f, e in zip(found, expected, strict=True))


def weights_order(effort: Effort) -> Evidence:
    """The weights of the exact problem tend to those of the limit problem like 1/c, on the whole of [0, T]."""
    speeds, errors = [80.0, 160.0, 320.0], []
    for c in speeds:
        case, grid = replace(NET, speed=c), layered_grid(END, c)
        errors.append(distance(exact_weights(case, grid), limit_weights(case, grid)))
    slope = observed_order(speeds, errors)
    local = ["", *(f"{p:.3f}" for p in pairwise_orders(speeds, errors))]
    rows = tuple((f"{c:g}", f"{e:.3e}", p) for c, e, p in zip(speeds, errors, local, strict=True))
    return Evidence(
        Leg.ORDER,
        "exact problem against limit problem, c → ∞",
        judge(abs(slope + 1) <= 0.05),
        "slope −1 ± 0.05 in c of the largest |w_c − w_∞| over [0, T]; depth 2, tanh, moving inputs, θ = 0.5",
        f"{slope:.4f}",
        (Table(f"largest |w_c − w_∞| over [0, {END:g}]", ("c", "error", "slope"), rows),),
    )


def turnpike(effort: Effort) -> Evidence:
    """Away from T the exact problem's weight decays at r₂; a linear neuron, ℓ_BP = w²/2, at large c."""
    end, theta, c = 16.0, 0.7, 4000.0
    case = Case((1, 1), "identity", has_bias=False, speed=c, dissipation=theta, samples=1)
    problem = case.problem(mass=1.0)
    one = torch.ones(1, 1, dtype=torch.float64)
    inputs = Inputs(one, 0 * one)
    boundary = replace(on_manifold(problem, (one,), inputs), costate=(0 * one,))
    grid = layered_grid(end, c)
    solution = solve_two_point(two_point_problem(HamiltonEquations(problem), Constant(inputs), boundary), grid)
    w = unflatten(solution.points, boundary).weight[0].flatten()
    early, late = (int((solution.times - t).abs().argmin()) for t in (2.0, 8.0))
    rate = float((w[late] / w[early]).log() / (solution.times[late] - solution.times[early]))
    expected = float(roots(1.0, theta)[1])
    return Evidence(
        Leg.PROPERTY,
        "turnpike",
        judge(solution.ending.is_success and abs(rate / expected - 1) <= 2e-3),
        # the corrections to θ and h are a few parts in c = 4000, and Gauss-4 errs by (0.4 r₂)⁴/720 = 1.4e-4
        f"log w falls at r₂ = {expected:.4f} between t = 2 and 8 of T = 16, to 0.2 %; c = {c:g}, θ = {theta:g}",
        f"{rate:.5f}",
    )


def reversal_control(effort: Effort) -> Evidence:
    """Run the costates forward instead (R): causal, and not the minimiser however fast the signals."""
    case = replace(NET, speed=320.0)
    problem, signal = case.problem(mass=MASS), case.signal()
    grid = layered_grid(END, case.speed)
    state = on_manifold(problem, case.weights(), signal.at(0.0))
    steps = round(END * case.speed / 0.8)
    state = RK4.advance(CostateReversal(problem), signal.piece(0.0), state, 0.0, END / steps, steps)
    limit = [w[-1] for w in limit_weights(case, grid)]
    causal, exact = distance(list(state.weight), limit), distance([w[-1] for w in exact_weights(case, grid)], limit)
    return Evidence(
        Leg.CONTROL,
        "costates reversed instead of given at T",
        judge(causal > 10 * exact),
        "at c = 320 the reversed system ends more than ten times as far from the limit problem as the exact one",
        f"{causal:.3g} against {exact:.3g}",
    )


BOUNDARY_VALUE_LIMIT = Theorem(
    key="hamiltonian.boundary-value-limit",
    title="As c → ∞ the exact problem is the Euler–Lagrange problem of the weights, a boundary-value problem",
    statement=(
        "As c → ∞ the exact Hamilton equations with p(T) = 0 become m(ẅ + θẇ) = +∇ℓ_BP(w, t) with w(0) = w⁰ and "
        "ẇ(T) = 0: the minimiser of ∫(m|ẇ|²/2 + ℓ_BP)φ dt, with weights that differ by O(1/c). For ℓ = h w²/2 it is "
        "w⁰ (r₁e^{r₁T}e^{r₂t} − r₂e^{r₂T}e^{r₁t})/(r₁e^{r₁T} − r₂e^{r₂T}), and away from T it decays at |r₂|."
    ),
    hypotheses=(
        "equal speeds c_i = c, φ = e^{θt}",
        "σ, the loss, inputs and targets smooth",
        "the minimiser of the limit problem is isolated, and x(0) lies on its slow manifold",
        "the sign of ∇ℓ is that of an Euler–Lagrange equation: as an initial-value problem it ascends",
    ),
    source="derived here from Betti & Gori, Nature-Inspired Local Propagation, eq. 12–13",
    about=(HamiltonEquations, HeavyBall, solve_two_point, two_point_problem),
    checks=(
        proof.prove_limit,
        proof.prove_closed_form,
        bridge_field,
        solves_closed_form,
        weights_order,
        turnpike,
        reversal_control,
    ),
)
