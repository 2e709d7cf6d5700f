"""Following a run that is going in another process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from nlsim.record import format as fmt
from nlsim.record.trajectory import open_run


def follow(path: str | Path, *, pause: float = 0.5) -> Iterator[xr.Dataset]:
    """Look at a run again and again until it has ended.

    Parameters
    ----------
    path : str or Path
        A run file.
    pause : float
        Seconds between two looks, > 0.

    Yields
    ------
    xarray.Dataset
        The run as it is, as of :func:`~nlsim.record.trajectory.open_run`; closed when the next one is asked for.
        The last one is not ``running``.

    Raises
    ------
    RunFileError
        As of :func:`~nlsim.record.trajectory.open_run`; also when the file is taken away meanwhile.
    """
    while True:
        with open_run(path) as data:
            is_over = data.attrs[fmt.STATE] != fmt.RUNNING
            yield data
        if is_over:
            return
        time.sleep(pause)
