"""Observed orders of convergence, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def observed_order(steps: ArrayLike, errors: ArrayLike) -> float:
    """Return the slope of log error against log step, by least squares.

    Parameters
    ----------
    steps, errors : array_like
        Positive numbers of equal length, at least two.

    Returns
    -------
    float
        p in error ≈ C stepᵖ. With a speed c in place of the step, an error like 1/c has p = −1.

    Raises
    ------
    ValueError
        When fewer than two points are given or one is not positive and finite.
    """
    h = np.asarray(steps, dtype=np.float64)
    e = np.asarray(errors, dtype=np.float64)
    if h.size < 2 or h.shape != e.shape:
        raise ValueError(f"observed_order needs two or more pairs; given {h.size} steps and {e.size} errors")
    for name, values in (("steps", h), ("errors", e)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"observed_order needs positive finite {name}; given {values.tolist()}")
    return float(np.polyfit(np.log(h), np.log(e), 1)[0])


def pairwise_orders(steps: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Return the order seen between each pair of neighbours, to show how it settles."""
    return [observed_order(steps[i : i + 2], errors[i : i + 2]) for i in range(len(steps) - 1)]


def richardson(coarse: ArrayLike, fine: ArrayLike, *, ratio: float = 2.0, order: int = 1) -> NDArray[np.float64]:
    """Return the extrapolation that cancels an error term of the given order.

    Parameters
    ----------
    coarse, fine : array_like
        Values at step h and at h/ratio.
    ratio : float
        h_coarse / h_fine, > 1.
    order : int
        Order p of the term to cancel, ≥ 1.

    Returns
    -------
    ndarray
        (ratioᵖ fine − coarse)/(ratioᵖ − 1); for ratio 2, p = 1: 2 fine − coarse.
    """
    factor = ratio**order
    extrapolated: NDArray[np.float64] = (factor * np.asarray(fine) - np.asarray(coarse)) / (factor - 1)
    return extrapolated
