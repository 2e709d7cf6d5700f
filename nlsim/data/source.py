"""Data sets of labelled samples, and how data are read from packages that ship them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nlsim.errors import DataError, unknown_name

T = TypeVar("T")


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
class DataSource(Generic[T]):
    """An entry of a catalogue: what it is, which package ships it, how to read it, whether no value is missing."""

    name: str
    summary: str
    package: str
    read: Callable[[], T]
    is_complete: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether the package that ships the data is there."""
        return importlib.util.find_spec(self.package) is not None


def read_from(known: Mapping[str, DataSource[T]], name: str, kind: str) -> T:
    """Read what a catalogue has under a name.

    Parameters
    ----------
    known : mapping of str to DataSource
        The catalogue.
    name : str
        Which entry.
    kind : str
        What it is, for messages: ``"data set"``, ``"time series"``.

    Raises
    ------
    UnknownNameError
        When the catalogue has no such name.
    DataError
        When the package that ships it is not installed.
    """
    if name not in known:
        raise unknown_name(kind, name, known)
    source = known[name]
    if not source.is_installed:
        raise DataError(
            f"The {kind} '{name}' is shipped by a package that is not installed.",
            given=name,
            advice=f"Install {source.package} (pip install 'nlsim[data]').",
        )
    return source.read()
