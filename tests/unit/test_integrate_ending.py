"""Every way in which a run can end, and what it says then."""

from __future__ import annotations

import math

import pytest
import torch
from support.flow import Decay, Explosion, Oscillator, Silence

from nlsim.core.state import leaves
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.loop import Loop
from nlsim.systems.signals import HeldSamples

CONTROLS = {"fixed": FixedStep(RK4, 0.01), "adaptive": AdaptiveRungeKutta(rtol=1e-6)}
each_control = pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)


def one(value=1.0):
    return torch.full((1,), value, dtype=torch.float64)


def run(system, control, state, **options):
    loop = Loop(system, control, Silence(), state, **options)
    ticks = list(loop)
    return loop, ticks


class Shifted:
    """ẏ = r − y: at rest far from the origin."""

    def vector_field(self, t, state, inputs):
        return 1000.0 - state


class Creep:
    """ẏ = 1e-3: small state, never at rest."""

    def vector_field(self, t, state, inputs):
        return torch.full_like(state, 1e-3)


@each_control
def test_reached_end(control):
    loop, ticks = run(Decay(), control, one(), until=1.0)
    assert (loop.ending, loop.t, loop.detail) == ("reached_end", 1.0, "")
    assert ticks[-1].t == 1.0


@each_control
def test_rest_far_from_the_origin_is_steady(control):
    loop, ticks = run(Shifted(), control, one(1000.0), until=100.0, steady_tolerance=1e-6, record_times=[1.0, 2.0])
    assert loop.ending == "steady"
    assert loop.t <= 1.0
    assert "|f| = 0" in loop.detail
    assert ticks[-1].t == loop.t


@each_control
def test_a_small_state_that_moves_is_not_steady(control):
    # a test on the norm of the state would stop at the first look: |y| = 5e-5 < 1e-4 < |f| = 1e-3
    loop, _ = run(Creep(), control, one(1e-9), until=1.0, steady_tolerance=1e-4, record_times=[0.05, 0.5])
    assert loop.ending == "reached_end"
    assert float(loop.state) == pytest.approx(1e-3, rel=1e-5)


def test_steady_is_relative_to_the_size_of_the_state():
    # |f| = 1000 e^{-t} meets 1e-6 · |y| ≈ 1e-3 at t = ln 1e6 = 13.8; looked at every 10 steps of 0.1
    loop, _ = run(Shifted(), FixedStep(RK4, 0.1), one(0.0), until=100.0, steady_tolerance=1e-6, check_every=10)
    assert loop.ending == "steady"
    assert math.log(1e6) <= loop.t <= math.log(1e6) + 1.0 + 0.1


def test_without_a_tolerance_nothing_is_ever_steady():
    loop, _ = run(Shifted(), FixedStep(RK4, 0.1), one(1000.0), until=5.0)
    assert loop.ending == "reached_end"


@pytest.mark.parametrize("check_every", [1, 7, 1000])
def test_diverged_names_the_tensor_and_gives_back_the_last_good_state(check_every):
    class Half:
        """One part explodes, the other decays."""

        def vector_field(self, t, state, inputs):
            return {"calm": -state["calm"], "wild": state["wild"].square()}

    state = {"calm": one(), "wild": one()}
    loop, ticks = run(Half(), FixedStep(RK4, 0.01), state, until=3.0, check_every=check_every, record_times=[0.5, 2.5])
    assert loop.ending == "diverged"
    assert "wild is not finite" in loop.detail
    assert f"all was at t = {loop.t:.9g}" in loop.detail
    assert all(bool(torch.isfinite(leaf).all()) for leaf in leaves(loop.state))
    assert loop.steps == round(loop.t / 0.01)
    assert ticks[-1].t <= loop.t, "a state that went bad was shown"
    # blow-up is at t = 1; RK4 at dt = 0.01 follows it to within a few steps
    assert loop.t < 1.0 + 0.1


def test_a_state_that_went_bad_is_never_recorded():
    class Jumps:
        def vector_field(self, t, state, inputs):
            return inputs.input[0] * state

    huge = torch.full((10, 1), 1e300, dtype=torch.float64)
    loop = Loop(
        Jumps(),
        FixedStep(EXPLICIT_EULER, 0.1),
        HeldSamples(huge, huge, 1, 0.1),
        one(),
        until=5.0,
        record_times=[0.25 * n for n in range(20)],
    )
    shown = [tick.state for tick in loop if tick.is_record]
    assert loop.ending == "diverged"
    assert all(bool(torch.isfinite(state).all()) for state in shown)
    # it went bad at the second edge, was looked at at the first record, and is back where all was well
    assert (loop.t, loop.steps, float(loop.state)) == (0.0, 0, 1.0)


@pytest.mark.parametrize("check_every", [1, 3, 1000])
def test_budget_spent_after_exactly_so_many_steps(check_every):
    loop, _ = run(Decay(), FixedStep(EXPLICIT_EULER, 0.01), one(), until=1.0, max_steps=25, check_every=check_every)
    assert (loop.ending, loop.steps) == ("budget_spent", 25)
    assert loop.t == pytest.approx(0.25, rel=1e-12)
    assert float(loop.state) == pytest.approx(0.99**25, rel=1e-12)
    assert loop.detail


def test_a_budget_that_is_just_enough_reaches_the_end():
    loop, _ = run(Decay(), FixedStep(EXPLICIT_EULER, 0.25), one(), until=1.0, max_steps=4, record_times=[0.5, 1.0])
    assert (loop.ending, loop.steps) == ("reached_end", 4)


def test_an_adaptive_run_with_many_short_stretches_keeps_to_its_budget():
    times = [0.01 * n for n in range(1, 100)]
    loop, _ = run(
        Oscillator(),
        AdaptiveRungeKutta(),
        torch.ones(1, 2, dtype=torch.float64),
        until=1.0,
        record_times=times,
        max_steps=5,
    )
    assert loop.ending == "budget_spent"
    assert loop.steps <= 5


@each_control
def test_interrupted_from_outside(control):
    loop = Loop(Decay(), control, Silence(), one(), until=1.0, record_times=[0.25, 0.5, 0.75])
    for tick in loop:
        if tick.t == 0.5:
            loop.interrupt()
    assert (loop.ending, loop.t) == ("interrupted", 0.5)
    assert "0.5" in loop.detail
    assert float(loop.state) == pytest.approx(math.exp(-0.5), rel=1e-5)


def test_a_run_that_is_over_cannot_be_interrupted():
    loop = Loop(Decay(), FixedStep(RK4, 0.1), Silence(), one(), until=1.0)
    for tick in loop:
        if tick.t == 1.0:
            loop.interrupt()
    assert loop.ending == "reached_end"


def test_explosion_in_fixed_steps_diverges_after_the_singularity():
    loop, _ = run(Explosion(), FixedStep(EXPLICIT_EULER, 0.01), one(), until=10.0, check_every=1)
    assert loop.ending == "diverged"
    assert loop.t > 1.0
