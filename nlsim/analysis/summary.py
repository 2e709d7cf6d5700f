"""Short summaries of recorded channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nlsim.analysis.frames import recorded

if TYPE_CHECKING:
    import xarray


def summarise_channel(variable: xarray.DataArray) -> tuple[str, str]:
    """Return first and last frame of a channel as text: a number, or the norm ``|…|`` of an array."""
    variable = recorded(variable)
    if variable.sizes["time"] == 0:
        return "", ""

    def text(frame: xarray.DataArray) -> str:
        values = np.asarray(frame.values, dtype=np.float64)
        return f"{float(values):.4g}" if values.ndim == 0 else f"|{np.linalg.norm(values):.4g}|"

    return text(variable.isel(time=0)), text(variable.isel(time=-1))
