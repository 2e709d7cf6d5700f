"""From incomplete inputs to features without holes: standardised by what was observed, and imputed where asked.

Everything is fitted to training inputs and only applied to others. Imputation is scikit-learn's, imported when it is
fitted (extra ``data``).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from nlsim.errors import NlsimError


class Preparation(Protocol):
    """What makes features of inputs."""

    def __call__(self, inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Return features without NaN and the mask that the first layer gets, both of the inputs' shape."""
        ...


@final
@dataclass(frozen=True)
class Standardised:
    """(x − x̄)/s where observed, 0 where missing; x̄ and s are those of the observed entries of the training inputs.

    Attributes
    ----------
    mean, scale : ndarray
        x̄ and s of each column; s is 1 where a column does not vary, x̄ is 0 where nothing was observed of it.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> Self:
        """Measure observed entries; what a missing slot holds, NaN included, is never looked at."""
        check_shapes(inputs, mask)
        count = np.maximum(mask.sum(0), 1)
        seen = np.where(mask, inputs, 0.0)
        mean = seen.sum(0) / count
        scale = np.sqrt((np.where(mask, inputs - mean, 0.0) ** 2).sum(0) / count)
        # constant columns: what is left of them is rounding, some 1e-16 of their mean
        return cls(mean, np.where(scale > 1e-12 * np.abs(mean), scale, 1.0))

    def __call__(
        self, inputs: NDArray[np.float64], mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the features and the mask as it is."""
        check_shapes(inputs, mask)
        return np.where(mask, (inputs - self.mean) / self.scale, 0.0), mask


@final
@dataclass(frozen=True)
class Imputed:
    """Standardised features with holes filled by a fitted imputer; to the layer above everything is observed.

    Attributes
    ----------
    standard : Standardised
        Brings columns to one scale first, which distances between samples need.
    imputer : object
        A fitted imputer of scikit-learn.
    """

    standard: Standardised
    imputer: Any

    @classmethod
    def fit_mean(cls, inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> Self:
        """Fill with the mean of the column: 0 in standard units, so this is zero imputation by another road."""
        from sklearn.impute import SimpleImputer

        return cls._fit(SimpleImputer(keep_empty_features=True), inputs, mask)

    @classmethod
    def fit_neighbours(cls, inputs: NDArray[np.float64], mask: NDArray[np.bool_], neighbours: int = 5) -> Self:
        """Fill with the mean of the nearest training samples by the columns that both have observed."""
        from sklearn.impute import KNNImputer

        return cls._fit(KNNImputer(n_neighbors=neighbours, keep_empty_features=True), inputs, mask)

    @classmethod
    def fit_iterative(
        cls, inputs: NDArray[np.float64], mask: NDArray[np.bool_], rounds: int = 5, ridge: float = 1.0
    ) -> Self:
        """Fill by ridge regression of each column on all others, column after column, for some rounds.

        Parameters
        ----------
        inputs, mask : ndarray
            Training inputs and which of them are observed.
        rounds : int
            Times that every column is visited.
        ridge : float
            Penalty of the squared coefficients, > 0, in standard units.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - it is what makes the next line work
        from sklearn.impute import IterativeImputer
        from sklearn.linear_model import Ridge

        imputer = IterativeImputer(
            Ridge(alpha=ridge), max_iter=rounds, tol=0.0, imputation_order="roman", keep_empty_features=True
        )
        with warnings.catch_warnings():
            # with tol = 0 all rounds are made, as was asked for
            warnings.filterwarnings("ignore", "\\[IterativeImputer\\] Early stopping", ConvergenceWarning)
            return cls._fit(imputer, inputs, mask)

    @classmethod
    def _fit(cls, imputer: Any, inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> Self:
        standard = Standardised.fit(inputs, mask)
        return cls(standard, imputer.fit(with_holes(standard, inputs, mask)))

    def __call__(
        self, inputs: NDArray[np.float64], mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the filled features, and a mask of ones."""
        filled = np.asarray(self.imputer.transform(with_holes(self.standard, inputs, mask)), dtype=np.float64)
        return filled, np.ones(filled.shape, dtype=np.bool_)


def with_holes(standard: Standardised, inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return standardised features with NaN where they are missing."""
    features, _ = standard(inputs, mask)
    return np.where(mask, features, np.nan)


def check_shapes(inputs: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    """Refuse a mask that does not fit, and NaN in a slot that is said to be observed."""
    if mask.shape != inputs.shape:
        raise NlsimError("The mask does not fit the inputs.", where="mask", given=mask.shape, allowed=str(inputs.shape))
    if np.isnan(inputs[mask]).any():
        raise NlsimError(
            "An observed input is NaN.",
            where="mask",
            given=f"{int(np.isnan(inputs[mask]).sum())} of them",
            advice="Take mask & ~isnan(inputs).",
        )
