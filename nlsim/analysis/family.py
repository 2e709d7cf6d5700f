"""A family of runs that differ in their step: the order that they show, and the limit that they point at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nlsim.analysis.orders import richardson

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Refinement:
    """What three or more runs of halved (or equally shrunk) steps say together.

    Attributes
    ----------
    steps : tuple of float
        From coarse to fine.
    differences : tuple of float
        Root mean square of the difference of neighbours, over common times and all entries.
    orders : tuple of float
        log(difference / next difference)/log(ratio): p, without knowing the solution. They settle when the steps
        are small enough, and do not when round-off or an event is all that is left.
    limit : xarray.DataArray
        Richardson's extrapolation of the two finest, at the common times, with the last order rounded to an integer.
    """

    steps: tuple[float, ...]
    differences: tuple[float, ...]
    orders: tuple[float, ...]
    limit: xarray.DataArray


def refine(family: Mapping[float, xarray.DataArray]) -> Refinement:
    """Return observed orders and extrapolation of one channel over a family of runs.

    Parameters
    ----------
    family : mapping of float to xarray.DataArray
        Step (or 1/c, or whatever goes to 0) -> the channel over ``time``; three runs or more, each step the same
        fraction of the one before.

    Raises
    ------
    ValueError
        With fewer than three runs, steps of uneven ratio, no common time, or runs that do not differ.

    Notes
    -----
    Only times that all runs have are used. The extrapolation cancels the leading error term: of the order p it leaves
    O(hᵖ⁺¹).
    """
    steps = tuple(sorted(family, reverse=True))
    if len(steps) < 3 or steps[-1] <= 0:
        raise ValueError(f"refine needs three positive steps or more; given {list(steps)}")
    ratios = np.divide(steps[:-1], steps[1:])
    if not np.allclose(ratios, ratios[0], rtol=1e-9):
        raise ValueError(f"refine needs steps of one ratio; given {list(steps)}")
    times = family[steps[0]]["time"].values
    for step in steps[1:]:
        times = np.intersect1d(times, family[step]["time"].values)
    if not times.size:
        raise ValueError("refine needs times that all runs have")
    runs = [family[step].sel(time=times) for step in steps]
    differences = tuple(float(np.sqrt(((coarse - fine) ** 2).mean())) for coarse, fine in pairwise(runs))
    if not all(np.isfinite(differences)) or min(differences) <= 0:
        raise ValueError(f"refine needs runs that differ, by finite amounts; the differences are {list(differences)}")
    logs = np.log(differences)
    orders = tuple(float(order) for order in (logs[:-1] - logs[1:]) / np.log(ratios[0]))
    order = max(1, round(orders[-1]))
    limit = richardson(runs[-2].values, runs[-1].values, ratio=float(ratios[0]), order=order)
    return Refinement(steps, differences, orders, runs[-1].copy(data=limit))
