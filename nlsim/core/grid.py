"""Time grids on which inputs are smooth: every edge of the signal is a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from nlsim.core.system import Signal
from nlsim.errors import NlsimError

RESOLUTION = 1e-9
"""A stretch longer than a multiple of the step by this fraction of it is that multiple: 0.3 and 3 · 0.1 are one."""


def time_grid(signal: Signal, start: float, stop: float, step: float) -> tuple[float, ...]:
    """Return nodes from ``start`` to ``stop``, with the edges of a signal among them.

    Each smooth stretch is divided evenly into the fewest steps that are not longer than ``step``.

    Parameters
    ----------
    signal : Signal
        Whose edges count.
    start, stop : float
        Ends of the grid, start < stop.
    step : float
        Longest step, > 0, in units of time.

    Returns
    -------
    tuple of float
        Increasing; the first is ``start`` and the last is ``stop``, exactly.

    Raises
    ------
    NlsimError
        When the horizon is empty or the step is not positive.
    """
    if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
        raise NlsimError(
            "A time grid needs a horizon.", where="start, stop", given=(start, stop), allowed="start < stop"
        )
    if not step > 0:
        raise NlsimError("A time grid needs a positive step.", where="step", given=step, allowed="step > 0")
    nodes = [start]
    while nodes[-1] < stop:
        begin = nodes[-1]
        end = min(signal.edge_after(begin), stop)
        count = max(1, math.ceil((end - begin) / step - RESOLUTION))
        nodes += [begin + (end - begin) * n / count for n in range(1, count)]
        nodes.append(end)
    return tuple(nodes)


def check_grid(grid: Sequence[float], edge_after: Callable[[float], float]) -> None:
    """Refuse a grid that does not increase, or one of whose steps contains an edge of the inputs.

    Raises
    ------
    NlsimError
        With the step at fault.
    """
    if len(grid) < 2 or any(not begin < end for begin, end in pairwise(grid)):
        raise NlsimError(
            "This is not an increasing time grid.",
            where="grid",
            given=f"{len(grid)} nodes",
            allowed="two or more increasing times",
            advice="Build it with nlsim.core.grid.time_grid.",
        )
    for begin, end in pairwise(grid):
        edge = edge_after(begin)
        if edge < end - RESOLUTION * (end - begin):
            raise NlsimError(
                "A step of the grid contains an instant at which the inputs jump.",
                where="grid",
                given=f"step from {begin:.9g} to {end:.9g}, jump at {edge:.9g}",
                advice="Build the grid with nlsim.core.grid.time_grid, which makes every edge a node.",
            )
