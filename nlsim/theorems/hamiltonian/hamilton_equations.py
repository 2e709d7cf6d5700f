"""hamiltonian.hamilton-equations: the minimisers of the functional solve the two-point problem."""

from __future__ import annotations

from dataclasses import replace

import torch

from nlsim.analysis.orders import observed_order, pairwise_orders
from nlsim.integrate.boundary import TwoPointProblem
from nlsim.integrate.collocation import COLLOCATIONS, Collocation, solve_two_point
from nlsim.integrate.flattening import row_field, two_point_problem
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.systems.hamiltonian.trajectory import lagrangian
from nlsim.systems.signals import Constant
from nlsim.theorems.bridge import build_bridge
from nlsim.theorems.evidence import Evidence, Leg, Table, judge
from nlsim.theorems.hamiltonian import hamilton_proof as proof
from nlsim.theorems.hamiltonian.functional import Task, tasks
from nlsim.theorems.hamiltonian.nets import Case
from nlsim.theorems.property import check_property
from nlsim.theorems.statement import Effort, Theorem

TASK = Task(Case((2, 3, 1), samples=2, speed=1.5, seed=4), mass=2.0, horizon=1.5, steps=10, regularisation=0.3)
"""Depth 2, tanh, two samples, moving inputs."""


def bridge_field(effort: Effort) -> Evidence:
    """Compare the symbolic Hamilton equations and integrand with those that run, at random points."""
    # as for the other fields: some hundred roundings of numbers below 10
    tolerance, worst, count = 1e-12, 0.0, 0
    for widths, activation, loss in (
        ((2, 2, 2), "tanh", "squared_error"),
        ((2, 1, 2), "softplus", "cross_entropy"),
    ):
        bridge = build_bridge(widths, activation, loss)
        of = bridge.symbolic
        running = HamiltonEquations(bridge.problem).vector_field(0.0, bridge.state, bridge.inputs)
        worst = max(worst, bridge.gaps(running, sign=+1))
        # m c |v|²/2 + c ℓ at the minimiser v of the proof
        integrand = of.m * of.c * sum(of.weight_velocity(arc) ** 2 for arc in of.weight) / 2 + proof.loss_rate(of)
        expected = bridge.number(integrand)
        found = float(lagrangian(bridge.problem, bridge.state, bridge.inputs))
        worst = max(worst, abs(found - expected) / (1 + abs(expected)))
        count += 1
    return Evidence(
        Leg.BRIDGE,
        "symbolic equations and integrand = torch",
        judge(worst <= tolerance),
        f"relative difference ≤ {tolerance:g}; 2 activations, 2 losses, unequal speeds, batch 2",
        f"{worst:.2g} over {count} nets",
    )


