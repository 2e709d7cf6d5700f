"""Linear-quadratic control as state and costate equations: exact, and with the costates reversed.

Minimise ∫ [½ (x − z)ᵀ Q (x − z) + ½ vᵀ R v] φ dt over v, with dx/dt = A x + B v, φ(t) = e^{ηt} and
S = B R⁻¹ Bᵀ. In the normalised costate π = p/φ the Hamiltonian is

    H/φ = ½ (x − z)ᵀ Q (x − z) + πᵀ A x − ½ πᵀ S π,

the best control v = −R⁻¹ Bᵀ π, and Hamilton's equations are

    dx/dt = A x − S π,    dπ/dt = −Q (x − z) − Aᵀ π − η π,    π(T) = 0.

Everything the method of Betti & Gori does to a network, it does here where all is known in closed form:
:mod:`nlsim.systems.hamiltonian.closed_form`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.problem import align
from nlsim.systems.network import Constant


@state_class
class LinearQuadraticState:
    """State and costate of the controlled system.

    Attributes
    ----------
    activity : Tensor
        x, shape ``(..., sample, n)``; samples are controlled independently.
    costate : Tensor
        π = p/φ, shape of x.
    """

    activity: Tensor
    costate: Tensor


@dataclass(frozen=True)
class LinearQuadratic:
    """The problem, shared by all its systems. Matrices may carry leading ensemble axes.

    Parameters
    ----------
    drift : Tensor
        A, shape ``(..., n, n)``, in 1/time.
    actuation : Tensor
        S = B R⁻¹ Bᵀ, shape ``(..., n, n)``, symmetric, positive semidefinite.
    tracking_weight : Tensor
        Q, shape ``(..., n, n)``, symmetric, positive semidefinite.
    dissipation : float or Tensor
        η = φ̇/φ, in 1/time: positive when later times weigh more; any sign.
    """

    drift: Tensor
    actuation: Tensor
    tracking_weight: Tensor
    dissipation: Constant = 0.0

    def initial_state(self, activity: Tensor) -> LinearQuadraticState:
        """Return Cauchy data: the given x of shape ``(..., sample, n)``, and costates 0."""
        return LinearQuadraticState(activity, torch.zeros_like(activity))


def linear_quadratic(
    drift: Tensor, control: Tensor, tracking_weight: Tensor, control_weight: Tensor, dissipation: Constant = 0.0
) -> LinearQuadratic:
    """Return the problem of A, B, Q, R and η: S = B R⁻¹ Bᵀ is formed once.

    Parameters
    ----------
    drift : Tensor
        A, shape ``(..., n, n)``.
    control : Tensor
        B, shape ``(..., n, k)``.
    tracking_weight : Tensor
        Q, shape ``(..., n, n)``.
    control_weight : Tensor
        R, shape ``(..., k, k)``, symmetric, positive definite.
    dissipation : float or Tensor
        η.
    """
    actuation = control @ torch.linalg.solve(control_weight, control.mT)
    return LinearQuadratic(drift, actuation, tracking_weight, dissipation)


def deviation(state: LinearQuadraticState, inputs: Inputs) -> Tensor:
    """Return x − z; without a target z = 0 (regulation)."""
    return state.activity if inputs.target is None else state.activity - inputs.target


def hamiltonian(problem: LinearQuadratic, state: LinearQuadraticState, inputs: Inputs) -> Tensor:
    """Return H/φ, summed over samples; shape: the ensemble axes."""
    running = _running_cost(problem, state, inputs)
    pull = state.activity @ problem.drift.mT - 0.5 * state.costate @ problem.actuation
    return running + (state.costate * pull).sum((-2, -1))


def lagrangian(problem: LinearQuadratic, state: LinearQuadraticState, inputs: Inputs) -> Tensor:
    """Return ½ (x − z)ᵀ Q (x − z) + ½ vᵀ R v at v = −R⁻¹ Bᵀ π, summed over samples, without φ."""
    effort = 0.5 * (state.costate * (state.costate @ problem.actuation)).sum((-2, -1))
    return _running_cost(problem, state, inputs) + effort


def _running_cost(problem: LinearQuadratic, state: LinearQuadraticState, inputs: Inputs) -> Tensor:
    gap = deviation(state, inputs)
    return 0.5 * (gap * (gap @ problem.tracking_weight)).sum((-2, -1))


def _assemble(problem: LinearQuadratic, state: LinearQuadraticState, inputs: Inputs, sign: int) -> LinearQuadraticState:
    """Return (A x − S π, −sign (Q (x − z) + Aᵀ π) − η π); four products with n × n matrices."""
    x, pi = state.activity, state.costate
    slope = deviation(state, inputs) @ problem.tracking_weight + pi @ problem.drift
    return LinearQuadraticState(
        x @ problem.drift.mT - pi @ problem.actuation, -sign * slope - align(problem.dissipation) * pi
    )


def _spectral_radius(problem: LinearQuadratic, sign: int) -> float:
    """Return the spectral radius of [[A, −S], [−sign Q, −sign Aᵀ − η]]; O(n³), once a run."""
    a = problem.drift
    eta = torch.as_tensor(align(problem.dissipation), dtype=a.dtype, device=a.device)
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    q, down = -sign * problem.tracking_weight, -sign * a.mT - eta * one
    like = a + problem.actuation + q + down  # of the shape of all
    rows = ((a, -problem.actuation), (q, down))
    whole = torch.cat([torch.cat([each.expand_as(like) for each in row], -1) for row in rows], -2)
    return float(torch.linalg.eigvals(whole).abs().max())


@dataclass(frozen=True)
class LinearQuadraticEquations:
    """The exact Hamilton equations; inputs.target is z(t), shape ``(..., sample, n)``.

    Their eigenvalues are −η/2 ± μ_k: run forward from a guessed costate they run away. They belong to the
    boundary problem π(T) = 0, or under a :class:`~nlsim.systems.hamiltonian.sign_flip.SignFlip`.

    Parameters
    ----------
    problem : LinearQuadratic
        Matrices and dissipation.
    """

    problem: LinearQuadratic

    def vector_field(self, t: float, state: LinearQuadraticState, inputs: Inputs) -> LinearQuadraticState:
        """Return (A x − S π, −Q (x − z) − Aᵀ π − η π)."""
        return _assemble(self.problem, state, inputs, sign=+1)

    def hamiltonian(self, t: float, state: LinearQuadraticState, inputs: Inputs) -> Tensor:
        """Return H/φ, summed over samples."""
        return hamiltonian(self.problem, state, inputs)

    def fastest_rate(self) -> float:
        """Return the largest |λ| over all eigenvalues λ of the linear part (and over an ensemble)."""
        return _spectral_radius(self.problem, sign=+1)

    def discount(self, state: LinearQuadraticState) -> LinearQuadraticState | None:
        """Return the part −η π of the field that normalising the costates brought in; None when η is 0."""
        if isinstance(self.problem.dissipation, float) and self.problem.dissipation == 0.0:
            return None
        pull = -align(self.problem.dissipation) * state.costate
        return LinearQuadraticState(torch.zeros_like(state.activity), pull)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`linear_quadratic_observables`."""
        return linear_quadratic_observables(self.problem)


