"""hamiltonian.discrete-adjoint: the paired costates give the exact gradient of the discretised functional."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

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
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian import discrete_adjoint_proof as proof
from nlsim.theorems.hamiltonian.cycles import CyclicCase, cyclic_cases
from nlsim.theorems.hamiltonian.nets import Case, cases
from nlsim.theorems.hamiltonian.phase import (
    EPSILON,
    flatten,
    form,
    generic_problem,
    jacobian,
    largest,
    random_state,
)
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

Control = tuple[Tensor, ...]


def functional(
    problem: LearningProblem[Any], state: LearningState, control: Control, inputs: list[Inputs], dt: float
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
        return distance(found, problem, state, control, inputs, dt)

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


def distance(
    found: DiscreteAdjoint,
    problem: LearningProblem[Any],
    state: LearningState,
    control: Control,
    inputs: list[Inputs],
    dt: float,
) -> float:
    """Return the relative error of gradient and value against automatic differentiation."""
    expected, value = torch.func.grad_and_value(lambda v: functional(problem, state, v, inputs, dt))(control)
    gap = largest(float((f - e).abs().max()) for f, e in zip(found.gradient, expected, strict=True))
    size = largest(float(e.abs().max()) for e in expected)
    return largest((gap / size, abs(float(found.functional / value) - 1)))


def cyclic_gradient(effort: Effort) -> Evidence:
    """The same on digraphs with cycles and self-loops."""

    def error_of(drawn: tuple[CyclicCase, int]) -> float:
        case, steps = drawn
        problem, state, inputs, dt = case.problem(), case.state(), case.inputs(), 0.3 / case.speed
        draw = generator(case.seed, "cyclic control")
        control = tuple(torch.as_tensor(draw.normal(size=(steps, *w.shape))) for w in state.weight)
        found = discrete_adjoint(problem, state.activity, state.weight, control, Constant(inputs), dt)
        return distance(found, problem, state, control, [inputs] * steps, dt)

    return check_property(
        "∂G_τ/∂v_n on digraphs with cycles and self-loops",
        "relative error ≤ 1e-12 in gradient and value; unequal speeds, 1 to 20 steps, θ up to 3",
        Effort(max(1, effort.examples // 2), effort.is_random),
        st.tuples(cyclic_cases(3.0), st.integers(1, 20)),
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
    problem: LearningProblem[Any], mixed: LearningState, inputs: Inputs, dt: float
) -> tuple[LearningState, LearningState]:
    """Return (y^n, p^n) and (y^{n+1}, p^{n+1}) from y^n and p^{n+1}, as the adjoint pairs them."""
    slope = partials(problem, mixed, inputs)
    inertia = problem.mass * problem.mean_speed
    begin = LearningState(
        mixed.activity,
        mixed.weight,
        tuple(p + dt * h for p, h in zip(mixed.costate, slope.h_activity, strict=True)),
        tuple(p + dt * h for p, h in zip(mixed.weight_costate, slope.h_weight, strict=True)),
    )
    end = LearningState(
        tuple(x + dt * f for x, f in zip(mixed.activity, slope.rate, strict=True)),
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
        cost = partial(functional, problem, state, inputs=inputs, dt=dt)
        expected = torch.func.grad(cost)(control)
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
    problem: LearningProblem[Any], found: DiscreteAdjoint, control: Control, signal: Sinusoid, dt: float
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


DISCRETE_ADJOINT = Theorem(
    key="hamiltonian.discrete-adjoint",
    title="Paired costates give the exact gradient of the discretised functional",
    statement=(
        "Let explicit Euler move y = (x, w) with controls v_n and G_τ be the rectangle sum of φ (m c |v|²/2 + c ℓ). "
        "With p^N = 0 and p^n = p^{n+1} + τ H_y(y^n, p^{n+1}, t_n), ∂G_τ/∂v_n = τ (m c φ_n v_n + p_w^{n+1}) exactly. "
        "The pair is a step of symplectic Euler. With H_y at y^{n+1} the gradient is wrong by O(τ)."
    ),
    hypotheses=(
        "σ and L differentiable; any digraph, any speeds",
        "controls constant over a step; inputs taken at its beginning",
        "states of n go with costates of n + 1",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, eq. 9–13, discretised here",
    about=(discrete_adjoint, euler_path, DiscreteAdjoint, partials),
    checks=(
        proof.prove_gradient,
        proof.bridge_recursion,
        exact_gradient,
        cyclic_gradient,
        pair_is_symplectic,
        mismatched_stage,
        proof.mismatched_proof,
    ),
)