def stationary(effort: Effort) -> Evidence:
    """Without discount the discretised solution is stationary for the discretised functional, exactly."""

    def error_of(task: Task) -> float:
        worst = 0.0
        for method in COLLOCATIONS.values():
            solution = task.solve(method=method)
            if not solution.ending.is_success:
                return float("inf")
            velocities = task.velocities(solution)
            size = max(1.0, task.mass * task.case.speed * float(velocities.abs().max()))
            worst = max(worst, float(task.density(velocities, method.name).abs().max()) / size)
        return worst

    return check_property(
        "the two-point solution is stationary (autograd)",
        # Newton stops below 1.1e-11, usually far below; a residual r of a step is r/h in the gradient, h = 0.1
        "dG/dv = 0 to 1e-9 of the largest mcv, G discretised anew; both Gauss methods, θ = 0, depth 1 and 2",
        Effort(max(1, effort.examples // 8), effort.is_random),
        tasks(),
        error_of,
        1e-9,
    )


def discounted(effort: Effort) -> Evidence:
    """With discount the normalised equations are stationary up to the error of the stages."""
    counts, rows, slopes = [6, 12, 24], [], []
    task = replace(TASK, case=replace(TASK.case, dissipation=0.8), horizon=1.0)
    for method in COLLOCATIONS.values():
        errors = []
        for steps in counts:
            refined = replace(task, steps=steps)
            velocities = refined.velocities(refined.solve(method=method))
            errors.append(float(refined.density(velocities, method.name).abs().max()))
        slopes.append(observed_order([1 / n for n in counts], errors))
        local = ["", *(f"{p:.3f}" for p in pairwise_orders([1 / n for n in counts], errors))]
        rows += [(method.name, str(n), f"{e:.3e}", p) for n, e, p in zip(counts, errors, local, strict=True)]
    # stages of the s-point Gauss method are exact to h^(s+1)
    return Evidence(
        Leg.ORDER,
        "discount θ = 0.8: dG/dv against the step",
        judge(abs(slopes[0] - 2) <= 0.1 and abs(slopes[1] - 3) <= 0.1),
        "slopes 2 ± 0.1 (midpoint) and 3 ± 0.1 (Gauss-4)",
        ", ".join(f"{slope:.3f}" for slope in slopes),
        (Table("largest dG/dv at the two-point solution", ("method", "steps", "error", "slope"), tuple(rows)),),
    )


def minimum(effort: Effort) -> Evidence:
    """The second variation of the discretised functional at the solution is positive."""
    task = Task(Case((1, 2, 1), has_bias=False, samples=1, speed=1.5, seed=2), 2.0, 1.0, 5, regularisation=0.3)
    method = COLLOCATIONS["midpoint"]
    velocities = task.velocities(task.solve(method=method))
    hessian = torch.func.hessian(lambda v: task.functional(v, method.name))(velocities)
    matrix = hessian.reshape(velocities.numel(), -1)
    # in units of m c h: 1 would be the effort alone, and the loss may take away from it or add to it
    scaled = torch.linalg.eigvalsh(matrix) / (task.mass * task.case.speed * task.horizon / task.steps)
    smallest, asymmetry = float(scaled.min()), float((matrix - matrix.mT).abs().max())
    return Evidence(
        Leg.PROPERTY,
        "the stationary point is a minimum",
        judge(smallest > 0.1 and asymmetry < 1e-12),
        f"all {len(scaled)} eigenvalues of the second variation positive, in units of that of the effort",
        f"from {smallest:.4f} to {float(scaled.max()):.4f}",
    )


def energy(effort: Effort) -> Evidence:
    """On an optimal trajectory of a constant problem H is c ℓ(T) at all times, because p(T) = 0."""
    task, counts, errors = TASK, [8, 16, 32], []
    problem, boundary = task.problem, task.boundary
    constant = Constant(task.case.inputs())
    at = row_field(lambda t, state, inputs: hamiltonian(problem, state, inputs), constant, boundary)
    cost = row_field(lambda t, state, inputs: lagrangian(problem, state, inputs), constant, boundary)
    for steps in counts:
        grid = [task.horizon * n / steps for n in range(steps + 1)]
        solution = solve_two_point(two_point_problem(HamiltonEquations(problem), constant, boundary), grid)
        # at T all costates vanish, so the Lagrangian there is c ℓ(T)
        end = float(cost(solution.times[-1:], solution.points[-1:])[0])
        errors.append(float((at(solution.times, solution.points) - end).abs().max()))
    slope = observed_order([1 / n for n in counts], errors)
    rows = tuple((str(n), f"{e:.3e}") for n, e in zip(counts, errors, strict=True))
    return Evidence(
        Leg.ORDER,
        "static input, θ = 0: H(t) = c ℓ(T) ≥ 0 along the solution",
        judge(abs(slope - 4) <= 0.2 and end >= 0),
        "largest |H(t) − c ℓ(T)| at the nodes falls with slope 4 ± 0.2 in the step of Gauss-4",
        f"slope {slope:.3f}; c ℓ(T) = {end:.4f}",
        (Table("largest |H(t) − c ℓ(T)|", ("steps", "error"), rows),),
    )


def terminal_control(effort: Effort) -> Evidence:
    """Prescribe p(T) = 0.1 instead of 0: the same equations, and no longer a stationary point."""
    method = COLLOCATIONS["midpoint"]
    densities = []
    for value in (0.0, 0.1):
        right = TASK.two_point()
        wrong = replace(right, terminal_costate=torch.full_like(right.terminal_costate, value))
        densities.append(_density(TASK, wrong, method))
    return Evidence(
        Leg.CONTROL,
        "wrong terminal condition",
        judge(densities[0] < 1e-9 and densities[1] > 0.05),
        "p(T) = 0.1: dG/dv above 0.05 (near T it is −p_w(T) itself), where p(T) = 0 gives below 1e-9",
        f"{densities[1]:.3f}, and {densities[0]:.2g} with p(T) = 0",
    )


def _density(task: Task, problem: TwoPointProblem, method: Collocation) -> float:
    solution = solve_two_point(problem, task.grid, method=method)
    return float(task.density(task.velocities(solution), method.name).abs().max())


HAMILTON_EQUATIONS = Theorem(
    key="hamiltonian.hamilton-equations",
    title="The cost is stationary exactly where Hamilton's equations hold with p(T) = 0",
    statement=(
        "Minimise G(v) = ∫ (m c |v|²/2 + c ℓ) φ dt over the weight velocities v, with x' = f(x, w), w' = v and x(0), "
        "w(0) given. The minimum of the integrand plus p·f over v is the Hamiltonian H, at v = −p_w/(mcφ). G is "
        "stationary if and only if y' = H_p, p' = −H_y with p(T) = 0 at that v. At θ = 0 Gauss collocation of these "
        "equations is stationary for the functional discretised by the same method, exactly. In a constant problem "
        "H = c ℓ(T) at all times."
    ),
    hypotheses=(
        "σ and the loss differentiable",
        "m, c, φ > 0",
        "x(0) and w(0) given, x(T) and w(T) free",
        "a minimum, rather than a stationary point, needs more than the equations",
    ),
    source="Betti & Gori, Nature-Inspired Local Propagation, Theorem 1, eq. 9–13; discrete exactness derived here",
    about=(HamiltonEquations, hamiltonian, lagrangian, solve_two_point, two_point_problem),
    checks=(
        proof.prove_minimum_principle,
        proof.prove_normalisation,
        proof.prove_first_variation,
        bridge_field,
        stationary,
        discounted,
        minimum,
        energy,
        terminal_control,
    ),
)
