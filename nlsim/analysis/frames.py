"""Which frames of a channel say something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlsim.record.format import RECORDED_EVERY

if TYPE_CHECKING:
    import xarray


def recorded(variable: xarray.DataArray) -> xarray.DataArray:
    """Return a channel at the times at which it was recorded.

    Parameters
    ----------
    variable : xarray.DataArray
        A channel over ``time``. One with times of its own (attribute ``recorded_every``) is NaN at the others.

    Returns
    -------
    xarray.DataArray
        The channel itself, or without those frames.

    Notes
    -----
    Cost: nothing, or for a channel with times of its own one reading of it.
    """
    if RECORDED_EVERY not in variable.attrs:
        return variable
    return variable.dropna("time", how="all")
