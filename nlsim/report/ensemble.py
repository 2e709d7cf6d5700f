"""Figures of ensembles and of what trajectories hold: means with their bands, a spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nlsim.analysis.ensemble import summarise_ensemble
from nlsim.analysis.frames import recorded
from nlsim.analysis.spectrum import power_spectrum
from nlsim.errors import RunFileError
from nlsim.report.style import BLUE, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_runs(runs: Sequence[xarray.Dataset]) -> Figure:
    """Draw runs of one kind, such as those of several seeds: a panel for each scalar channel that all of them have.

    Parameters
    ----------
    runs : sequence of xarray.Dataset
        At least two, recorded at the same times.

    Raises
    ------
    RunFileError
        They have no scalar channel in common, or other times.
    """
    names = [str(name) for name in runs[0].data_vars if all(name in run and run[name].ndim == 1 for run in runs)]
    if not names:
        raise RunFileError("The runs have no scalar channel in common.", advice="Record loss, for example.")
    rows = (len(names) + 1) // 2
    figure = Figure(figsize=(11, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, min(2, len(names)), number)
        draw_band(axes, _members([recorded(run[name]) for run in runs]))
    return figure


def _members(channels: Sequence[xarray.DataArray]) -> xarray.DataArray:
    try:
        return xarray.concat(channels, "ensemble", join="exact", combine_attrs="override")
    except ValueError:
        raise RunFileError(
            f"The runs have the channel '{channels[0].name}' at different times.",
            given=", ".join(f"{each.sizes['time']} frames" for each in channels[:8]),
            allowed="runs of the same [record] and until",
        ) from None


def draw_band(axes: Axes, variable: xarray.DataArray, *, dim: str = "ensemble", confidence: float = 0.95) -> None:
    """Draw the mean of a scalar channel over the members of an ensemble, with its confidence interval as a band."""
    found = summarise_ensemble(variable, dim=dim, confidence=confidence)
    times = found["time"].values
    axes.fill_between(times, found["low"].values, found["high"].values, color=BLUE, alpha=0.25, lw=0)
    axes.plot(times, found["mean"].values, color=BLUE, lw=1.2, label=f"mean, {100 * confidence:g} % interval")
    name = str(variable.attrs.get("long_name", variable.name))
    plain(axes, title=f"{variable.sizes[dim]} members", xlabel="time", ylabel=name)
    axes.legend(fontsize=8, frameon=False)


def draw_spectrum(axes: Axes, variable: xarray.DataArray) -> None:
    """Draw the power spectral density of a scalar channel, recorded evenly, without its mean.

    Raises
    ------
    RunFileError
        The channel is constant, or not finite throughout.
    ValueError
        As of :func:`~nlsim.analysis.spectrum.power_spectrum`.
    """
    values = np.asarray(variable.values)
    if values.size and (not np.isfinite(values).all() or values.min() == values.max()):
        name = str(variable.attrs.get("long_name", variable.name))
        what = f"always {values.flat[0]:g}" if np.isfinite(values).all() else "not finite at every time"
        raise RunFileError("This channel has no spectrum.", given=f"{name}: {what}", allowed="a channel that varies")
    density = power_spectrum(variable).isel(frequency=slice(1, None))
    seen = density.where(density > 0)
    axes.loglog(density["frequency"].values, np.asarray(seen.values), color=BLUE, lw=0.9)
    name = str(variable.attrs.get("long_name", variable.name))
    plain(axes, title=f"Spectrum of {name}", xlabel="frequency [1/time]", ylabel="power spectral density")
