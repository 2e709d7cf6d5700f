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

    Attributes
    ----------
    name : str
        Name in scenarios.
    inputs : ndarray
        float64, shape ``(count, features)``, in the units of ``units``.
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


@dataclass(frozen=True)
class DataSource:
    """An entry of the catalogue: what it is, which package ships it, how to read it."""

    name: str
    summary: str
    package: str
    read: Callable[[], LabelledData]

    @property
    def is_installed(self) -> bool:
        """Whether the package that ships the data is there."""
        return importlib.util.find_spec(self.package) is not None
