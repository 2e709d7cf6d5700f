"""Figures of ensembles and of what trajectories hold: a mean with its band, a spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray

from nlsim.analysis.ensemble import summarise_ensemble
from nlsim.analysis.spectrum import power_spectrum
from nlsim.report.style import BLUE, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    """Draw the power spectral density of a scalar channel, recorded evenly, without its mean."""
    density = power_spectrum(variable).isel(frequency=slice(1, None))
    seen = density.where(density > 0)
    axes.loglog(density["frequency"].values, np.asarray(seen.values), color=BLUE, lw=0.9)
    name = str(variable.attrs.get("long_name", variable.name))
    plain(axes, title=f"Spectrum of {name}", xlabel="frequency [1/time]", ylabel="power spectral density")
