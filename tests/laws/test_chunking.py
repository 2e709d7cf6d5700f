"""Where the loop looks, and where it was resumed, changes nothing: not one bit with held inputs."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits
from support.flow import Decay
from support.learning import draw, make_inputs, make_network, make_problem, make_sinusoid, make_state
from support.steppers import FIRST as STEPPERS

from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.signals import Constant, HeldSamples

NETWORK = make_network()
SYSTEM = CostateReversal(make_problem(NETWORK))
STATE = make_state(NETWORK, 2)

each_stepper = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)


def stream(interval):
    return HeldSamples(draw(1, 9, 3), draw(2, 9, 2), 2, interval, 5)


def final(stepper, signal, check_every, *, dt=0.05, until=1.0, start=0.0, state=STATE, record_times=()):
    loop = Loop(
        SYSTEM,
        FixedStep(stepper, dt),
        signal,
        state,
        until=until,
        start=start,
        check_every=check_every,
        record_times=record_times,
    )
    list(loop)
    assert loop.ending == "reached_end"
    return loop


@each_stepper
@pytest.mark.parametrize(
    "signal",
    [stream(0.1), stream(0.5), Constant(make_inputs(NETWORK, 2))],
    ids=["two steps a sample", "ten steps a sample", "static"],
)
@pytest.mark.parametrize("check_every", [1, 7])
def test_looking_more_often_changes_no_bit(stepper, signal, check_every):
    often, seldom = final(stepper, signal, check_every), final(stepper, signal, 1000)
    assert often.steps == seldom.steps == 20
    assert_same_bits(often.state, seldom.state)


@each_stepper
@pytest.mark.parametrize(
    ("signal", "dt"), [(make_sinusoid(NETWORK, 2), 0.05), (stream(0.17), 0.05)], ids=["moving", "uneven steps"]
)
def test_looking_more_often_at_moving_inputs_or_uneven_steps_changes_round_off_only(stepper, signal, dt):
    often, seldom = final(stepper, signal, 1, dt=dt), final(stepper, signal, 1000, dt=dt)
    assert often.steps == seldom.steps
    # each step's time, or length, differs by a rounding of about 1, and so does what the step adds
    assert_round_off(often.state, seldom.state, 10 * often.steps)


@each_stepper
@pytest.mark.parametrize(("interval", "stop"), [(0.1, 0.3), (0.1, 0.1 * 3), (0.1, 0.7), (0.5, 0.65), (0.17, 0.34)])
def test_a_run_resumed_at_a_record_time_is_the_run_itself(stepper, interval, stop):
    signal = stream(interval)
    whole = final(stepper, signal, 100, record_times=[stop])
    first = final(stepper, signal, 100, until=stop)
    second = final(stepper, signal, 100, start=stop, state=first.state)
    assert first.steps + second.steps == whole.steps
    assert_same_bits(second.state, whole.state)


@pytest.mark.parametrize(("interval", "stop"), [(0.1, 0.3), (0.1, 0.1 * 3), (0.1, 0.7), (0.5, 0.65)])
def test_an_adaptive_run_resumed_at_a_record_time_is_the_run_itself(interval, stop):
    # 0.3 is one rounding before the edge 3 · 0.1, and both runs must take it for the edge
    signal, control = stream(interval), AdaptiveRungeKutta(rtol=1e-5, atol=1e-7)

    def run(state, start, until):
        loop = Loop(SYSTEM, control, signal, state, start=start, until=until, record_times=[stop])
        list(loop)
        return loop

    whole, first = run(STATE, 0.0, 1.0), run(STATE, 0.0, stop)
    second = Loop(SYSTEM, control, signal, first.state, start=stop, until=1.0)
    list(second)
    assert first.steps + second.steps == whole.steps
    assert_same_bits(second.state, whole.state)


@pytest.mark.parametrize(("interval", "every"), [(0.3, 0.9), (0.1, 0.3), (0.07, 0.21), (1 / 3, 1.0), (0.7, 0.7)])
def test_a_record_at_an_edge_shows_the_batch_that_ends_there(interval, every):
    """However k·every and j·interval are rounded: they are one instant, before the next batch is shown."""
    count = 40
    samples = torch.arange(1000, dtype=torch.float64)[:, None]
    signal = HeldSamples(samples, samples, 1, interval, seed=3)
    per_record = round(every / interval)
    loop = Loop(
        Decay(1.0),
        FixedStep(EXPLICIT_EULER, interval / 2),
        signal,
        torch.ones(1, dtype=torch.float64),
        until=count * every,
        record_times=[k * every for k in range(count + 1)],
    )
    seen = [tick for tick in loop if tick.is_record]
    assert len(seen) == count + 1
    for k, tick in enumerate(seen[1:], start=1):
        held = signal.piece((k * per_record - 0.5) * interval)(0.0)
        assert torch.equal(tick.inputs.input, held.input), f"record {k}"
        assert tick.steps == 2 * per_record * k
