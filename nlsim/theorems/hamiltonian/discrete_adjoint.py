"""hamiltonian.discrete-adjoint: the paired costates give the exact gradient of the discretised functional."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.discrete_adjoint import DiscreteAdjoint, discrete_adjoint, euler_path
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, hamiltonian, partials
from nlsim.systems.signals import Constant, HeldSamples, Sinusoid
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    EPSILON,
    flatten,
    form,
    generic_problem,
    jacobian,
    largest,
    proof,
    random_state,
    vanishes,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem
from nlsim.theorems.symbols import CHAIN_2, CYCLE, DIAMOND, SKIP, Graph, model

Control = tuple[Tensor, ...]


def prove_gradient(effort: Effort) -> Evidence:
    """Write G_τ out as a function of the controls, differentiate it, and compare with the recursion."""
    answers = []
    for graph, steps in ((CHAIN_2, 3), (CYCLE, 3), (DIAMOND, 2), (SKIP, 2)):
        answers += _gradient_answers(graph, steps, is_paired=True)
    return proof(
        "∂G_τ/∂v_n of the functional written out",
        "= τ (m c φ_n v_n + p_w^{n+1}) with p^n = p^{n+1} + τ H_y(y^n, p^{n+1}); abstract σ and L, moving inputs, "
        "2 or 3 steps, four graphs",
        answers,
    )


def _gradient_answers(graph: Graph, steps: int, *, is_paired: bool) -> list[bool | None]:
    """Compare derivative and recursion for every arc and step; unpaired takes H_y at the later state."""
    of = model(graph, has_equal_speeds=False)
    tau = sp.Symbol("tau", positive=True)
    x, w = dict(of.x[0]), dict(of.weight)
    v = [{arc: sp.Symbol(f"v{arc[0]}_{arc[1]}_{n}", real=True) for arc in w} for n in range(steps)]
    phi = [sp.Symbol(f"phi{n}", positive=True) for n in range(steps)]
    points, functional = [], sp.Integer(0)
    for n in range(steps + 1):
        inputs = {u: sp.Symbol(f"{u}_at{n}", real=True) for u in of.u[0].values()}
        here = {**{of.x[0][i]: x[i] for i in x}, **{of.weight[arc]: w[arc] for arc in w}, **inputs}
        points.append(here)
        if n == steps:
            break
        at_rest = dict.fromkeys([*of.costate[0].values(), *of.weight_costate.values()], 0)
        running = of.hamiltonian.subs(at_rest).subs(here, simultaneous=True)  # c ℓ
        functional += tau * phi[n] * (of.m * of.c * sum(each**2 for each in v[n].values()) / 2 + running)
        x = {i: x[i] + tau * of.velocity(i).subs(here, simultaneous=True) for i in x}
        w = {arc: w[arc] + tau * v[n][arc] for arc in w}
    answers = []
    p: dict[Any, Any] = dict.fromkeys([*of.costate[0].values(), *of.weight_costate.values()], sp.Integer(0))
    for n in reversed(range(steps)):
        for arc in w:
            claimed = tau * (of.m * of.c * phi[n] * v[n][arc] + p[of.weight_costate[arc]])
            answers.append(vanishes(sp.diff(functional, v[n][arc]) - claimed))
        here = points[n] if is_paired else points[n + 1]
        # H_y(y, p) = φ Ĥ_y(y, p/φ)
        at = {**here, **{pi: each / phi[n] for pi, each in p.items()}}
        pairs = [(of.costate[0][i], of.x[0][i]) for i in x]
        pairs += [(of.weight_costate[arc], of.weight[arc]) for arc in w]
        p = {pi: p[pi] + tau * phi[n] * sp.diff(of.hamiltonian, y).subs(at, simultaneous=True) for pi, y in pairs}
    return answers


def bridge_recursion(effort: Effort) -> Evidence:
    """Run the recursion with the symbolic field turned into numbers, against the running adjoint."""
    tolerance, gaps = 1e-12, list[float]()  # three steps, each with the roundings of a field
    steps, dt, start = 3, 0.1, 0.2
    for widths, activation, loss in (((1, 2, 1), "tanh", "squared_error"), ((2, 1, 2), "softplus", "cross_entropy")):
        bridge = build_bridge(widths, activation, loss)
        problem, of = bridge.problem, bridge.symbolic
        draw = generator(1, "bridge control")
        control = tuple(torch.as_tensor(draw.normal(size=(steps, *w.shape))) for w in bridge.state.weight)
        held = Constant(bridge.inputs)
        found = discrete_adjoint(problem, bridge.state.activity, bridge.state.weight, control, held, dt, start)
        y = [symbol for each in of.x for symbol in each.values()] + list(of.weight.values())
        pi = [symbol for each in of.costate for symbol in each.values()] + list(of.weight_costate.values())
        known = sorted(bridge.values, key=str)
        slopes = sp.lambdify(known, [sp.diff(of.hamiltonian, each) for each in (*y, *pi)], "numpy", cse=True)
        velocities = _by_symbol(bridge, control)
        values = dict(bridge.values)
        values.update(dict.fromkeys(pi, 0.0))
        path = [dict(values)]
        for n in range(steps):
            h = slopes(*(values[each] for each in known))
            rate = dict(zip(y, h[len(y) :], strict=True))
            rate.update({weight: velocities[n][arc] for arc, weight in of.weight.items()})
            values = {**values, **{each: values[each] + dt * rate[each] for each in y}}
            path.append(dict(values))
        growth = math.exp(problem.dissipation * dt)
        costate = dict.fromkeys(pi, 0.0)
        expected: list[dict[tuple[int, int], float]] = []
        for n in reversed(range(steps)):
            q = {each: growth * value for each, value in costate.items()}
            scale = dt * math.exp(problem.dissipation * (start + n * dt))
            inertia = bridge.values[of.m] * bridge.values[of.c]
            expected.append(
                {arc: scale * (inertia * velocities[n][arc] + q[each]) for arc, each in of.weight_costate.items()}
            )
            h = slopes(*({**path[n], **q}[each] for each in known))
            costate = {each: q[each] + dt * slope for each, slope in zip(pi, h[: len(y)], strict=True)}
        running = _by_symbol(bridge, found.gradient)
        for n in range(steps):
            gaps += [abs(running[n][arc] - value) / (1 + abs(value)) for arc, value in expected[steps - 1 - n].items()]
    return Evidence(
        Leg.BRIDGE,
        "recursion with the symbolic H = running adjoint",
        judge(largest(gaps) <= tolerance),
        f"relative difference ≤ {tolerance:g}; θ > 0, unequal speeds, batch 2, 3 steps",
        f"{largest(gaps):.2g} over {len(gaps)} derivatives",
    )


def _by_symbol(bridge: Any, layers: Control) -> list[dict[tuple[int, int], float]]:
    """Return, step by step, the entries of weight-shaped tensors by arc."""
    steps: list[dict[tuple[int, int], float]] = [{} for _ in range(len(layers[0]))]
    for layer, tensor in enumerate(layers):
        for n, row, column in np.ndindex(*tensor.shape):
            arc = (bridge.vertex(layer, row), bridge.source(layer, column))
            steps[n][arc] = float(tensor[n, row, column])
    return steps


def functional(
    problem: LearningProblem, state: LearningState, control: Control, inputs: list[Inputs], dt: float
) -> Tensor:
    """Return G_τ, written out once more for automatic differentiation; starts at t = 0."""
    x, w = state.activity, state.weight
    total = torch.zeros((), dtype=torch.float64)
    still = tuple(torch.zeros_like(each) for each in x), tuple(torch.zeros_like(each) for each in w)
    for n, each in enumerate(inputs):
        here = LearningState(x, w, *still)
        kinetic = 0.5 * problem.mass * problem.mean_speed * sum((v[n] ** 2).sum() for v in control)
        discount = math.exp(float(problem.dissipation) * n * dt)
        total = total + dt * discount * (kinetic + hamiltonian(problem, here, each))
        rates = HamiltonEquations(problem).vector_field(0.0, here, each).activity
        x = tuple(a + dt * rate for a, rate in zip(x, rates, strict=True))
        w = tuple(a + dt * v[n] for a, v in zip(w, control, strict=True))
    return total


def random_control(case: Case, steps: int) -> Control:
    """Return random weight velocities."""
    draw = generator(case.seed, "control")
    return tuple(torch.as_tensor(draw.normal(size=(steps, *w.shape))) for w in case.weights())


def exact_gradient(effort: Effort) -> Evidence:
    """Against automatic differentiation through the same discretisation; moving and held inputs."""

    def error_of(drawn: tuple[Case, int, bool]) -> float:
        case, steps, is_held = drawn
        problem, state, dt = generic_problem(case), random_state(case), 0.3 / case.speed
        signal = _stream(case, 2.5 * dt) if is_held else case.signal(case.speed)
        control = random_control(case, steps)
        found = discrete_adjoint(problem, state.activity, state.weight, control, signal, dt)
        inputs = [signal.piece(n * dt)(n * dt) for n in range(steps)]
        expected, value = torch.func.grad_and_value(lambda v: functional(problem, state, v, inputs, dt))(control)
        gap = largest(float((f - e).abs().max()) for f, e in zip(found.gradient, expected, strict=True))
        size = largest(float(e.abs().max()) for e in expected)
        return largest((gap / size, abs(float(found.functional / value) - 1)))

    strategy = st.tuples(cases(max_dissipation=3.0, max_depth=3), st.integers(1, 20), st.booleans())
    return check_property(
        "∂G_τ/∂v_n against automatic differentiation",
        # 20 steps back, each a sum of some hundred products, amplified at most a few times
        "relative error ≤ 1e-12 in gradient and value; 1 to 20 steps, moving and held inputs, θ up to 3",
        effort,
        strategy,
        error_of,
        1e-12,
    )


def _stream(case: Case, interval: float) -> HeldSamples:
    inputs = Case(case.widths, samples=3 * case.samples, seed=case.seed).inputs()
    assert inputs.input is not None
    assert inputs.target is not None
    return HeldSamples(inputs.input, inputs.target, case.samples, interval, case.seed)


def pair_is_symplectic(effort: Effort) -> Evidence:
    """The pair y^n → y^{n+1}, p^{n+1} → p^n with v = −p/(mc) is one step of symplectic Euler."""

    def error_of(case: Case) -> float:
        problem, mixed, inputs, dt = generic_problem(case), random_state(case), case.inputs(), 0.3 / case.speed
        # both ends of the step as functions of (y^n, p^{n+1}), which determine it; θ = 0
        parts = jacobian(lambda z: _ends(problem, z, inputs, dt)[0], mixed)
        other = jacobian(lambda z: _ends(problem, z, inputs, dt)[1], mixed)
        j = form(len(parts))
        gap = parts.T @ j @ parts - other.T @ j @ other
        return float(gap.abs().max()) / max(1.0, float(parts.abs().max()) ** 2)

    return check_property(
        "the pair is a symplectic map",
        "dy^n ∧ dp^n = dy^{n+1} ∧ dp^{n+1} to 1e-13, by automatic differentiation",
        Effort(max(1, effort.examples // 2), effort.is_random),
        cases(max_depth=2),
        error_of,
        1e-13,
    )


def _ends(
    problem: LearningProblem, mixed: LearningState, inputs: Inputs, dt: float
) -> tuple[LearningState, LearningState]:
    """Return (y^n, p^n) and (y^{n+1}, p^{n+1}) from the state y^n with the costates p^{n+1}, as the adjoint pairs them."""
    slope = partials(problem, mixed, inputs)
    inertia = problem.mass * problem.mean_speed
    begin = LearningState(
        mixed.activity,
        mixed.weight,
        tuple(p + dt * h for p, h in zip(mixed.costate, slope.h_activity, strict=True)),
        tuple(p + dt * h for p, h in zip(mixed.weight_costate, slope.h_weight, strict=True)),
    )
    end = LearningState(
        tuple(x + dt * f for x, f in zip(mixed.activity, slope.velocity, strict=True)),
        tuple(w - dt * p / inertia for w, p in zip(mixed.weight, mixed.weight_costate, strict=True)),
        mixed.costate,
        mixed.weight_costate,
    )
    return begin, end


def mismatched_stage(effort: Effort) -> Evidence:
    """Take H_y at y^{n+1}: an error of order τ, where the pair is exact at every τ."""
    case = Case(widths=(2, 4, 2), samples=3, seed=6, dissipation=0.5)
    problem, state, signal = generic_problem(case), random_state(case), case.signal(2.0)
    grids, late, paired = [20, 40, 80, 160], [], []
    for steps in grids:
        dt = 1.0 / steps
        times = torch.arange(steps, dtype=torch.float64)[:, None, None] * dt
        control = tuple(torch.sin(2 * times + layer) * v for layer, v in enumerate(random_control(case, 1)))
        found = discrete_adjoint(problem, state.activity, state.weight, control, signal, dt)
        inputs = [signal.at(n * dt) for n in range(steps)]
        expected = torch.func.grad(lambda v: functional(problem, state, v, inputs, dt))(control)
        size = float(flatten(expected).norm())
        wrong = _late_gradient(problem, found, control, signal, dt)
        late.append(float((flatten(wrong) - flatten(expected)).norm()) / size)
        paired.append(float((flatten(found.gradient) - flatten(expected)).norm()) / size)
    slope = observed_order([1 / n for n in grids[1:]], late[1:])
    local = ["", *(f"{p:.3f}" for p in pairwise_orders([1 / n for n in grids], late))]
    rows = tuple((str(n), f"{a:.2e}", p, f"{b:.1e}") for n, a, p, b in zip(grids, late, local, paired, strict=True))
    return Evidence(
        Leg.CONTROL,
        "costates driven by the states of n + 1",
        judge(abs(slope - 1) <= 0.05 and min(late) > 1e-3 and largest(paired) <= 1e3 * EPSILON),
        "relative error falls like τ (slope 1 ± 0.05) from above 1e-3; paired: round-off at every τ",
        f"slope {slope:.4f}, {late[0]:.1e} to {late[-1]:.1e}; paired {max(paired):.1e}",
        (Table("relative error of the gradient", ("steps", "mismatched", "slope", "paired"), rows),),
    )


def _late_gradient(
    problem: LearningProblem, found: DiscreteAdjoint, control: Control, signal: Sinusoid, dt: float
) -> Control:
    """Return the gradient with p^n = p^{n+1} + τ H_y(y^{n+1}, p^{n+1})."""
    path, theta = found.trajectory, float(problem.dissipation)
    pi_x = tuple(layer[-1] for layer in path.costate)
    pi_w = tuple(layer[-1] for layer in path.weight_costate)
    gradients = []
    for n in reversed(range(len(control[0]))):
        growth, scale = math.exp(theta * dt), dt * math.exp(theta * n * dt)
        later = LearningState(
            tuple(layer[n + 1] for layer in path.activity),
            tuple(layer[n + 1] for layer in path.weight),
            tuple(growth * each for each in pi_x),
            tuple(growth * each for each in pi_w),
        )
        inertia = problem.mass * problem.mean_speed
        gradients.append(
            tuple(scale * (inertia * v[n] + q) for v, q in zip(control, later.weight_costate, strict=True))
        )
        slope = partials(problem, later, signal.at(n * dt))
        pi_x = tuple(q + dt * h for q, h in zip(later.costate, slope.h_activity, strict=True))
        pi_w = tuple(q + dt * h for q, h in zip(later.weight_costate, slope.h_weight, strict=True))
    return tuple(torch.stack(layer) for layer in zip(*gradients[::-1], strict=True))


def mismatched_proof(effort: Effort) -> Evidence:
    """The symbolic comparison, too, must tell the two apart."""
    answers = _gradient_answers(CHAIN_2, 2, is_paired=False)
    return Evidence(
        Leg.CONTROL,
        "the proof with the mismatched stage",
        judge(True not in answers[-2:] and answers[:2] == [True, True]),
        "the last step's derivatives still agree (p^N = 0 is the same), the first step's do not simplify to 0",
        f"last step {answers[:2]}, first step {answers[-2:]}",
    )


DISCRETE_ADJOINT = Theorem(
    key="hamiltonian.discrete-adjoint",
    title="Paired costates give the exact gradient of the discretised functional",
    statement=(
        "Let explicit Euler move y = (x, w) with controls v_n and G_τ be the rectangle sum of φ (m c |v|²/2 + c ℓ). With "
        "p^N = 0 and p^n = p^{n+1} + τ H_y(y^n, p^{n+1}, t_n), ∂G_τ/∂v_n = τ (m c φ_n v_n + p_w^{n+1}) exactly. The pair is a "
        "step of symplectic Euler. With H_y at y^{n+1} the gradient is wrong by O(τ)."
    ),
    hypotheses=(
        "σ and L differentiable; any digraph, any speeds",
        "controls constant over a step; inputs taken at its beginning",
        "states of n go with costates of n + 1",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, eq. 9–13, discretised here",
    about=(discrete_adjoint, euler_path, DiscreteAdjoint, partials),
    checks=(
        prove_gradient,
        bridge_recursion,
        exact_gradient,
        pair_is_symplectic,
        mismatched_stage,
        mismatched_proof,
    ),
)
