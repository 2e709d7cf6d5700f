"""Whether predicted probabilities are right: accuracy, log-loss, and how confidence compares with accuracy.

Probabilities come as for :mod:`nlsim.analysis.decisiveness`, labels as whole numbers of shape ``(sample,)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlsim.analysis.decisiveness import probabilities


def accuracy(given: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction of samples whose label has the largest probability, shape ``(...)``.

    Where c classes share the largest probability, one of which is right, the sample counts 1/c: what drawing lots
    among them gives on average. An undecided classifier is thus as good as chance, whatever the order of classes.
    """
    p, y = _checked(given, labels)
    best = p == p.max(-1, keepdims=True)
    mean: NDArray[np.float64] = (_at_label(best.astype(np.float64), y) / best.sum(-1)).mean(-1)
    return mean


def log_loss(given: ArrayLike, labels: ArrayLike, *, floor: float = 1e-12) -> NDArray[np.float64]:
    """Return the mean of −log p(label) in nats, shape ``(...)``; at least 0, log K for uniform probabilities.

    Parameters
    ----------
    given, labels : array_like
        Probabilities and labels.
    floor : float
        Smaller probabilities count as this one, so that one sure mistake is not infinite: 27.6 nats by default.
    """
    p, y = _checked(given, labels)
    mean: NDArray[np.float64] = -np.log(np.maximum(_at_label(p, y), floor)).mean(-1)
    return mean + 0.0


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, bin by bin.

    Attributes
    ----------
    edges : ndarray
        Edges of the bins, shape ``(bin + 1,)``.
    count : ndarray
        Samples in each bin, shape ``(bin,)``.
    confidence, accuracy : ndarray
        Their means in each bin, NaN in an empty one.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Return Σ_b n_b/n |accuracy_b − confidence_b|."""
        full = self.count > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float((self.count[full] * gaps).sum() / self.count.sum())


def reliability(given: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> Reliability:
    """Sort samples by their confidence max_c p_c into bins of equal width over [0, 1].

    Bin b of B holds confidences with b/B < max p ≤ (b + 1)/B. The predicted class is the first of the most probable
    ones.

    Parameters
    ----------
    given : array_like
        Shape ``(sample, class)``.
    labels : array_like
        Shape ``(sample,)``.
    bins : int
        B, at least 1.

    References
    ----------
    Guo et al., *On calibration of modern neural networks*, ICML 2017.
    """
    if bins < 1:
        raise ValueError(f"reliability needs one bin or more; given {bins}")
    p, y = _checked(given, labels)
    if p.ndim != 2:
        raise ValueError(f"reliability takes probabilities of the shape (sample, class); given {p.shape}")
    confidence, is_right = p.max(-1), (p.argmax(-1) == y).astype(np.float64)
    edges = np.arange(bins + 1) / bins
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    return Reliability(
        edges,
        count.astype(np.int64),
        np.bincount(which, confidence, bins) / divisor,
        np.bincount(which, is_right, bins) / divisor,
    )


def expected_calibration_error(given: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Return Σ_b n_b/n |accuracy_b − confidence_b| over the bins of :func:`reliability`: 0 to 1, 0 is best."""
    return reliability(given, labels, bins=bins).expected_error


def _at_label(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return values[..., np.arange(len(labels)), labels]


def _checked(given: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p, y = probabilities(given), np.asarray(labels)
    if y.shape != p.shape[-2:-1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels are whole numbers, one a sample: shape {p.shape[-2:-1]}; given {y.shape}, {y.dtype}")
    if y.min() < 0 or y.max() >= p.shape[-1]:
        raise ValueError(f"labels lie between 0 and {p.shape[-1] - 1}; given {y.min()} to {y.max()}")
    return p, y.astype(np.int64)
