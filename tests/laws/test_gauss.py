"""Gauss collocation: order, symplecticity, time symmetry, invariants, and when the iteration converges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.canonical import Harmonic, Product, autonomous, pair, still, wave
from support.compare import EPS, gap, size
from support.flow import Decay, Silence
from support.learning import make_network, make_problem, make_sinusoid, make_state
from support.oracle import flatten, scipy_flow
from support.order import assert_order, end_errors
from support.structure import canonical_form, defect, step_jacobian

from nlsim.core.ending import Ending
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import RK4
from nlsim.integrate.gauss import GAUSS4, IMPLICIT_MIDPOINT
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.learning import HamiltonEquations

METHODS = {each.name: each for each in (IMPLICIT_MIDPOINT, GAUSS4)}
each_method = pytest.mark.parametrize("stepper", METHODS.values(), ids=METHODS)
PRODUCT, START = Product(), pair(0.7, -0.4)
COUNTS = {"implicit_midpoint": (80, 160, 320), "gauss4": (20, 40, 80)}


@pytest.fixture(scope="module")
def exact():
    return scipy_flow(PRODUCT, wave, START, 0.0, 2.0)


@each_method
def test_order_on_a_forced_non_separable_system(stepper, exact):
    # symmetric methods: the next term of the error is two powers of h higher, below 0.02 in the slope here
    counts = COUNTS[stepper.name]
    assert_order(stepper.order, counts, end_errors(stepper, PRODUCT, wave, START, 2.0, exact, counts))


def test_a_wrong_node_costs_the_order_on_forced_systems_only(exact):
    # the defect of a peer's gl4: c₂ wrong is first order on non-autonomous systems, invisible on others
    wrong = replace(GAUSS4, nodes=(GAUSS4.nodes[0], GAUSS4.nodes[0]))
    with pytest.raises(AssertionError, match=r"order (0\.99|1\.0)"):
        assert_order(4, COUNTS["gauss4"], end_errors(wrong, PRODUCT, wave, START, 2.0, exact, COUNTS["gauss4"]))
    freely = scipy_flow(autonomous(PRODUCT), still, START, 0.0, 2.0)
    errors = end_errors(wrong, autonomous(PRODUCT), still, START, 2.0, freely, COUNTS["gauss4"])
    assert_order(4, COUNTS["gauss4"], errors)


@pytest.mark.parametrize(("iterations", "order"), [(0, 1), (1, 2), (2, 3), (3, 4), (6, 4)])
def test_each_iteration_gains_an_order_up_to_four(iterations, order, exact):
    # N iterations from k_i = f(t_i, y) leave a local error h^(N+2) in the step
    few, counts = replace(GAUSS4, iterations=iterations), (160, 320, 640) if order < 3 else (80, 160, 320)
    errors = end_errors(few, PRODUCT, wave, START, 2.0, exact, counts)
    assert_order(order, counts, errors)


@each_method
@pytest.mark.parametrize("dt", [0.02, 0.1, -0.1])
def test_one_step_is_symplectic(stepper, dt):
    # h|J| ≤ 0.25 at the largest step here: the stages are off by 0.125¹¹ = 1e-10 of themselves at worst, of which a
    # fraction h enters the map, times a derivative of order one
    assert defect(step_jacobian(stepper, PRODUCT, wave, START, 0.3, dt)) <= 1e-11


@each_method
def test_one_step_of_a_learning_network_is_symplectic(stepper):
    network = make_network((2, 3, 2))
    system = HamiltonEquations(make_problem(network, dissipation=0.0))
    signal, state = make_sinusoid(network, 2), make_state(network, 2)
    # speeds up to 1.7 and weights in ±1: |J| ≤ 6, so h|J| ≤ 0.12
    assert defect(step_jacobian(stepper, system, signal.at, state, 0.3, 0.02)) <= 1e-11
    assert defect(step_jacobian(stepper, system, signal.at, state, 0.3, 0.02, steps=20)) <= 1e-11


def test_runge_kutta_is_not_symplectic():
    assert defect(step_jacobian(RK4, PRODUCT, wave, START, 0.3, 0.1)) > 1e-9


@each_method
def test_a_step_back_undoes_a_step(stepper):
    dt, steps = 0.05, 40
    moved = stepper.advance(PRODUCT, wave, START, 0.3, dt, steps)
    assert gap(moved, START) > 0.1
    returned = stepper.advance(PRODUCT, wave, moved, 0.3 + steps * dt, -dt, steps)
    # h|J| ≤ 0.15: 0.075¹¹ = 4e-13 a step of which h·2 enters, 80 steps, and errors may grow some ten times
    assert gap(returned, START) <= 1e-11


def test_runge_kutta_does_not_come_back():
    moved = RK4.advance(PRODUCT, wave, START, 0.3, 0.05, 40)
    assert gap(RK4.advance(PRODUCT, wave, moved, 2.3, -0.05, 40), START) > 1e-8


@each_method
def test_the_oscillator_keeps_its_energy(stepper):
    # a Gauss method keeps every quadratic invariant; ω h = 0.1: iterations leave 0.05¹¹ = 5e-15 a step at worst
    start = pair(1.0, 0.0)
    after = stepper.advance(Harmonic(), still, start, 0.0, 0.1, 1000)
    assert float(2 * Harmonic().energy(after)) == pytest.approx(1.0, abs=1e-12)


def test_runge_kutta_loses_the_energy_of_the_oscillator():
    # |R(ih)|² = 1 − h⁶/72 + h⁸/576: the energy after n steps in closed form
    after = RK4.advance(Harmonic(), still, pair(1.0, 0.0), 0.0, 0.1, 1000)
    expected = (1 - 0.1**6 / 72 + 0.1**8 / 576) ** 1000
    assert float(2 * Harmonic().energy(after)) == pytest.approx(expected, rel=1e-12)
    assert expected < 1 - 1e-5


def test_energy_does_not_drift_where_that_of_runge_kutta_does():
    # 8 oscillators of H = (q² + 1)(p² + 1)/2 with energies from 0.6 to 2, to t = 200
    system, dt, tenth = autonomous(PRODUCT), 0.1, 200
    start = torch.stack((torch.linspace(0.3, 1.7, 8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)), -1)

    def errors(stepper):
        state, seen = start, []
        for _ in range(10):
            worst = torch.zeros(8, dtype=torch.float64)
            for _ in range(tenth // 10):
                state = stepper.advance(system, still, state, 0.0, dt, 10)
                worst = torch.maximum(worst, (system.energy(state) / system.energy(start) - 1).abs())
            seen.append(worst)
        return float((seen[-1] / seen[0]).median()), float(seen[-1].max())

    # bounded energy: the tenths see the same extremes up to how they sample an orbit; linear growth gives 10
    growth, size_at_end = errors(GAUSS4)
    assert growth < 1.3
    assert size_at_end < 1e-4
    assert errors(RK4)[0] > 8


@each_method
def test_unconverged_iterations_lose_symplecticity(stepper):
    few = replace(stepper, iterations=2)
    assert defect(step_jacobian(few, PRODUCT, wave, START, 0.3, 0.1)) > 1e-7


def residual(stepper, system, piece, state, t, dt):
    return float(stepper.advance_judged(system, piece, state, t, dt, 1)[1])


@each_method
@pytest.mark.parametrize("z", [0.2, 0.8])
def test_six_iterations_contract_by_the_declared_factor_to_the_sixth(stepper, z):
    # on ẏ = −r y one iteration multiplies corrections by −z a. The eigenvalues of a are ρ e^{±iπ/6} for Gauss-4 and
    # ρ for the midpoint, so a⁶ = ∓ρ⁶: the residual shrinks by (ρz)⁶ exactly, however it began
    few, many = (residual(replace(stepper, iterations=n), Decay(z), still, pair(1.0, 2.0), 0.0, 1.0) for n in (3, 9))
    # at z = 0.2 the residual ends at 7e-12, with a rounding of 1e-16 or so
    assert many / few == pytest.approx((stepper.contraction * z) ** 6, rel=1e-3)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_residual_is_what_the_last_iteration_changed(iterations):
    # midpoint on ẏ = −r y: k⁽ʲ⁾ = −r y Σ_{i≤j} (−z/2)^i, so k⁽ᴺ⁾ − k⁽ᴺ⁻¹⁾ = −r y (−z/2)^N with z = r h
    rate, dt, y = 3.0, 0.2, 5.0
    few = replace(IMPLICIT_MIDPOINT, iterations=iterations)
    found = residual(few, Decay(rate), still, torch.tensor([y], dtype=torch.float64), 0.0, dt)
    assert found == pytest.approx(rate * dt * (rate * dt / 2) ** iterations, rel=1e-12)
    # a small state is measured absolutely
    small = residual(few, Decay(rate), still, torch.tensor([0.1], dtype=torch.float64), 0.0, dt)
    assert small == pytest.approx(0.1 * found, rel=1e-12)


def test_the_residual_is_that_of_the_worst_step():
    few = replace(IMPLICIT_MIDPOINT, iterations=2)
    start = torch.tensor([5.0], dtype=torch.float64)
    # growth doubles the state in a step or so; measured relative to it every step is alike, below 1 it is not
    grown = few.advance(Decay(-1.0), still, 0.01 * start, 0.0, 0.5, 3)
    worst = float(few.advance_judged(Decay(-1.0), still, 0.01 * start, 0.0, 0.5, 4)[1])
    assert worst == pytest.approx(residual(few, Decay(-1.0), still, grown, 0.0, 0.5), rel=1e-12)


def test_contraction_is_the_spectral_radius_of_the_tableau():
    for stepper in METHODS.values():
        matrix = torch.tensor(stepper.stages, dtype=torch.float64)
        assert stepper.contraction == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=1e-14)


def test_residuals_tell_a_solved_step_from_an_unsolved_one():
    assert residual(GAUSS4, PRODUCT, wave, START, 0.3, 0.05) < 1e-12
    assert GAUSS4.tolerance < residual(GAUSS4, PRODUCT, wave, START, 0.3, 1.0) < math.inf
    assert not math.isfinite(residual(GAUSS4, PRODUCT, wave, START, 0.3, 4.0))


def test_a_constant_field_leaves_nothing_to_change():
    class Constant:
        def vector_field(self, t, state, inputs):
            return torch.ones_like(state)

    assert residual(GAUSS4, Constant(), still, START, 0.0, 0.1) == 0.0


@each_method
@pytest.mark.parametrize("scaled", [1.2, 5.0])
def test_steps_that_are_not_solved_end_the_run_by_name(stepper, scaled):
    # ω h = 1.2 looks healthy (factors 0.6 and 0.35), but 0.6¹⁰ = 6e-3 of a step is left unsolved
    few = replace(stepper, iterations=5)
    start = pair(1.0, 0.0)
    loop = Loop(Harmonic(), FixedStep(few, scaled), Silence(), start, until=5000.0)
    list(loop)
    assert (loop.ending, loop.t) == (Ending.NOT_CONVERGED, 0.0)
    assert torch.equal(loop.state, start)


@each_method
@pytest.mark.parametrize("iterations", [2, 5, 10, 13])
def test_the_stability_limit_is_where_growth_begins(stepper, iterations):
    few = replace(stepper, iterations=iterations)
    for rate in (1.0, 7.0):
        limit = few.stability_limit / rate

        def growth(dt, rate=rate):
            return abs(float(few.advance(Decay(rate), still, torch.ones(1, dtype=torch.float64), 0.0, dt, 1)))

        # |R|′ at the limit is above 0.2, so at 1 ± 1e-6 the step grows or shrinks by 4e-7 or more
        assert growth(limit * (1 - 1e-6)) < 1 - 1e-7
        assert growth(limit * (1 + 1e-6)) > 1 + 1e-7
        for fraction in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
            assert growth(fraction * limit) < 1


def test_midpoint_is_stable_up_to_two_however_often_it_iterates():
    # R(−2) = ±1 for every number of iterations, by the geometric series
    for iterations in range(12):
        assert replace(IMPLICIT_MIDPOINT, iterations=iterations).stability_limit == pytest.approx(2.0, abs=1e-12)


@each_method
def test_a_learning_network_follows_the_reference(stepper):
    network = make_network((2, 3, 2))
    system, signal = HamiltonEquations(make_problem(network)), make_sinusoid(network, 3)
    state = make_state(network, 3)
    expected = scipy_flow(system, signal.at, state, 0.0, 1.0)
    counts = (20, 40, 80)
    assert size(expected) > 1.0
    assert_order(stepper.order, counts, end_errors(stepper, system, signal.at, state, 1.0, expected, counts))


@each_method
def test_members_of_an_ensemble_are_independent(stepper):
    both = torch.stack((START, pair(-0.3, 1.1)))
    together = stepper.advance(PRODUCT, wave, both, 0.0, 0.05, 20)
    alone = [stepper.advance(PRODUCT, wave, each, 0.0, 0.05, 20) for each in both]
    assert gap(together, torch.stack(alone)) <= 20 * 20 * EPS


def test_flattened_learning_states_are_canonical():
    # the tests of symplecticity lean on the order of a state's tensors: positions first, then their costates
    network = make_network((2, 3, 2))
    system = HamiltonEquations(make_problem(network, dissipation=0.0))
    signal, state = make_sinusoid(network, 1), make_state(network, 1)
    field = torch.as_tensor(flatten(system.vector_field(0.0, state, signal.at(0.0))))
    slope = torch.func.grad(lambda y: system.hamiltonian(0.0, y, signal.at(0.0)))(state)
    expected = canonical_form(len(field)) @ torch.as_tensor(flatten(slope))
    assert float((field - expected).abs().max()) <= 100 * EPS * float(expected.abs().max())
    assert math.isfinite(float(field.sum()))
