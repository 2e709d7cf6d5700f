"""A few numbers made of many: the norm, the mean or the histogram of what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_DESCRIPTION = {"norm": "Euclidean norm", "mean": "mean", "histogram": "number of entries in each bin"}


@dataclass(frozen=True, eq=False)
class Reduction:
    """What the entries of a value are made into.

    Parameters
    ----------
    name : str
        ``norm``, ``mean`` or ``histogram``.
    axes : tuple of int
        The axes that norm and mean are taken over, counted from the first; a histogram is over all.
    bins : Tensor or None
        Edges b_0 < b_1 < … of a histogram: bin i counts b_i ≤ x < b_{i+1}, the last one its upper edge too.
        Entries outside are not counted.
    """

    name: str
    axes: tuple[int, ...]
    bins: Tensor | None = None

    @property
    def description(self) -> str:
        """What comes out, for a person."""
        return _DESCRIPTION[self.name]

    def kept(self, each: Sequence[T]) -> tuple[T, ...]:
        """Return what belongs to the axes that stay."""
        return tuple(one for axis, one in enumerate(each) if axis not in self.axes)

    def __call__(self, value: Tensor) -> Tensor:
        """Return the reduced value. Cost: one pass over the entries, for a histogram with a search in each."""
        if self.bins is not None:
            return self._counts(value, self.bins)
        if not self.axes:
            return value.abs() if self.name == "norm" else value
        if self.name == "norm":
            found: Tensor = torch.linalg.vector_norm(value, dim=self.axes)
            return found
        return value.mean(self.axes)

    def _counts(self, value: Tensor, bins: Tensor) -> Tensor:
        entries = value.reshape(-1)
        last = len(bins) - 1
        place = torch.bucketize(entries, bins, right=True) - 1  # b_place ≤ x < b_{place + 1}
        place = torch.where(entries == bins[-1], last - 1, place)
        is_inside = (place >= 0) & (place < last)
        return torch.bincount(place[is_inside], minlength=last).to(torch.float64)
