"""Exponential Runge–Kutta (ETD) methods of order two and four for fast diagonal rates.

For ẏ = f(t, y) = −r y + N(t, y) with the rates r of a relaxing system, the decay is solved exactly and N is
interpolated in time; the weights of the interpolation are the φ-functions of z = −r h,

    φ₀(z) = e^z,   φ_{k+1}(z) = (φ_k(z) − 1/k!)/z,   φ_k(0) = 1/k!.

Where r = 0 (the slow block) the methods are Heun's and the classical Runge–Kutta method.

**When they pay.** When the rates differ from neuron to neuron but the coupling does not grow with them: then
h is set by the slow part alone. Where one speed c multiplies leak and coupling alike, N = c g(t, y), they stay
stable at every h c as long as the net contracts, but lose order: an expansion of N in time says
nothing about the fast way in which N follows y. Measured at h c from 250 to 1000 on a recurrent net: order 1.00 for
``etdrk2`` and 1.04 for ``etdrk4``. With g = g(t) alone the error is of size (hᵖ/c) g⁽ᵖ⁺¹⁾, p = 1 for ``etdrk2`` and
p = 2 for ``etdrk4`` (measured 1.00 and 2.01). Sweeps (acyclic graphs) and ``sdirk2`` (cyclic ones) keep
their order there.

References
----------
Cox and Matthews, *Exponential time differencing for stiff systems*, J. Comput. Phys. 176 (2002), eq. 22 and
26–29. The loss of order: Hochbruck and Ostermann, SIAM J. Numer. Anal. 43 (2005), section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Piece, Relaxing
from nlsim.integrate.stepper import require_structure

S = TypeVar("S")
Flat = list[Tensor]
Field = Callable[[float, Flat], Flat]

SERIES_RADIUS = 0.5
"""Below this |z| the recurrence would cancel, and the series is summed instead."""

SERIES_TERMS = 16
"""0.5¹⁶/17! ≈ 4e-20: the first term left out, far below round-off."""


def phi_functions(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return φ₁, φ₂ and φ₃ at real z, in float64.

    Parameters
    ----------
    z : Tensor
        Any shape; meant for z ≤ 0, good up to where e^z overflows.

    Returns
    -------
    tuple of Tensor
        Relative error at most 64 unit round-offs: the series near 0; elsewhere φ₁ = expm1(z)/z and the
        recurrence, which at |z| = 1/2 loses a factor of about six each time and less further out.
    """
    wide = z.to(torch.float64)
    is_small = wide.abs() < SERIES_RADIUS
    near, far = torch.where(is_small, wide, 0.0), torch.where(is_small, 1.0, wide)
    recurred = [torch.expm1(far) / far]
    for k in (1, 2):
        recurred.append((recurred[-1] - 1 / math.factorial(k)) / far)
    one, two, three = (
        torch.where(is_small, _series(k, near), value) for k, value in zip((1, 2, 3), recurred, strict=True)
    )
    return one, two, three


def _series(k: int, z: Tensor) -> Tensor:
    """Return Σ_j z^j/(j + k)! by Horner's rule."""
    total = torch.full_like(z, 1 / math.factorial(SERIES_TERMS + k - 1))
    for j in reversed(range(SERIES_TERMS - 1)):
        total = total * z + 1 / math.factorial(j + k)
    return total


