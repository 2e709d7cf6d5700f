"""Hamiltonian Sign Flip: when signs change, what comes back, and what is conserved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from support.compare import assert_round_off, assert_same_bits, gap
from support.control import (
    make_quadratic,
    make_quadratic_state,
    make_tracking,
    make_tracking_state,
    sinusoid,
    target,
)
from support.flip import FAMILIES, flipped, start_of
from support.flow import Decay, Silence
from support.learning import draw, make_inputs, make_network, make_problem, make_state, member

from nlsim.analysis.orders import observed_order
from nlsim.core.state import leaves, map_leaves
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.learning import HamiltonEquations
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import ConstantSign, PeriodicFlip, SignedInputs, SignFlip, TrackBall
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant, HeldSamples, hold
from nlsim.theorems.hamiltonian.midpoint import ImplicitMidpoint

SCALAR = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)


def test_flips_alternate_and_land_where_they_should():
    loop, ticks = flipped(Decay(), Silence(), torch.ones(1, dtype=torch.float64), 0.3, 5, EXPLICIT_EULER, 0.1)
    assert [tick.t for tick in ticks] == [k * 0.3 for k in range(1, 6)]
    assert loop.steps == 15
    # each tick shows the inputs that end there
    assert [float(tick.inputs.sign) for tick in ticks] == [1.0, -1.0, 1.0, -1.0, 1.0]
    sizes = [float(tick.state) for tick in ticks]
    for k, size in enumerate(sizes):
        forward, backward = (k + 2) // 2, (k + 1) // 2
        assert size == pytest.approx(0.9 ** (3 * forward) * 1.1 ** (3 * backward), rel=1e-13)


def test_a_step_that_does_not_divide_the_half_period_still_lands_on_flips():
    _, ticks = flipped(Decay(), Silence(), torch.ones(1, dtype=torch.float64), 0.25, 4, RK4, 0.1)
    assert [tick.t for tick in ticks] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("dt", [0.1, 0.05, 1 / 3, 0.007])
def test_flip_at_every_step_alternates_for_ever(dt):
    policy = PeriodicFlip(dt)
    t, accumulated = 0.0, 0.0
    for k in range(20_000):
        assert policy.stretch(t) == k
        if k < 1000:  # times spoilt by adding up dt: off by up to k²/2 roundings, 1e-10 of dt
            assert policy.stretch(accumulated) == k
        later = policy.edge_after(t)
        assert later > t
        t, accumulated = later, accumulated + dt


def test_edges_are_later_than_now_next_to_an_edge():
    policy = PeriodicFlip(0.1)
    for k in (1, 3, 7, 10**5):
        edge = k * 0.1
        for now in (math.nextafter(edge, 0), edge, math.nextafter(edge, 2 * edge)):
            assert policy.stretch(now) == k
            assert policy.edge_after(now) == pytest.approx((k + 1) * 0.1, rel=1e-15)


def test_offset_gives_the_published_cosine():
    frequency = 3.0
    policy = PeriodicFlip(math.pi / frequency, offset=math.pi / frequency / 2)
    driven = policy.drive(Silence())
    for t in np.linspace(0.0, 7.0, 60):
        assert float(driven.piece(t)(t).sign) == np.sign(math.cos(frequency * t))
    assert math.cos(frequency * policy.edge_after(0.0)) == pytest.approx(0.0, abs=1e-15)


def test_edges_of_the_signal_stay_edges():
    samples = HeldSamples(draw(1, 4, 2), draw(2, 4, 2), batch=1, interval=0.5)
    driven = PeriodicFlip(0.2).drive(samples)
    edges, t = [], 0.0
    while t < 1.0:
        t = driven.edge_after(t)
        edges.append(round(t, 12))
    assert edges == [0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
    inputs, bare = driven.piece(0.5)(0.55), samples.piece(0.5)(0.55)
    assert torch.equal(inputs.input, bare.input)
    assert torch.equal(inputs.target, bare.target)
    assert float(inputs.sign) == 1.0


def test_a_signal_that_was_not_driven_is_refused():
    system = SignFlip(Decay(), PeriodicFlip(0.1))
    with pytest.raises(CapabilityError, match=r"policy\.drive\(signal\)"):
        system.vector_field(0.0, torch.ones(1), Inputs())


@pytest.mark.parametrize("half_period", [0.0, -1.0, math.inf, math.nan])
def test_half_period_must_be_positive(half_period):
    with pytest.raises(NlsimError, match="half_period"):
        PeriodicFlip(half_period)


@pytest.mark.parametrize("offset", [-0.1, 0.5])
def test_offset_must_lie_in_the_first_stretch(offset):
    with pytest.raises(NlsimError, match="offset"):
        PeriodicFlip(0.5, offset)


@pytest.mark.parametrize(("stepper", "order"), [(EXPLICIT_EULER, 1), (HEUN, 2), (RK4, 4)])
def test_flips_keep_the_order_of_a_method(stepper, order):
    """A stage at the end of a stretch must have the sign of that stretch, not of the next."""
    problem, half = ScalarLinearQuadratic(-0.5, 1.0, 2.0, 0.5), 0.4
    signal, start = sinusoid(1.5), start_of()
    matrix = np.array([[problem.drift, -problem.actuation], [-problem.tracking_weight, -problem.drift]])
    y = np.array([0.3, -0.2])
    for k in range(3):
        y = solve_ivp(
            lambda t, y, k=k: (-1) ** k * (matrix @ y + np.array([0, problem.tracking_weight * math.sin(1.5 * t)])),
            (k * half, (k + 1) * half), y, rtol=1e-13, atol=1e-15, method="DOP853",
        ).y[:, -1]  # fmt: skip
    counts, errors = (8, 16, 32), []
    for n in counts:
        loop, _ = flipped(LinearQuadraticEquations(problem.matrices()), signal, start, half, 3, stepper, half / n)
        errors.append(abs(float(loop.state.activity) - y[0]) + abs(float(loop.state.costate) - y[1]))
    # finite steps bend the slope; a wrong sign in one stage a stretch would make it 1
    assert observed_order([half / n for n in counts], errors) == pytest.approx(order, abs=0.15)


def test_resumed_at_a_flip_a_run_goes_on_alike():
    system, signal, start = LinearQuadraticEquations(SCALAR.matrices()), sinusoid(0.5), start_of()
    whole, _ = flipped(system, signal, start, 0.01, 40, EXPLICIT_EULER, 0.01)
    policy = PeriodicFlip(0.01)
    state, t = start, 0.0
    for until in (0.17, 0.4):
        loop = Loop(
            SignFlip(system, policy), FixedStep(EXPLICIT_EULER, 0.01), policy.drive(signal), state, until=until, start=t
        )
        assert list(loop)
        state, t = loop.state, until
    assert_same_bits(state, whole.state)


def test_discounted_system_is_flipped_in_unnormalised_variables():
    """With φ = e^{ηt} the flip of (x, p) is compared in p = φ π with SciPy."""
    problem = ScalarLinearQuadratic(-0.5, 1.0, 2.0, 0.5, 0.9)
    a, s, q, eta = problem.drift, problem.actuation, problem.tracking_weight, problem.dissipation
    half, y = 0.3, np.array([0.3, -0.2])
    for k in range(3):

        def field(t, y, sign=(-1) ** k):
            phi = math.exp(eta * t)
            return sign * np.array([a * y[0] - s * y[1] / phi, -q * phi * y[0] - a * y[1]])

        y = solve_ivp(field, (k * half, (k + 1) * half), y, rtol=1e-12, atol=1e-14, method="DOP853").y[:, -1]
    loop, _ = flipped(
        LinearQuadraticEquations(problem.matrices()), Constant(Inputs()), start_of(), half, 3, RK4, half / 40
    )
    phi = math.exp(eta * 3 * half)
    # RK4: (rate · dt)⁴ is 1e-8 at rates up to 3
    assert float(loop.state.activity) == pytest.approx(y[0], abs=1e-7)
    assert float(loop.state.costate) * phi == pytest.approx(y[1], abs=1e-7)


def test_a_learning_network_says_what_its_discount_is():
    """Of the flipped field only −θπ keeps its sign: forward and backward field add up to twice that."""
    network = make_network()
    system, state, inputs = (
        HamiltonEquations(make_problem(network, dissipation=0.3)),
        make_state(network, 2),
        make_inputs(network, 2),
    )
    forward, backward = (SignFlip(system, ConstantSign(sign)).vector_field(0.0, state, inputs) for sign in (1, -1))
    both = map_leaves(lambda a, b: a + b, forward, backward)
    zeros = map_leaves(torch.zeros_like, state)
    expected = replace(
        zeros,
        costate=tuple(-0.6 * pi for pi in state.costate),
        weight_costate=tuple(-0.6 * pi for pi in state.weight_costate),
    )
    assert_round_off(both, expected, 50)
    assert_round_off(forward, system.vector_field(0.0, state, inputs), 50)
    assert HamiltonEquations(make_problem(network, dissipation=0.0)).discount(state) is None


def test_track_ball_flips_outside_member_by_member():
    system, inputs = TrackingEquations(make_tracking(dissipation=0.0)), target(2)
    state = make_tracking_state(ensemble=(3,))
    norms = sum(leaf.square().sum((-2, -1)) for leaf in leaves(state)).sqrt()
    radius = norms * torch.tensor([1.001, 0.999, 1.001], dtype=torch.float64)
    flip = SignFlip(system, TrackBall(radius))
    field, bare = flip.vector_field(0.0, state, inputs), system.vector_field(0.0, state, inputs)
    for i, sign in enumerate((1, -1, 1)):
        assert_same_bits(member(field, i), map_leaves(lambda leaf, sign=sign: sign * leaf, member(bare, i)))
    assert flip.observables()["sign"].evaluate(0.0, state, inputs).tolist() == [1, -1, 1]


def test_track_ball_stays_within_one_step_of_the_ball():
    radius, step = 1.5, 0.002
    system, signal = LinearQuadraticEquations(SCALAR.matrices()), sinusoid(0.5)
    flip = SignFlip(system, TrackBall(radius))
    loop = Loop(flip, FixedStep(EXPLICIT_EULER, step), signal, start_of(), until=4.0, check_every=1)
    largest = crossings = 0
    for tick in loop:
        size = math.hypot(float(tick.state.activity), float(tick.state.costate))
        speed = max(float(leaf.abs()) for leaf in leaves(flip.vector_field(tick.t, tick.state, tick.inputs)))
        largest, crossings = max(largest, size), crossings + (size > radius)
        assert size <= radius + math.sqrt(2) * step * 1.2 * speed
    assert largest > radius
    assert crossings > 500  # of 2000 steps: it chatters


def test_sign_channel_and_channels_of_the_wrapped_system():
    system = LinearQuadraticEquations(SCALAR.matrices())
    policy = PeriodicFlip(0.1)
    seen = SignFlip(system, policy).observables()
    assert {"hamiltonian", "tracking_error", "sign"} <= seen.keys()
    state = make_quadratic_state(1, ensemble=(4,))
    inputs = policy.drive(Silence()).piece(0.1)(0.1)
    assert isinstance(inputs, SignedInputs)
    assert seen["sign"].evaluate(0.1, state, inputs).tolist() == [-1.0] * 4
    assert SignFlip(Decay(), policy).observables().keys() == {"sign"}


def test_flips_keep_the_dtype():
    problem = SCALAR.matrices(torch.float32)
    start = LinearQuadraticState(torch.full((1, 1), 0.3), torch.zeros(1, 1))
    loop, _ = flipped(LinearQuadraticEquations(problem), Constant(Inputs()), start, 0.01, 4, EXPLICIT_EULER, 0.01)
    assert {leaf.dtype for leaf in leaves(loop.state)} == {torch.float32}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_accurate_flow_is_back_after_whole_periods(family):
    make, make_state, signal = FAMILIES[family]
    state, half = make_state(), 0.2
    for halves in (2, 6):
        loop, _ = flipped(make(), signal, state, half, halves, RK4, half / 20)
        # Φ_{−h}Φ_h = 1 + O(h⁶) for RK4: 20 pairs of (3 · 0.01)⁶ a period
        assert gap(loop.state, state) < 1e-7
    loop, _ = flipped(make(), signal, state, half, 3, RK4, half / 20)
    assert gap(loop.state, state) > 0.05


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("step", [0.05, 0.3])
def test_implicit_midpoint_is_back_at_any_step(family, step):
    make, make_state, signal = FAMILIES[family]
    state = make_state()
    loop, _ = flipped(make(), signal, state, step, 4, ImplicitMidpoint(), step)
    assert gap(loop.state, state) < 1e-11  # Newton to 1e-14 in each of four steps
    once, _ = flipped(make(), signal, state, step, 1, ImplicitMidpoint(), step)
    assert gap(once.state, state) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_energy_is_kept_by_any_signs(family):
    make, make_state, signal = FAMILIES[family]
    system, state, piece = make(), make_state(), signal.piece(0.0)
    before = float(system.hamiltonian(0.0, state, piece(0.0)))
    for k, sign in enumerate((1, -1, -1, 1, 1, -1)):
        steps = 10 + 7 * k % 13
        state = RK4.advance(SignFlip(system, ConstantSign(sign)), piece, state, 0.0, 0.005, steps)
    # RK4: (3 · 0.005)⁴/120 a unit of time
    assert float(system.hamiltonian(0.0, state, piece(0.0))) == pytest.approx(before, rel=1e-8)
    for _ in range(6):
        state = EXPLICIT_EULER.advance(SignFlip(system, ConstantSign(1)), piece, state, 0.0, 0.005, 10)
    assert float(system.hamiltonian(0.0, state, piece(0.0))) != pytest.approx(before, rel=1e-4)


def test_energy_changes_by_the_work_of_a_moving_target():
    """H(T) − H(0) = ∫ ∂H/∂t dt, the sign not entering."""
    problem, signal, half = ScalarLinearQuadratic(-0.5, 1.0, 2.0, 0.5), sinusoid(1.5), 0.4
    system, n = LinearQuadraticEquations(problem.matrices()), 40
    policy = PeriodicFlip(half)
    times = [half * k / n for k in range(3 * n + 1)]
    loop = Loop(
        SignFlip(system, policy), FixedStep(RK4, half / n), policy.drive(signal), start_of(),
        until=times[-1], record_times=times,
    )  # fmt: skip
    ticks = [tick for tick in loop if tick.is_record]
    assert len(ticks) == 3 * n + 1
    energy = [float(system.hamiltonian(tick.t, tick.state, tick.inputs)) for tick in ticks]
    power = [
        -problem.tracking_weight * (float(tick.state.activity) - math.sin(1.5 * tick.t)) * 1.5 * math.cos(1.5 * tick.t)
        for tick in ticks
    ]
    # Simpson's rule stretch by stretch: x has a kink at each flip
    work = 0.0
    for k in range(3):
        part = power[k * n : (k + 1) * n + 1]
        work += (part[0] + part[-1] + 4 * sum(part[1:-1:2]) + 2 * sum(part[2:-1:2])) * half / n / 3
    assert energy[-1] - energy[0] == pytest.approx(work, abs=1e-7)
    assert abs(work) > 0.01


def test_hold_of_inputs_is_left_alone_by_a_constant_sign():
    inputs = target(3)
    system, state = LinearQuadraticEquations(make_quadratic(3)), make_quadratic_state(3)
    back = SignFlip(system, ConstantSign(-1)).vector_field(0.0, state, hold(inputs)(0.0))
    assert_same_bits(back, map_leaves(torch.neg, system.vector_field(0.0, state, inputs)))
