"""Each kind of figure: what is drawn is what was recorded."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlsim.errors import RunFileError
from nlsim.report.ensemble import draw_band, draw_runs, draw_spectrum
from nlsim.report.figures import draw_run
from nlsim.report.inference import draw_free_energy, draw_prediction_errors
from nlsim.report.phase import draw_phase
from nlsim.report.style import CYCLE, line_style
from nlsim.report.tracking import draw_tracking

TIMES = np.linspace(0.0, 2.0, 41)


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def over_time(values: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(values, {"time": TIMES}, ("time", *dims), name="x")


def test_lines_are_told_apart() -> None:
    looks = [tuple(line_style(number).items()) for number in range(28)]
    assert len(set(looks)) == 28
    assert line_style(28) == line_style(0)


def test_every_colour_differs_in_lightness_from_its_neighbour() -> None:
    """Grey print tells neighbours apart: relative luminance (ITU-R BT.709) differs by a twentieth of the range."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    levels = [luminance(colour) for colour in CYCLE]
    assert np.abs(np.diff(levels)).min() > 0.05


def test_free_energy_and_loss(axes: Axes) -> None:
    data = xr.Dataset({"free_energy": over_time(np.exp(-TIMES)), "loss": over_time(0.5 * np.exp(-TIMES))})
    draw_free_energy(axes, data)
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), np.exp(-TIMES))
    assert axes.get_yscale() == "log"
    other = Figure().add_subplot()
    draw_free_energy(other, -data)
    assert other.get_yscale() == "linear"


def test_prediction_errors_are_root_mean_squares_in_the_order_of_layers(axes: Axes) -> None:
    names = ["error_10", "error_2", "gradient_error"]
    values = {
        name: over_time(np.full((41, 2, 3), size), "sample", "n") for name, size in zip(names, (3, 4, 5), strict=True)
    }
    values["error_2"][0] = 0.0  # no logarithm
    draw_prediction_errors(axes, xr.Dataset(values))
    assert [line.get_label() for line in axes.get_lines()] == ["layer 2", "layer 10"]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata()[1:], 4.0)
    assert np.isnan(axes.get_lines()[0].get_ydata()[0])


@pytest.mark.parametrize("dims", [(), ("sample",), ("sample", "output")])
def test_distance_from_the_target(axes: Axes, dims: tuple[str, ...]) -> None:
    error = np.broadcast_to(np.exp(-3 * TIMES).reshape(-1, *[1] * len(dims)), (41, *[2] * len(dims)))
    draw_tracking(axes, xr.Dataset({"tracking_error": over_time(error, *dims)}))
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), np.exp(-3 * TIMES))
    assert axes.get_yscale() == "log"


def test_phase_portrait_begins_and_ends_where_the_run_does(axes: Axes) -> None:
    circle = [over_time(f(np.pi * TIMES)[:, None], "n") for f in (np.cos, np.sin)]
    draw_phase(axes, *circle)
    path, begin, end = axes.get_lines()
    np.testing.assert_allclose(np.hypot(*path.get_data()), 1.0)
    np.testing.assert_allclose(begin.get_xydata(), [[1, 0]])
    np.testing.assert_allclose(end.get_xydata(), [[1, 0]], atol=1e-12)


def test_band_and_mean(axes: Axes) -> None:
    draw_band(axes, over_time(np.array([[1.0, 2.0, 3.0]] * 41), "ensemble"))
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), 2.0)
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    # t(0.975, 2) = 4.302653 (tables), s = 1, n = 3
    np.testing.assert_allclose([edges.min(), edges.max()], 2 + np.array([-1, 1]) * 4.302653 / np.sqrt(3), rtol=1e-6)


def test_spectrum_peaks_at_the_tone(axes: Axes) -> None:
    draw_spectrum(axes, over_time(np.sin(2 * np.pi * 4 * TIMES)))
    frequency, density = axes.get_lines()[0].get_data()
    assert frequency[np.nanargmax(density)] == pytest.approx(4.0, abs=0.5)  # 1/(record of 2.05)


@pytest.mark.parametrize(
    ("channels", "titles"),
    [
        (["loss", "free_energy", "error_1"], ["Learning", "Free energy", "Prediction errors"]),
        (["tracking_error", "activity", "costate"], ["Distance from the target", "Phase portrait"]),
    ],
)
def test_a_run_is_drawn_by_what_it_recorded(channels: list[str], titles: list[str]) -> None:
    values = 1 + TIMES
    data = xr.Dataset(
        {
            name: over_time(values[:, None], "n") if name != "loss" and name != "free_energy" else over_time(values)
            for name in channels
        }
    )
    assert [each.get_title() for each in draw_run(data).axes] == titles


def run_of(values: np.ndarray, **more: xr.DataArray) -> xr.Dataset:
    return xr.Dataset({"loss": over_time(values), "weight": over_time(np.ones((41, 2)), "n"), **more})


def test_runs_of_one_kind_are_a_mean_and_a_band() -> None:
    levels = np.array([1.0, 2.0, 6.0])
    thin = over_time(np.where(np.arange(41) % 10, np.nan, 5.0))
    thin.attrs["recorded_every"] = 0.5
    runs = [run_of(level + np.zeros(41), accuracy=thin) for level in levels]
    loss, accuracy = draw_runs(runs).axes
    (mean,) = loss.get_lines()
    np.testing.assert_allclose(mean.get_ydata(), 3.0, rtol=1e-15)
    # Student's t of two degrees of freedom at 97.5 % is 4.302653; s = √7
    band = loss.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(3 + 4.302652729911275 * np.sqrt(7 / 3), rel=1e-9)
    assert len(accuracy.get_lines()[0].get_ydata()) == 5
    with pytest.raises(RunFileError, match="at different times"):
        draw_runs([runs[0], runs[1].isel(time=slice(0, 5))])
    with pytest.raises(RunFileError, match="no scalar channel in common"):
        draw_runs([runs[0], runs[1][["weight"]]])
