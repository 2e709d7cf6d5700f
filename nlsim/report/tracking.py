"""Figures of systems that follow a target: how far from it they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray

from nlsim.analysis.frames import recorded
from nlsim.report.style import BLUE, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_tracking(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the root mean square distance from the target."""
    error = recorded(data["tracking_error"])
    others = [dim for dim in error.dims if dim != "time"]
    size = (error.astype(np.float64) ** 2).mean(others) ** 0.5
    axes.plot(size["time"].values, size.values, color=BLUE, lw=0.8)
    plain(axes, title="Distance from the target", xlabel="time", ylabel="root mean square")
    values = size.values[np.isfinite(size.values)]
    if values.size and values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
