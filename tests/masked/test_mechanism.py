"""Mechanisms of missing values: how many go missing, on what it depends, and on what it does not."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from nlsim.core.randomness import generator
from nlsim.errors import NlsimError
from nlsim.systems.masked.mechanism import MECHANISMS, MissingAtRandom, MissingEntries, MissingNotAtRandom

ROWS, COLUMNS = 203, 5
INPUTS = generator(1, "table").normal(size=(ROWS, COLUMNS))
WINDOWED = [name for name in MECHANISMS if name != "entries"]


def is_one_window(values: np.ndarray, missing: np.ndarray) -> bool:
    """Whether the missing rows are neighbours in the order of the values."""
    ranks = np.flatnonzero(missing[np.argsort(values)])
    return bool(len(ranks) and ranks[-1] - ranks[0] + 1 == len(ranks))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", WINDOWED)
def test_each_column_loses_exactly_its_fraction(name: str, fraction: float) -> None:
    mask = MECHANISMS[name](fraction).observed(INPUTS, seed=3)
    assert mask.dtype == np.bool_
    assert ((~mask).sum(0) == round(fraction * ROWS)).all()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_entries_go_missing_at_the_rate(rate: float) -> None:
    inputs = np.zeros((4000, 10))
    missing = ~MissingEntries(rate).observed(inputs, seed=5)
    # five standard errors of the mean of 40 000 independent draws
    assert abs(missing.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / missing.size)
    if 0 < rate < 1:
        # independent entries: the correlation of two columns of 4000 rows has standard error 1/√4000
        correlation = np.corrcoef(missing.T.astype(float))[np.triu_indices(10, 1)]
        assert np.abs(correlation).max() <= 5 / math.sqrt(4000)
        assert len(set(missing.sum(0))) > 1  # not a fixed number a column


def test_what_is_missing_at_one_rate_is_missing_at_every_higher_one() -> None:
    low, high = (MissingEntries(rate).observed(INPUTS, seed=5) for rate in (0.3, 0.6))
    assert (high <= low).all()
    assert high.sum() < low.sum()


def test_mnar_takes_one_window_of_ranks_of_the_very_column() -> None:
    missing = ~MissingNotAtRandom(0.3).observed(INPUTS, seed=7)
    for column in range(COLUMNS):
        windows = [is_one_window(INPUTS[:, other], missing[:, column]) for other in range(COLUMNS)]
        assert windows == [other == column for other in range(COLUMNS)]


def test_mar_takes_one_window_of_ranks_of_another_column() -> None:
    mechanism = MissingAtRandom(0.3)
    missing = ~mechanism.observed(INPUTS, seed=7)
    deciding = [mechanism.deciding_column(column, COLUMNS, 7) for column in range(COLUMNS)]
    for column, decides in enumerate(deciding):
        windows = [is_one_window(INPUTS[:, other], missing[:, column]) for other in range(COLUMNS)]
        assert windows == [other == decides for other in range(COLUMNS)]
    drawn = {mechanism.deciding_column(2, COLUMNS, 7, index) for index in range(100)}
    assert drawn == {0, 1, 3, 4}


def test_mcar_takes_rows_that_no_column_explains() -> None:
    missing = ~MECHANISMS["mcar"](0.3).observed(INPUTS, seed=7)
    for column in range(COLUMNS):
        assert not any(is_one_window(INPUTS[:, other], missing[:, column]) for other in range(COLUMNS))
    assert len({tuple(column) for column in missing.T}) == COLUMNS  # each column its own rows


@pytest.mark.parametrize("name", MECHANISMS)
def test_masks_are_functions_of_inputs_seed_and_index(name: str) -> None:
    mechanism = MECHANISMS[name](0.4)
    first = mechanism.observed(INPUTS, seed=1, index=2)
    assert (first == mechanism.observed(INPUTS.copy(), seed=1, index=2)).all()
    assert (first != mechanism.observed(INPUTS, seed=2, index=2)).any()
    assert (first != mechanism.observed(INPUTS, seed=1, index=3)).any()
    assert list(inspect.signature(mechanism.observed).parameters) == ["inputs", "seed", "index"]  # no label


@pytest.mark.parametrize("name", WINDOWED)
def test_columns_that_are_not_chosen_stay_complete(name: str) -> None:
    mask = MECHANISMS[name](0.5, columns=(1, 3)).observed(INPUTS, seed=1)
    assert mask[:, [0, 2, 4]].all()
    assert (~mask[:, [1, 3]]).sum() == 2 * round(0.5 * ROWS)
    every = MECHANISMS[name](0.5).observed(INPUTS, seed=1)
    assert (mask[:, [1, 3]] == every[:, [1, 3]]).all()  # what a column loses does not depend on the others chosen


def test_equal_values_are_ranked_at_random_and_not_by_row() -> None:
    mask = MissingNotAtRandom(0.3).observed(np.zeros((ROWS, 1)), seed=4)[:, 0]
    rows = np.flatnonzero(~mask)
    assert rows[-1] - rows[0] + 1 > len(rows)


@pytest.mark.parametrize(
    ("refused", "word"),
    [
        (lambda: MissingEntries(1.2), "0 to 1"),
        (lambda: MissingEntries(float("nan")), "0 to 1"),
        (lambda: MissingNotAtRandom(-0.1), "0 to 1"),
        (lambda: MissingNotAtRandom(0.5, (5,)).observed(INPUTS, 0), "0 to 4"),
        (lambda: MissingAtRandom(0.5).observed(INPUTS[:, :1], 0), "second column"),
        (lambda: MissingNotAtRandom(0.5).observed(np.full((4, 1), np.nan), 0), "no rank"),
    ],
)
def test_mistakes_are_refused(refused, word: str) -> None:
    with pytest.raises(NlsimError, match=word):
        refused()
