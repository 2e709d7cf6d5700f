"""How values go missing: completely at random, at random, and not at random.

A mechanism looks at inputs and says which entries are observed. It never sees a label. Two definitions are in use:

* *entry-wise*: every entry is missing with the same chance, independently of everything (MCAR);
* *column-wise*: of each column that may be incomplete, f of the rows go missing. Which rows they are is what tells
  the mechanisms apart: any rows (MCAR), the rows whose values in *another* column lie in a window of neighbouring
  ranks (MAR), or the rows whose values in *that* column do (MNAR).

Under MNAR the mask speaks of the value that is not there, so every method that sees the mask gains by it.

References
----------
Rubin, *Inference and missing data*, Biometrika 1976, for the three kinds; Jäger, Allhorn and Bießmann, *A benchmark
for data imputation methods*, Frontiers in Big Data 2021, for windows of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from nlsim.core.randomness import generator
from nlsim.errors import NlsimError


class Mechanism(Protocol):
    """What says which entries are observed."""

    def observed(self, inputs: NDArray[np.float64], seed: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the mask, 1 = observed, of the shape of the inputs: a function of (inputs, seed, index) alone."""
        ...


@final
@dataclass(frozen=True)
class MissingEntries:
    """Every entry is missing with chance f, independently: entry-wise MCAR.

    With the same seed and index, what is missing at one rate is missing at every higher one.

    Parameters
    ----------
    rate : float
        f, from 0 (nothing) to 1 (everything).
    """

    rate: float

    def __post_init__(self) -> None:
        check_fraction("rate", self.rate)

    def observed(self, inputs: NDArray[np.float64], seed: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the mask; only the shape of the inputs, ``(sample, input)``, is used."""
        mask: NDArray[np.bool_] = generator(seed, "missing entries", index).random(inputs.shape) >= self.rate
        return mask


@final
@dataclass(frozen=True)
class MissingCompletelyAtRandom:
    """Column-wise MCAR: round(f·n) random rows of each chosen column.

    Parameters
    ----------
    fraction : float
        f, from 0 to 1.
    columns : tuple of int, optional
        Which columns may be incomplete; all by default.
    """

    fraction: float
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    def observed(self, inputs: NDArray[np.float64], seed: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the mask, shape ``(sample, input)``.

        Raises
        ------
        NlsimError
            For inputs that are no table, or columns that are not there.
        """
        mask = np.ones(inputs.shape, dtype=np.bool_)
        for column in chosen_columns(self.columns, column_count(inputs)):
            rows = generator(seed, f"missing rows of column {column}", index).permutation(len(inputs))
            mask[rows[: round(self.fraction * len(inputs))], column] = False
        return mask


@final
@dataclass(frozen=True)
class MissingAtRandom:
    """Column-wise MAR: the rows of a window of ranks of another column, drawn for each chosen column.

    Parameters
    ----------
    fraction : float
        f, from 0 to 1.
    columns : tuple of int, optional
        Which columns may be incomplete; all by default. The column that decides may be incomplete too, elsewhere in
        the mask: values are looked at before anything goes missing.
    """

    fraction: float
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    def observed(self, inputs: NDArray[np.float64], seed: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the mask, shape ``(sample, input)``.

        Raises
        ------
        NlsimError
            With fewer than two columns, where a deciding column holds NaN, for inputs that are no table, or columns
            that are not there.
        """
        mask = np.ones(inputs.shape, dtype=np.bool_)
        for column in chosen_columns(self.columns, column_count(inputs)):
            other = self.deciding_column(column, inputs.shape[1], seed, index)
            mask[window_of_ranks(inputs[:, other], self.fraction, seed, column, index), column] = False
        return mask

    def deciding_column(self, column: int, count: int, seed: int, index: int = 0) -> int:
        """Return which of ``count`` columns decides what is missing in ``column``: another one, all alike."""
        if count < 2:
            raise NlsimError("Missing at random needs a second column to depend on.", where="inputs", given=count)
        drawn = int(generator(seed, f"deciding column of {column}", index).integers(count - 1))
        return drawn + (drawn >= column)


@final
@dataclass(frozen=True)
class MissingNotAtRandom:
    """Column-wise MNAR: the rows of a window of ranks of the very column.

    Parameters
    ----------
    fraction : float
        f, from 0 to 1.
    columns : tuple of int, optional
        Which columns may be incomplete; all by default.
    """

    fraction: float
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    def observed(self, inputs: NDArray[np.float64], seed: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the mask, shape ``(sample, input)``.

        Raises
        ------
        NlsimError
            Where a chosen column holds NaN, for inputs that are no table, or columns that are not there.
        """
        mask = np.ones(inputs.shape, dtype=np.bool_)
        for column in chosen_columns(self.columns, column_count(inputs)):
            mask[window_of_ranks(inputs[:, column], self.fraction, seed, column, index), column] = False
        return mask


MECHANISMS: dict[str, Any] = {
    "entries": MissingEntries,
    "mcar": MissingCompletelyAtRandom,
    "mar": MissingAtRandom,
    "mnar": MissingNotAtRandom,
}
"""The mechanisms by name; each is called with the fraction that is to go missing."""


def window_of_ranks(
    values: NDArray[np.float64], fraction: float, seed: int, column: int, index: int = 0
) -> NDArray[np.intp]:
    """Return the rows whose values lie in a window of round(f·n) neighbouring ranks, its place uniformly random.

    Equal values are ranked in random order, so that the order of the rows, by which tables are often sorted, says
    nothing. Cost: one sort.

    Parameters
    ----------
    values : ndarray
        Shape ``(sample,)``, without NaN.
    fraction : float
        f, from 0 to 1.
    seed, column, index : int
        Which draw.
    """
    if values.ndim != 1:
        raise NlsimError(
            "Ranks are those of one column.",
            where="values",
            given=f"shape {values.shape}",
            allowed="shape (sample,)",
            advice="Take one column of a table: inputs[:, j].",
        )
    if np.isnan(values).any():
        raise NlsimError(
            "Values that are missing already have no rank.",
            where="inputs",
            given=f"{int(np.isnan(values).sum())} NaN in the column that decides",
            advice="Choose columns without NaN, or a mechanism that looks at no values.",
        )
    draw = generator(seed, f"window of column {column}", index)
    shuffled = draw.permutation(len(values))
    ranked = shuffled[np.argsort(values[shuffled], kind="stable")]
    width = round(fraction * len(values))
    start = int(draw.integers(len(values) - width + 1))
    return ranked[start : start + width]


def column_count(inputs: NDArray[np.float64]) -> int:
    """Return how many columns a table has, or refuse what has not two axes."""
    if inputs.ndim != 2:
        raise NlsimError(
            "Columns are those of a table.",
            where="inputs",
            given=f"shape {inputs.shape}",
            allowed="shape (sample, input)",
            advice="A single column is inputs[:, None].",
        )
    return int(inputs.shape[1])


def chosen_columns(columns: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the columns that may be incomplete, or refuse what is no list of columns that are there."""
    if columns is None:
        return tuple(range(count))
    listed = np.asarray(columns)
    if listed.ndim != 1 or (listed.size and not np.issubdtype(listed.dtype, np.integer)):
        raise NlsimError(
            "Columns are chosen by a list of whole numbers.",
            where="columns",
            given=columns,
            allowed=f"such as (0, 2), each 0 to {count - 1}",
        )
    chosen = tuple(int(each) for each in listed)
    if any(not 0 <= each < count for each in chosen):
        raise NlsimError("There is no such column.", where="columns", given=chosen, allowed=f"0 to {count - 1}")
    return chosen


def check_fraction(name: str, value: float) -> None:
    """Refuse what is not a number from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise NlsimError("A fraction is a number from 0 to 1.", where=name, given=value, allowed="0 to 1")
