"""Spectra and portraits of what a person names: one entry of an array, told apart, at times that both have."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from nlsim.cli.app import main
from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, RunWriter, open_run
from nlsim.report.ensemble import draw_spectrum
from nlsim.report.entry import choose
from nlsim.report.figures import draw_run
from nlsim.report.phase import draw_phase
from nlsim.report.single import channel_of

TIMES = np.arange(40) / 8
ACTIVITY = np.random.default_rng(11).standard_normal((40, 2, 3))
ACTIVITY[:, 0, 0] = 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    specs = [
        ChannelSpec("loss", long_name="loss L"),
        ChannelSpec("flat"),
        ChannelSpec("activity/1", ("sample", "layer_1"), (2, 3), long_name="activity x",
                    coordinates={"layer_1": np.array([4, 0, 7])}),
        ChannelSpec("rare", every=0.5),
        ChannelSpec("odd", every=0.5),
    ]  # fmt: skip
    path = tmp_path / "a.nc"
    with RunWriter(path, specs, {"title": "x"}) as writer:
        for i, t in enumerate(TIMES):
            values = {"loss": np.sin(9 * t), "flat": 2.0, "activity/1": ACTIVITY[i]}
            values |= {"rare": np.cos(t) if i % 4 == 0 else np.nan, "odd": t if i % 4 == 1 else np.nan}
            writer.append(t, {name: np.asarray(value) for name, value in values.items()})
        writer.close("reached_end")
    return path


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    assert ran(monkeypatch, *words) == 2
    return capsys.readouterr().err


def ran(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nlsim", "plot", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.parametrize(("entry", "at"), [("[0,4]", (0, 0)), ("[1,0]", (1, 1)), ("[1, 7]", (1, 2))])
def test_an_entry_is_the_one_that_was_recorded_under_these_indices(path: Path, entry: str, at: tuple[int, int]) -> None:
    with open_run(path) as data:
        found = channel_of(data, f"activity/1{entry}").load()
    np.testing.assert_array_equal(found.values, ACTIVITY[:, at[0], at[1]])
    assert found.attrs["long_name"] == f"activity x {entry.replace(' ', '')}"


def test_without_indices_of_its_own_an_axis_is_counted_from_0() -> None:
    variable = xr.DataArray(ACTIVITY, {"time": TIMES, "n": [0.5, 0.7, 0.9]}, ("time", "m", "n"), name="a")
    np.testing.assert_array_equal(choose(variable, "1,2").values, ACTIVITY[:, 1, 2])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("activity/1", ["is an array", "sample 0 to 1; layer_1 4, 0, 7", "Choose one, such as 'activity/1[0,4]'"]),
        ("activity/1[0]", ["no such entry", "activity/1[0]", "sample 0 to 1; layer_1 4, 0, 7"]),
        ("activity/1[0,1]", ["no such entry", "layer_1 4, 0, 7"]),
        ("activity/1[-1,4]", ["no such entry"]),
        ("activity/1[]", ["no such entry"]),
        ("activity/1[a,b]", ["no such entry"]),
        ("loss[0]", ["one number a frame", "loss[0]"]),
        ("activity/2[0,4]", ["no channel of this name", "Did you mean 'activity/1'?"]),
    ],
)
def test_no_entry_is_taken_that_was_not_chosen(path: Path, name: str, said: list[str]) -> None:
    with open_run(path) as data, pytest.raises(RunFileError) as refusal:
        channel_of(data, name)
    for words in said:
        assert words in str(refusal.value)


def test_labels_name_the_entry(path: Path) -> None:
    axes, spectrum = Figure().subplots(1, 2)
    with open_run(path) as data:
        draw_phase(axes, channel_of(data, "loss"), channel_of(data, "activity/1[1,7]"))
        draw_spectrum(spectrum, channel_of(data, "activity/1[1,7]"))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss L", "activity x [1,7]")
    assert spectrum.get_title() == "Spectrum of activity x [1,7]"
    state = xr.DataArray(ACTIVITY, {"time": TIMES}, ("time", "sample", "n"), attrs={"long_name": "state"})
    (panel,) = draw_run(xr.Dataset({"activity": state, "costate": state.assign_attrs(long_name="costate")})).axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("state [0,0]", "costate [0,0]")


@pytest.mark.parametrize("name", ["flat", "activity/1[0,4]"])
def test_a_constant_has_no_spectrum(path: Path, name: str) -> None:
    with open_run(path) as data, pytest.raises(RunFileError, match=r"has no spectrum[\s\S]*always"):
        draw_spectrum(Figure().add_subplot(), channel_of(data, name))


def test_what_is_not_finite_has_no_spectrum() -> None:
    variable = xr.DataArray(np.where(TIMES > 3, np.inf, TIMES), {"time": TIMES}, ("time",), name="a")
    with pytest.raises(RunFileError, match=r"has no spectrum[\s\S]*not finite"):
        draw_spectrum(Figure().add_subplot(), variable)


def test_a_portrait_is_of_the_common_times(path: Path) -> None:
    axes = Figure().add_subplot()
    with open_run(path) as data:
        draw_phase(axes, channel_of(data, "loss"), channel_of(data, "rare"))
        np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), np.sin(9 * TIMES[::4]))
        np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), np.cos(TIMES[::4]))
        with pytest.raises(RunFileError, match=r"not recorded together[\s\S]*10 and 10 frames, 0 at the same time"):
            draw_phase(axes, channel_of(data, "odd"), channel_of(data, "rare"))


def test_pictures_do_not_replace_each_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "a.png").write_text("mine")
    assert ran(monkeypatch, str(path), "--spectrum", "loss") == 0
    assert ran(monkeypatch, str(path), "--phase", "loss", "activity/1[1,7]") == 0
    assert ran(monkeypatch, str(path.parent), "--spectrum", "loss") == 0, "a folder of one run is that run"
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.nc", "a.phase.png", "a.png", "a.spectrum.png"]
    assert (path.parent / "a.png").read_text() == "mine"


def test_at_the_command_line(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Choose one, such as" in refused(capsys, monkeypatch, str(path), "--spectrum", "activity/1")
    assert "has no spectrum" in refused(capsys, monkeypatch, str(path), "--spectrum", "flat")
    both = ["--spectrum", "loss", "--phase", "loss", "flat"]
    assert "not both" in refused(capsys, monkeypatch, str(path), *both)
