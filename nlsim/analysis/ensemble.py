"""What an ensemble says: mean, spread, and how well the mean is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray


def summarise_ensemble(
    variable: xarray.DataArray, *, dim: str = "ensemble", confidence: float = 0.95
) -> xarray.Dataset:
    """Return mean, deviation and confidence interval over the members of an ensemble.

    mean ± t s/√n, with s the standard deviation (n − 1) and t the quantile of Student's distribution of n − 1 degrees
    of freedom: the interval holds the mean of the population with the given probability when members are independent
    and normal, and about so when they are many.

    Parameters
    ----------
    variable : xarray.DataArray
        A channel with the members along ``dim``; NaN of a member that has ended counts as missing.
    dim : str
        Axis of the members.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    xarray.Dataset
        ``mean``, ``deviation``, ``low``, ``high`` and ``count``, over the other axes; where fewer than two members
        are left, the interval is NaN.

    Raises
    ------
    ValueError
        For a confidence that is none, or an axis that is not there.

    Notes
    -----
    Cost: three passes; lazy where the array is, but for the counts.
    """
    import xarray

    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1; given {confidence}")
    if dim not in variable.dims:
        raise ValueError(f"no axis '{dim}'; there are {', '.join(map(str, variable.dims))}")
    values = variable.astype(np.float64)
    count = values.count(dim)
    mean = values.mean(dim)
    deviation = values.std(dim, ddof=1).where(count > 1)
    counts = np.unique(count.values)
    quantiles = np.array([student_quantile((1 + confidence) / 2, int(n) - 1) if n > 1 else math.nan for n in counts])
    factor = count.copy(data=quantiles[np.searchsorted(counts, count.values)])
    half = factor * deviation / count.where(count > 0) ** 0.5
    return xarray.Dataset(
        {"mean": mean, "deviation": deviation, "low": mean - half, "high": mean + half, "count": count},
        attrs={"confidence": confidence},
    )


def student_quantile(probability: float, freedom: int) -> float:
    """Return t with P(T ≤ t) = probability, of Student's distribution.

    With T = √ν tan u the density of u is cos^(ν−1) u/√π Γ((ν+1)/2)/Γ(ν/2) on (−π/2, π/2); its integral is taken by
    Gauss' rule with 200 nodes and inverted by bisection.

    Parameters
    ----------
    probability : float
        Between 0 and 1.
    freedom : int
        ν ≥ 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"needs a probability between 0 and 1 and ν ≥ 1; given {probability} and {freedom}")
    nodes, weights = np.polynomial.legendre.leggauss(200)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def above_half(angle: float) -> float:
        return float(scale * angle / 2 * np.sum(weights * np.cos(angle / 2 * (nodes + 1)) ** (freedom - 1)))

    wanted = abs(probability - 0.5)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if above_half(middle) < wanted else (low, middle)
    return math.copysign(math.sqrt(freedom) * math.tan((low + high) / 2), probability - 0.5)
