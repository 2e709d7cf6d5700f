"""Steps that a masked system cannot bear are refused before the run, with advice that it can follow."""

from __future__ import annotations

import math
import re

import pytest
import torch
from support.learning import draw

from nlsim.core.system import Coupled, Held, Inputs
from nlsim.errors import ScenarioError
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import beyond_stability
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build
from nlsim.systems.masked.neumiss import NeuMissFlow, gaussian_conditioning

WEATHER, BLACKOUT = "masked/weather", "masked/blackout"
RELAXED = ("implicit_sweep", "exponential_sweep", "exponential_euler", "etdrk2", "etdrk4")
"""Steppers that are stable at every r h, of a rate r that is that of a part alone."""


def flow(high: float, speed: float = 3.0) -> NeuMissFlow:
    turn, _ = torch.linalg.qr(draw(74, 4, 4))
    sigma = (turn * torch.linspace(0.3, high, 4, dtype=torch.float64)) @ turn.mT
    return gaussian_conditioning((sigma + sigma.mT) / 2, torch.zeros(4, dtype=torch.float64), speed)


def chosen(name: str, dt: float, *more: str) -> list[str]:
    return [f'stepper={{name="{name}", dt={dt}}}', *more]


@pytest.mark.parametrize("name", ["explicit_euler", *RELAXED])
def test_weather_refuses_a_step_that_neumiss_cannot_bear(name: str) -> None:
    with pytest.raises(ScenarioError, match="beyond the stability limit") as refused:
        build(load_scenario(WEATHER, overrides=chosen(name, 0.5)))
    assert "sweep" not in str(refused.value.advice)
    # and the advice can be followed
    assert "sdirk2" in str(refused.value.advice)
    build(load_scenario(WEATHER, overrides=chosen("sdirk2", 0.5)))


@pytest.mark.parametrize("name", RELAXED)
@pytest.mark.parametrize("high", [1.9, 2.5, 6.0])
def test_what_is_accepted_stays_and_what_is_refused_grows(name: str, high: float) -> None:
    system, inputs = flow(high), Inputs(torch.zeros(1, 4, dtype=torch.float64))
    assert isinstance(system, Coupled)
    stepper, long = STEPPERS[name], 1e3
    found = beyond_stability(stepper, system, long)
    # an eigenvector of the largest eigenvalue: what grows first
    start = torch.linalg.eigh(torch.eye(4, dtype=torch.float64) - system.coupling)[1][:, -1:].mT

    def growth(dt: float) -> float:
        return float(stepper.advance(system, Held(inputs), start, 0.0, dt, 1).norm())

    if found is None:
        assert growth(long) < 1
        return
    assert beyond_stability(stepper, system, 0.999 * found.largest_step) is None
    # a thousandth of a step changes the growth of a step by far more than rounding
    assert growth(0.999 * found.largest_step) < 1 < growth(1.001 * found.largest_step)
    assert found.rate == pytest.approx(3.0 * high, rel=1e-12)


@pytest.mark.parametrize("high", [1.9, 2.5, 6.0])
def test_the_limit_of_a_sweep_is_that_of_the_iteration(high: float) -> None:
    # the sweep is stable iff (1 − e^(−c h)) λ < 2
    found = beyond_stability(STEPPERS["exponential_sweep"], flow(high), 1e3)
    if high < 2:
        assert found is None
    else:
        assert found is not None
        assert found.largest_step == pytest.approx(-math.log(1 - 2 / high) / 3.0, rel=1e-9)
    unlike = beyond_stability(STEPPERS["implicit_sweep"], flow(high), 1e3)
    # and z/(1 + z) λ < 2 of the implicit one
    assert (unlike is None) == (high < 2)
    if unlike is not None:
        assert unlike.largest_step == pytest.approx(2 / (high - 2) / 3.0, rel=1e-9)


@pytest.mark.parametrize("name", ["rk4", "explicit_euler"])
def test_advice_names_no_stepper_that_the_system_lacks(name: str) -> None:
    system = 'system={name="masked_energy", inputs=6, neurons=4}'
    more = ["until=20", "record.every=10", 'record.channels=["energy"]', 'mask={name="random", rate=0.5, interval=10}']
    with pytest.raises(ScenarioError, match="beyond the stability limit") as refused:
        build(load_scenario(BLACKOUT, overrides=chosen(name, 10.0, system, *more)))
    advice = str(refused.value.advice)
    named = [each for each in STEPPERS if re.search(rf"\b{each}\b", advice)]
    assert named == ["sdirk2"]
    assert "sweep" not in advice
    build(load_scenario(BLACKOUT, overrides=chosen("sdirk2", 10.0, system, *more)))


def test_advice_still_names_the_sweep_where_it_helps() -> None:
    more = ["until=20", "record.every=10", "record.window=[]", 'mask={name="random", rate=0.5, interval=10}']
    with pytest.raises(ScenarioError, match="beyond the stability limit") as refused:
        build(load_scenario(BLACKOUT, overrides=chosen("rk4", 10.0, *more)))
    assert "exponential_sweep" in str(refused.value.advice)
    build(load_scenario(BLACKOUT, overrides=chosen("exponential_sweep", 10.0, *more)))
