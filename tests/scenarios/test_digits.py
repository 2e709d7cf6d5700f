"""The demo: digits are learned at finite speed, and everyone can read the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import nlsim
from nlsim.record import channels
from nlsim.report.figures import coarse_frames, draw_run, finest_stretch
from nlsim.simulation.build import build
from nlsim.simulation.recording import Outcome

FRAMES = 171 + 1 + 51 - 1  # every 0.47 to 79.9, the end, and the window, one of whose frames (40.42) is both


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return nlsim.run(nlsim.load_scenario("hamiltonian/digits"), tmp_path_factory.mktemp("demo") / "digits.nc")


@pytest.fixture(scope="module")
def data(outcome: Outcome) -> Iterator[xr.Dataset]:
    with nlsim.open_run(outcome.path) as opened:
        yield opened


def test_it_learns(outcome: Outcome, data: xr.Dataset) -> None:
    assert outcome.ending == "reached_end"
    assert outcome.steps == 8000
    accuracy = data["test_accuracy"].values
    assert accuracy[0] < 0.25  # ten classes, random weights
    assert accuracy[-1] >= 0.95
    assert data["test_loss"].values[-1] < 0.25 * data["test_loss"].values[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_it_learns_from_other_seeds(seed: int, tmp_path: Path) -> None:
    source = nlsim.load_scenario("hamiltonian/digits", overrides=[f"seed={seed}", "record.channels=['test_accuracy']"])
    assert nlsim.run(source, tmp_path / "a.nc").last["test_accuracy"] >= 0.95


def test_shuffled_labels_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the two tests above: without the tie of image and label accuracy stays at chance."""
    from nlsim.data import catalogue

    entry = catalogue.DATASETS["digits"]

    def shuffled() -> catalogue.LabelledData:
        found = entry.read()
        order = np.random.default_rng(0).permutation(len(found.labels))
        return catalogue.LabelledData(**{**vars(found), "labels": found.labels[order]})

    monkeypatch.setitem(catalogue.DATASETS, "digits", catalogue.DataSource("digits", "", "sklearn", shuffled))
    source = nlsim.load_scenario("hamiltonian/digits", overrides=["record.channels=['test_accuracy']", "until=45"])
    # 359 test samples at p = 0.1: chance is 10 % ± 1.6 %; five standard deviations above is 18 %
    assert nlsim.run(source, tmp_path / "a.nc").last["test_accuracy"] < 0.18


