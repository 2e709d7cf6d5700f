"""Sign flips: when they happen, what they keep, what a flow makes of them and what Euler's method does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from support.compare import assert_round_off, assert_same_bits, gap
from support.control import (
    make_quadratic,
    make_quadratic_state,
    make_tracking,
    make_tracking_state,
    sinusoid,
    target,
)
from support.flow import Decay, Silence
from support.learning import draw, member

from nlsim.analysis.orders import observed_order
from nlsim.core.state import leaves, map_leaves
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.averaged_flip import AveragedFlip, flip_factor, largest_flip_step, tracking_ratio
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import ConstantSign, PeriodicFlip, SignedInputs, SignFlip, TrackBall
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant, HeldSamples, hold
from nlsim.theorems.hamiltonian.flip_runs import network_tracking, scalar_tracking
from nlsim.theorems.hamiltonian.midpoint import ImplicitMidpoint

SCALAR = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)


def start_of(x=0.3, p=-0.2):
    return LinearQuadraticState(*(torch.full((1, 1), v, dtype=torch.float64) for v in (x, p)))


def flipped(system, signal, state, half_period, halves, stepper, step, **options):
    policy = PeriodicFlip(half_period)
    loop = Loop(
        SignFlip(system, policy), FixedStep(stepper, step), policy.drive(signal), state,
        until=halves * half_period, **options,
    )  # fmt: skip
    ticks = list(loop)
    return loop, ticks


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


FAMILIES = {
    "quadratic": (
        lambda: LinearQuadraticEquations(make_quadratic(3)),
        lambda: make_quadratic_state(3),
        Constant(target(3)),
    ),
    "tracking": (
        lambda: TrackingEquations(make_tracking(dissipation=0.0)),
        make_tracking_state,
        Constant(target(2)),
    ),
}


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


def test_two_euler_steps_multiply_a_free_system_by_its_factor():
    problem = make_quadratic(3)
    state, tau = make_quadratic_state(3), 0.05
    loop, _ = flipped(LinearQuadraticEquations(problem), Constant(Inputs()), state, tau, 2, EXPLICIT_EULER, tau)
    blocks = torch.cat(
        (
            torch.cat((problem.drift, -problem.actuation), 1),
            torch.cat((-problem.tracking_weight, -problem.drift.T), 1),
        )
    )
    expected = torch.cat((state.activity, state.costate), 1) @ (torch.eye(6) - tau**2 * blocks @ blocks).T
    assert_round_off(torch.cat((loop.state.activity, loop.state.costate), 1), expected, 50)
    loop, _ = flipped(
        LinearQuadraticEquations(SCALAR.matrices()), Constant(Inputs()), start_of(), 0.02, 2, EXPLICIT_EULER, 0.02
    )
    factor = flip_factor(SCALAR.rate, 0.02)
    assert factor == pytest.approx(1 - 0.0004 * 1001, rel=1e-12)
    assert_round_off(loop.state, map_leaves(lambda leaf: factor * leaf, start_of()), 20)


@pytest.mark.parametrize(("scaled", "grows"), [(1.40, False), (1.43, True)])
def test_flipped_euler_is_stable_below_root_two(scaled, grows):
    tau = scaled / SCALAR.rate
    assert (tau < largest_flip_step(SCALAR.rate)) is not grows
    loop, _ = flipped(
        LinearQuadraticEquations(SCALAR.matrices()), Constant(Inputs()), start_of(), tau, 60, EXPLICIT_EULER, tau
    )
    assert (float(loop.state.activity) > 0.3) is grows


@pytest.mark.parametrize("family", FAMILIES)
def test_averaged_field_against_finite_differences(family):
    make, make_state, _ = FAMILIES[family]
    signal = sinusoid(1.5, outputs=3 if family == "quadratic" else 2)
    system, state, tau, now = make(), make_state(), 0.02, 0.7
    piece = signal.piece(0.0)
    field = system.vector_field(now, state, piece(now))
    found = AveragedFlip(system, piece, tau).vector_field(now, state, piece(now))
    step = 1e-4

    def at(side):
        t = now + side * step
        moved = map_leaves(lambda y, f: y + side * step * f, state, field)
        return system.vector_field(t, moved, piece(t))

    expected = map_leaves(lambda a, b: -tau / 2 * (a - b) / (2 * step), at(+1), at(-1))
    # central differences: third derivatives of some ten times step², and roundings over step
    assert gap(found, expected) < 1e-7
    assert max(float(leaf.abs().max()) for leaf in leaves(found)) > 1e-2


def test_flipped_euler_follows_the_averaged_equation():
    problem = ScalarLinearQuadratic(-1.0, 1.0, 1.0, 0.1)
    matrix = np.array([[-1.0, -problem.actuation], [-1.0, 1.0]])
    slow, errors, steps = 0.04, [], (0.02, 0.01)  # 100 and 400 steps
    for tau in steps:
        halves = round(slow / tau**2)
        loop, _ = flipped(
            LinearQuadraticEquations(problem.matrices()),
            Constant(Inputs()),
            start_of(),
            tau,
            halves,
            EXPLICIT_EULER,
            tau,
        )
        expected = expm(-tau / 2 * matrix @ matrix * halves * tau) @ np.array([0.3, -0.2])
        errors.append(abs(float(loop.state.activity) - expected[0]) + abs(float(loop.state.costate) - expected[1]))
    # (1 − τ²μ²)^{T/2τ} = e^{−τμ²T/2}(1 − τ³μ⁴T/4 …): second order in τ at fixed τT
    assert observed_order(steps, errors) == pytest.approx(2.0, abs=0.05)


def test_tracking_error_is_that_of_the_formula_and_doubles_when_the_step_is_halved():
    period = 4 * math.pi
    found = []
    for tau in (0.04, 0.02, 0.01):
        step = period / round(period / tau)
        found.append(float(scalar_tracking([100.0], step=step, horizon=2 * period).relative))
        # corrections of order (τω)² and of the odd steps, below one in a hundred
        assert found[-1] == pytest.approx(tracking_ratio(SCALAR, 0.5, step), rel=0.01)
    assert found[1] / found[0] == pytest.approx(2.0, abs=0.03)
    assert found[2] / found[1] == pytest.approx(2.0, abs=0.03)


def test_tracking_formula_by_complex_response():
    problem, omega, tau = ScalarLinearQuadratic(0.8, 1.0, 30.0, 0.2), 0.7, 0.03
    matrix = np.array([[0.8, -problem.actuation], [-30.0, -0.8]])
    drive = np.array([0.0, 30.0])
    # iω Y = −(τ/2)(A² Y + A b + iω b)
    right = -tau / 2 * (matrix @ drive + 1j * omega * drive)
    response = np.linalg.solve(1j * omega * np.eye(2) + tau / 2 * matrix @ matrix, right)
    assert tracking_ratio(problem, omega, tau) == pytest.approx(abs(response[0] - 1), rel=1e-12)


def test_scalar_table():
    # the reference numbers, of two digits
    rms = scalar_tracking([10.0, 100.0, 1000.0]).rms.tolist()
    assert rms == pytest.approx([0.51, 0.070, 0.0070], rel=0.01)


@pytest.mark.slow
def test_scalar_table_without_euler():
    assert float(scalar_tracking([100.0], stepper=RK4).rms) == pytest.approx(0.83, abs=0.01)
    assert float(scalar_tracking([100.0], stepper=ImplicitMidpoint()).rms) == pytest.approx(0.84, abs=0.01)


def reference_start(seed):
    """Return the start of the reference runs: numpy's default generator, x before W."""
    numbers = np.random.default_rng(seed)
    activity = numbers.uniform(-1, 1, (1, 5))
    return torch.as_tensor(activity), torch.as_tensor(numbers.uniform(-1, 1, (5, 5)))


