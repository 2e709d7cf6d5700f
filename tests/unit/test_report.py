"""Figures from data sets made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.report.figures import coarse_frames, draw_run, finest_stretch, save


def dataset(times: list[float], **channels: list[float]) -> xr.Dataset:
    return xr.Dataset({name: ("time", np.asarray(values)) for name, values in channels.items()}, {"time": times})


def test_panels_follow_the_channels() -> None:
    figure = draw_run(dataset([0.0, 1.0, 2.0], loss=[3.0, 2.0, 1.0]))
    assert [axes.get_title() for axes in figure.axes] == ["Learning"]
    line = figure.axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xydata(), [[0, 3], [1, 2], [2, 1]])


def test_values_that_no_logarithm_has_are_left_out() -> None:
    figure = draw_run(dataset([0.0, 1.0, 2.0], loss=[3.0, 0.0, 1.0], gradient_error=[np.nan, 0.5, 0.1]))
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), [3.0, 1.0])
    np.testing.assert_array_equal(figure.axes[1].get_lines()[0].get_ydata(), [0.5, 0.1])


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(RunFileError, match="nothing that can be drawn") as caught:
        draw_run(dataset([0.0, 1.0], other=[1.0, 2.0]))
    assert caught.value.given == "other"
    assert "gradient_error" in str(caught.value.allowed)


def test_finest_stretch_is_the_longest_run_of_the_smallest_gap() -> None:
    times = np.array([0.0, 1.0, 2.0, 2.1, 2.2, 2.3, 3.0, 3.1, 4.0])
    assert finest_stretch(times) == slice(2, 6)
    np.testing.assert_array_equal(coarse_frames(times), [0, 1, 2, 5, 6, 7, 8])


def test_even_times_are_all_drawn() -> None:
    times = np.linspace(0, 1, 50)
    assert finest_stretch(times) == slice(0, 50)
    assert len(coarse_frames(times)) == 50


@pytest.mark.parametrize("name", ["no/folder.png", "figure.xyz"])
def test_unwritable_figure_is_said(tmp_path: Path, name: str) -> None:
    figure = draw_run(dataset([0.0, 1.0], loss=[1.0, 2.0]))
    with pytest.raises(RunFileError, match="cannot be written"):
        save(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
