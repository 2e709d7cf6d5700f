"""Endings: which are successes, and that each says what to do next."""

from __future__ import annotations

import pytest

from nlsim.core.ending import Ending


def test_the_seven_ways_to_end():
    assert [each.value for each in Ending] == [
        "reached_end",
        "steady",
        "diverged",
        "step_too_small",
        "not_converged",
        "budget_spent",
        "interrupted",
    ]


@pytest.mark.parametrize("ending", Ending)
def test_each_has_advice_and_a_verdict(ending):
    assert len(ending.advice) > 20
    assert ending.is_success == (ending in {Ending.REACHED_END, Ending.STEADY})