def test_network_table():
    relative = network_tracking([1.0, 10.0, 100.0, 1000.0], range(3), initial=reference_start).relative
    # four digits of an independent program in numpy
    expected = [[1.0013, 1.0010, 0.9997], [0.9990, 0.9984, 1.0011], [0.2990, 0.3024, 0.2848], [0.0260, 0.0304, 0.0100]]
    np.testing.assert_allclose(relative.numpy(), expected, atol=6e-5)


@pytest.mark.slow
def test_network_without_euler_and_with_longer_stretches():
    flow = network_tracking([1000.0], range(6), initial=reference_start, stepper=RK4).relative
    assert 1.0 < float(flow.min()) < float(flow.max()) < 2.8
    for halves, most in ((2, 0.04), (4, 0.04)):
        found = network_tracking([1000.0], range(3), initial=reference_start, half_period=0.05 * halves).relative
        assert float(found.max()) < most
    longest = network_tracking([1000.0], range(3), initial=reference_start, half_period=0.4).relative
    assert float(longest.max()) > 0.5
    halved = network_tracking([1000.0], range(3), initial=reference_start, step=0.025).relative
    np.testing.assert_allclose(halved / torch.tensor([0.0260, 0.0304, 0.0100]), 2.0, atol=0.15)


def test_hold_of_inputs_is_left_alone_by_a_constant_sign():
    inputs = target(3)
    system, state = LinearQuadraticEquations(make_quadratic(3)), make_quadratic_state(3)
    back = SignFlip(system, ConstantSign(-1)).vector_field(0.0, state, hold(inputs)(0.0))
    assert_same_bits(back, map_leaves(torch.neg, system.vector_field(0.0, state, inputs)))
