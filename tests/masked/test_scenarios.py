"""Masked inputs run as scenarios: what the shipped files claim, read back from their run files."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import nlsim
from nlsim.core.randomness import generator
from nlsim.data.catalogue import load, split
from nlsim.errors import ScenarioError
from nlsim.report.figures import draw_run
from nlsim.scenario.load import load_scenario, parse_scenario
from nlsim.simulation import masks
from nlsim.simulation.build import build


def run(folder: Path, name: str, *overrides: str) -> xr.Dataset:
    """Run a shipped scenario and return what its run file holds."""
    outcome = nlsim.run(load_scenario(name, overrides=overrides), folder / "run.nc", force=True)
    assert outcome.ending == "reached_end"
    with nlsim.open_run(outcome.path) as data:
        return data.load()


def at(data: xr.Dataset, channel: str, t: float) -> np.ndarray:
    """Return the frame nearest to t."""
    return data[channel].sel(time=t, method="nearest").values


def test_neurons_forget_at_their_own_rate(tmp_path: Path) -> None:
    data = run(tmp_path, "masked/blackout")
    dark = (data["time"].values > 20.05) & (data["time"].values <= 30.05)
    assert dark.sum() == 100
    assert (data["pre_activation"].values[dark] == 0.0).all()
    assert (data["observed_fraction"].values[dark] == 0.0).all()
    # two hundred RK4 steps of c·dt = 0.05, each off by 0.05⁵/120: 5.2e-7 in all
    ratio = at(data, "activity", 30.0) / at(data, "activity", 20.0)
    np.testing.assert_allclose(ratio, math.exp(-10), rtol=1e-6)
    assert at(data, "observed_fraction", 15.0) == pytest.approx(4 / 6)
    assert at(data, "distance_to_neutral", 35.0) > 0.5


def test_neurons_that_hold_stand_still_bit_by_bit(tmp_path: Path) -> None:
    data = run(tmp_path, "masked/blackout", "system.outage=hold")
    states, times = data["activity"].values, data["time"].values
    dark = (times > 19.95) & (times <= 30.05)
    assert (states[dark] == at(data, "activity", 20.0)).all()
    assert (np.abs(np.diff(states[times < 19.95], axis=0)).max((1, 2)) > 0).all()
    assert np.abs(at(data, "activity", 32.0) - at(data, "activity", 30.0)).max() > 0.1


def test_activity_may_go_on_in_the_dark(tmp_path: Path) -> None:
    strong = ["system.recurrent_norm=2.0", "system.is_symmetric=true"]
    assert at(run(tmp_path, "masked/blackout", *strong), "distance_to_neutral", 30.0) > 1.0
    weak = ["system.recurrent_norm=0.5", "system.is_symmetric=true"]
    data = run(tmp_path, "masked/blackout", *weak)
    # the state shrinks at rate c(1 − ‖V‖) = ½ or faster
    bound = math.exp(-5.0) * at(data, "distance_to_neutral", 20.0)
    assert 0 < at(data, "distance_to_neutral", 30.0) <= bound


@pytest.mark.parametrize("form", ["state", "potential"])
def test_the_potential_form_runs_too(form: str, tmp_path: Path) -> None:
    name = {"state": "activity", "potential": "potential"}[form]
    overrides = [f"system.form={form}", f'record.channels=["{name}", "output", "observed_fraction"]']
    data = run(tmp_path, "masked/blackout", *overrides, "system.compensation=0.4")
    # in the dark the drive is w_c: a rest state of φ(w_c), in potential form w_c; what is left of the rest is e^(−10)
    rest = math.tanh(0.4) if form == "state" else 0.4
    np.testing.assert_allclose(at(data, name, 30.0), rest, atol=2e-4)


def failing(folder: Path, *overrides: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, the weights of the four sensors that fail, and those of four that do not."""
    data = run(folder, "masked/failing_sensors", *overrides)
    weights = data["weight_1"].values
    assert data["weight_1_source_1"].values.tolist()[:4] == [27, 28, 35, 36]
    return data["time"].values, weights[..., :4], weights[..., 4:]


def test_weights_of_dead_sensors_are_the_same_bits_through_the_outage(tmp_path: Path) -> None:
    times, dead, live = failing(tmp_path)
    out = (times >= 500) & (times <= 1000)
    assert out.sum() >= 60
    assert (dead[out] == dead[times == 500]).all()
    # every pixel that lives is inked differently in some of the images, so all its weights move between two frames
    assert (np.abs(np.diff(live[out], axis=0)).max((1, 2)) > 0).all()
    for stretch in (times <= 500, times >= 1000):
        assert (np.abs(dead[stretch][-1] - dead[stretch][0]) > 1e-4).all()
        assert (np.abs(np.diff(dead[stretch], axis=0)).max((1, 2)) > 0).all()


