"""Which frequencies a trajectory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray

_UNEVEN = 1e-6


def power_spectrum(variable: xarray.DataArray, *, window: Literal["hann", "none"] = "hann") -> xarray.DataArray:
    """Return the one-sided power spectral density of a channel.

    S(f) with ∫ S df = the variance over time: exactly without a window, and with Hann's for a signal that is spread
    evenly over the record.

    Parameters
    ----------
    variable : xarray.DataArray
        Over ``time``, evenly spaced, four frames or more; other axes are kept.
    window : {"hann", "none"}
        Hann's window keeps a strong frequency from spilling over its neighbours, at twice the width of a line.

    Returns
    -------
    xarray.DataArray
        Over ``frequency`` from 0 to 1/(2h) [1/time], and the other axes [unit²·time]; the mean is taken out first.

    Raises
    ------
    ValueError
        With uneven times (a stretch of ``[[record.window]]`` is even) or too few.

    Notes
    -----
    Cost: one FFT an entry; lazy where the array is, which must then be one piece along time.
    """
    import xarray

    step = even_step(variable)
    count = variable.sizes["time"]
    taper = np.ones(count) if window == "none" else 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)

    def density(values: NDArray[Any]) -> NDArray[np.float64]:
        centred = values - values.mean(axis=-1, keepdims=True)
        power = np.abs(np.fft.rfft(centred * taper)) ** 2 * step / np.sum(taper**2)
        last = -1 if count % 2 == 0 else None  # the highest frequency of an even count has no partner
        power[..., 1:last] *= 2
        return np.asarray(power)

    frequency = np.fft.rfftfreq(count, step)
    found: xarray.DataArray = xarray.apply_ufunc(
        density,
        variable.astype(np.float64),
        input_core_dims=[["time"]],
        output_core_dims=[["frequency"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"frequency": len(frequency)}},
    )
    return found.assign_coords(frequency=frequency)


def dominant_frequency(spectrum: xarray.DataArray) -> xarray.DataArray:
    """Return the frequency of the most power, 0 apart [1/time]; it is known to one over the length of the record."""
    return spectrum.isel(frequency=slice(1, None)).idxmax("frequency")


def even_step(variable: xarray.DataArray) -> float:
    """Return the distance of frames; ValueError when there are fewer than four or they are uneven."""
    times = variable["time"].values
    gaps = np.diff(times)
    if len(times) < 4 or not (np.abs(gaps - gaps.mean()) <= _UNEVEN * gaps.mean()).all():
        raise ValueError(
            f"needs four or more evenly spaced frames; given {len(times)}"
            + (f", {gaps.min():g} to {gaps.max():g} apart" if gaps.size else "")
        )
    return float(gaps.mean())
