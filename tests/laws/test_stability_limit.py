"""Declared stability limits: on ẏ = −r y a step just below shrinks, one just above grows."""

from __future__ import annotations

import mpmath
import pytest
import torch
from support.flow import Decay, RelaxingDecay, still
from support.steppers import FIRST as STEPPERS

from nlsim.integrate.explicit import RK4, ExplicitRungeKutta

LIMITED = {name: each for name, each in STEPPERS.items() if isinstance(each, ExplicitRungeKutta)}
UNLIMITED = {name: each for name, each in STEPPERS.items() if name not in LIMITED}
STEPS = 1000


def size_after(stepper, system, dt):
    start = torch.ones(1, dtype=torch.float64)
    return abs(float(stepper.advance(system, still, start, 0.0, dt, STEPS)))


@pytest.mark.parametrize("stepper", LIMITED.values(), ids=LIMITED)
@pytest.mark.parametrize("rate", [1.0, 7.0])
def test_the_limit_is_where_growth_begins(stepper, rate):
    # |R|' at the limit is between 1 and 2, so a margin of 1e-6 changes 1000 steps by a factor e^{±1e-3 or more}
    limit = stepper.stability_limit / rate
    assert size_after(stepper, Decay(rate), limit * (1 - 1e-6)) < 1 - 5e-4
    assert size_after(stepper, Decay(rate), limit * (1 + 1e-6)) > 1 + 5e-4


@pytest.mark.parametrize("stepper", LIMITED.values(), ids=LIMITED)
def test_no_smaller_step_grows(stepper):
    for fraction in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        assert size_after(stepper, Decay(), fraction * stepper.stability_limit) < 1


def test_limit_of_rk4_to_all_digits():
    with mpmath.workdps(30):
        root = mpmath.findroot(lambda z: 1 - z / 2 + z**2 / 6 - z**3 / 24, 2.78)
    assert RK4.stability_limit == float(root)


@pytest.mark.parametrize("stepper", UNLIMITED.values(), ids=UNLIMITED)
@pytest.mark.parametrize("z", [0.1, 1.0, 10.0, 1e6, 1e12])
def test_unlimited_steppers_shrink_at_any_step(stepper, z):
    assert stepper.stability_limit == float("inf")
    assert size_after(stepper, RelaxingDecay(z), 1.0) < 1