def by_hand(steps: int) -> dict[str, float]:
    """Step the demo's equations with numpy alone, written from the definition of the sweep."""
    values = nlsim.load_scenario("hamiltonian/digits").values
    c, m, theta, dt = values.system.speed, values.system.mass, values.system.dissipation, values.stepper.dt
    per_batch, batch = round(values.signal.interval / dt), values.signal.batch
    simulation = build(nlsim.load_scenario("hamiltonian/digits", overrides=["numerics.dtype=float64"]))
    W = [w.numpy().copy() for w in simulation.state.weight]
    q = [np.zeros_like(w) for w in W]
    x = [np.zeros((batch, n)) for n in (32, 10)]
    p = [np.zeros((batch, n)) for n in (32, 10)]
    fast, damped = 1 - np.exp(-c * dt), 1 - np.exp(-(c + theta) * dt)
    for step in range(steps):
        held = simulation.signal.piece(step // per_batch * values.signal.interval)(0.0)
        u, z = held.input.numpy(), held.target.numpy()
        y1 = np.tanh(u @ W[0][:, :-1].T + W[0][:, -1])
        x[0] = x[0] + fast * (y1 - x[0])
        y2 = np.tanh(x[0] @ W[1][:, :-1].T + W[1][:, -1])
        x[1] = x[1] + fast * (y2 - x[1])
        p[1] = p[1] + damped * (c * (x[1] - z) / (c + theta) - p[1])
        d2 = c * (1 - y2**2) * p[1]
        p[0] = p[0] + damped * (d2 @ W[1][:, :-1] / (c + theta) - p[0])
        d1 = c * (1 - y1**2) * p[0]
        for layer, (d, source) in enumerate(((d1, u), (d2, x[0]))):
            gradient = d.T @ np.concatenate([source, np.ones((batch, 1))], axis=1)
            q[layer] = (1 - theta * dt) * q[layer] + dt * gradient
            W[layer] = W[layer] - dt / (m * c) * q[layer]
    loss = 0.5 * ((x[1] - z) ** 2).sum()
    a1 = u @ W[0][:, :-1].T + W[0][:, -1]
    a2 = x[0] @ W[1][:, :-1].T + W[1][:, -1]
    flow = (p[0] * c * (np.tanh(a1) - x[0])).sum() + (p[1] * c * (np.tanh(a2) - x[1])).sum()
    kinetic = sum((each**2).sum() for each in q) / (2 * m * c)
    return {"loss": float(loss), "hamiltonian": float(c * loss + flow - kinetic)}


def test_the_first_hundred_steps_equal_those_by_hand(tmp_path: Path) -> None:
    """Both are float64; they differ by rounding (2e-16) that a hundred steps may amplify a thousandfold."""
    overrides = ["until=1.0", "record.window=[]", "numerics.dtype=float64", "record.channels=['loss','hamiltonian']"]
    last = nlsim.run(nlsim.load_scenario("hamiltonian/digits", overrides=overrides), tmp_path / "a.nc").last
    assert last == pytest.approx(by_hand(100), rel=1e-12)


def test_gradient_error_is_the_price_of_finite_speed(data: xr.Dataset, tmp_path: Path) -> None:
    slow = float(np.median(data["gradient_error"].values[20:]))
    assert slow > 0.1
    # with weights as good as frozen and cτ = 1000 only the attenuation is left, 1 − (c/(c+θ))² < 2θ/c = 2e-4 in the
    # first layer, and float32's rounding of the two gradients (a thousand times 6e-8)
    overrides = [
        "system.speed=1e5",
        "system.mass=1e9",
        "until=5",
        "record.window=[]",
        "record.channels=['gradient_error']",
    ]
    nlsim.run(nlsim.load_scenario("hamiltonian/digits", overrides=overrides), tmp_path / "fast.nc")
    with nlsim.open_run(tmp_path / "fast.nc") as fast:
        assert fast["gradient_error"].values[1:].max() < 2e-4 + 6e-5


def test_plain_xarray_reads_it(outcome: Outcome, data: xr.Dataset) -> None:
    with xr.open_dataset(outcome.path, engine="h5netcdf") as plain:
        assert plain.sizes["time"] == outcome.frames == FRAMES
        for name in data.data_vars:
            np.testing.assert_array_equal(plain[name].values, data[name].values)


def test_the_netcdf_library_reads_it(outcome: Outcome, data: xr.Dataset) -> None:
    with netCDF4.Dataset(outcome.path) as plain:
        assert plain.data_model == "NETCDF4"
        assert plain.dimensions["time"].isunlimited()
        assert plain.ending == "reached_end"
        assert plain.scenario == (Path(__file__).parents[2] / "scenarios/hamiltonian/digits.toml").read_text()
        assert set(plain.variables) >= set(map(str, data.data_vars)) | {"time"}
        for name in data.data_vars:
            np.testing.assert_array_equal(np.asarray(plain[str(name)][:]), data[name].values)
            assert plain[str(name)].units


def test_reading_imports_no_torch(outcome: Outcome) -> None:
    code = (
        "import sys, nlsim\n"
        f"with nlsim.open_run({str(outcome.path)!r}) as data:\n"
        "    assert float(data['test_accuracy'][-1]) > 0.9\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(', '.join(loaded & {'torch', 'torchdiffeq', 'sympy', 'matplotlib'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_channels_keep_their_names(data: xr.Dataset) -> None:
    assert channels(data)["activity/2"] == "activity_2"
    assert list(data["weight_1_source_1"].values) == [27, 28, 35, 36]


def test_the_figure_shows_what_it_says(data: xr.Dataset) -> None:
    figure = draw_run(data)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "Learning",
        "Costate gradient against backpropagation",
        "A neuron of layer 1 and its costate",
        "Hamiltonian",
    ]
    by_title = {axes.get_title(): axes for axes in figure.axes}
    neuron = by_title["A neuron of layer 1 and its costate"].get_lines()[0]
    window = finest_stretch(data["time"].values)
    assert data["time"].values[window][[0, -1]] == pytest.approx([40.0, 40.5])
    np.testing.assert_array_equal(neuron.get_ydata(), data["activity_1"].values[window, 0, 0])
    loss = by_title["Learning"].get_lines()[0]
    np.testing.assert_array_equal(loss.get_ydata(), data["loss"].values[coarse_frames(data["time"].values)])
    accuracy = next(axes for axes in figure.axes if axes.get_ylabel() == "test accuracy [%]").get_lines()[0]
    assert accuracy.get_ydata()[-1] == pytest.approx(100 * data["test_accuracy"].values[-1])
