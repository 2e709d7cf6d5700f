"""Control problems with known solutions, as two-point problems in z = (y, p)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_bvp
from torch import Tensor

from nlsim.integrate.boundary import TwoPointProblem


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def even(end: float, steps: int, start: float = 0.0) -> list[float]:
    return [start + (end - start) * n / steps for n in range(steps)] + [end]


def regulator(a: float = 0.0, s: float = 1.0, q: float = 1.0, *, start: float = 1.0) -> TwoPointProblem:
    """min ∫ (q x² + s p²)/2 dt, x' = a x − s p: x' = a x − s p, p' = −q x − a p."""
    matrix = torch.tensor([[a, -s], [-q, -a]], dtype=torch.float64)
    return TwoPointProblem(lambda times, z: z @ matrix.mT, vector(start), vector(0.0))


def regulator_state(times: Tensor, end: float, a: float, s: float, q: float) -> Tensor:
    """Return x(t) from x(0) = 1: p(T) = 0 means x'(T) = a x(T), so x ∝ μ cosh μ(T−t) − a sinh μ(T−t)."""
    mu = math.sqrt(a * a + s * q)

    def shape(left: Any) -> Any:
        left = torch.as_tensor(left, dtype=torch.float64)
        return mu * torch.cosh(mu * left) - a * torch.sinh(mu * left)

    return shape(end - times) / shape(end)


def tracker(q: float = 10.0, a: float = -1.0, s: float = 1.0) -> TwoPointProblem:
    """min ∫ (q (x − sin t)² + s p²)/2 dt, x' = a x − s p, x(0) = 1."""
    matrix = torch.tensor([[a, -s], [-q, -a]], dtype=torch.float64)

    def field(times: Tensor, z: Tensor) -> Tensor:
        return z @ matrix.mT + torch.stack((torch.zeros_like(times), q * torch.sin(times)), -1)

    return TwoPointProblem(field, vector(1.0), vector(0.0))


def tracker_cost(q: float = 10.0, s: float = 1.0) -> Any:
    return lambda times, z: (q * (z[:, 0] - torch.sin(times)).square() + s * z[:, 1].square()) / 2


def pendulum(start: float = 1.0) -> TwoPointProblem:
    """x' = sin(x) cos t − p, p' = −x − p cos(x) cos t: min ∫ (x² + p²)/2 dt, not linear, not autonomous."""

    def field(times: Tensor, z: Tensor) -> Tensor:
        x, p = z.unbind(-1)
        return torch.stack((torch.sin(x) * torch.cos(times) - p, -x - p * torch.cos(x) * torch.cos(times)), -1)

    return TwoPointProblem(field, vector(start), vector(0.0))


def double_well(depth: float, start: float = 0.1) -> TwoPointProblem:
    """min ∫ (v² + depth (1 − y²)²/2)/2 dt, y' = v = −p, p' = depth (y − y³); y near 0 is a saddle."""

    def field(times: Tensor, z: Tensor) -> Tensor:
        y, p = z.unbind(-1)
        return torch.stack((-p, depth * (y - y**3)), -1)

    return TwoPointProblem(field, vector(start), vector(0.0))


def scipy_two_point(problem: TwoPointProblem, grid: list[float], guess: Tensor, *, tolerance: float) -> Tensor:
    """Return z at the nodes by SciPy's collocation solver."""
    n = problem.states

    def field(t: np.ndarray, z: np.ndarray) -> np.ndarray:
        return problem.field(torch.as_tensor(t), torch.as_tensor(z.T)).numpy().T

    def ends(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate((first[:n] - problem.initial_state.numpy(), last[n:] - problem.terminal_costate.numpy()))

    found = solve_bvp(field, ends, np.asarray(grid), guess.numpy().T, tol=tolerance, max_nodes=20000)
    assert found.success, found.message
    return torch.as_tensor(found.sol(np.asarray(grid)).T.copy())
