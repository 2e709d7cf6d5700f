"""A run that is stopped and goes on from its file is the run that was never stopped, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.resuming import ALL, OFFERED, REPRESENTATIVE, SYSTEM, assert_resumes, scenario, stop_at

from nlsim.core.state import named_leaves
from nlsim.errors import CapabilityError
from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.scenario.load import parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.run import loop_of, run
from nlsim.systems.catalogue import SYSTEMS


@pytest.fixture(autouse=True)
def _revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlsim.simulation.provenance.revision", lambda: "one and the same")  # git costs a moment


def test_the_table_names_every_system_and_stepper() -> None:
    assert set(OFFERED) == set(SYSTEM) == set(SYSTEMS)
    assert {stepper for _, stepper in REPRESENTATIVE} == {stepper for _, stepper in ALL} == {*STEPPERS, ADAPTIVE}


@pytest.mark.parametrize(("name", "stepper"), REPRESENTATIVE)
def test_a_resumed_run_is_the_run(name: str, stepper: str, tmp_path: Path) -> None:
    # t = 0.2: within an interval; then four ticks on, in the second epoch
    assert_resumes(scenario(SYSTEM[name], stepper), tmp_path, (3, 10))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "stepper"), ALL)
def test_a_resumed_run_is_the_run_for_every_system_and_stepper(
    name: str, stepper: str, dtype: str, tmp_path: Path
) -> None:
    assert_resumes(scenario(SYSTEM[name], stepper, dtype=dtype), tmp_path, (1, 3, 2, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEM)
def test_every_other_stepper_is_refused(name: str) -> None:
    for stepper in {*STEPPERS, ADAPTIVE} - set(OFFERED[name]):
        with pytest.raises(CapabilityError):
            build(scenario(SYSTEM[name], stepper))


SENSOR = "name='random', rate=0.5, interval=0.1, each='sensor'"
OTHERS = {
    "random mask": scenario(
        SYSTEM["inference"], "explicit_euler", mask="mask = {name='random', rate=0.7, interval=0.2}"
    ),
    "outages": scenario(
        SYSTEM["costate_reversal"],
        "implicit_sweep",
        mask="mask = {name='outages', outages=[{sensors=[3, 20], start=0.15, stop=0.85}]}",
    ),
    "one sensor": scenario(
        SYSTEM["backpropagation"],
        "explicit_euler",
        mask="mask = {name='random', rate=0.5, interval=0.1, each='sensor'}",
    ),
    "uneven steps": scenario(
        SYSTEM["incremental_inference"], "rk4", mask="mask = {name='random', rate=0.5, interval=0.17}"
    ),
    "sinusoids": scenario(SYSTEM["costate_reversal"], "heun", signal='name="sinusoids", samples=5'),
    "patched": scenario(
        SYSTEM["tracking"],
        "rk4",
        signal='name="patched_cosine", amplitude=0.5, lowest_frequency=1.0, highest_frequency=3.0, interval=0.35',
    ),
    "flip": scenario(
        SYSTEM["tracking"].replace("is_reversed=true", 'flip={name="periodic", half_period=0.05}'), "explicit_euler"
    ),
    "track ball": scenario(
        SYSTEM["linear_quadratic"].replace("is_reversed=true", 'flip={name="track_ball", radius=1.0}'), "rk4"
    ),
    "settled": scenario(SYSTEM["inference"].replace('inference",', 'inference", output="settled",'), "heun"),
    "mean size": scenario(
        SYSTEM["inference"].replace('{name="adam", rate=1e-3}', '{name="mean_size", rate=1e-3}'), "explicit_euler"
    ),
    "graph": scenario(
        'name="costate_reversal", speed=5.0, mass=2.0, dissipation=1.0, network={inputs=2, neurons=4, arcs="all", '
        "outputs=[5]}",
        "rk4",
        signal='name="sinusoids", samples=2',
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_masks_flips_and_moving_signals_resume_too(name: str, tmp_path: Path) -> None:
    assert_resumes(OTHERS[name], tmp_path, (2, 7))


def test_a_long_stretch_resumes_within(tmp_path: Path) -> None:
    # a record in 400 steps: the run is looked at every hundred, and is stopped there
    source = scenario(SYSTEM["costate_reversal"], "explicit_euler", dt=0.00025, signal='name="sinusoids", samples=2')
    source = parse_scenario(source.text, overrides=["until=0.2"])
    assert_resumes(source, tmp_path, (3,))
    first = tmp_path / "first.nc"
    assert run(source, first, progress=stop_at(3)).steps % 400 == 200


def test_the_state_lies_in_memory_as_after_reading() -> None:
    """Strides and offsets decide which kernels run; what is read from a file has none."""
    for name, stepper in REPRESENTATIVE:
        loop = loop_of(build(scenario(SYSTEM[name], stepper, until=0.4)))
        with torch.no_grad():
            for _ in loop:
                for leaf, tensor in named_leaves(loop.state):
                    assert tensor.is_contiguous(), (name, stepper, leaf)
                    assert tensor.storage_offset() == 0, (name, stepper, leaf)
