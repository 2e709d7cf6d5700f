"""The table [mask]: what is seen is what the run is driven by, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nlsim
from nlsim.data.catalogue import load, split
from nlsim.errors import NlsimError, ScenarioError
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


def test_what_is_missing_depends_on_the_seed(tmp_path: Path) -> None:
    mask = 'mask={name="random", rate=0.3, interval=0.25}'
    one, same, other = (run(tmp_path, *SHORT, mask, f"seed={seed}")["observed_fraction"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


EVERY = ["record.every=10", 'record.channels=["loss"]']
LOWER, UPPER = list(range(40)), list(range(40, 64))
DARK = {
    "all at once": "[{sensors='all', start=1, stop=2}]",
    "all by name": f"[{{sensors={[*LOWER, *UPPER]}, start=1, stop=2}}]",
    "overlapping": f"[{{sensors={LOWER}, start=0, stop=5}}, {{sensors={UPPER}, start=3, stop=9}}]",
}
LIT = {
    "one after another": f"[{{sensors={LOWER}, start=0, stop=3}}, {{sensors={UPPER}, start=3, stop=9}}]",
    "after the end": "[{sensors='all', start=30, stop=40}]",
}
BP_PROX = (
    'system={name="backpropagation_proximal", rate=0.1, network={layers=[64,32,10], output_activation="identity"}}'
)
IL_PROX = (
    'system={name="inference", output="settled", update={name="nlms"}, '
    'network={layers=[64,32,10], output_activation="identity"}}'
)


@pytest.mark.parametrize("system", [BP_PROX, IL_PROX], ids=["BP-prox", "IL-prox"])
@pytest.mark.parametrize("outages", DARK)
def test_rules_that_divide_by_what_is_seen_refuse_the_dark(outages: str, system: str) -> None:
    changes = [system, "until=20", *EVERY, f"mask={{name='outages', outages={DARK[outages]}}}"]
    with pytest.raises(ScenarioError, match="divides by 0"):
        build(load_scenario("inference/digits", overrides=changes))
    if system == BP_PROX:
        build(load_scenario("inference/digits", overrides=[*changes, "system.epsilon=1e-3"]))


@pytest.mark.parametrize("outages", LIT)
def test_but_not_the_dusk(outages: str) -> None:
    changes = [BP_PROX, "until=20", *EVERY, f"mask={{name='outages', outages={LIT[outages]}}}"]
    build(load_scenario("inference/digits", overrides=changes))


def test_a_table_with_missing_values_is_learned_from(tmp_path: Path) -> None:
    outcome = nlsim.run(load_scenario("masked/biopsy"), tmp_path / "run.nc")
    assert outcome.ending == "reached_end"
    # 65.5 % of the samples are benign
    assert outcome.last["test_accuracy"] > 0.9
    with nlsim.open_run(outcome.path) as dataset:
        fraction = dataset["observed_fraction"].to_numpy()
    # one value of nine is missing in 16 of 699 samples: among 41 batches of 32 there are some, and no other kind
    assert set(np.round(9 * fraction).astype(int).ravel()) == {8, 9}
    assert np.allclose(9 * fraction, np.round(9 * fraction), atol=1e-5)


def test_missing_values_without_a_mask_are_refused(tmp_path: Path) -> None:
    text = (Path(nlsim.__file__).parents[1] / "scenarios" / "masked" / "biopsy.toml").read_text(encoding="utf-8")
    plain = tmp_path / "plain.toml"
    plain.write_text(text.replace('[mask]\nname = "missing_values"\n', ""), encoding="utf-8")
    with pytest.raises(NlsimError) as caught:
        build(load_scenario(str(plain)))
    assert "missing_values" in str(caught.value.advice)


def test_inputs_are_scaled_by_what_was_observed_in_training() -> None:
    data = load("biopsy")
    order = np.random.default_rng(0).permutation(len(data.labels))
    parts = split(data, 0.4, order, is_centred=True, is_scaled=True)
    count = len(parts.train_labels)
    seen = np.ma.masked_invalid(data.inputs[order[:count]])
    expected = (data.inputs[order] - seen.mean(0).filled()) / seen.std(0).filled()
    assert np.array_equal(np.isnan(parts.train_inputs), seen.mask)
    # some ten roundings of numbers below 4
    both = np.concatenate((parts.train_inputs, parts.test_inputs))
    assert np.allclose(both, expected, rtol=0, atol=1e-14, equal_nan=True)
    assert np.abs(np.nanmean(parts.train_inputs, 0)).max() < 1e-13
    assert np.abs(np.nanmean(parts.test_inputs, 0)).max() > 1e-3
