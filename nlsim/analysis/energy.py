"""What becomes of an energy along a run: its drift, and its balance with the power that changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Drift:
    """How an energy that should stay constant does not; of each member where there are several.

    Attributes
    ----------
    largest : xarray.DataArray
        Largest |E(t) − E(t₀)| [unit of E].
    rate : xarray.DataArray
        Slope of E over time by least squares [unit of E/time]: a bounded oscillation, as of a symplectic method, has
        hardly any, a method that gains or loses energy has one.
    scale : xarray.DataArray
        |E(t₀)|, to judge both by.
    """

    largest: xarray.DataArray
    rate: xarray.DataArray
    scale: xarray.DataArray


def energy_drift(energy: xarray.DataArray) -> Drift:
    """Return how far an energy drifts.

    Parameters
    ----------
    energy : xarray.DataArray
        E over ``time``, at least two frames; more axes are members of an ensemble.

    Raises
    ------
    ValueError
        With fewer than two frames.

    Notes
    -----
    Cost: one pass; lazy where the array is.
    """
    _require_frames(energy, 2)
    start = energy.isel(time=0, drop=True)
    gap = energy - start
    time = energy["time"] - energy["time"].mean()
    rate = (time * gap).sum("time") / (time**2).sum("time")
    return Drift(abs(gap).max("time"), rate, abs(start))


def power_balance(energy: xarray.DataArray, power: xarray.DataArray) -> xarray.DataArray:
    """Return E(t) − E(t₀) − ∫ P dt over time, which is zero where P is all that changes E.

    Parameters
    ----------
    energy : xarray.DataArray
        E over ``time``, at least two frames.
    power : xarray.DataArray
        P at the same times [unit of E/time]; negative where energy is lost, −θ m ‖ẇ‖² of a damped weight.

    Returns
    -------
    xarray.DataArray
        The residual, over ``time``.

    Raises
    ------
    ValueError
        With fewer than two frames, or with other times.

    Notes
    -----
    The integral is by the trapezium rule, whose error is at most (t − t₀) h² max|P̈|/12 for frames h apart: record
    finely enough for the balance that is asked.
    """
    _require_frames(energy, 2)
    if not energy["time"].equals(power["time"]):
        raise ValueError("power_balance needs energy and power at the same times")
    work = power.cumulative_integrate("time")
    return energy - energy.isel(time=0, drop=True) - work


def _require_frames(variable: xarray.DataArray, count: int) -> None:
    if variable.sizes["time"] < count:
        raise ValueError(f"needs {count} frames or more; given {variable.sizes['time']}")
