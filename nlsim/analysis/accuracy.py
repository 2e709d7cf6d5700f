"""How long a run takes until it is as accurate as asked for, and stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import xarray


def time_to_accuracy(
    values: ArrayLike | xarray.DataArray,
    level: float,
    *,
    time: ArrayLike | None = None,
    interpolates: bool = False,
) -> NDArray[np.float64]:
    """Return the first time from which on a recorded channel is at a level or above it, to the end of the record.

    A value that touches the level and falls again does not count: what is returned is the end of the last time below.

    Parameters
    ----------
    values : array_like or DataArray
        Accuracy in frames along the first axis, or along the dimension ``time`` of a channel. Further axes (members of
        an ensemble) are looked at one by one.
    level : float
        The accuracy asked for, in the unit of the values.
    time : array_like, optional
        Times of the frames, increasing; by default those of the channel.
    interpolates : bool
        Whether to return the instant at which a straight line between the last frame below the level and the next
        one comes to it. Without it the time of that next frame is returned: never too early, late by one distance of
        record times at most.

    Returns
    -------
    ndarray
        Shape of the further axes. Infinity where the last value is below the level, or there is none. The time of the
        first frame where no value is below.

    Raises
    ------
    ValueError
        For times that are missing, not finite, not increasing, or not as many as frames, and for a level that is no
        number.

    Notes
    -----
    Frames without a number (NaN, None) are left out, as they pad runs that ended earlier than others: they neither
    reach the level nor fall below it, and a line is drawn across them.
    """
    frames, times = _frames(values, time)
    if not np.isfinite(level):
        raise ValueError(f"time_to_accuracy needs a level that is a number; given {level}")
    flat = frames.reshape(len(times), -1)
    found = [_first(times, column, level, interpolates=interpolates) for column in flat.T]
    return np.asarray(found, dtype=np.float64).reshape(frames.shape[1:])


def _frames(
    values: ArrayLike | xarray.DataArray, time: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frames along the first axis, and their times."""
    frames = np.asarray(values, dtype=np.float64)
    dims = getattr(values, "dims", None)
    if dims is not None and "time" in dims:
        frames = np.moveaxis(frames, dims.index("time"), 0)
        if time is None and "time" in getattr(values, "coords", ()):
            time = values["time"].values  # type: ignore[index, call-overload, union-attr]
    if time is None:
        raise ValueError("time_to_accuracy needs the times of the frames; give time, or a channel with a time axis")
    times = np.asarray(time, dtype=np.float64)
    if frames.ndim == 0 or times.shape != frames.shape[:1]:
        raise ValueError(f"time_to_accuracy needs a time a frame; given {times.shape} and {frames.shape}")
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError("time_to_accuracy needs finite times that increase")
    return frames, times


def _first(times: NDArray[np.float64], values: NDArray[np.float64], level: float, *, interpolates: bool) -> float:
    is_number = ~np.isnan(values)
    t, v = times[is_number], values[is_number]
    (below,) = np.nonzero(v < level)
    reached = int(below[-1]) + 1 if below.size else 0
    if reached >= len(t):
        return float("inf")
    if not interpolates or reached == 0:
        return float(t[reached])
    start, end = v[reached - 1], v[reached]
    share = 1.0 if np.isinf(start) or np.isinf(end) else (level - start) / (end - start)
    return float(t[reached - 1] + share * (t[reached] - t[reached - 1]))
