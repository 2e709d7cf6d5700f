"""Arrays that stay on disk until they are used, and say clearly when they cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from nlsim.errors import RunFileError


class Guarded(BackendArray):
    """The array of a variable; a fault in reading it is a :class:`~nlsim.errors.RunFileError`.

    Parameters
    ----------
    variable : xarray.Variable
        Whose values are still on disk.
    where : str
        File and variable, for messages.
    """

    def __init__(self, variable: xr.Variable, where: str) -> None:
        self.shape, self.dtype = variable.shape, variable.dtype
        self._variable, self._where = variable, where

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        """Read the part that is asked for."""
        found: npt.NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )
        return found

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._variable[key].values)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunFileError(
                f"The values of this variable cannot be read: {error}",
                where=self._where,
                advice="The file is damaged; the other variables may still be read.",
            ) from error


def guarded(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Return a data set whose variables say clearly when they cannot be read; nothing is read."""
    found = {
        str(name): xr.Variable(
            variable.dims,
            indexing.LazilyIndexedArray(Guarded(variable, f"{path}: {name}")),
            variable.attrs,
            variable.encoding,
            fastpath=True,
        )
        for name, variable in dataset.variables.items()
        if name not in dataset.indexes
    }
    return dataset.assign({n: v for n, v in found.items() if n in dataset.data_vars}).assign_coords(
        {n: v for n, v in found.items() if n in dataset.coords}
    )
