"""Exponential Runge–Kutta: its φ-functions, what it integrates exactly, its orders, and how they drop when stiff."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mpmath
import pytest
import torch
from support.compare import EPS, assert_round_off, assert_same_bits, gap, snapshot
from support.flow import Decay, still
from support.learning import draw
from support.oracle import scipy_flow
from support.order import assert_order, end_errors
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.integrate.explicit import HEUN, RK4
from nlsim.integrate.exponential import ETDRK2, ETDRK4, phi_functions

STEPPERS = (ETDRK2, ETDRK4)
each_stepper = pytest.mark.parametrize("stepper", STEPPERS, ids=lambda each: each.name)


@dataclass(frozen=True)
class Leaky:
    """What the exponential steppers ask of a relaxing system, which is only its rates."""

    rate: Tensor

    def rates(self, state: Tensor) -> Tensor:
        return self.rate

    def sweep_(self, *_: Any) -> None:
        raise AssertionError("an exponential stepper sweeps nothing")

    def slow_rate(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Bernoulli(Leaky):
    """ẏ = −r y − y² (cos t + u)/2, with u = cos t; then v = 1/y obeys the linear v̇ = r v + cos t."""

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return -self.rate * state - state.square() * (math.cos(t) + inputs.input) / 2

    def piece(self, t: float) -> Inputs:
        return Inputs(torch.tensor(math.cos(t), dtype=torch.float64))

    def exact(self, t: float) -> Tensor:
        """Return the solution that starts at 1."""
        r = self.rate
        particular = (math.sin(t) - r * math.cos(t)) / (1 + r * r)
        return 1 / ((1 + r / (1 + r * r)) * torch.exp(r * t) + particular)


@dataclass(frozen=True)
class Tracking(Leaky):
    """ẏ = −r (y − Σ_j a_j tʲ): N is a polynomial in time."""

    polynomial: tuple[float, ...] = ()

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return -self.rate * (state - sum(a * t**j for j, a in enumerate(self.polynomial)))

    def exact(self, t: float, start: float) -> Tensor:
        """Return p(t) + (y₀ − p(0)) e^{−rt}, p = Σ_k (−1)ᵏ g⁽ᵏ⁾/rᵏ being the particular solution."""
        lead = [1.0 * a for a in self.polynomial]
        particular = [torch.zeros_like(self.rate) for _ in lead]
        sign = torch.ones_like(self.rate)
        while lead:
            for j, a in enumerate(lead):
                particular[j] = particular[j] + sign * a
            lead, sign = [(j + 1) * a for j, a in enumerate(lead[1:])], -sign / self.rate
        value = sum(p * t**j for j, p in enumerate(particular))
        return value + (start - particular[0]) * torch.exp(-self.rate * t)


@dataclass(frozen=True)
class Coupled(Leaky):
    """ẋ = c (−x + tanh(W x + u)) with u moving; coupling as fast as the leak."""

    weight: Tensor

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return self.rate * (torch.tanh(state @ self.weight.mT + inputs.input) - state)

    def piece(self, t: float) -> Inputs:
        n = self.weight.shape[-1]
        phase = torch.arange(n, dtype=torch.float64)
        return Inputs(torch.sin(t + phase))


def coupled(c: float, norm: float, n: int = 6) -> Coupled:
    weight = draw(5, n, n)
    return Coupled(torch.tensor(c, dtype=torch.float64), weight * (norm / torch.linalg.matrix_norm(weight, 2)))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_phi_functions_equal_those_of_mpmath(k):
    z = [0.0, *(-(10.0**e) for e in range(-18, 7)), -0.4999999, -0.5, -0.5000001, -0.7, -1.5, 0.3, 0.5, 2.0, 30.0]
    found = phi_functions(torch.tensor(z, dtype=torch.float64))[k - 1]
    with mpmath.workdps(60):
        for value, point in zip(found.tolist(), z, strict=True):
            # φ_k(z) = ₁F₁(1; k + 1; z)/k!, which is not how the code computes it
            expected = mpmath.hyp1f1(1, k + 1, mpmath.mpf(point)) / mpmath.factorial(k)
            # φ₁ is good to two roundings; at |z| = 1/2 each step of the recurrence divides an absolute error of
            # EPS by 1/2 and the value shrinks by 2 and 3: 2 · (2·2) · (2·3) = 48 roundings for φ₃, and less elsewhere
            assert abs(value - expected) <= 64 * EPS * expected, f"φ_{k}({point})"


@pytest.mark.parametrize(
    ("stepper", "counts"), [(ETDRK2, (100, 200, 400, 800)), (ETDRK4, (60, 120, 240))], ids=["etdrk2", "etdrk4"]
)
def test_order_where_time_enters_through_field_and_inputs(stepper, counts):
    system = Bernoulli(torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
    start = torch.ones(3, dtype=torch.float64)
    errors = end_errors(stepper, system, system.piece, start, 2.0, system.exact(2.0), counts)
    assert_order(stepper.order, counts, errors)


@pytest.mark.parametrize(("stepper", "twin"), [(ETDRK2, HEUN), (ETDRK4, RK4)], ids=["heun", "rk4"])
def test_without_rates_it_is_the_classical_method(stepper, twin):
    system = Bernoulli(torch.zeros(3, dtype=torch.float64))
    start = draw(1, 3, low=0.5, high=2.0)
    found, expected = (each.advance(system, system.piece, start, 0.0, 0.1, 20) for each in (stepper, twin))
    # 20 steps of a dozen operations each, on numbers below 2
    assert_round_off(found, expected, 20 * 12 * 2)


@each_stepper
@pytest.mark.parametrize("h", [1e-3, 0.3, 40.0])
def test_a_polynomial_of_the_interpolation_s_degree_is_exact_at_any_step(stepper, h):
    rate = torch.tensor([0.05, 1.0, 30.0, 1e6], dtype=torch.float64)
    system = Tracking(rate, (0.7, -0.4, 0.2)[: stepper.order // 2 + 1])
    found = stepper.advance(system, still, torch.full_like(rate, 2.0), 0.0, h, 3)
    expected = system.exact(3 * h, 2.0)
    # N is at most 0.2 · 120², and at the slow rate 0.05 the solution passes through terms r⁻² = 400 times larger
    magnitude = 1 + (3 * h) ** (stepper.order // 2) + 400 * (stepper is ETDRK4)
    assert gap(found, expected) <= 200 * EPS * magnitude


def test_an_interpolation_of_lower_degree_is_not_exact():
    rate = torch.tensor([1.0], dtype=torch.float64)
    system = Tracking(rate, (0.0, 0.0, 1.0))
    found = ETDRK2.advance(system, still, torch.zeros_like(rate), 0.0, 0.5, 1)
    # linear interpolation of N = t² errs by −s(s − h): ∫₀ʰ e^{−(h−s)} s (h − s) ds at h = 1/2
    h = 0.5
    expected = system.exact(h, 0.0) + (h - 2) + (h + 2) * math.exp(-h)
    assert gap(found, expected) <= 20 * EPS


@each_stepper
@pytest.mark.parametrize("c", [1e2, 1e4, 1e6])
def test_a_contracting_net_stays_bounded_at_any_speed(stepper, c):
    system = coupled(c, 0.7)
    end = stepper.advance(system, system.piece, draw(2, 4, 6), 0.0, 0.1, 200)
    # |x| ≤ 1 for the flow; the stages of a step overshoot by its interpolation only
    assert float(end.abs().max()) <= 1.5


@pytest.mark.parametrize(
    ("stepper", "norm", "expected"),
    [(ETDRK2, 0.0, 1), (ETDRK4, 0.0, 2), (ETDRK2, 0.7, 1), (ETDRK4, 0.7, 1)],
    ids=["etdrk2 uncoupled", "etdrk4 uncoupled", "etdrk2 coupled", "etdrk4 coupled"],
)
def test_order_drops_when_the_coupling_is_as_fast_as_the_leak(stepper, norm, expected):
    # h c from 1000 to 250: deep in the stiff range, and h small enough for the lowest power of it to rule
    system, counts = coupled(2e5, norm), (200, 400, 800)
    start = draw(2, 1, 6)
    exact = scipy_flow(system, system.piece, start, 0.0, 1.0, method="LSODA", rtol=1e-12)
    assert_order(expected, counts, end_errors(stepper, system, system.piece, start, 1.0, exact, counts))


@each_stepper
def test_a_float32_state_stays_float32_and_is_not_written_to(stepper):
    system = Bernoulli(torch.tensor([0.0, 0.3, 1.0], dtype=torch.float32))
    start = torch.ones(3, dtype=torch.float32)
    before = snapshot(start)
    found = stepper.advance(system, lambda t: Inputs(torch.tensor(math.cos(t))), start, 0.0, 0.02, 100)
    assert found.dtype == torch.float32
    assert_same_bits(start, before)
    # 100 steps round about four times each
    assert gap(found, system.exact(2.0)) <= 400 * 2.0**-24 + 1e-4 * (stepper is ETDRK2)


@each_stepper
def test_a_system_without_rates_is_refused(stepper):
    with pytest.raises(CapabilityError, match="Relaxing") as refusal:
        stepper.require(Decay())
    assert stepper.name in str(refusal.value)
