"""Phase portraits: a state against its costate, or against another state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray

from nlsim.report.style import BLUE, GREEN, RED, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_phase(axes: Axes, one: xarray.DataArray, other: xarray.DataArray) -> None:
    """Draw one channel against another over time, with where it begins (circle) and where it ends (square).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where.
    one, other : xarray.DataArray
        Over ``time``; of arrays the first entry is drawn.
    """
    x, y = (first_entry(each) for each in (one, other))
    axes.plot(x, y, color=BLUE, lw=0.8)
    axes.plot(x[:1], y[:1], "o", color=GREEN, ms=6, label="begin", ls="none")
    axes.plot(x[-1:], y[-1:], "s", color=RED, ms=6, label="end", ls="none")
    labels = (str(each.attrs.get("long_name", each.name)) for each in (one, other))
    plain(axes, title="Phase portrait", **dict(zip(("xlabel", "ylabel"), labels, strict=True)))
    axes.legend(fontsize=8, frameon=False)


def draw_state_and_costate(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the phase portrait of the first neuron of a controlled system and its costate."""
    draw_phase(axes, data["activity"], data["costate"])


def first_entry(variable: xarray.DataArray) -> np.ndarray:
    """Return the first entry of every axis but time."""
    first = variable.isel({dim: 0 for dim in variable.dims if dim != "time"})
    return np.asarray(first.values)
