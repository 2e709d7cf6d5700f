"""Data sets of labelled samples, from packages that ship them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledData:
    """Samples with a class each.

    Inputs may be incomplete: a value that nobody recorded is NaN, never a number that stands for it. What cannot
    mask its inputs must refuse such data (:attr:`missing`).

    Attributes
    ----------
    name : str
        Name in scenarios.
    inputs : ndarray
        float64, shape ``(count, features)``, in the units of ``units``; NaN where a value is missing, finite else.
    labels : ndarray
        int64, shape ``(count,)``, from 0.
    classes : tuple of str
        Names of the classes.
    features : tuple of str
        Names of the features.
    units : str
        Unit of the inputs.
    source : str
        Where the data come from.
    """

    name: str
    inputs: NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    features: tuple[str, ...]
    units: str
    source: str

    @property
    def missing(self) -> int:
        """Return how many values are missing."""
        return int(np.isnan(self.inputs).sum())


@dataclass(frozen=True)
class DataSource:
    """An entry of the catalogue: what it is, which package ships it, how to read it, whether no value is missing."""

    name: str
    summary: str
    package: str
    read: Callable[[], LabelledData]
    is_complete: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether the package that ships the data is there."""
        return importlib.util.find_spec(self.package) is not None
