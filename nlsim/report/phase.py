"""Phase portraits: a state against its costate, or against another state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray

from nlsim.errors import RunFileError
from nlsim.report.entry import first_entry
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
        Over ``time``, at the times that both have; of arrays the first entry is drawn, and named.

    Raises
    ------
    RunFileError
        They have fewer than two times in common.
    """
    pair = xarray.align(first_entry(one), first_entry(other), join="inner")
    if pair[0].sizes["time"] < 2:
        raise RunFileError(
            "The channels were not recorded together.",
            given=f"{one.sizes['time']} and {other.sizes['time']} frames, {pair[0].sizes['time']} at the same time",
            allowed="two times or more that both have",
            advice="Give them the same `every` in [record].",
        )
    x, y = (each.values for each in pair)
    axes.plot(x, y, color=BLUE, lw=0.8)
    axes.plot(x[:1], y[:1], "o", color=GREEN, ms=6, label="begin", ls="none")
    axes.plot(x[-1:], y[-1:], "s", color=RED, ms=6, label="end", ls="none")
    labels = (str(each.attrs.get("long_name", each.name)) for each in pair)
    plain(axes, title="Phase portrait", **dict(zip(("xlabel", "ylabel"), labels, strict=True)))
    axes.legend(fontsize=8, frameon=False)


def draw_state_and_costate(axes: Axes, data: xarray.Dataset) -> None:
    """Draw the phase portrait of the first neuron of a controlled system and its costate."""
    draw_phase(axes, data["activity"], data["costate"])
