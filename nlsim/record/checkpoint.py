"""The state in which a run ended, kept exactly: enough to go on from the file alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5netcdf
import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.trajectory import open_hdf5

_STORED_AS: Final = {"bool": "uint8", "float16": "uint16"}
"""Numbers that netCDF-4 does not know, and the numbers of the same bits that stand for them."""

_NAME: Final = "tensor"
_DTYPE: Final = "dtype"


def storable(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a state as plain arrays, or refuse them.

    Raises
    ------
    RunFileError
        Two tensors would be one variable; a tensor is empty; or netCDF-4 has no number of its dtype.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    variables: dict[str, str] = {}
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        variable = fmt.variable_name(name)
        if variable in variables:
            raise RunFileError(
                "Two tensors would be one variable of the checkpoint.",
                given=f"{variables[variable]} and {name}, both '{variable}'",
            )
        if not array.size:
            raise RunFileError("A tensor without entries cannot be in a checkpoint.", where=name)
        if array.dtype.name not in _STORED_AS:
            array = array.astype(fmt.number_type(array.dtype, f"tensor {name}"), copy=False)
        variables[variable] = name
        arrays[name] = array
    for name in arrays:
        if fmt.variable_name(name).startswith("size_"):
            raise RunFileError("The checkpoint keeps names that begin with 'size_' for itself.", given=name)
    return arrays


def write_checkpoint(
    root: h5netcdf.File, tensors: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any]
) -> None:
    """Add the group ``checkpoint`` to a file that is open for writing.

    Parameters
    ----------
    root : h5netcdf.File
        The file.
    tensors : mapping of str to array
        From :func:`storable`.
    attributes : mapping
        Attributes of the group as they are stored.
    """
    group = root.create_group(fmt.CHECKPOINT)
    group.attrs.update(attributes)
    for size in sorted({size for array in tensors.values() for size in array.shape}):
        group.dimensions[f"size_{size}"] = size
    for name, array in tensors.items():
        stored = array.view(_STORED_AS.get(array.dtype.name, array.dtype))
        dims = tuple(f"size_{size}" for size in array.shape)
        variable = group.create_variable(fmt.variable_name(name), dims, stored.dtype)
        variable[...] = stored
        variable.attrs.update({_NAME: name, _DTYPE: array.dtype.name})


def read_checkpoint(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the state in which a run ended.

    Parameters
    ----------
    path : str or Path
        A run file.

    Returns
    -------
    tensors : dict of str to array
        Every tensor by its name, in the order of writing, bit for bit and of its own dtype.
    attributes : dict
        Attributes of the checkpoint, such as ``time`` and ``steps``; numbers are Python's.

    Raises
    ------
    RunFileError
        Not a run file, or one without a checkpoint.
    """
    with open_hdf5(path) as file:
        if fmt.CHECKPOINT not in file:
            raise RunFileError(
                "This run file holds no checkpoint.",
                where=str(path),
                advice="A run leaves one when it ends; one that is running or was killed has none.",
            )
        group = file[fmt.CHECKPOINT]
        tensors = {
            dataset.attrs[_NAME]: dataset[()].view(dataset.attrs[_DTYPE])
            for dataset in group.values()
            if _NAME in dataset.attrs
        }
        attributes = {name: _plain(value) for name, value in group.attrs.items() if name[0] != "_"}
    return tensors, attributes


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
