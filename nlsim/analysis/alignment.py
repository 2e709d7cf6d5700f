"""How well directions agree: of an output's path with the straight way to its target, of updates with a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cosine(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Return the cosines of the angles between vectors that lie along the last axis.

    cos = ⟨a, b⟩/(‖a‖ ‖b‖).

    Parameters
    ----------
    one, other : array_like
        a and b, shapes ``(..., n)`` that broadcast; arrays or channels of a run.

    Returns
    -------
    ndarray
        Shape ``(...)``, in [−1, 1], whatever the lengths of the vectors are. NaN where a vector is 0 or is no number:
        it has no direction.

    Raises
    ------
    ValueError
        When the vectors do not have the same number of entries.
    """
    a, b = _directions(one), _directions(other)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"cosine needs vectors of one length; given shapes {a.shape} and {b.shape}")
    found: NDArray[np.float64] = np.clip((a * b).sum(-1), -1.0, 1.0)
    return found


def path_alignment(before: ArrayLike, after: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return how straight an output has moved to its target: cos(h' − h, y − h).

    1 where the update has moved the output along the direct path, the shortest there is; below 0 where the output has
    gone away.

    Parameters
    ----------
    before, after, target : array_like
        The output h and h' of the network before and after an update, and y, shapes ``(..., output)`` that broadcast.

    Returns
    -------
    ndarray
        Shape ``(...)``; NaN where the output has not moved, or was at its target.

    References
    ----------
    Alonso, Millidge, Krichmar and Neftci, *A Theoretical Framework for Inference Learning*, NeurIPS 2022, on the
    minimum-norm path of the output. The same number is the target alignment of Song et al., Nature Neuroscience 27,
    2024.
    """
    h = np.asarray(before, dtype=np.float64)
    return cosine(np.asarray(after, dtype=np.float64) - h, np.asarray(target, dtype=np.float64) - h)


def update_alignment(
    update: Sequence[ArrayLike], gradient: Sequence[ArrayLike], *, ensemble_axes: int = 0
) -> NDArray[np.float64]:
    """Return cos(Δθ, −∇L) over the weights of all layers together.

    1 for a step of steepest descent. The layers of a normalised update may each follow their own gradient and the
    whole still not, as they do so at different rates; for one layer alone give a sequence of one.

    Parameters
    ----------
    update, gradient : sequence of array_like
        ΔW_l and ∂L/∂W_l, one array a layer, of one shape each.
    ensemble_axes : int
        Number of leading axes that every array has in common.

    Returns
    -------
    ndarray
        Shape of the ensemble axes.

    Raises
    ------
    ValueError
        When layers do not fit each other.
    """
    shapes = [(np.shape(u), np.shape(g)) for u, g in zip(update, gradient, strict=True)]
    if not shapes or any(u != g for u, g in shapes):
        raise ValueError(f"update_alignment needs one gradient of its shape for each update; given {shapes}")
    return cosine(_stack(update, ensemble_axes), -_stack(gradient, ensemble_axes))


def _stack(layers: Sequence[ArrayLike], ensemble_axes: int) -> NDArray[np.float64]:
    arrays = [np.asarray(each, dtype=np.float64) for each in layers]
    return np.concatenate([each.reshape(*each.shape[:ensemble_axes], -1) for each in arrays], axis=-1)


def _directions(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return vectors of length 1; NaN for 0. The largest entry is divided by first: no square over- or underflows."""
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim == 0:
        return values
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = values / np.abs(values).max(-1, keepdims=True, initial=0.0)
        found: NDArray[np.float64] = scaled / np.sqrt((scaled * scaled).sum(-1, keepdims=True))
    return found
