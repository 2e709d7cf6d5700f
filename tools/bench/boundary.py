"""Ten recurrent neurons learn to track a sinusoid: the two-point solution, online schemes, and SciPy's solver.

The state is 10 activities and 100 weights, so a point of the two-point problem has 220 entries. From the root of the
repository (``--neurons 4`` is over in seconds, ``--cap`` bounds each run of SciPy)::

    PYTHONPATH=tests python tools/bench/boundary.py --cap 300
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from dataclasses import replace
from queue import Empty

import numpy as np
import torch
from support.recurrent import Tracking

from nlsim.integrate.boundary import TwoPointProblem
from nlsim.integrate.collocation import GAUSS4, MIDPOINT, solve_two_point
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.flattening import row_field, two_point_problem
from nlsim.integrate.loop import Loop
from nlsim.integrate.proximal import proximal_descent
from nlsim.integrate.receding import receding_horizon
from nlsim.integrate.shooting import multiple_shooting
from nlsim.integrate.sweep_iteration import forward_backward_sweep
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip
from nlsim.systems.hamiltonian.tracking import (
    TrackingEquations,
    TrackingProblem,
    TrackingReversal,
    TrackingState,
    lagrangian,
)
from nlsim.systems.signals import SineTarget

END = 5.0
FLIP = 0.05
NET = TrackingProblem(tracking_weight=100.0, control_weight=0.1, regularisation=0.05)
TARGET = SineTarget(0.5, 1.5)


def build(neurons: int, steps: int) -> tuple[TrackingState, TwoPointProblem, list[float]]:
    drawn = Tracking().boundary(neurons)
    boundary = NET.initial_state(drawn.activity.unsqueeze(0), drawn.weight)
    return (
        boundary,
        two_point_problem(TrackingEquations(NET), TARGET, boundary),
        np.linspace(0.0, END, steps + 1).tolist(),
    )


def line(name: str, cost: float | None, seconds: float, remark: str) -> None:
    shown = "" if cost is None else f"{cost:.5f}"
    print(f"{name:<44}{shown:>12}{seconds:>10.1f}  {remark}", flush=True)


def online(system, problem: TrackingProblem, boundary: TrackingState, signal, stepper, dt: float) -> float:
    """Return the cost of running forward from costates 0, by the trapezoidal rule at every step."""
    times = [k * dt for k in range(round(END / dt) + 1)]
    loop = Loop(system, FixedStep(stepper, dt), signal, boundary, until=END, record_times=times)
    seen = [float(lagrangian(problem, tick.state, TARGET.at(tick.t))) for tick in loop if tick.is_record]
    return float(np.trapezoid(seen, dx=dt)) if loop.ending.is_success else math.nan


def scipy_worker(neurons: int, steps: int, guess: np.ndarray, tolerance: float, answers) -> None:
    """Run SciPy's solver with our exact Jacobian, and send what it says."""
    from scipy.integrate import solve_bvp

    torch.set_num_threads(1)
    boundary, problem, grid = build(neurons, steps)
    n, size = problem.states, problem.size

    def field(t, z):
        return problem.field(torch.as_tensor(t), torch.as_tensor(np.ascontiguousarray(z.T))).numpy().T

    def jacobian(t, z):
        rows = problem.linearise(torch.as_tensor(t), torch.as_tensor(np.ascontiguousarray(z.T)))
        return np.ascontiguousarray(rows.permute(1, 2, 0).numpy())

    def ends(first, last):
        return np.concatenate((first[:n] - problem.initial_state.numpy(), last[n:]))

    def ends_jacobian(first, last):
        one = np.eye(size)
        zero = np.zeros((n, size))
        return np.concatenate((one[:n], zero)), np.concatenate((zero, one[n:]))

    begin = time.perf_counter()
    try:
        found = solve_bvp(
            field,
            ends,
            np.asarray(grid),
            guess.T,
            fun_jac=jacobian,
            bc_jac=ends_jacobian,
            tol=tolerance,
            max_nodes=1000,
        )
    except MemoryError:
        answers.put(("Its factorisation ran out of memory.", 0, 0, math.nan, math.nan, time.perf_counter() - begin))
        return
    seconds = time.perf_counter() - begin
    t = np.linspace(0, END, 2001)
    rate = row_field(lambda t, state, inputs: lagrangian(NET, state, inputs), TARGET, boundary)
    values = rate(torch.as_tensor(t), torch.as_tensor(found.sol(t).T.copy())).numpy()
    cost = float(np.trapezoid(values, t))
    answers.put((found.message, int(found.niter), len(found.x), float(found.rms_residuals.max()), cost, seconds))


