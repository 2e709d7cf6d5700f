"""How a stretch is divided into equal steps."""

from __future__ import annotations

import pytest
import torch
from support.flow import Decay, still

from nlsim.core.ending import Ending
from nlsim.integrate.control import FixedStep, step_count
from nlsim.integrate.explicit import EXPLICIT_EULER


@pytest.mark.parametrize("dt", [0.1, 0.05, 1 / 3, 0.07, 1e-3, 0.25])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 12345])
@pytest.mark.parametrize("start", [0.0, 0.3, 7.7])
def test_a_multiple_of_dt_keeps_dt_itself(dt, steps, start):
    # start + steps · dt rounds at 1e-16 of at most 4123, far below the nine digits that count as a multiple
    assert step_count(start, start + steps * dt, dt) == (steps, dt)


@pytest.mark.parametrize(("stretch", "steps"), [(0.25, 3), (0.99, 10), (0.01, 1), (1.001, 11)])
def test_any_other_stretch_is_divided_evenly_into_steps_not_longer_than_dt(stretch, steps):
    count, length = step_count(2.0, 2.0 + stretch, 0.1)
    assert count == steps
    assert length <= 0.1
    assert count * length == pytest.approx(stretch, rel=1e-14)


@pytest.mark.parametrize(("t", "until"), [(0.3, 0.1 * 3), (0.7, 0.1 * 7), (1.0, 1.0)])
def test_a_stretch_of_rounding_size_is_no_step(t, until):
    assert step_count(t, until, 0.1)[0] == 0


def test_reach_over_a_rounding_lands_without_a_step():
    state = torch.ones(1, dtype=torch.float64)
    outcome = FixedStep(EXPLICIT_EULER, 0.1).reach(Decay(), still, state, 0.3, 0.1 * 3, 0)
    assert (outcome.t, outcome.steps, outcome.ending) == (0.1 * 3, 0, None)
    assert float(outcome.state) == 1.0


@pytest.mark.parametrize(
    ("until", "steps", "reached"), [(1.0, 3, 0.3), (1.0, 10, 1.0), (1.0, 50, 1.0), (0.25, 1, 0.25 / 3)]
)
def test_horizon_is_on_the_grid_that_leads_to_the_end(until, steps, reached):
    assert FixedStep(EXPLICIT_EULER, 0.1).horizon(0.0, until, steps) == pytest.approx(reached, rel=1e-15)


def test_reach_lands_on_the_float_asked_for():
    control, state = FixedStep(EXPLICIT_EULER, 0.1), torch.ones(1, dtype=torch.float64)
    outcome = control.reach(Decay(), still, state, 0.0, 0.1 * 3, 100)
    assert (outcome.t, outcome.steps, outcome.ending) == (0.1 * 3, 3, None)


def test_reach_stops_within_the_budget_and_says_how_far_it_came():
    control, state = FixedStep(EXPLICIT_EULER, 0.25), torch.ones(1, dtype=torch.float64)
    outcome = control.reach(Decay(), still, state, 1.0, 2.0, 3)
    assert (outcome.t, outcome.steps, outcome.ending) == (1.75, 3, Ending.BUDGET_SPENT)
    assert float(outcome.state) == 0.75**3
    assert "max_steps" in outcome.detail
