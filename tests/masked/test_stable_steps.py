"""Steps that a masked system cannot bear are refused before the run, with advice that it can follow."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from support.learning import draw

from nlsim.core.system import Coupled, Held, Inputs
from nlsim.errors import ScenarioError
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import beyond_stability
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.energy import MaskedEnergy
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


def test_bounds_of_activations_are_attained() -> None:
    a = torch.linspace(-12.0, 12.0, 240001, dtype=torch.float64, requires_grad=True)
    for activation in ACTIVATIONS.values():
        value = activation.value(a)
        (slope,) = torch.autograd.grad(value.sum(), a, create_graph=True)
        # within 1e-4 of the place of the supremum, or e^(−12) away from the end where it is only approached
        assert activation.steepness == pytest.approx(float(slope.detach().abs().max()), rel=1e-5)
        if activation.bound is not None:
            assert activation.bound == pytest.approx(float(value.detach().abs().max()), rel=1e-5)
        if activation.curvature is not None:
            bend = torch.autograd.grad(slope.sum(), a)[0] if slope.requires_grad else torch.zeros_like(a)
            assert activation.curvature == pytest.approx(float(bend.abs().max()), rel=1e-7)
    assert ACTIVATIONS["relu"].curvature is None


def random_energy(case: int, activation: str, nudge: float) -> tuple[MaskedEnergy, Inputs, torch.Tensor]:
    rng = np.random.default_rng([case, 7])
    scale = 10.0 ** rng.uniform(-1, 1, 3)
    w, v, b, u, z, s = (torch.as_tensor(rng.normal(size=n)) for n in ((5, 4), (5, 5), 5, (3, 4), (3, 2), (3, 5)))
    v = scale[0] * (v + v.mT) / 2
    pi = torch.as_tensor(rng.dirichlet(np.ones(4)))
    system = MaskedEnergy(
        scale[1] * w, v, ACTIVATIONS[activation], scale[2] * b, 1.7, nudge, pi if case % 2 else None, u.abs().amax(0)
    )
    return system, Inputs(u, z, torch.as_tensor(rng.uniform(size=(3, 4)))), 2 * s


CURVED = [("tanh", 0.0), ("tanh", 2.5), ("tanh", -0.6), ("logistic", 0.7), ("identity", 0.7)]


@pytest.mark.parametrize(("activation", "nudge"), CURVED)
def test_no_curvature_of_the_energy_exceeds_the_rate(activation: str, nudge: float) -> None:
    closest = 0.0
    for case in range(25):
        system, inputs, start = random_energy(case, activation, nudge)
        for state in (start, 0.0 * start):
            row = Inputs(inputs.input[:1], inputs.target[:1], inputs.mask[:1])  # type: ignore[index]
            hessian = torch.func.hessian(lambda s, e=system, i=row: e.energy(0.0, s[None], i).sum())(state[0])
            steepest = float(torch.linalg.eigvalsh(hessian).max()) * system.speed
            # eigenvalues of numbers up to some hundreds, in doubles
            assert steepest <= system.fastest_rate() * (1 + 1e-12)
            closest = max(closest, steepest / system.fastest_rate())
    assert closest >= 0.4  # a bound, and not an idle one


def test_coupling_that_excites_is_steep_where_activity_saturates() -> None:
    # of V = 6·1 without inputs the curvature is 1 + 6 (1 − t²)(3 t² − 1), t = tanh s: −5 at 0, and 3 where t² = 2/3
    system = MaskedEnergy(torch.zeros(2, 1).double(), 6.0 * torch.eye(2).double(), ACTIVATIONS["tanh"])
    state = torch.full((2,), math.atanh((2 / 3) ** 0.5), dtype=torch.float64)
    inputs = Inputs(torch.zeros(1, 1, dtype=torch.float64))
    hessian = torch.func.hessian(lambda s: system.energy(0.0, s[None], inputs).sum())(state)
    assert float(torch.linalg.eigvalsh(hessian).max()) == pytest.approx(3.0, rel=1e-13)
    assert 3.0 <= system.fastest_rate() <= 1 + 6 * 0.77 + 1e-2


@pytest.mark.parametrize(("activation", "nudge"), CURVED)
def test_energy_never_rises_in_a_step_that_is_accepted(activation: str, nudge: float) -> None:
    rose = 0
    for case in range(20):
        system, inputs, state = random_energy(case, activation, nudge)
        dt = 0.999 * 2.0 / system.fastest_rate()
        assert beyond_stability(EXPLICIT_EULER, system, dt) is None
        assert beyond_stability(EXPLICIT_EULER, system, 1.002 * dt) is not None
        long = state
        for _ in range(30):
            before, size = system.energy(0.0, state, inputs), state.square().sum(-1)
            state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, dt, 1)
            # some tens of roundings of the terms that E is summed from
            slack = 1e-14 * (1 + size + system.weight.abs().sum() * 10 + system.recurrent.abs().sum() * (1 + size))
            assert bool((system.energy(0.0, state, inputs) <= before + slack).all())
            after = EXPLICIT_EULER.advance(system, Held(inputs), long, 0.0, 6 * dt, 1)
            rose += int((system.energy(0.0, after, inputs) > system.energy(0.0, long, inputs) + slack).sum())
            long = after
    assert rose > 0  # what is not accepted may climb


@pytest.mark.parametrize("name", ["explicit_euler", "rk4"])
def test_strong_coupling_and_strong_inputs_count(name: str) -> None:
    more = ["until=35", "record.every=7", 'record.channels=["energy"]', 'mask={name="random", rate=1.0, interval=35}']

    def limit(system: str, *others: str) -> float:
        chosen_system = f'system={{name="masked_energy", inputs=6, neurons=8{system}}}'
        with pytest.raises(ScenarioError, match="beyond the stability limit") as refused:
            build(load_scenario(BLACKOUT, overrides=chosen(name, 7.0, chosen_system, *more, *others)))
        found = re.search(r"that is dt < (\S+)", refused.value.allowed or "")
        assert found
        return float(found[1])

    assert limit(", recurrent_norm=6.0") < 0.5 * limit("")
    assert limit("", "signal.amplitude=30.0") < 0.2 * limit("")
    assert limit(", bias=30.0") < 0.2 * limit("")
    strong = 'system={name="masked_energy", inputs=6, neurons=8, recurrent_norm=6.0}'
    with pytest.raises(ScenarioError, match="beyond the stability limit"):
        build(load_scenario(BLACKOUT, overrides=chosen(name, 0.7, strong, *more)))


@pytest.mark.parametrize("signal", ['name="samples", dataset="wine", batch=4, interval=1.0', 'name="series"'])
def test_the_rate_holds_for_the_largest_input_of_the_data(signal: str) -> None:
    is_series = "series" in signal
    samples = [f"signal={{{signal}, centred=true, scaled=true}}", 'mask={name="random", rate=0.5, interval=1}']
    text = [
        f'system={{name="masked_energy", inputs={9 if is_series else 13}, neurons=4}}',
        'record.channels=["energy"]', "until=50", "record.every=10", 'stepper={name="sdirk2", dt=0.5}',
        *([] if is_series else samples),
    ]  # fmt: skip
    simulation = build(load_scenario(WEATHER, overrides=text))
    largest = simulation.system.largest_input
    for j in range(50):
        inputs = simulation.signal.piece(float(j))(float(j))
        assert bool((torch.where(inputs.mask > 0, inputs.input.abs(), 0.0) <= largest).all())
    assert bool((largest > 1).all())
    assert bool((largest < 20).all())