def test_inertia_is_the_exception(tmp_path: Path) -> None:
    times, dead, _ = failing(tmp_path, "system.eta=0.1", "until=600")
    assert (dead[times == 500] != dead[times == 501]).all()


def test_half_of_every_image_is_enough_to_learn(tmp_path: Path) -> None:
    short = ["until=2000", "record.every=200"]
    data = run(tmp_path, "masked/inference", *short)
    assert data["test_accuracy"].values[-1] > 0.4  # chance is 0.1
    fraction = data["observed_fraction"].values.ravel()
    # each frame is of another image, of 64 pixels each seen with probability ½; five standard deviations of the mean
    assert len(set(fraction)) > 4
    assert abs(fraction.mean() - 0.5) <= 5 * 0.5 / math.sqrt(64 * len(fraction))


NEUMISS = """\
seed = 3
until = 60.0
[system]
name = "neumiss"
inputs = 64
ridge = 0.5
[signal]
name = "samples"
dataset = "digits"
batch = 20
interval = 60.0
[mask]
name = "random"
rate = 0.7
interval = 60.0
[stepper]
name = "exponential_sweep"
dt = 0.25
[numerics]
dtype = "float64"
[record]
every = 60.0
channels = ["activity", "completed", "observed_fraction"]
"""


def test_neumiss_infers_missing_pixels_as_a_gaussian_of_the_training_images_would(tmp_path: Path) -> None:
    source = parse_scenario(NEUMISS)
    outcome = nlsim.run(source, tmp_path / "run.nc")
    with nlsim.open_run(outcome.path) as data:
        found = data["completed"].values[-1]
    digits = load("digits")
    parts = split(digits, 0.2, generator(3, "split").permutation(len(digits.labels)))
    mean = parts.train_inputs.mean(0)
    covariance = np.cov(parts.train_inputs.T) + 0.5 * np.eye(64)
    shown = build(source).signal.piece(0.0)(0.0)
    assert shown.mask is not None
    errors, guesses = [], []
    for image, mask, answer in zip(shown.input.numpy(), shown.mask.numpy() > 0, found, strict=True):
        inner = np.linalg.solve(covariance[np.ix_(mask, mask)], (image - mean)[mask])
        expected = mean[~mask] + covariance[np.ix_(~mask, mask)] @ inner
        # slowest part: e^(−0.5·60) = 1e-13 of numbers of a few
        np.testing.assert_allclose(answer[~mask], expected, atol=1e-11)
        np.testing.assert_array_equal(answer[mask], image[mask])
        errors.append(np.square(answer - image)[~mask].mean())
        guesses.append(np.square(mean - image)[~mask].mean())
    # on real images the others say something of a pixel that is missing
    assert np.mean(errors) < 0.8 * np.mean(guesses)


def test_neumiss_takes_a_covariance_as_well(tmp_path: Path) -> None:
    overrides = [
        'system={name="neumiss", inputs=2, covariance=[[1.0, 0.6], [0.6, 0.8]], mean=[0.5, -1.0]}',
        'signal={name="sinusoids", frequency=1e-15}',
        'mask={name="outages", outages=[{sensors=[1], start=0.0, stop=90.0}]}',
        'record.channels=["completed", "activity"]',
    ]
    data = run(tmp_path, "masked/blackout", *overrides)
    seen, inferred = at(data, "completed", 40.0)[0]
    # E[x₂ | x₁] = x̄₂ + Σ₂₁/Σ₁₁ (x₁ − x̄₁); e^(−40) is left of the start, and the input moves by 4e-14
    assert inferred == pytest.approx(-1.0 + 0.6 * (seen - 0.5), abs=1e-12)
    assert at(data, "activity", 40.0)[0, 1] == 0.0


