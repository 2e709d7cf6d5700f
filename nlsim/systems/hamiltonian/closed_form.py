"""The scalar linear-quadratic problem, solved: gains, rates, trajectories and costs in closed form.

Minimise ∫₀ᵀ (q x²/2 + r v²/2) e^{ηt} dt with dx/dt = a x + b v. With s = b²/r, α = a + η/2 and
μ = √(α² + s q), the time-reversed gain is

    Θ̂(t) = q sinh μt / (μ cosh μt − α sinh μt) → Θ₊ = (α + μ)/s,   at rate 2μ,

the optimal gain at time t is Θ̂(T − t), and the stationary closed loop has the rate a − s Θ₊ = −η/2 − μ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadratic


@dataclass(frozen=True)
class ScalarLinearQuadratic:
    """The scalar problem and what is known of it exactly.

    Parameters
    ----------
    drift, control : float
        a and b ≠ 0, in 1/time.
    tracking_weight, control_weight : float
        q > 0 and r > 0.
    dissipation : float
        η, in 1/time; any sign.
    """

    drift: float
    control: float
    tracking_weight: float
    control_weight: float
    dissipation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tracking_weight", "control_weight"):
            if not getattr(self, name) > 0:
                raise NlsimError(
                    "The scalar problem has a minimiser only with positive weights.",
                    where=name,
                    given=getattr(self, name),
                    allowed="> 0",
                    advice="Use LinearQuadratic for semidefinite weights.",
                )

    @property
    def actuation(self) -> float:
        """Return s = b²/r."""
        return self.control**2 / self.control_weight

    @property
    def shifted_drift(self) -> float:
        """Return α = a + η/2, the drift of e^{ηt/2} x."""
        return self.drift + self.dissipation / 2

    @property
    def rate(self) -> float:
        """Return μ = √(α² + s q), in 1/time."""
        mu: float = (self.shifted_drift**2 + self.actuation * self.tracking_weight) ** 0.5
        return mu

    @property
    def eigenvalues(self) -> tuple[float, float]:
        """Return −η/2 ± μ, those of Hamilton's equations in (x, π)."""
        return -self.dissipation / 2 + self.rate, -self.dissipation / 2 - self.rate

    @property
    def stationary_gain(self) -> float:
        """Return Θ₊ = (α + μ)/s, the stabilising root of the algebraic Riccati equation."""
        return (self.shifted_drift + self.rate) / self.actuation

    @property
    def other_gain(self) -> float:
        """Return Θ₋ = (α − μ)/s, where the un-reversed gain ends."""
        return (self.shifted_drift - self.rate) / self.actuation

    @property
    def reversal_abscissa(self) -> float:
        """Return the largest real part a − η/2 + ½ Re √(η² − 4 s q) of the costate-only reversal."""
        discriminant = self.dissipation**2 - 4 * self.actuation * self.tracking_weight
        root: float = max(discriminant, 0.0) ** 0.5
        return self.drift - self.dissipation / 2 + root / 2

    def mirrored(self) -> ScalarLinearQuadratic:
        """Return the problem with −η: its gain is that of flipping all but the dissipation."""
        return replace(self, dissipation=-self.dissipation)

    def matrices(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> LinearQuadratic:
        """Return the problem as 1 × 1 matrices."""

        def one(value: float) -> Tensor:
            return torch.full((1, 1), value, dtype=dtype, device=device)

        return LinearQuadratic(one(self.drift), one(self.actuation), one(self.tracking_weight), self.dissipation)

    def gain(self, t: Tensor) -> Tensor:
        """Return Θ̂(t), the reversed gain from Θ̂(0) = 0; at −t it is the un-reversed gain run forward."""
        tanh = torch.tanh(self.rate * t)
        return self.tracking_weight * tanh / (self.rate - self.shifted_drift * tanh)

    def escape_time(self, start: float) -> float:
        """Return when the un-reversed gain from ``start`` is infinite: ln[(Θ₀ − Θ₋)/(Θ₀ − Θ₊)]/(2μ), or ∞.

        It is finite for Θ₀ > Θ₊ only; every other start ends at Θ₋ (or stays at Θ₊).
        """
        if start <= self.stationary_gain:
            return float("inf")
        ratio = (start - self.other_gain) / (start - self.stationary_gain)
        return float(np.log(ratio)) / (2 * self.rate)

    def closed_loop(self, t: Tensor) -> Tensor:
        """Return x(t)/x(0) under the reversed gain Θ̂(t): e^{−ηt/2}/(cosh μt − (α/μ) sinh μt)."""
        return torch.exp(-self.dissipation / 2 * t) / self._denominator(t)

    def optimal(self, t: Tensor, horizon: float) -> Tensor:
        """Return x(t)/x(0) under the optimal gain Θ̂(T − t)."""
        end = torch.as_tensor(horizon, dtype=t.dtype, device=t.device)
        return torch.exp(-self.dissipation / 2 * t) * self._denominator(end - t) / self._denominator(end)

    def optimal_cost(self, horizon: float, start: float) -> float:
        """Return the least cost, Θ̂(T) x(0)²/2."""
        return 0.5 * float(self.gain(torch.tensor(horizon, dtype=torch.float64))) * start**2

    def cost(self, activity: Callable[[Tensor], Tensor], costate: Callable[[Tensor], Tensor], horizon: float) -> float:
        """Return ∫₀ᵀ (q x²/2 + s π²/2) e^{ηt} dt of the control v = −b π/r, by Gauss–Legendre with 200 nodes.

        Exact to round-off for the trajectories of this module while μT is below some hundred.
        """
        nodes, weights = np.polynomial.legendre.leggauss(200)
        t = torch.as_tensor(0.5 * horizon * (nodes + 1))
        density = self.tracking_weight * activity(t).square() + self.actuation * costate(t).square()
        total = torch.as_tensor(weights) * density * torch.exp(self.dissipation * t)
        return float(total.sum()) * horizon / 4

    def _denominator(self, t: Tensor) -> Tensor:
        mu = self.rate
        return torch.cosh(mu * t) - self.shifted_drift / mu * torch.sinh(mu * t)


EXAMPLE_1 = ScalarLinearQuadratic(0.0, 1.0, 1.0, 1.0, 0.7)
"""Example 1 of Betti & Gori with θ = 0.7: ℓ = w²/2, m = 1, the state being the weight itself."""


def example_costs(
    problem: ScalarLinearQuadratic = EXAMPLE_1, horizon: float = 6.0, start: float = 1.0
) -> dict[str, float]:
    """Return what each way of steering costs, from the optimal one to none.

    Parameters
    ----------
    problem : ScalarLinearQuadratic
        By default Example 1.
    horizon : float
        T > 0.
    start : float
        x(0).

    Returns
    -------
    dict
        ``optimal`` (gain Θ̂(T − t)), ``stationary gain`` (Θ₊ from the start), ``all terms flipped`` (Θ̂(t)
        from 0), ``non-dissipative part flipped``, ``costate-only reversal`` (for Example 1: the heavy ball)
        and ``uncontrolled``.
    """
    slowed = problem.mirrored()

    def under_gain(gain: Callable[[Tensor], Tensor], activity: Callable[[Tensor], Tensor]) -> float:
        return problem.cost(lambda t: start * activity(t), lambda t: start * gain(t) * activity(t), horizon)

    def constant_gain(gain: float) -> float:
        rate = problem.drift - problem.actuation * gain
        return under_gain(lambda t: torch.full_like(t, gain), lambda t: torch.exp(rate * t))

    def reversed_costates(t: Tensor) -> Tensor:
        a, s, q = problem.drift, problem.actuation, problem.tracking_weight
        matrix = torch.tensor([[a, -s], [q, a - problem.dissipation]], dtype=t.dtype)
        flow: Tensor = torch.linalg.matrix_exp(matrix * t[:, None, None])
        return flow[..., 0] * start

    return {
        "optimal": problem.optimal_cost(horizon, start),
        "stationary gain": constant_gain(problem.stationary_gain),
        "all terms flipped": under_gain(problem.gain, problem.closed_loop),
        "non-dissipative part flipped": under_gain(slowed.gain, slowed.closed_loop),
        "costate-only reversal": problem.cost(
            lambda t: reversed_costates(t)[:, 0], lambda t: reversed_costates(t)[:, 1], horizon
        ),
        "uncontrolled": constant_gain(0.0),
    }
