"""A figure of one kind, of channels that a person names."""

from __future__ import annotations

from collections.abc import Callable

import xarray
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nlsim.analysis.frames import recorded
from nlsim.errors import RunFileError, did_you_mean
from nlsim.record import channels
from nlsim.report.entry import choose


def channel_of(data: xarray.Dataset, name: str) -> xarray.DataArray:
    """Return a channel with one number a frame by its name, at the times at which it was recorded.

    Parameters
    ----------
    data : xarray.Dataset
        A run.
    name : str
        A channel such as ``"loss"``; an entry of an array such as ``"activity/1[0,3]"``, see
        :func:`~nlsim.report.entry.choose`.

    Raises
    ------
    RunFileError
        There is none of this name, or no such entry; or it is an array and no entry is chosen.
    """
    name, bracket, entry = name.partition("[")
    known = channels(data)
    if name not in known:
        guess = did_you_mean(name, known)
        raise RunFileError(
            "The run has no channel of this name.",
            given=name,
            allowed=", ".join(known),
            advice=f"Did you mean '{guess}'?" if guess else None,
        )
    variable = recorded(data[known[name]])
    return choose(variable, entry.removesuffix("]") if bracket else None)


def draw_one(draw: Callable[[Axes], None]) -> Figure:
    """Return a figure of one panel.

    Raises
    ------
    RunFileError
        What is to be drawn cannot be made of these channels; the reason is said.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    try:
        draw(figure.add_subplot())
    except ValueError as reason:
        raise RunFileError("This figure cannot be drawn of these channels.", given=str(reason)) from None
    return figure