@dataclass(frozen=True)
class ExponentialRungeKutta:
    """An exponential Runge–Kutta method for the diagonal rates of a relaxing system.

    Exact where N is constant; A-stable in the decay (the slow block is stepped explicitly). The rates are
    asked for once a call, so they must not depend on the state.

    Parameters
    ----------
    name : str
        Its name in scenarios.
    order : int
        Order of the global error at fixed r h → 0; see the module on its loss at r h ≫ 1.
    coefficients : callable
        ``coefficients(rate, h)``: what one tensor of the state needs, computed in float64.
    step : callable
        ``step(field, y, t, h, coefficients of every tensor)`` -> the next y.
    """

    name: str
    order: int
    coefficients: Callable[[Tensor, float], tuple[Tensor, ...]]
    step: Callable[[Field, Flat, float, float, list[tuple[Tensor, ...]]], Flat]
    stability_limit: float = math.inf

    def require(self, system: Any) -> None:
        """Need a relaxing system, for its rates."""
        require_structure(
            system,
            Relaxing,
            self.name,
            "Use a relaxing system such as costate_reversal or inference, or an explicit or adaptive stepper.",
        )

    def advance(self, system: Relaxing[S], piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps. Cost: ``order`` vector fields a step."""

        def field(time: float, flat: Flat) -> Flat:
            return leaves(system.vector_field(time, rebuild(state, flat), piece(time)))

        y = leaves(state)
        factors = [
            tuple(each.to(leaf.dtype) for each in self.coefficients(rate.to(torch.float64), dt))
            for leaf, rate in zip(y, leaves(system.rates(state)), strict=True)
        ]
        for n in range(steps):
            y = self.step(field, y, t + n * dt, dt, factors)
        return rebuild(state, y)


# Both steps are written with differences N − N₀ = (f − f₀) + r (s − y) of a stage s, because e^z y + h φ₁ N₀ is
# y + h φ₁ f₀: nothing is lost where r = 0, and where r is large no large number is added and taken away again.


def _second_coefficients(rate: Tensor, h: float) -> tuple[Tensor, ...]:
    one, two, _ = phi_functions(-rate * h)
    return rate, h * one, h * two


def _second_step(field: Field, y: Flat, t: float, h: float, factors: list[tuple[Tensor, ...]]) -> Flat:
    """Take a step of ETDRK2: s = y + h φ₁ f₀, y⁺ = s + h φ₂ (N_s − N₀)."""
    f0 = field(t, y)
    s = [each + one * f for each, f, (_, one, _) in zip(y, f0, factors, strict=True)]
    fs = field(t + h, s)
    return [
        stage + two * (f - first + rate * (stage - start))
        for stage, start, f, first, (rate, _, two) in zip(s, y, fs, f0, factors, strict=True)
    ]


def _fourth_coefficients(rate: Tensor, h: float) -> tuple[Tensor, ...]:
    half, _, _ = phi_functions(-rate * h / 2)
    one, two, three = phi_functions(-rate * h)
    return rate, h / 2 * half, h * one, 2 * h * (two - 2 * three), h * (4 * three - two)


def _fourth_step(field: Field, y: Flat, t: float, h: float, factors: list[tuple[Tensor, ...]]) -> Flat:
    """Take a step of ETDRK4 (Cox and Matthews, eq. 26–29), stages a, b at h/2 and c at h."""
    f0 = field(t, y)

    def change(s: Flat, f: Flat) -> Flat:
        """Return N_s − N₀."""
        parts = zip(s, f, y, f0, factors, strict=True)
        return [f - first + rate * (stage - start) for stage, f, start, first, (rate, *_) in parts]

    a = [start + half * f for start, f, (_, half, *_) in zip(y, f0, factors, strict=True)]
    na = change(a, field(t + h / 2, a))
    b = [stage + half * n for stage, n, (_, half, *_) in zip(a, na, factors, strict=True)]
    nb = change(b, field(t + h / 2, b))
    c = [
        stage + half * (f - rate * (stage - start) + 2 * n)
        for stage, start, f, n, (rate, half, *_) in zip(a, y, f0, nb, factors, strict=True)
    ]
    nc = change(c, field(t + h, c))
    return [
        start + one * f + middle * (na_ + nb_) + last * nc_
        for start, f, na_, nb_, nc_, (_, _, one, middle, last) in zip(y, f0, na, nb, nc, factors, strict=True)
    ]


ETDRK2 = ExponentialRungeKutta("etdrk2", 2, _second_coefficients, _second_step)
"""Second order; exact where N is linear in time."""

ETDRK4 = ExponentialRungeKutta("etdrk4", 4, _fourth_coefficients, _fourth_step)
"""Fourth order; exact where N is quadratic in time."""