def test_energy_falls_while_nothing_changes(tmp_path: Path) -> None:
    overrides = [
        'system={name="masked_energy", inputs=64, neurons=12, recurrent_norm=0.8}',
        'signal={name="samples", dataset="digits", batch=5, interval=10.0, centred=true}',
        'mask={name="outages", outages=[{sensors="all", start=14, stop=17}, {sensors=[9, 20], start=3, stop=6}]}',
        'record.channels=["energy", "activity", "observed_fraction"]',
    ]
    data = run(tmp_path, "masked/blackout", *overrides)
    times, energy = data["time"].values, data["energy"].values
    edges = [0.0, 3.0, 6.0, 10.0, 14.0, 17.0, 20.0, 30.0, 40.0]
    rises = 0
    for start, stop in pairwise(edges):
        # an edge shows the inputs that end there, so what follows begins one frame later
        inside = energy[(times > start + 0.05) & (times < stop + 0.05)]
        assert len(inside) >= 29
        assert (np.diff(inside, axis=0) <= 1e-14).all()
        rises += bool((energy[(times > start + 0.05)][0] > energy[times < start + 0.05][-1]).any()) if start else 0
    assert rises >= 2  # it is the mask and the next images that raise it
    assert at(data, "observed_fraction", 15.0).tolist() == [0.0] * 5
    assert at(data, "observed_fraction", 5.0) == pytest.approx(62 / 64)


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_recurrent_weights_have_the_norm_that_is_asked_for(is_symmetric: bool) -> None:
    word = str(is_symmetric).lower()
    chosen = ["system.recurrent_norm=1.5", f"system.is_symmetric={word}", "system.intrinsic=0.2"]
    system = build(load_scenario("masked/blackout", overrides=chosen)).system
    drawn = system.recurrent.numpy()
    # a singular value of an 8×8 matrix to some tens of roundings
    assert np.linalg.norm(drawn, 2) == pytest.approx(1.5, rel=1e-14)
    assert bool((drawn == drawn.T).all()) is is_symmetric
    assert system.intrinsic.tolist() == [0.2] * 8
    assert system.compensation is None
    # of 48 uniform weights of standard deviation 1/√6
    assert abs(float(system.weight.std()) - 1 / math.sqrt(6)) < 0.1
    other = build(load_scenario("masked/blackout", overrides=[*chosen, "seed=2"])).system
    assert bool((other.recurrent != system.recurrent).all())


def test_single_precision_draws_the_same_weights_rounded() -> None:
    double = build(load_scenario("masked/blackout")).system.weight
    single = build(load_scenario("masked/blackout", overrides=["numerics.dtype=float32"])).system.weight
    assert bool((single == double.float()).all())


DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_shows_the_figures_and_the_numbers_of_these_runs(tmp_path: Path) -> None:
    page = " ".join((DOCS / "explanation" / "masked.md").read_text(encoding="utf-8").split())
    drawn = {each.name for each in (DOCS / "_static" / "masked").iterdir()}
    assert (
        set(re.findall(r"_static/masked/([\w.]+)", page))
        == drawn
        == {"blackout.png", "comparison.png", "failing_sensors.png", "unknown.png", "weather.png"}
    )
    assert all((DOCS / "_static" / "masked" / each).stat().st_size < 200_000 for each in drawn)
    forget, hold = (run(tmp_path, "masked/blackout", f"system.outage={each}") for each in ("forget", "hold"))
    before, after = (at(forget, "distance_to_neutral", t).item() for t in (20.0, 30.0))
    assert f"from {before:.3f} to {after * 1e5:.2f}·10⁻⁵, a factor of {after / before * 1e5:.2f}·10⁻⁵" in page
    assert f"stays {at(hold, 'distance_to_neutral', 30.0).item():.4f}" in page
    accuracy = run(tmp_path, "masked/failing_sensors")["test_accuracy"]
    shown = [f"{100 * accuracy.sel(time=t, method='nearest').item():.1f} % at {t}" for t in (500, 1000, 1400)]
    assert f"{shown[0]}, {shown[1]} and {shown[2]}" in page


