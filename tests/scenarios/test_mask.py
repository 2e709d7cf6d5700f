"""The table [mask]: what is seen is what the run is driven by, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nlsim
from nlsim.errors import ScenarioError
from nlsim.scenario.load import load_scenario
from nlsim.simulation.build import build

SHORT = [
    "until=2.0",
    "record.window=[]",
    "record.every=0.25",
    'record.channels=["loss", "observed_fraction"]',
    "numerics.dtype=float64",
]
PLAIN = ["until=2.0", "record.window=[]", "record.every=0.25", 'record.channels=["loss"]', "numerics.dtype=float64"]


def run(tmp_path: Path, *overrides: str):
    outcome = nlsim.run(load_scenario("hamiltonian/digits", overrides=list(overrides)), tmp_path / "run.nc", force=True)
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as dataset:
        return dataset.load()


def test_outages_show_in_the_observed_fraction_and_in_what_is_learned(tmp_path: Path) -> None:
    mask = 'mask={name="outages", outages=[{sensors=[20, 21, 28, 29], start=0.5, stop=1.0}]}'
    found, plain = run(tmp_path, *SHORT, mask), run(tmp_path, *PLAIN)
    times = found["time"].to_numpy()
    dark = (times > 0.5) & (times <= 1.0)  # what is recorded at an edge is what was seen until then
    assert dark.sum() == 2
    fraction = found["observed_fraction"].to_numpy()
    assert np.array_equal(fraction[~dark], np.ones_like(fraction[~dark]))
    # a mean of 64 numbers 0 or 1 in float64 is a multiple of 1/64
    assert np.array_equal(fraction[dark], np.full_like(fraction[dark], 60 / 64))
    before = times <= 0.5
    assert np.allclose(found["loss"][before], plain["loss"][before], rtol=1e-10)
    assert abs(found["loss"][-1] / plain["loss"][-1] - 1) > 1e-4


def test_a_mask_that_hides_nothing_changes_nothing(tmp_path: Path) -> None:
    found, plain = run(tmp_path, *SHORT, 'mask={name="random", rate=1.0, interval=0.5}'), run(tmp_path, *PLAIN)
    assert np.allclose(found["loss"], plain["loss"], rtol=1e-9)


@pytest.mark.parametrize(("each", "distinct"), [("sample", True), ("sensor", False)])
def test_random_masks_have_their_rate_and_their_kind(each: str, distinct: bool, tmp_path: Path) -> None:
    mask = f'mask={{name="random", rate=0.3, interval=0.25, each="{each}"}}'
    fraction = run(tmp_path, *SHORT, mask)["observed_fraction"].to_numpy()
    assert bool(np.ptp(fraction, axis=1).min() > 0) is distinct
    rows = fraction if distinct else fraction[:, :1]
    # each entry is a mean of 64 draws: five standard errors of their mean
    assert abs(rows.mean() - 0.3) <= 5 * np.sqrt(0.3 * 0.7 / (64 * rows.size))


@pytest.mark.parametrize("system", ["inference", "backpropagation"])
def test_systems_that_jump_are_masked_too(system: str, tmp_path: Path) -> None:
    overrides = [
        "until=40",
        "record.every=10",
        'record.channels=["loss", "observed_fraction"]',
        'mask={name="random", rate=0.5, interval=0.7}',
    ]
    if system == "backpropagation":
        overrides.append(
            'system={name="backpropagation", descent={name="sgd", rate=0.1}, '
            'network={layers=[64,32,10], output_activation="identity"}}'
        )
    outcome = nlsim.run(load_scenario("inference/digits", overrides=overrides), tmp_path / "run.nc")
    assert outcome.ending == "reached_end"


REFUSED = {
    "no such sensor": ('mask={name="outages", outages=[{sensors=[64], start=1, stop=2}]}', (), "0 to 63"),
    "a graph": (
        'mask={name="random", rate=0.5, interval=1.0}',
        (
            'system={name="costate_reversal", speed=10.0, '
            'network={inputs=64, neurons=12, arcs="all", outputs=[66,67,68,69,70,71,72,73,74,75]}}',
            "stepper.name=explicit_euler",
        ),
        "layers",
    ),
    "no inputs": (
        'mask={name="random", rate=0.5, interval=1.0}',
        ('signal={name="sine_target", frequency=1.0}', "system.network.layers=[0,32,10]"),
        "",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused(case: str) -> None:
    mask, others, allowed = REFUSED[case]
    with pytest.raises(ScenarioError) as caught:
        build(load_scenario("hamiltonian/digits", overrides=[*SHORT[:3], 'record.channels=["loss"]', mask, *others]))
    assert allowed in str(caught.value.allowed)


@pytest.mark.parametrize(
    "mask",
    [
        'mask={name="outages", outages=[{sensors="all", start=2, stop=1}]}',
        'mask={name="outages", outages=[]}',
        'mask={name="outages", outages=[{sensors=[], start=1, stop=2}]}',
        'mask={name="random", rate=1.5, interval=1.0}',
        'mask={name="random", rate=0.5, interval=0.0}',
        'mask={name="fog"}',
    ],
)
def test_the_schema_refuses_what_is_out_of_range(mask: str) -> None:
    with pytest.raises(ScenarioError):
        load_scenario("hamiltonian/digits", overrides=[mask])
