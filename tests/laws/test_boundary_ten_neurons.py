"""Ten recurrent neurons with the shipped equations: the two-point solution is cheaper than whatever runs forward."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.recurrent import Tracking
from support.two_point import even

from nlsim.integrate.collocation import GAUSS4, MIDPOINT, solve_two_point
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.flattening import row_field, two_point_problem
from nlsim.integrate.loop import Loop
from nlsim.integrate.proximal import proximal_descent
from nlsim.integrate.receding import receding_horizon
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip
from nlsim.systems.hamiltonian.tracking import TrackingEquations, TrackingProblem, TrackingReversal, lagrangian
from nlsim.systems.signals import SineTarget

NEURONS, END, STEPS, FLIP = 10, 5.0, 50, 0.05
PROBLEM = TrackingProblem(tracking_weight=100.0, control_weight=0.1, regularisation=0.05)
TARGET = SineTarget(0.5, 1.5)
DRAWN = Tracking().boundary(NEURONS)
START = PROBLEM.initial_state(DRAWN.activity.unsqueeze(0), DRAWN.weight)


def cost_rate(t: Any, state: Any, inputs: Any) -> torch.Tensor:
    return lagrangian(PROBLEM, state, inputs)


def online_cost(system: Any, *, dt: float, stepper: Any, signal: Any = TARGET) -> float:
    """Return ∫ lagrangian dt of a run from costates 0, by the trapezoidal rule at every step."""
    times = [k * dt for k in range(round(END / dt) + 1)]
    loop = Loop(system, FixedStep(stepper, dt), signal, START, until=END, record_times=times)
    seen = [float(lagrangian(system_problem(system), tick.state, TARGET.at(tick.t))) for tick in loop if tick.is_record]
    assert loop.ending is not None
    assert loop.ending.is_success
    assert len(seen) == len(times)
    return dt * (sum(seen) - (seen[0] + seen[-1]) / 2)


def system_problem(system: Any) -> TrackingProblem:
    return system.system.problem if isinstance(system, SignFlip) else system.problem


@pytest.mark.slow
def test_the_two_point_solution_is_cheaper_than_every_online_scheme() -> None:
    problem, grid = two_point_problem(TrackingEquations(PROBLEM), TARGET, START), even(END, STEPS)
    rate = row_field(cost_rate, TARGET, START)
    coarse = proximal_descent(problem, grid, strength=PROBLEM.tracking_weight, method=MIDPOINT)
    best = solve_two_point(problem, grid, method=GAUSS4, guess=coarse.points)
    assert coarse.ending == best.ending == "converged", (coarse.detail, best.detail)
    assert float(best.costate[-1].abs().max()) <= 1e-8
    optimum = float(best.quadrature.integral(rate))
    # what is compared has errors of its own: the midpoint rule against Gauss-4 on the same problem, here 2e-4
    error = abs(float(coarse.quadrature.integral(rate)) / optimum - 1)
    assert error < 0.01
    flip = PeriodicFlip(FLIP)
    online = {
        "costates reversed": online_cost(TrackingReversal(PROBLEM), dt=0.01, stepper=RK4),
        "weights frozen": online_cost(
            TrackingReversal(replace(PROBLEM, control_weight=math.inf)), dt=0.01, stepper=RK4
        ),
        "sign flip, Euler at every step": online_cost(
            SignFlip(TrackingEquations(PROBLEM), flip), dt=FLIP, stepper=EXPLICIT_EULER, signal=flip.drive(TARGET)
        ),
    }
    receding = []
    for window in (5, 10, 15):  # 0.5, 1 and 1.5 ahead
        applied = receding_horizon(problem, grid, window=window, advance=window // 4, method=MIDPOINT)
        assert applied.ending == "converged", applied.detail
        receding.append(float(applied.quadrature.integral(rate)))
    assert receding == sorted(receding, reverse=True)
    assert optimum < (1 - 0.01) * min(*online.values(), *receding), (optimum, online, receding)