REFUSED = {
    "a bias too few": (["system.bias=[1.0, 2.0]"], "does not fit the system", "bias"),
    "a target": (['signal={name="sine_target", frequency=1.0}'], "a target without any", "signal"),
    "no such sensor": (['mask.outages=[{sensors=[6], start=1, stop=2}]'], "no such sensor", "mask"),
    "too large a step": (
        ["stepper={name='explicit_euler', dt=2.5}", "until=30", "record.every=2.5"], "stability limit", "dt"
    ),
    "other data": (['signal={name="samples", dataset="digits", interval=1.0}'], "do not fit the data", "inputs"),
    "no data": (['system={name="neumiss", inputs=6}'], "no data whose covariance", "system"),
    "no covariance": (
        ['system={name="neumiss", inputs=2, covariance=[[1.0, 2.0], [2.0, 1.0]]}'], "positive definite", "covariance",
    ),
    "not symmetric": (
        ['system={name="neumiss", inputs=2, covariance=[[1.0, 0.2], [0.1, 1.0]]}'], "positive definite", "covariance",
    ),
    "a mean too few": (
        ['system={name="neumiss", inputs=2, covariance=[[1.0, 0.2], [0.2, 1.0]], mean=[1.0]}'], "'mean'", "mean",
    ),
    "a row too few": (['system={name="neumiss", inputs=2, covariance=[[1.0, 0.2]]}'], "does not fit", "covariance"),
    "too many neurons": (["system.neurons=5000"], "neurons", "neurons"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_runs(case: str) -> None:
    overrides, problem, where = REFUSED[case]
    with pytest.raises(ScenarioError) as caught:
        build(load_scenario("masked/blackout", overrides=overrides))
    assert problem in str(caught.value)
    assert where in str(caught.value.where)


@pytest.mark.parametrize("mask", ["mask.rate=0.0", 'mask={name="outages", outages=[{sensors="all", start=4, stop=8}]}'])
def test_a_blackout_needs_an_epsilon_where_errors_are_divided_by_what_is_seen(mask: str, tmp_path: Path) -> None:
    added = ["system.precision.epsilon=1e-3", "system.update.epsilon=1e-3"]
    for table, given in (("precision", added[1:]), ("update", added[:1])):
        with pytest.raises(ScenarioError, match="divides by 0") as caught:
            build(load_scenario("masked/inference", overrides=[mask, *given]))
        assert table in str(caught.value.where)
    run(tmp_path, "masked/inference", mask, *added, "until=12", "record.every=4")


@pytest.mark.parametrize(
    ("chosen", "where"),
    [
        (["system.update.epsilon=1e-3"], "precision.epsilon"),
        (["system.precision.epsilon=1e-3"], "update.epsilon"),
        (
            ['system.update={name="adam", is_normalised=true}', "system.precision.epsilon=1e-3"],
            "update.normaliser_epsilon",
        ),
    ],
)
def test_a_random_mask_that_will_sometimes_hide_all_needs_an_epsilon_too(chosen: list[str], where: str) -> None:
    with pytest.raises(ScenarioError, match="divides by 0") as caught:
        build(load_scenario("masked/inference", overrides=["mask.rate=0.02", *chosen]))
    assert f"Set system.{where} = " in str(caught.value.advice)
    # 1348 images of 64 pixels, each hidden with probability 0.98
    assert f"{1348 * 0.98**64:.2g} draws" in str(caught.value.given)
    assert "mask.rate" in str(caught.value.advice)


@pytest.mark.parametrize(
    ("chosen", "met"),
    [
        ([], 1348 * 0.75**64),
        (["signal.batch=4"], 4 * 1348 * 0.75**64),
        (["signal.batch=4", "system.precision.epsilon=1e-3"], 1348 * 0.75**256),
        (["signal.batch=4", "mask.each=sensor"], 1348 * 0.75**64),
        (["signal.batch=4", "mask.interval=2.0"], 4 * 2696 * 0.75**64),
    ],
)
def test_what_is_expected_of_a_random_mask(chosen: list[str], met: float, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_scenario("masked/inference", overrides=["mask.rate=0.25", *chosen])
    # a limit just above what is expected lets it pass, one just below does not
    monkeypatch.setattr(masks, "MOST_BLACKOUTS", met * (1 + 1e-9))
    build(source)
    monkeypatch.setattr(masks, "MOST_BLACKOUTS", met * (1 - 1e-9))
    with pytest.raises(ScenarioError, match="divides by 0"):
        build(source)


def test_an_image_of_which_nothing_is_seen_teaches_the_first_layer_nothing(tmp_path: Path) -> None:
    added = [
        "system.precision.epsilon=1e-3",
        "system.update.epsilon=1e-3",
        'record.channels=["weight/1", "weight/2", "observed_fraction"]',
    ]
    data = run(tmp_path, "masked/inference", "mask.rate=0.02", *added, "until=80", "record.every=4")
    # what is recorded at an edge is what was seen until then; the weights jump after it
    dark = data["observed_fraction"].values[1:-1, 0] == 0.0
    assert 3 <= dark.sum() <= 16
    moved = [np.abs(np.diff(data[f"weight_{layer}"].values[1:], axis=0)).max((1, 2)) for layer in (1, 2)]
    assert np.array_equal(moved[0] == 0.0, dark)
    assert (moved[1] > 0.0).all()  # the layers above go on learning


def test_singular_data_ask_for_a_ridge() -> None:
    with pytest.raises(ScenarioError, match="singular") as caught:
        build(parse_scenario(NEUMISS, overrides=["system.ridge=0"]))
    assert "system.ridge = " in str(caught.value.advice)


def test_a_population_is_drawn_with_what_it_sees(tmp_path: Path) -> None:
    data = run(tmp_path, "masked/blackout", "until=25")
    figure = draw_run(data)
    assert [axes.get_title() for axes in figure.axes] == [
        "First 8 neurons of the first sample",
        "What is seen of the inputs",
    ]
    lines = figure.axes[0].get_lines()
    np.testing.assert_array_equal(lines[2].get_ydata(), data["activity"].values[:, 0, 2])
    (shade,) = figure.axes[0].collections
    assert shade.get_paths()[0].get_extents().intervalx == pytest.approx([20.1, 25.0])
    np.testing.assert_array_equal(figure.axes[1].get_lines()[0].get_ydata(), data["observed_fraction"].values[:, 0])
