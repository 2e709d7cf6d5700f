"""hamiltonian.reversal-stability: Conjecture 1 is false as stated; how much dissipation is needed."""

from __future__ import annotations

import sympy as sp
import torch

from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import IDENTITY
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import hold
from nlsim.theorems.bridge import symbolic_loss
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import Graph, Model, every, is_zero, model

MASS = 1.0


def _chain(depth: int) -> Graph:
    return Graph(f"chain of depth {depth}", 1, depth, tuple((i, i + 1) for i in range(1, depth + 1)), (depth + 1,))


def _linear_model(depth: int) -> Model:
    return model(_chain(depth), activation=lambda a: a, loss=symbolic_loss("squared_error"))


def _characteristic(of: Model) -> tuple[sp.Poly, sp.Symbol]:
    """Return det(sI − A) of the derived field at the minimum, only the first weight being plastic.

    All later weights are 1 and fixed, u² = h, and the minimum is w = z/u: there L_x = 0, so all costates
    vanish and the point is an equilibrium at every θ.
    """
    graph = of.graph
    first = (2, 1)
    neurons = list(graph.vertices)
    h, s = sp.symbols("h s", positive=True)
    z = sp.Symbol("z0_0", real=True)
    variables = [of.x[0][i] for i in neurons] + [of.weight[first]]
    variables += [of.costate[0][i] for i in neurons] + [of.weight_costate[first]]
    field = [of.velocity(i) for i in neurons] + [of.weight_velocity(first)]
    field += [of.costate_velocity(i) for i in neurons] + [of.weight_costate_velocity(first)]
    point = {of.u[0][1]: sp.sqrt(h), of.k: 0, of.weight[first]: z / sp.sqrt(h)}
    point |= {w: sp.Integer(1) for arc, w in of.weight.items() if arc != first}
    point |= {of.x[0][i]: z for i in neurons} | {of.costate[0][i]: sp.Integer(0) for i in neurons}
    point |= {of.weight_costate[arc]: sp.Integer(0) for arc in of.weight}
    jacobian = sp.Matrix(field).jacobian(variables).subs(point)
    return sp.Poly(sp.expand((s * sp.eye(len(variables)) - jacobian).det(method="berkowitz")), s), h


def prove_instability(effort: Effort) -> Evidence:
    """At θ = 0 the characteristic polynomial has no linear term, so the reciprocals of its roots sum to 0."""
    answers: list[bool | None] = []
    for depth in (1, 2, 3):
        of = _linear_model(depth)
        polynomial, h = _characteristic(of)
        s = polynomial.gen
        undamped = polynomial.as_expr().subs(of.theta, 0)
        expected = s**2 * (s + of.c) ** (2 * depth) + of.c ** (2 * depth) * h / of.m
        answers.append(is_zero(undamped - expected))
        terms = sp.Poly(sp.expand(undamped), s)
        answers.append(is_zero(terms.coeff_monomial(s)))
        answers.append(terms.coeff_monomial(1).is_positive)
    return Evidence(
        Leg.COUNTEREXAMPLE,
        "θ = 0: a strict minimum that repels, at every finite c",
        judge(every(answers)),
        "det(sI − A) = s²(s+c)^{2D} + c^{2D}h/m: no linear term and a non-zero constant, so Σ 1/s_i = 0 and not all "
        "roots can lie in the left half plane; D = 1, 2, 3",
        f"{answers.count(True)} of {len(answers)} identities",
    )


def prove_routh(effort: Effort) -> Evidence:
    """For one neuron (D = 1) the Hurwitz determinants give the exact condition on θ."""
    of = _linear_model(1)
    polynomial, h = _characteristic(of)
    a = [sp.expand(each) for each in polynomial.all_coeffs()]  # degree 4, leading 1
    routh = a[1] * a[2] * a[3] - a[3] ** 2 - a[1] ** 2 * a[4]
    c, theta, m = of.c, of.theta, of.m
    condition = 2 * theta * (c**2 + 3 * c * theta + theta**2) - c * theta**2 - 4 * c * h / m
    answers = [is_zero(routh - c * (c + theta) ** 2 * condition)]
    answers += [coefficient.is_nonnegative for coefficient in a]
    # with θ = t/c the condition becomes 2 c (t − 2h/m) + O(1): the threshold tends to 2h/(mc), D = 1
    t = sp.Symbol("t", positive=True)
    leading = sp.limit(sp.expand(condition.subs(theta, t / c) / c), c, sp.oo)
    answers.append(is_zero(leading - 2 * (t - 2 * h / m)))
    return Evidence(
        Leg.PROOF,
        "exact threshold for one neuron",
        judge(every(answers)),
        "Hurwitz determinant = c(c+θ)²[2θ(c²+3cθ+θ²) − cθ² − 4ch/m], coefficients ≥ 0; threshold → 2h/(mc)",
        f"{answers.count(True)} of {len(answers)} conditions",
    )


def linear_chain(depth: int, c: float, theta: float, h: float) -> tuple[CostateReversal, LearningState, Inputs]:
    """Return the running chain of linear neurons at its minimum w = (1, …, 1), u² = h, z = u."""
    network = LayeredNetwork((1,) * (depth + 1), (IDENTITY,) * depth, has_bias=False)
    problem = LearningProblem(network, SQUARED_ERROR, (c,) * depth, MASS, theta)
    u = torch.full((1, 1), h**0.5, dtype=torch.float64)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    state = LearningState((u,) * depth, (one,) * depth, (zero,) * depth, (zero,) * depth)
    return CostateReversal(problem), state, Inputs(u, u)


