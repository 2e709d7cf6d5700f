"""The loop lands on every instant that matters and shows there what drove the state."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_same_bits, snapshot
from support.flow import Decay, Silence
from support.learning import make_network, make_problem, make_sinusoid, make_state

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.loop import Loop
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, IMPLICIT_SWEEP
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.signals import HeldSamples

CONTROLS = {"fixed": FixedStep(RK4, 0.03), "adaptive": AdaptiveRungeKutta(rtol=1e-6)}
each_control = pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
AWKWARD_TIMES = [0.1 * n for n in range(11)]


class Integrator:
    """ẏ = u, and every time at which it is asked is written down."""

    def __init__(self):
        self.asked = []

    def vector_field(self, t, state, inputs):
        self.asked.append(t)
        return inputs.input.reshape(-1).expand_as(state)


def start():
    return torch.ones(1, dtype=torch.float64)


def numbered(interval, count=1000):
    values = torch.arange(count, dtype=torch.float64).unsqueeze(-1)
    return HeldSamples(values, values, 1, interval, 0)


@each_control
@pytest.mark.parametrize("times", [AWKWARD_TIMES, [0.07 * n for n in range(10)], [1 / 3, 2 / 3], [0.05]])
def test_record_times_are_met_exactly(control, times):
    loop = Loop(Decay(), control, Silence(), start(), until=1.0, record_times=times)
    assert [tick.t for tick in loop if tick.is_record] == times
    assert (loop.t, loop.ending) == (1.0, "reached_end")


@each_control
@pytest.mark.parametrize("interval", [0.1, 0.05, 1 / 3, 0.07])
def test_edges_are_met_exactly(control, interval):
    loop = Loop(Integrator(), control, numbered(interval), start(), until=1.0)
    met = {tick.t for tick in loop}
    edges = [n * interval for n in range(1, 1000) if n * interval < 1.0]
    assert set(edges) <= met


@each_control
@pytest.mark.parametrize("interval", [0.1, 0.07])
def test_inputs_shown_at_an_edge_are_those_that_end_there(control, interval):
    signal = numbered(interval)
    loop = Loop(Integrator(), control, signal, start(), until=1.0)
    shown = {tick.t: float(tick.inputs.input) for tick in loop}
    for index in range(1, round(1.0 / interval) - 1):
        ending = signal.piece((index - 0.5) * interval)(0.0)
        assert shown[index * interval] == float(ending.input)


@each_control
def test_held_inputs_are_integrated_exactly(control):
    # ẏ = u with u constant between edges: the integral is a sum, whatever the stepper
    signal, interval = numbered(0.1, count=50), 0.1
    loop = Loop(Integrator(), control, signal, torch.zeros(1, dtype=torch.float64), until=3.0, record_times=[3.0])
    *_, last = loop
    shown = [float(signal.piece(index * interval)(0.0).input) for index in range(30)]
    # 30 intervals of about 4 steps, each rounding at the size of the total
    assert float(last.state) == pytest.approx(interval * sum(shown), rel=200 * 2.0**-52)


@each_control
def test_no_step_looks_beyond_the_stretch_it_is_in(control):
    system = Integrator()
    list(Loop(system, control, numbered(0.1), start(), until=0.5, record_times=[0.25]))
    assert max(system.asked) <= 0.5 * (1 + 1e-15)


@each_control
def test_the_initial_state_is_never_written_to(control):
    state = start()
    list(Loop(Decay(), control, Silence(), state, until=1.0, record_times=AWKWARD_TIMES))
    assert_same_bits(state, start())


@pytest.mark.parametrize("stepper", [RK4, IMPLICIT_SWEEP, EXPONENTIAL_EULER], ids=lambda each: each.name)
def test_states_already_shown_are_never_written_to(stepper):
    network = make_network()
    system, signal, state = CostateReversal(make_problem(network)), make_sinusoid(network, 2), make_state(network, 2)
    before = snapshot(state)
    kept = []
    for tick in Loop(system, FixedStep(stepper, 0.01), signal, state, until=0.1, record_times=[0, 0.02, 0.05]):
        kept.append((tick.state, snapshot(tick.state)))
    assert len(kept) == 4
    for shown, copy in kept:
        assert_same_bits(shown, copy)
    assert_same_bits(state, before)


def test_recording_at_the_start_shows_the_initial_state():
    first = next(iter(Loop(Decay(), FixedStep(RK4, 0.1), Silence(), start(), until=1.0, record_times=[0.0])))
    assert (first.t, first.steps, first.is_record) == (0.0, 0, True)
    assert_same_bits(first.state, start())


def test_a_run_may_start_anywhere():
    loop = Loop(Decay(), FixedStep(RK4, 0.1), Silence(), start(), start=5.0, until=6.0, record_times=[5.5])
    assert [(tick.t, tick.steps) for tick in loop] == [(5.5, 5), (6.0, 10)]


@pytest.mark.parametrize("stepper", [IMPLICIT_SWEEP, EXPONENTIAL_EULER], ids=lambda each: each.name)
def test_a_stepper_that_needs_structure_refuses_before_any_step(stepper):
    system = Integrator()
    with pytest.raises(CapabilityError, match="Relaxing") as refusal:
        Loop(system, FixedStep(stepper, 0.1), Silence(), start(), until=1.0)
    assert system.asked == []
    assert stepper.name in str(refusal.value)
    assert "explicit or adaptive" in str(refusal.value)


def test_inputs_are_asked_at_the_stepper_s_own_times():
    class Asked:
        times: list[float] = []  # noqa: RUF012

        def edge_after(self, t):
            return float("inf")

        def piece(self, t):
            def at(now):
                self.times.append(now)
                return Inputs(torch.zeros(1))

            return at

    signal = Asked()
    loop = Loop(Integrator(), FixedStep(EXPLICIT_EULER, 0.25), signal, start(), until=1.0)
    list(loop)
    assert sorted(set(signal.times)) == [0.0, 0.25, 0.5, 0.75, 1.0]
