"""Jumps: at every edge that is come to, once, before anything of the next interval; shown is what was before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from support.compare import assert_same_bits, snapshot
from support.flow import Decay, Silence
from support.learning import draw
from support.robust import FORMS, make_learning, make_weights

from nlsim.core.system import Jumping
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.loop import Loop
from nlsim.integrate.ordered import ORDERED_EULER
from nlsim.systems.hamiltonian.reset import SampleReset
from nlsim.systems.signals import HeldSamples

CONTROLS = {"fixed": FixedStep(RK4, 0.03), "adaptive": AdaptiveRungeKutta(rtol=1e-6)}
each_control = pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)


class Counter:
    """ẏ = 0; every jump adds 1 and writes down when it was made and what the inputs were."""

    def __init__(self):
        self.jumps = []

    def vector_field(self, t, state, inputs):
        return torch.zeros_like(state)

    def jump(self, t, state, ended, begun):
        self.jumps.append((t, float(ended.input)))
        return state + 1


@dataclass(frozen=True)
class Sawtooth:
    """ẏ = 1 with a jump to 0: y is the time since the last edge."""

    def vector_field(self, t, state, inputs):
        return torch.ones_like(state)

    def jump(self, t, state, ended, begun):
        return torch.zeros_like(state)


def zero():
    return torch.zeros(1, dtype=torch.float64)


def numbered(interval, count=1000):
    values = torch.arange(count, dtype=torch.float64).unsqueeze(-1)
    return HeldSamples(values, values, 1, interval, 0)


def shown(signal, index):
    """Return the number that a signal shows in an interval."""
    return float(signal.piece((index + 0.5) * signal.interval)(0.0).input)


@each_control
@pytest.mark.parametrize("interval", [0.1, 0.07, 1 / 3])
def test_every_edge_makes_one_jump_with_the_inputs_that_end_there(control, interval):
    system, signal = Counter(), numbered(interval)
    loop = Loop(system, control, signal, zero(), until=1.04, record_times=[0.05, 0.5, 0.9])
    list(loop)
    edges = [n * interval for n in range(1, 100) if n * interval < 1.04]
    assert system.jumps == [(edge, shown(signal, index)) for index, edge in enumerate(edges)]
    assert float(loop.state) == len(edges)


@each_control
def test_a_record_time_at_an_edge_shows_the_state_before_the_jump(control):
    loop = Loop(Sawtooth(), control, numbered(0.25), zero(), until=1.0, record_times=[0.0, 0.25, 0.4, 0.5, 1.0])
    ticks = {tick.t: float(tick.state) for tick in loop if tick.is_record}
    # ẏ = 1 is integrated exactly but for a rounding a step
    assert ticks == pytest.approx({0.0: 0.0, 0.25: 0.25, 0.4: 0.15, 0.5: 0.25, 1.0: 0.25}, abs=1e-14)


@each_control
def test_the_loop_goes_on_from_the_state_after_the_jump(control):
    loop = Loop(Sawtooth(), control, numbered(0.25), zero(), until=1.0)
    for tick in loop:
        if tick.t in (0.25, 0.5, 0.75, 1.0):
            assert (float(tick.state) > 0.2, float(loop.state)) == (True, 0.0)
    assert (loop.ending, loop.t) == ("reached_end", 1.0)


@each_control
def test_there_is_no_jump_at_the_start(control):
    system = Counter()
    loop = Loop(system, control, numbered(0.25), zero(), until=0.2, record_times=[0.0, 0.2])
    assert [float(tick.state) for tick in loop] == [0.0, 0.0]
    assert system.jumps == []


@each_control
def test_inputs_without_edges_make_no_jump(control):
    system = Counter()
    list(Loop(system, control, Silence(), zero(), until=1.0, record_times=[0.5]))
    assert system.jumps == []


@each_control
@pytest.mark.parametrize("stop", [0.3, 0.1 * 3])
def test_a_record_time_a_rounding_before_an_edge_is_the_edge(control, stop):
    # 0.3 is a rounding less than 3 · 0.1; both are one instant, and there is one jump
    system = Counter()
    loop = Loop(system, control, numbered(0.1), zero(), until=0.35, record_times=[stop])
    ticks = [(tick.t, float(tick.state)) for tick in loop]
    assert ticks == [(0.1, 0.0), (0.2, 1.0), (stop, 2.0), (0.35, 3.0)]
    assert len(system.jumps) == 3


@dataclass(frozen=True)
class Kick:
    """ẏ = −y, and at an edge y⁺ = 2 y + t + u: order, time and inputs all matter."""

    def vector_field(self, t, state, inputs):
        return -state

    def jump(self, t, state, ended, begun):
        return 2 * state + t + ended.input.reshape(-1)


@each_control
@pytest.mark.parametrize("stop", [0.1, 0.3, 0.1 * 3, 0.25, 0.5])
def test_a_run_resumed_at_an_edge_or_between_is_the_run_itself(control, stop):
    signal = numbered(0.1)

    def run(state, start, until, record_times=()):
        loop = Loop(Kick(), control, signal, state, start=start, until=until, record_times=record_times)
        list(loop)
        return loop.state

    whole = run(zero() + 1, 0.0, 1.0, [stop])
    assert_same_bits(run(run(zero() + 1, 0.0, stop), stop, 1.0), whole)


@each_control
def test_a_jumping_flow_is_the_closed_form(control):
    signal, y = numbered(0.1), 1.0
    loop = Loop(Kick(), control, signal, zero() + y, until=0.4)
    list(loop)
    for index in range(4):
        y = 2 * y * math.exp(-0.1) + 0.1 * (index + 1) + shown(signal, index)
    # RK4 at 0.025 errs by 1e-10 relative a stretch, the adaptive one by 1e-6 a step; jumps double errors
    assert float(loop.state) == pytest.approx(y, rel=1e-4)


class Burst(Counter):
    """The third jump is to infinity."""

    def jump(self, t, state, ended, begun):
        return super().jump(t, state, ended, begun) / (0.0 if len(self.jumps) == 3 else 1.0)


@pytest.mark.parametrize(("record_times", "check_every", "good"), [([], 1, 0.3), ([0.3], 100, 0.3), ([0.1], 100, 0.1)])
def test_a_jump_to_infinity_is_a_divergence_and_keeps_the_last_good_state(record_times, check_every, good):
    loop = Loop(
        Burst(),
        FixedStep(RK4, 0.1),
        numbered(0.1),
        zero(),
        until=1.0,
        record_times=record_times,
        check_every=check_every,
    )
    ticks = list(loop)
    assert (loop.ending, loop.t) == ("diverged", pytest.approx(good, rel=1e-15))
    assert f"at t = {good:g}" in loop.detail
    # looked at where it happens, it is the state before the jump; else the last one looked at, after its jump
    assert float(loop.state) == (2.0 if good == 0.3 else 1.0)
    assert [float(tick.state) for tick in ticks[:3]] == [0.0, 1.0, 2.0]


def test_a_divergence_after_a_jump_goes_back_to_the_state_after_the_jump():
    class Doomed(Sawtooth):
        def vector_field(self, t, state, inputs):
            return torch.full_like(state, float("inf")) if t >= 0.25 else torch.ones_like(state)

    loop = Loop(Doomed(), FixedStep(EXPLICIT_EULER, 0.05), numbered(0.25), zero(), until=1.0, record_times=[0.25])
    list(loop)
    assert (loop.ending, loop.t, float(loop.state)) == ("diverged", 0.25, 0.0)


def test_an_interrupted_run_has_made_its_jump():
    loop = Loop(Sawtooth(), FixedStep(RK4, 0.05), numbered(0.25), zero(), until=1.0)
    for tick in loop:
        if tick.t == 0.25:
            loop.interrupt()
    assert (loop.ending, loop.t, float(loop.state)) == ("interrupted", 0.25, 0.0)


def test_states_shown_before_a_jump_are_never_written_to():
    learning = make_learning(FORMS["recurrent"])
    system, state = SampleReset(learning), learning.initial_state(make_weights(FORMS["recurrent"]), 2)
    signal = HeldSamples(draw(1, 9, 3), torch.softmax(draw(2, 9, 2), -1), 2, 0.2, 0)
    kept = [
        (tick.state, snapshot(tick.state))
        for tick in Loop(system, FixedStep(ORDERED_EULER, 0.1), signal, state, until=1.0)
    ]
    assert len(kept) == 5
    for seen, copy in kept:
        assert_same_bits(seen, copy)
        assert float(seen.costate[0].abs().max()) > 0


def test_a_reset_clears_state_and_costate_and_leaves_what_was_learned():
    learning = make_learning(FORMS["layers and output"])
    system, state = SampleReset(learning), learning.initial_state(make_weights(FORMS["layers and output"]), 2)
    signal = HeldSamples(draw(1, 9, 3), torch.softmax(draw(2, 9, 2), -1), 2, 0.2, 0)
    loop = Loop(system, FixedStep(ORDERED_EULER, 0.1), signal, state, until=1.0)
    for tick in loop:
        assert all(float(h.abs().max()) == 0.0 for h in (*loop.state.activity, *loop.state.costate))
        assert_same_bits((loop.state.weight, loop.state.weight_costate), (tick.state.weight, tick.state.weight_costate))
        assert float(tick.state.activity[-1].abs().max()) > 0


def test_only_systems_with_a_jump_are_jumping():
    learning = make_learning(FORMS["recurrent"])
    assert isinstance(SampleReset(learning), Jumping)
    assert not isinstance(learning, Jumping)
    assert not isinstance(Decay(), Jumping)