@dataclass(frozen=True)
class LinearQuadraticReversal:
    """Costate-only reversal: the sign of dp/dt flipped, that of the dissipation kept (eq. 18).

    Scalar eigenvalues: a − η/2 ± ½ √(η² − 4 s q). It does not approximate the optimal control: it is a
    damped oscillator when a < η/2, and unstable when a > η/2.

    Parameters
    ----------
    problem : LinearQuadratic
        Matrices and dissipation.
    """

    problem: LinearQuadratic

    def vector_field(self, t: float, state: LinearQuadraticState, inputs: Inputs) -> LinearQuadraticState:
        """Return (A x − S π, +Q (x − z) + Aᵀ π − η π)."""
        return _assemble(self.problem, state, inputs, sign=-1)

    def hamiltonian(self, t: float, state: LinearQuadraticState, inputs: Inputs) -> Tensor:
        """Return H/φ of the exact equations, which this system does not conserve."""
        return hamiltonian(self.problem, state, inputs)

    def fastest_rate(self) -> float:
        """Return the largest |λ| over all eigenvalues λ of the linear part (and over an ensemble)."""
        return _spectral_radius(self.problem, sign=-1)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of :func:`linear_quadratic_observables`."""
        return linear_quadratic_observables(self.problem)


def linear_quadratic_observables(problem: LinearQuadratic) -> Mapping[str, Observable]:
    """Return ``hamiltonian``, ``lagrangian``, ``tracking_error`` |x − z| and the state."""
    seen = (
        Observable(
            "hamiltonian",
            (),
            "Hamiltonian H/φ, summed over samples",
            lambda t, state, inputs: hamiltonian(problem, state, inputs),
            "1/time",
        ),
        Observable(
            "lagrangian",
            (),
            "running cost of state and control, summed over samples",
            lambda t, state, inputs: lagrangian(problem, state, inputs),
            "1/time",
        ),
        Observable(
            "tracking_error",
            ("sample",),
            "distance |x − z| from the target",
            lambda t, state, inputs: torch.linalg.vector_norm(deviation(state, inputs), dim=-1),
        ),
        Observable("activity", ("sample", "neuron"), "state x", lambda t, state, inputs: state.activity),
        Observable("costate", ("sample", "neuron"), "normalised costate π", lambda t, state, inputs: state.costate),
    )
    return {each.name: each for each in seen}
