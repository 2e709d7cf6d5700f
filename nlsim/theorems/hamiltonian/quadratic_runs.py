"""Random linear-quadratic problems, accurate runs of their systems, and SciPy's answers to compare with."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.control import Reached
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadratic, linear_quadratic
from nlsim.systems.signals import hold

S = TypeVar("S")

NOTHING = hold(Inputs())
"""No inputs: the target is 0."""

ACCURATE = AdaptiveRungeKutta("dopri8", rtol=1e-11, atol=1e-12)
"""For the legs that ask what the flow does: local errors of 1e-11."""


def run_to(system: Any, state: S, horizon: float) -> Reached[S]:
    """Run an autonomous system accurately from t = 0."""
    return ACCURATE.reach(system, NOTHING, state, 0.0, horizon, 100_000)


def random_problem(n: int, seed: int, dissipation: float = 0.0) -> LinearQuadratic:
    """Return a problem with n states and n controls, Q and R between 1 and about 5, A of norm about 1."""
    draw = generator(seed, "linear quadratic", n)

    def positive() -> Tensor:
        factor = torch.as_tensor(draw.normal(size=(n, n)))
        return torch.eye(n, dtype=torch.float64) + factor @ factor.mT / n

    drift, control = (torch.as_tensor(draw.normal(size=(n, n))) / n**0.5 for _ in range(2))
    return linear_quadratic(drift, control + torch.eye(n, dtype=torch.float64), positive(), positive(), dissipation)


def algebraic_gain(problem: LinearQuadratic) -> Tensor:
    """Return SciPy's stabilising solution of the algebraic Riccati equation with A + η/2 and S = B R⁻¹ Bᵀ."""
    import scipy.linalg  # type: ignore[import-untyped, unused-ignore]

    n = problem.drift.shape[-1]
    shifted = problem.drift.numpy() + 0.5 * float(problem.dissipation) * np.eye(n)
    root = np.linalg.cholesky(problem.actuation.numpy())  # B = root, R = 1
    return torch.as_tensor(scipy.linalg.solve_continuous_are(shifted, root, problem.tracking_weight.numpy(), np.eye(n)))


def boundary_gain(problem: LinearQuadratic, remaining: float) -> Tensor:
    """Return the optimal gain with so much time to go, by SciPy's matrix exponential of Hamilton's matrix.

    Solutions that end at π(T) = 0 are (x, π)(T − t) = e^{−Ht} (1, 0); the gain is π x⁻¹.
    """
    import scipy.linalg  # type: ignore[import-untyped, unused-ignore]

    n = problem.drift.shape[-1]
    flow: NDArray[np.float64] = scipy.linalg.expm(-remaining * hamilton_matrix(problem))
    return torch.as_tensor(flow[n:, :n] @ np.linalg.inv(flow[:n, :n]))


def hamilton_matrix(problem: LinearQuadratic) -> NDArray[np.float64]:
    """Return the matrix of (x, π) under Hamilton's equations."""
    a, n = problem.drift.numpy(), problem.drift.shape[-1]
    eta = float(problem.dissipation) * np.eye(n)
    matrix: NDArray[np.float64] = np.block(
        [[a, -problem.actuation.numpy()], [-problem.tracking_weight.numpy(), -a.T - eta]]
    )
    return matrix


def slowest_rate(problem: LinearQuadratic) -> float:
    """Return the smallest μ of the eigenvalues −η/2 ± μ, by numpy."""
    real = np.linalg.eigvals(hamilton_matrix(problem)).real + float(problem.dissipation) / 2
    return float(np.abs(real).min())


def relative_gap(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖/(1 + ‖expected‖)."""
    return float(torch.linalg.vector_norm(found - expected) / (1 + torch.linalg.vector_norm(expected)))


@st.composite
def scalar_problems(draw: st.DrawFn, *, is_dissipative: bool = False) -> ScalarLinearQuadratic:
    """Draw a in ±2, b = 1, q and r from 0.2 to 5 on a logarithmic axis, η in ±2 if asked for."""
    return ScalarLinearQuadratic(
        draw(st.floats(-2.0, 2.0)),
        1.0,
        5 ** draw(st.floats(-1.0, 1.0)),
        5 ** draw(st.floats(-1.0, 1.0)),
        draw(st.floats(-2.0, 2.0)) if is_dissipative else 0.0,
    )
