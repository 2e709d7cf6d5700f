"""Conformal splitting: the symplectic form shrinks by exactly e^{−θh} a step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.canonical import Damped, Harmonic, Pendulum, pair, still, wave
from support.compare import EPS, assert_same_bits, gap, snapshot
from support.learning import make_network, make_problem, make_sinusoid, make_state, member
from support.oracle import flatten, scipy_flow
from support.order import assert_order, end_errors
from support.structure import defect, step_jacobian

from nlsim.errors import CapabilityError
from nlsim.integrate.conformal import CONFORMAL_MIDPOINT, CONFORMAL_VERLET, ConformalSplitting
from nlsim.integrate.explicit import RK4
from nlsim.integrate.gauss import GAUSS4, IMPLICIT_MIDPOINT
from nlsim.integrate.symplectic import STORMER_VERLET, SYMPLECTIC_EULER
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations

STEPPERS = {each.name: each for each in (CONFORMAL_MIDPOINT, CONFORMAL_VERLET)}
each_stepper = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
DAMPED, START = Damped(Pendulum()), pair(1.2, 0.4)
COUNTS = (80, 160, 320)


@each_stepper
def test_order_with_moving_force_and_speed(stepper):
    exact = scipy_flow(DAMPED, wave, START, 0.0, 2.0)
    assert_order(stepper.order, COUNTS, end_errors(stepper, DAMPED, wave, START, 2.0, exact, COUNTS))


def test_order_is_that_of_the_inner_step_up_to_two():
    exact = scipy_flow(DAMPED, wave, START, 0.0, 2.0)
    for inner in (SYMPLECTIC_EULER, STORMER_VERLET, GAUSS4):
        stepper = ConformalSplitting("of another", inner)
        assert stepper.order == min(2, inner.order)
        assert_order(stepper.order, COUNTS, end_errors(stepper, DAMPED, wave, START, 2.0, exact, COUNTS))


def test_scaling_on_one_side_only_is_of_order_one():
    class OneSided(ConformalSplitting):
        def advance(self, system, piece, state, t, dt, steps):
            for n in range(steps):
                state = self.inner.advance(system.conservative(), piece, state, t + n * dt, dt, 1)
                system.dissipate_(state, dt)
            return state

    exact = scipy_flow(DAMPED, wave, START, 0.0, 2.0)
    errors = end_errors(OneSided("one sided", IMPLICIT_MIDPOINT), DAMPED, wave, START, 2.0, exact, COUNTS)
    assert_order(1, COUNTS, errors)


@each_stepper
@pytest.mark.parametrize("theta", [0.0, 0.4, 5.0])
@pytest.mark.parametrize("dt", [0.02, 0.1])
def test_the_form_shrinks_by_the_exact_factor(stepper, theta, dt):
    matrix = step_jacobian(stepper, replace(DAMPED, theta=theta), wave, START, 0.3, dt)
    # midpoint: h|J| ≤ 0.2, stages off by 0.1¹¹ = 1e-11 of which h enters
    assert defect(matrix, math.exp(-theta * dt)) <= 1e-11
    # in a plane the form is the area
    assert float(torch.linalg.det(matrix)) == pytest.approx(math.exp(-theta * dt), rel=1e-11)


@pytest.mark.parametrize("theta", [0.3, 2.0])
def test_the_form_of_a_learning_network_shrinks_by_the_exact_factor(theta):
    network = make_network((2, 3, 2))
    system = HamiltonEquations(make_problem(network, dissipation=theta))
    signal, state, dt, steps = make_sinusoid(network, 2), make_state(network, 2), 0.02, 10
    matrix = step_jacobian(CONFORMAL_MIDPOINT, system, signal.at, state, 0.3, dt, steps)
    factor = math.exp(-theta * dt * steps)
    # |J| ≤ 6 without dissipation, so the iteration leaves 0.06¹¹ of itself
    assert defect(matrix, factor) <= 1e-11
    # dim y: 5 activities of 2 samples, 3·3 + 2·4 weights
    volume = float(torch.linalg.slogdet(matrix).logabsdet)
    assert volume == pytest.approx(-theta * dt * steps * (5 * 2 + 9 + 8), abs=1e-10)


def test_methods_that_know_nothing_of_the_dissipation_miss_the_factor():
    theta, dt = 2.0, 0.1
    system = replace(DAMPED, theta=theta)
    for stepper in (RK4, IMPLICIT_MIDPOINT):
        matrix = step_jacobian(stepper, system, wave, START, 0.3, dt)
        # ten thousand times what the conformal steps leave
        assert defect(matrix, math.exp(-theta * dt)) > 1e-7


def test_midpoint_alone_has_a_rational_factor_on_the_oscillator():
    # det of (1 − hA/2)⁻¹(1 + hA/2) is (1 − θh/2 + h²/4)/(1 + θh/2 + h²/4), not e^{−θh}
    theta, dt = 0.4, 0.1
    matrix = step_jacobian(IMPLICIT_MIDPOINT, Damped(Harmonic(), theta), still, START, 0.0, dt)
    expected = (1 - theta * dt / 2 + dt**2 / 4) / (1 + theta * dt / 2 + dt**2 / 4)
    assert float(torch.linalg.det(matrix)) == pytest.approx(expected, rel=1e-13)
    assert abs(expected - math.exp(-theta * dt)) > 1e-5


@each_stepper
def test_a_step_back_undoes_a_step(stepper):
    dt, steps = 0.05, 40
    moved = stepper.advance(DAMPED, wave, START, 0.3, dt, steps)
    assert gap(moved, START) > 0.1
    # running back, momenta and their rounding errors grow by e^{θt} = 2.2, and so may those of the iteration, 1e-14
    assert gap(stepper.advance(DAMPED, wave, moved, 0.3 + steps * dt, -dt, steps), START) <= 1e-12


def test_without_dissipation_it_is_the_inner_step():
    network = make_network((2, 3, 2))
    system = HamiltonEquations(make_problem(network, dissipation=0.0))
    signal, state = make_sinusoid(network, 2), make_state(network, 2)
    found = CONFORMAL_MIDPOINT.advance(system, signal.at, state, 0.2, 0.05, 3)
    # the start of a step is the same float here: 0.2 + n·0.05, whether asked for at once or one by one
    assert_same_bits(found, IMPLICIT_MIDPOINT.advance(system, signal.at, state, 0.2, 0.05, 3))


def test_energy_of_the_damped_oscillator_decays_as_it_should():
    # q̈ + θq̇ + q = 0: over whole half-periods of the damped oscillation amplitudes shrink by e^{−θt/2}. The splitting
    # of a linear system has the eigenvalues e^{−θh/2 ± iω_h h}: the decay is exact, only the phase is off
    theta, dt, steps = 0.2, 0.1, 1000
    system = Damped(Harmonic(), theta)
    matrix = step_jacobian(CONFORMAL_VERLET, system, still, START, 0.0, dt)
    sizes = torch.linalg.eigvals(matrix).abs()
    assert float((sizes - math.exp(-theta * dt / 2)).abs().max()) <= 20 * EPS
    after = CONFORMAL_VERLET.advance(system, still, START, 0.0, dt, steps)
    ratio = float(Harmonic().energy(after) / Harmonic().energy(START)) / math.exp(-theta * dt * steps)
    # the ellipse of a damped orbit is sheared by at most θ/2 + h, so H swings within (1 ± 0.2)/(1 ∓ 0.2)
    assert 0.66 < ratio < 1.5


class TestScalingOfALearningState:
    NETWORK = make_network((2, 3, 2))

    def test_costates_shrink_and_nothing_else(self):
        system = HamiltonEquations(make_problem(self.NETWORK, dissipation=0.7))
        state = make_state(self.NETWORK, 2)
        scaled = snapshot(state)
        system.dissipate_(scaled, 0.3)
        assert_same_bits((scaled.activity, scaled.weight), (state.activity, state.weight))
        for name in ("costate", "weight_costate"):
            expected = tuple(pi * math.exp(-0.21) for pi in getattr(state, name))
            assert gap(getattr(scaled, name), expected) <= 4 * EPS

    def test_the_field_is_conservative_part_and_scaling(self):
        system = HamiltonEquations(make_problem(self.NETWORK, dissipation=0.7))
        state, inputs = make_state(self.NETWORK, 2), make_sinusoid(self.NETWORK, 2).at(0.4)
        conservative = system.conservative().vector_field(0.4, state, inputs)
        scaled = snapshot(state)
        system.dissipate_(scaled, 1e-6)
        rate = (flatten(scaled) - flatten(state)) / 1e-6
        # a difference quotient: off by θ² 1e-6/2 and by rounding, 1e-16/1e-6
        total = flatten(conservative) + rate
        assert abs(total - flatten(system.vector_field(0.4, state, inputs))).max() <= 1e-6

    def test_each_member_of_an_ensemble_has_its_own_dissipation(self):
        theta = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
        problem = make_problem(self.NETWORK, dissipation=theta)
        state = make_state(self.NETWORK, 2, ensemble=(3,))
        inputs = make_sinusoid(self.NETWORK, 2)
        together = CONFORMAL_MIDPOINT.advance(HamiltonEquations(problem), inputs.at, state, 0.0, 0.05, 4)
        for index in range(3):
            alone = HamiltonEquations(replace(problem, dissipation=float(theta[index])))
            expected = CONFORMAL_MIDPOINT.advance(alone, inputs.at, member(state, index), 0.0, 0.05, 4)
            assert gap(member(together, index), expected) <= 1e-13

    def test_the_given_state_is_kept(self):
        system = HamiltonEquations(make_problem(self.NETWORK))
        state = make_state(self.NETWORK, 2)
        before = snapshot(state)
        CONFORMAL_MIDPOINT.advance(system, make_sinusoid(self.NETWORK, 2).at, state, 0.0, 0.05, 2)
        assert_same_bits(state, before)


class TestRefusals:
    def test_a_system_without_conformal_structure_is_refused_with_advice(self):
        with pytest.raises(CapabilityError, match=r"conformal_midpoint.*Conformal") as refusal:
            CONFORMAL_MIDPOINT.require(CostateReversal(make_problem()))
        assert "hamilton_equations" in str(refusal.value)

    def test_the_inner_step_is_asked_too(self):
        with pytest.raises(CapabilityError, match=r"stormer_verlet.*Splittable"):
            CONFORMAL_VERLET.require(HamiltonEquations(make_problem()))

    def test_a_system_that_does_not_split_is_refused_with_advice(self):
        with pytest.raises(CapabilityError, match=r"stormer_verlet.*Splittable") as refusal:
            STORMER_VERLET.require(HamiltonEquations(make_problem()))
        assert "gauss4" in str(refusal.value)

    def test_fitting_systems_are_accepted(self):
        CONFORMAL_MIDPOINT.require(HamiltonEquations(make_problem()))
        CONFORMAL_VERLET.require(DAMPED)
        STORMER_VERLET.require(Pendulum())
        GAUSS4.require(CostateReversal(make_problem()))
