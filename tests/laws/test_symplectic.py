"""Splittings: order, symplecticity, time symmetry, bounded energy; with methods that lack each."""

from __future__ import annotations

import math

import pytest
import torch
from support.canonical import Harmonic, Pendulum, autonomous, pair, still, wave
from support.compare import EPS, gap
from support.oracle import scipy_flow
from support.order import assert_order, end_errors
from support.structure import defect, step_jacobian

from nlsim.integrate.explicit import RK4
from nlsim.integrate.symplectic import (
    STORMER_VERLET,
    SYMPLECTIC_EULER,
    SYMPLECTIC_EULER_ADJOINT,
    Splitting,
    Stage,
    drift,
    kick,
)

SPLITTINGS = {each.name: each for each in (SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT, STORMER_VERLET)}
each_splitting = pytest.mark.parametrize("stepper", SPLITTINGS.values(), ids=SPLITTINGS)
PENDULUM, START = Pendulum(), pair(1.2, 0.4)
COUNTS = (160, 320, 640)


@pytest.fixture(scope="module")
def exact():
    return scipy_flow(PENDULUM, wave, START, 0.0, 2.0)


@each_splitting
def test_order_with_moving_force_and_speed(stepper, exact):
    # the next term of the error is one power (two for the symmetric one) of h higher: below 0.05 in the slope here
    assert_order(stepper.order, COUNTS, end_errors(stepper, PENDULUM, wave, START, 2.0, exact, COUNTS))


def test_a_kick_at_the_wrong_time_costs_the_order(exact):
    late = Splitting("late", 2, (Stage(drift, 0.5, 0.0), Stage(kick, 1.0, 1.0), Stage(drift, 0.5, 1.0)))
    with pytest.raises(AssertionError, match=r"order (0\.99|1\.0)"):
        assert_order(2, COUNTS, end_errors(late, PENDULUM, wave, START, 2.0, exact, COUNTS))


@each_splitting
@pytest.mark.parametrize("dt", [0.05, 0.5, -0.5])
def test_one_step_is_symplectic(stepper, dt):
    # kicks and drifts are shears; three of them are multiplied, each entry with a few roundings
    assert defect(step_jacobian(stepper, PENDULUM, wave, START, 0.3, dt)) <= 20 * EPS


def test_runge_kutta_is_not_symplectic():
    # its defect is O(h⁵) or more; at h = 0.5 far above rounding
    assert defect(step_jacobian(RK4, PENDULUM, wave, START, 0.3, 0.5)) > 1e-5


def back_and_forth(there, back, dt, steps=50):
    moved = there.advance(PENDULUM, wave, START, 0.3, dt, steps)
    assert gap(moved, START) > 0.1  # it went somewhere
    return gap(back.advance(PENDULUM, wave, moved, 0.3 + steps * dt, -dt, steps), START)


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (STORMER_VERLET, STORMER_VERLET),
        (SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT),
        (SYMPLECTIC_EULER_ADJOINT, SYMPLECTIC_EULER),
    ],
    ids=["stormer_verlet", "euler by its adjoint", "adjoint by euler"],
)
def test_a_step_back_undoes_a_step(there, back):
    # 100 steps, each with some ten roundings of numbers below 4; neighbours part by at most e^{t} = e^{2.5}
    assert back_and_forth(there, back, 0.05) <= 100 * 10 * 4 * EPS * math.exp(2.5)


@pytest.mark.parametrize("stepper", [SYMPLECTIC_EULER, SYMPLECTIC_EULER_ADJOINT], ids=lambda each: each.name)
def test_neither_of_the_pair_undoes_itself(stepper):
    assert back_and_forth(stepper, stepper, 0.05) > 1e-3


def test_half_steps_of_the_pair_in_turn_are_stormer_verlet():
    system, half = Harmonic(1.3), 0.05
    composed = SYMPLECTIC_EULER_ADJOINT.advance(system, still, START, 0.0, half, 1)
    composed = SYMPLECTIC_EULER.advance(system, still, composed, half, half, 1)
    # the two half kicks in the middle are one kick, up to rounding
    assert gap(composed, STORMER_VERLET.advance(system, still, START, 0.0, 2 * half, 1)) <= 8 * EPS


def energies(stepper, system, start, dt, steps, every=1):
    """Return H/H(0) after every so many steps."""
    state, seen = start, []
    for n in range(0, steps, every):
        state = stepper.advance(system, still, state, n * dt, dt, every)
        seen.append(float(system.energy(state) / system.energy(start)))
    return seen