def scipy_line(name: str, neurons: int, steps: int, guess: torch.Tensor, tolerance: float, cap: float) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=scipy_worker, args=(neurons, steps, guess.numpy(), tolerance, answers))
    begin = time.perf_counter()
    child.start()
    try:
        message, rounds, nodes, residual, cost, seconds = answers.get(timeout=cap)
        remark = f"{message} {nodes} nodes, {rounds} mesh rounds, rms residual {residual:.1e}"
        line(name, cost, seconds, remark)
    except Empty:
        child.terminate()
        line(name, None, time.perf_counter() - begin, f"stopped at the cap of {cap:g} s")
    child.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cap", type=float, default=300.0, help="seconds for each run of SciPy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    boundary, problem, grid = build(options.neurons, options.steps)
    rate = row_field(lambda t, state, inputs: lagrangian(NET, state, inputs), TARGET, boundary)
    print(
        f"{options.neurons} neurons, {problem.size} entries a point, T = {END:g}, {options.steps} steps, "
        f"q = {NET.tracking_weight:g}, r = {NET.control_weight:g}, r_w = {NET.regularisation:g}; one thread"
    )
    print(f"{'':<44}{'cost':>12}{'seconds':>10}")

    def timed(name, solve):
        begin = time.perf_counter()
        found = solve()
        line(
            name, float(found.quadrature.integral(rate)), time.perf_counter() - begin, f"{found.ending}: {found.detail}"
        )
        return found

    timed("Newton from y = y(0), p = 0", lambda: solve_two_point(problem, grid, method=MIDPOINT))
    rough = timed(
        "proximal descent, midpoint",
        lambda: proximal_descent(problem, grid, strength=NET.tracking_weight, method=MIDPOINT),
    )
    best = timed(
        "Newton from there, Gauss-4", lambda: solve_two_point(problem, grid, method=GAUSS4, guess=rough.points)
    )
    print(f"{'':<44}largest |p(T)| = {float(best.costate[-1].abs().max()):.1e}, residual {best.residuals[-1]:.1e}")
    every = max(1, options.steps // 25)
    timed(
        "multiple shooting from there, RK4",
        lambda: multiple_shooting(problem, grid[::every], steps=2 * every, guess=best.points[::every]),
    )
    timed(
        "forward-backward sweep, ω = 0.1",
        lambda: forward_backward_sweep(problem, grid, relaxation=0.1, method=MIDPOINT, max_sweeps=20),
    )
    for window in (options.steps // 10, options.steps // 5, 3 * options.steps // 10):
        timed(
            f"receding horizon, {END * window / options.steps:g} ahead",
            lambda window=window: receding_horizon(
                problem, grid, window=window, advance=window // 4 or 1, method=MIDPOINT
            ),
        )
    frozen, flip = replace(NET, control_weight=math.inf), PeriodicFlip(FLIP)
    flipped = SignFlip(TrackingEquations(NET), flip)
    for name, system, constants, signal, stepper, dt in (
        ("costates reversed (R)", TrackingReversal(NET), NET, TARGET, RK4, 1 / 200),
        ("weights frozen", TrackingReversal(frozen), frozen, TARGET, RK4, 1 / 200),
        (f"sign flip at every step of {FLIP:g}", flipped, NET, flip.drive(TARGET), EXPLICIT_EULER, FLIP),
    ):
        begin = time.perf_counter()
        cost = online(system, constants, boundary, signal, stepper, dt)
        line(name, cost, time.perf_counter() - begin, "RK4" if stepper is RK4 else "explicit Euler")
    start = problem.first_guess(problem.nodes(grid), None)
    scipy_line("solve_bvp from y = y(0), p = 0, tol 1e-3", options.neurons, options.steps, start, 1e-3, options.cap)
    scipy_line("solve_bvp from our solution, tol 1e-3", options.neurons, options.steps, best.points, 1e-3, options.cap)


if __name__ == "__main__":
    main()
