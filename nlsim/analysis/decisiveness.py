"""How decided a classifier is, whatever is right: measures of its predicted probabilities.

Probabilities come as an array of shape ``(..., sample, class)`` with sum 1 along the last axis; a binary classifier
may give the probability of its second class alone, shape ``(..., sample)`` (:func:`both_classes`). Confidence is no
merit by itself: read it together with accuracy and calibration (:mod:`nlsim.analysis.calibration`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def probabilities(given: ArrayLike, *, tolerance: float = 1e-6) -> NDArray[np.float64]:
    """Return an array of probabilities, or refuse what is none.

    Parameters
    ----------
    given : array_like
        Shape ``(..., sample, class)``, two classes or more.
    tolerance : float
        How far sums may be from 1, and entries outside of [0, 1]: some hundred roundings of float32.

    Raises
    ------
    ValueError
        For fewer than two classes, no samples, NaN, or sums other than 1.
    """
    p = np.asarray(given, dtype=np.float64)
    if p.ndim < 2 or p.shape[-1] < 2 or p.shape[-2] == 0:
        raise ValueError(f"probabilities have the shape (..., sample, class), two classes or more; given {p.shape}")
    if not (p.min() >= -tolerance and p.max() <= 1 + tolerance and np.abs(p.sum(-1) - 1).max() <= tolerance):
        raise ValueError("probabilities lie in [0, 1] and sum up to 1 over the classes")
    return p.clip(0.0, 1.0)


def both_classes(second: ArrayLike) -> NDArray[np.float64]:
    """Return (1 − p, p), shape ``(..., sample, 2)``, of the probability p of the second of two classes."""
    p = np.asarray(second, dtype=np.float64)
    return np.stack((1.0 - p, p), -1)


def mean_confidence(given: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over samples of max_c p_c: from 1/K, undecided, to 1; shape ``(...)``."""
    mean: NDArray[np.float64] = probabilities(given).max(-1).mean(-1)
    return mean


def normalised_entropy(given: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over samples of −Σ_c p_c log p_c / log K: from 0, decided, to 1; shape ``(...)``."""
    p = probabilities(given)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)  # p log p → 0 as p → 0
    mean: NDArray[np.float64] = (-(p * logs).sum(-1) / np.log(p.shape[-1])).mean(-1)
    return mean + 0.0


def mean_distance_from_half(second: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of |p − ½| of a binary classifier: from 0, undecided, to ½; shape ``(...)``.

    Parameters
    ----------
    second : array_like
        Probability of the second class, shape ``(..., sample)``. It is mean confidence less ½.
    """
    p = both_classes(second)
    return np.asarray(mean_confidence(p) - 0.5)