def test_energy_of_the_oscillator_stays_in_its_band():
    # drift, kick, drift is a linear map that keeps q² + (1 − h²/4) p² exactly. From (1, 0) this is 1, so
    # H/H₀ = q² + p² = 1 + (h²/4) p² with 0 ≤ p² ≤ 1/(1 − h²/4): between 1 and 1/(1 − h²/4) for ever
    dt, steps = 0.1, 1000
    seen = energies(STORMER_VERLET, Harmonic(), pair(1.0, 0.0), dt, steps)
    rounding = 10 * steps * EPS
    assert min(seen) >= 1 - rounding
    assert max(seen) <= 1 / (1 - dt**2 / 4) + rounding
    # and it comes within a thousandth of a band's width of both edges: the band is sharp
    assert max(seen) >= 1 + 0.999 * (1 / (1 - dt**2 / 4) - 1)
    assert min(seen) <= 1 + 0.001 * dt**2 / 4


@each_splitting
def test_the_oscillator_keeps_its_modified_energy(stepper):
    # each splitting of H = (q² + p²)/2 is a linear map that keeps one quadratic form exactly
    dt, steps = 0.1, 1000
    form = {
        "symplectic_euler": lambda q, p: q * q - dt * q * p + p * p,
        "symplectic_euler_adjoint": lambda q, p: q * q + dt * q * p + p * p,
        "stormer_verlet": lambda q, p: q * q + (1 - dt**2 / 4) * p * p,
    }[stepper.name]
    start = pair(0.8, -0.5)
    after = stepper.advance(Harmonic(), still, start, 0.0, dt, steps)
    assert float(form(*after)) == pytest.approx(float(form(*start)), rel=10 * steps * EPS)


def test_a_drift_with_the_momentum_of_before_the_kick_gains_energy():
    # the mistake of a peer: it moves with the un-kicked momentum. That is explicit Euler: H grows by 1 + h² a step
    old = torch.tensor([[1.0, 0.1], [-0.1, 1.0]], dtype=torch.float64)
    state = pair(1.0, 0.0)
    for _ in range(1000):
        state = old @ state
    assert float(Harmonic().energy(state)) * 2 == pytest.approx(1.01**1000, rel=1e-10)
    assert energies(SYMPLECTIC_EULER, Harmonic(), pair(1.0, 0.0), 0.1, 1000)[-1] < 1.2


def drift_rate(seen):
    """Return how much larger the largest energy error of the last tenth is than that of the first."""
    tenth = len(seen) // 10
    error = [abs(each - 1) for each in seen]
    return max(error[-tenth:]) / max(error[:tenth])


def test_energy_of_the_pendulum_does_not_drift_and_that_of_runge_kutta_does():
    system, start, dt, steps = autonomous(PENDULUM), pair(1.2, 0.0), 0.4, 2000
    # a tenth of the run has some 12 periods: both tenths see the same extremes, to the sampling of a period
    assert drift_rate(energies(STORMER_VERLET, system, start, dt, steps)) < 1.05
    # a linear drift is at most 10 times larger in the last tenth than in the first; periodic errors lower that
    assert drift_rate(energies(RK4, system, start, dt, steps)) > 8


@each_splitting
@pytest.mark.parametrize("frequency", [1.0, 5.0])
def test_the_stability_limit_is_where_the_oscillator_grows(stepper, frequency):
    start = pair(1.0, 0.3)

    def reached(dt):
        return float(stepper.advance(Harmonic(frequency), still, start, 0.0, dt, 2000).abs().max())

    limit = stepper.stability_limit / frequency
    # at 1 − 1e-3 the map is a rotation in a basis whose condition is about 1/√(1e-3) ≈ 32; beyond, the
    # eigenvalue exceeds 1 by about √(4·2e-3) = 0.06 a step
    assert reached(limit * (1 - 1e-3)) < 1000 * frequency
    assert reached(limit * (1 + 1e-3)) > 1e20


@each_splitting
def test_members_of_an_ensemble_are_independent(stepper):
    both = torch.stack((START, pair(-0.3, 1.1)))
    together = stepper.advance(PENDULUM, wave, both, 0.0, 0.1, 20)
    alone = [stepper.advance(PENDULUM, wave, each, 0.0, 0.1, 20) for each in both]
    assert gap(together, torch.stack(alone)) <= 20 * 10 * EPS


@each_splitting
def test_the_given_state_is_kept(stepper):
    given = START.clone()
    stepper.advance(PENDULUM, wave, given, 0.0, 0.1, 3)
    assert torch.equal(given, START)
