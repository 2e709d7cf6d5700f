"""What an ensemble says: mean, spread, and how well the mean is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

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
    Cost: three passes; lazy where the array is.
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
    factor = xarray.apply_ufunc(
        stdtrit, count - 1.0, (1 + confidence) / 2, dask="parallelized", output_dtypes=[np.float64]
    )
    half = factor * deviation / count.where(count > 0) ** 0.5
    return xarray.Dataset(
        {"mean": mean, "deviation": deviation, "low": mean - half, "high": mean + half, "count": count},
        attrs={"confidence": confidence},
    )