def abscissa(depth: int, c: float, theta: float, h: float = 1.0) -> float:
    """Return the spectral abscissa of the running field's Jacobian, only the first weight being plastic."""
    system, state, inputs = linear_chain(depth, c, theta, h)

    def field(flat: torch.Tensor) -> torch.Tensor:
        moved = rebuild(state, [each.reshape(1, 1) for each in flat])
        return torch.cat([each.reshape(1) for each in leaves(system.vector_field(0.0, moved, inputs))])

    jacobian = torch.func.jacrev(field)(torch.cat([each.reshape(1) for each in leaves(state)]))
    plastic = [*range(depth), depth, *range(2 * depth, 3 * depth), 3 * depth]  # x, w_1, π, π_w1
    return float(torch.linalg.eigvals(jacobian[plastic][:, plastic]).real.max())


def threshold(depth: int, c: float, h: float = 1.0) -> float:
    """Return θ* where the abscissa changes sign, by bisection to ten digits."""
    low, high = 0.0, 8.0 * depth * h / (MASS * c)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if abscissa(depth, c, middle, h) < 0 else (middle, high)
    return 0.5 * (low + high)


def threshold_ratio(effort: Effort) -> Evidence:
    """Bisect the running field: θ* m c / (2 D h) → 1 as c → ∞, with an error of order 1/c."""
    speeds, depths = (40.0, 80.0, 160.0, 320.0), (1, 2, 4, 8)
    ratios = {d: [threshold(d, c) * MASS * c / (2 * d) for c in speeds] for d in depths}
    rows = tuple((f"{c:g}", *(f"{ratios[d][i]:.4f}" for d in depths)) for i, c in enumerate(speeds))
    closing = all(abs(ratios[d][-1] - 1) < 0.6 * abs(ratios[d][0] - 1) for d in depths)
    worst = max(abs(ratios[d][-1] - 1) for d in depths)
    # the next term is relative O(D²h/(m c²)) from the weights' own motion within the delay 2D/c
    return Evidence(
        Leg.ORDER,
        "threshold of the running field",
        judge(closing and worst <= 0.005),
        "θ* m c / (2 D h) → 1: within 0.005 at c = 320 for D = 1, 2, 4, 8, and closer than at c = 40",
        f"largest distance from 1 at c = 320: {worst:.1e}",
        (Table("θ* m c / (2 D h)", ("c", *(f"D = {d}" for d in depths)), rows),),
    )


def bridge_routh(effort: Effort) -> Evidence:
    """The bisected threshold of one running neuron equals the root of the exact condition."""
    worst = 0.0
    for c, h in ((3.0, 0.5), (20.0, 1.0), (100.0, 4.0)):
        x = sp.Symbol("x")
        condition = 2 * x * (c**2 + 3 * c * x + x**2) - c * x**2 - 4 * c * h / MASS
        (root,) = [float(r) for r in sp.Poly(condition, x).nroots() if r.is_real and r > 0]
        worst = max(worst, abs(threshold(1, c, h) / root - 1))
    return Evidence(
        Leg.BRIDGE,
        "bisected threshold = root of the proved condition",
        judge(worst <= 1e-6),  # eigenvalues of a 4×4 matrix near the axis move by 1e-16/(slope ≈ 1/2)
        "relative difference ≤ 1e-6 at three (c, h)",
        f"{worst:.1e}",
    )


def spiral(effort: Effort) -> Evidence:
    """Below the threshold the running system spirals out at about (θ* − θ)/2; above it spirals in."""
    c, h = 100.0, 1.0
    critical = threshold(1, c, h)
    rates = []
    for theta in (0.0, 3 * critical):
        system, state, inputs = linear_chain(1, c, theta, h)
        state = LearningState(state.activity, (state.weight[0] + 1e-6,), state.costate, state.weight_costate)
        sizes = []
        for _ in range(2):  # two whole turns each, so that the phase does not matter
            state = RK4.advance(system, hold(inputs), state, 0.0, 1.0 / c, round(6.2832 * 2 * c))
            gap = torch.cat([(state.weight[0] - 1).flatten(), (state.weight_costate[0] / (MASS * c)).flatten()])
            sizes.append(float(gap.norm()))
        rates.append(torch.tensor(sizes[1] / sizes[0], dtype=torch.float64).log().item() / (6.2832 * 2))
    expected = [0.5 * critical, -critical]
    return Evidence(
        Leg.CONTROL,
        "trajectories below and above the threshold",
        judge(all(abs(r / e - 1) < 0.05 for r, e in zip(rates, expected, strict=True))),
        f"growth rates (θ* − θ)/2 = {expected[0]:.4f} at θ = 0 and {expected[1]:.4f} at θ = 3θ*, within 5 %",
        f"{rates[0]:.4f} and {rates[1]:.4f}",
    )


REVERSAL_STABILITY = Theorem(
    key="hamiltonian.reversal-stability",
    title="Reversed learning at fixed speed needs dissipation (Conjecture 1 refuted)",
    statement=(
        "Conjecture 1 says that at fixed c the reversed system is still a local optimisation scheme. As stated it "
        "is false: with θ = 0 a strict minimum of a linear chain is unstable at every finite c, because the "
        "gradient's lag 2D/c acts as negative damping. Corrected: stability needs θ > θ* ≃ 2Dh/(mc), h being the "
        "Hessian in a first-layer weight at depth D; for one neuron exactly 2θ(c²+3cθ+θ²) − cθ² > 4ch/m."
    ),
    hypotheses=("layered network, equal speeds", "linearisation at a strict minimum", "c → ∞ for the simple form"),
    source="Betti & Gori, Nature-Inspired Local Propagation, Conjecture 1; counterexample derived here (RD-4)",
    about=(CostateReversal,),
    checks=(prove_instability, prove_routh, bridge_routh, threshold_ratio, spiral),
)
