"""What the interactive figures of a page show: lines of numbers, as few as the eye can use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nlsim.analysis.frames import recorded

if TYPE_CHECKING:
    import xarray

MOST_LINES = 8
MOST_CHARTS = 40
MOST_POINTS = 100_000
"""Of all lines of a page together: at some 22 bytes a point it stays below 3 MB."""

_TOGETHER = {"loss": ("test_loss", "loss of the current and of the test samples")}
"""Scalar channel -> another that belongs into its figure, and the title of both."""
_LOGARITHMIC_FROM = 50.0


@dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes
    ----------
    name : str
        For the legend.
    times, values : ndarray
        Shape ``(points,)``; values that are not finite leave a gap.
    """

    name: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Chart:
    """One figure of a page.

    Attributes
    ----------
    title, unit, note : str
        What it shows, the unit of the values, and how much of the channel it is.
    channels : tuple of str
        The channels that it shows.
    lines : tuple of Line
        At least one.
    """

    title: str
    unit: str
    channels: tuple[str, ...]
    lines: tuple[Line, ...]
    note: str = ""

    @property
    def is_logarithmic(self) -> bool:
        """Whether all values are positive and spread over more than a factor of 50."""
        values = np.concatenate([line.values for line in self.lines])
        values = values[np.isfinite(values)]
        return bool(values.size and values.min() > 0 and values.max() > _LOGARITHMIC_FROM * values.min())

    def as_dict(self, points: int) -> dict[str, Any]:
        """Return plain values for JSON, each line thinned to so many points."""
        return {
            "title": self.title,
            "unit": self.unit,
            "log": self.is_logarithmic,
            "lines": [
                {"name": line.name, "x": _numbers(x), "y": _numbers(y)}
                for line in self.lines
                for x, y in [thin(line.times, line.values, points)]
            ],
        }


def charts_of(data: xarray.Dataset) -> list[Chart]:
    """Return a figure for each channel of a run, at most 40; of an array at most 8 entries, evenly chosen.

    Notes
    -----
    Cost: the chosen entries of every channel are read.
    """
    charts: list[Chart] = []
    drawn: set[str] = set()
    for name, variable in data.data_vars.items():
        if len(charts) == MOST_CHARTS:
            break
        if str(name) in drawn or not _is_drawable(variable):
            continue
        other, title = _TOGETHER.get(str(name), ("", ""))
        if variable.ndim == 1 and other in data and data[other].dims == variable.dims and _is_drawable(data[other]):
            drawn.add(other)
            charts.append(_scalars([variable, data[other]], title))
        else:
            charts.append(_scalars([variable], "") if variable.ndim == 1 else _entries(variable))
    return charts


def thin(
    times: NDArray[np.float64], values: NDArray[np.float64], points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most so many points (≥ 4) of a line, keeping first, last, and the extremes of each stretch."""
    count = len(values)
    if count <= points:
        return times, values
    edges = np.linspace(0, count, (points - 2) // 2 + 1).astype(int)
    kept = {0, count - 1}
    for start, stop in pairwise(edges):
        stretch = values[start:stop]
        if np.isfinite(stretch).any():
            kept.add(start + int(np.nanargmin(stretch)))
            kept.add(start + int(np.nanargmax(stretch)))
        else:
            kept.add(start)  # the gap stays a gap
    chosen = np.array(sorted(kept))
    return times[chosen], values[chosen]


def _scalars(members: Sequence[xarray.DataArray], title: str) -> Chart:
    lines = tuple(scalar_line(_channel(member), member) for member in members)
    channels = tuple(line.name for line in lines)
    return Chart(title or _title(members[0]), _text(members[0], "units"), channels, lines)


def _entries(variable: xarray.DataArray) -> Chart:
    shape = variable.shape[1:]
    count = math.prod(shape)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).astype(int))
    lines = []
    for flat in chosen:
        index = np.unravel_index(int(flat), shape)
        place = {dim: int(at) for dim, at in zip(variable.dims[1:], index, strict=True)}
        entry = variable.isel(place)
        prefix = f"{variable.name}_"
        labels = [f"{str(dim).removeprefix(prefix)} {_label(variable, str(dim), at)}" for dim, at in place.items()]
        lines.append(scalar_line(", ".join(labels), entry))
    note = "" if len(chosen) == count else f"{len(chosen)} of {count} entries"
    return Chart(_title(variable), _text(variable, "units"), (_channel(variable),), tuple(lines), note)


def _is_drawable(variable: xarray.DataArray) -> bool:
    return variable.dims[:1] == ("time",) and variable.size > 0 and variable.dtype.kind in "iuf"


def scalar_line(name: str, variable: xarray.DataArray) -> Line:
    """Return a channel with one number a frame as a line of this name; it is read."""
    variable = recorded(variable)
    times = np.asarray(variable["time"].values, dtype=np.float64)
    return Line(name, times, np.asarray(variable.values, dtype=np.float64))


def _label(variable: xarray.DataArray, dim: str, at: int) -> str:
    return str(variable[dim].values[at])  # without labels, the position


def _channel(variable: xarray.DataArray) -> str:
    return _text(variable, "channel") or str(variable.name)


def _title(variable: xarray.DataArray) -> str:
    return _text(variable, "long_name") or _channel(variable)


def _text(variable: xarray.DataArray, name: str) -> str:
    return str(variable.attrs.get(name, ""))


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return seven digits of each number: more than a screen has; None where JSON has no number."""
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values.tolist()]
