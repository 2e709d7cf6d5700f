"""How fast neighbours part: the largest Lyapunov exponent, of one trajectory or of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nlsim.analysis.spectrum import even_step

if TYPE_CHECKING:
    import xarray

_BLOCK = 256


def largest_exponent(trajectory: xarray.DataArray, *, horizon: int, apart: int = 1) -> float:
    """Return the largest Lyapunov exponent of a trajectory from the parting of its nearest neighbours.

    The method of Rosenstein, Collins & De Luca (Physica D 65, 1993): each frame is paired with the frame that is
    nearest in state and at least ``apart`` frames away in time; the exponent is the slope, by least squares, of the
    mean of ln ‖distance‖ over the pairs, against the time for which both have moved on.

    Parameters
    ----------
    trajectory : xarray.DataArray
        States over ``time``, evenly spaced; all other axes together are the state. It must be the whole state, or
        enough of it (or of its delays) to tell states apart.
    horizon : int
        Frames over which the parting is followed, ≥ 1. Long enough to see it, short enough that distances stay small
        beside the attractor: the estimate falls when they saturate.
    apart : int
        Fewest frames between the two of a pair, ≥ 1; about the time in which the trajectory forgets itself.

    Returns
    -------
    float
        λ [1/time]: positive where neighbours part, negative where they meet.

    Raises
    ------
    ValueError
        With uneven times, or too few frames for pairs to be followed.

    Notes
    -----
    Pairs that coincide, now or later, are left out: their distance has no logarithm. Cost: the square of the number
    of frames, in blocks; a few thousand frames take a second.
    """
    step = even_step(trajectory)
    states = trajectory.transpose("time", ...).values.astype(np.float64).reshape(trajectory.sizes["time"], -1)
    count = len(states) - horizon
    if horizon < 1 or apart < 1 or count <= 2 * apart:
        raise ValueError(f"needs more than {horizon} + 2·{apart} frames; given {len(states)}")
    partner = _nearest(states[:count], apart)
    shifts = np.arange(horizon + 1)
    own = np.arange(count)
    with np.errstate(divide="ignore"):
        logs = np.log(np.linalg.norm(states[own[:, None] + shifts] - states[partner[:, None] + shifts], axis=-1))
    logs = logs[np.isfinite(logs).all(axis=1)]
    if not len(logs):
        raise ValueError("needs states that differ; every pair of neighbours coincides")
    return float(np.polyfit(step * shifts, logs.mean(axis=0), 1)[0])


def parting_rate(one: xarray.DataArray, other: xarray.DataArray, *, ceiling: float = np.inf) -> float:
    """Return the rate at which two runs part: the slope of ln ‖difference‖ over time, by least squares.

    Of twins that begin close together it is the largest Lyapunov exponent along the run, once the difference has
    turned into the fastest direction and while it is small.

    Parameters
    ----------
    one, other : xarray.DataArray
        The same channel of both, at the same times; all axes but ``time`` together are the state.
    ceiling : float
        Frames from the first on with a larger difference are left out.

    Returns
    -------
    float
        [1/time].

    Raises
    ------
    ValueError
        With other times, or fewer than two frames with a difference below the ceiling.
    """
    if not one["time"].equals(other["time"]):
        raise ValueError("parting_rate needs both runs at the same times")
    gap = (one - other).transpose("time", ...).values.astype(np.float64).reshape(one.sizes["time"], -1)
    distance = np.linalg.norm(gap, axis=1)
    beyond = np.flatnonzero(~(distance <= ceiling))
    end = beyond[0] if len(beyond) else len(distance)
    seen = np.flatnonzero(distance[:end] > 0)
    if len(seen) < 2:
        raise ValueError("parting_rate needs two or more frames with a difference, below the ceiling")
    return float(np.polyfit(one["time"].values[seen], np.log(distance[seen]), 1)[0])


def _nearest(states: NDArray[np.float64], apart: int) -> NDArray[np.intp]:
    """Return for each state the nearest that is far enough away in time and not at the same place."""
    count = len(states)
    size = np.sum(states**2, axis=1)
    found = np.empty(count, dtype=np.intp)
    frames = np.arange(count)
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        squared = size[block, None] - 2 * states[block] @ states.T + size
        squared[np.abs(frames[block, None] - frames) < apart] = np.inf
        found[block] = np.argmin(squared, axis=1)
    return found
