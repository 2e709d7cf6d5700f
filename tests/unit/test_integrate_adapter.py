"""The adaptive control: its endings by name, with detail, and the state it was given left alone."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_same_bits, snapshot
from support.flow import Oscillator, still

from nlsim.core.ending import Ending
from nlsim.integrate.adapter import METHODS, AdaptiveRungeKutta

each_method = pytest.mark.parametrize("method", METHODS)


def point():
    return torch.tensor([1.0, 0.0], dtype=torch.float64)


def reach(control, system, state, until, max_steps=100_000):
    return control.reach(system, still, state, 0.0, until, max_steps)


@each_method
def test_reaches_the_end_on_its_own_step(method):
    control, state = AdaptiveRungeKutta(method, rtol=1e-6, atol=1e-9), point()
    outcome = reach(control, Oscillator(), state, 1.0)
    assert (outcome.t, outcome.ending) == (1.0, None)
    assert outcome.steps >= 1
    # a rotation keeps errors as they are: local errors of about rtol (estimates, hence a factor 3) add up
    assert float((outcome.state - Oscillator().exact(1.0)).abs().max()) <= 3e-6 * (outcome.steps + 1)
    assert_same_bits(state, point())


def test_a_budget_too_small_is_spent():
    state = point()
    outcome = reach(AdaptiveRungeKutta(rtol=1e-10), Oscillator(), state, 10.0, max_steps=5)
    assert outcome.ending == Ending.BUDGET_SPENT
    assert "max_steps" in outcome.detail
    assert "between t = 0 and 10" in outcome.detail
    # a failed stretch gives back what it began with
    assert outcome.t == 0.0
    assert_same_bits(outcome.state, point())


def test_a_budget_of_nothing_takes_no_step():
    outcome = reach(AdaptiveRungeKutta(), Oscillator(), point(), 1.0, max_steps=0)
    assert (outcome.ending, outcome.steps, outcome.t) == (Ending.BUDGET_SPENT, 0, 0.0)


def test_a_rejected_step_of_min_step_is_too_small():
    # at rate 1000 the error of a step of 0.1 is far above any tolerance
    control, state = AdaptiveRungeKutta(rtol=1e-10, min_step=0.1), torch.ones(1, dtype=torch.float64)
    outcome = reach(control, Late(), state, 2.0)
    assert outcome.ending == Ending.STEP_TOO_SMALL
    assert "min_step = 0.1" in outcome.detail
    assert (outcome.t, float(outcome.state)) == (0.0, 1.0)


def test_without_min_step_the_same_run_reaches_its_end():
    outcome = reach(AdaptiveRungeKutta(rtol=1e-10), Late(), torch.ones(1, dtype=torch.float64), 2.0)
    assert outcome.ending is None


class Late:
    """Calm until t = 1, then decaying fast."""

    def __init__(self, rate=1e3):
        self.rate = rate

    def vector_field(self, t, y, inputs):
        return torch.zeros_like(y) if t < 1.0 else -self.rate * y


class Growth:
    """ẏ = 800 y, which from 1e250 overflows at t = 0.168."""

    def vector_field(self, t, y, inputs):
        return {"calm": -y["calm"], "wild": 800.0 * y["wild"]}


class Singular:
    """ẏ = y² beside a calm part; infinite at t = 1."""

    def vector_field(self, t, y, inputs):
        return {"calm": -y["calm"], "wild": y["wild"].square()}


@each_method
@pytest.mark.parametrize(("system", "first"), [(Growth(), 1e250), (Singular(), 1.0)], ids=["overflow", "finite time"])
def test_blowing_up_is_divergence_with_the_tensor_named(method, system, first):
    state = {name: torch.full((1,), value, dtype=torch.float64) for name, value in (("calm", 1.0), ("wild", first))}
    before = snapshot(state)
    outcome = reach(AdaptiveRungeKutta(method, rtol=1e-2, atol=1e-4), system, state, 2.0)
    assert outcome.ending == Ending.DIVERGED
    assert outcome.detail.startswith("wild")
    assert "between t = 0 and 2" in outcome.detail
    assert outcome.t == 0.0
    assert_same_bits(outcome.state, before)
    assert_same_bits(state, before)


def test_a_bounded_state_whose_steps_vanish_is_not_called_divergence():
    # a rate of 1e20 asks for steps of 1e-20, which times near 1 cannot resolve
    outcome = reach(AdaptiveRungeKutta(rtol=1e-8), Late(1e20), torch.ones(1, dtype=torch.float64), 2.0)
    assert outcome.ending == Ending.STEP_TOO_SMALL
    assert "resolution of time" in outcome.detail


def test_an_error_in_the_vector_field_is_not_swallowed():
    class Broken:
        def vector_field(self, t, y, inputs):
            raise AssertionError("a fault of the system's own")

    with pytest.raises(AssertionError, match="of the system's own"):
        reach(AdaptiveRungeKutta(), Broken(), point(), 1.0)


def test_horizon_is_not_cut_by_looks():
    assert AdaptiveRungeKutta().horizon(3.0, 50.0, 10) == 50.0
