"""The full state of a run, kept exactly and in two copies: enough to go on from the file alone.

The group ``checkpoint`` has two slots, which are written in turns. A slot counts once its sequence number is
written, which is done last, and only if its checksum fits: whatever is torn by a kill, the other slot is whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5netcdf
import h5py
import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.room import SHARED_BYTES
from nlsim.record.trajectory import open_hdf5

_STORED_AS: Final = {"bool": "uint8", "float16": "uint16"}
"""Numbers that netCDF-4 does not know, and the numbers of the same bits that stand for them."""

_NAME: Final = "tensor"
_DTYPE: Final = "dtype"
_SLOT: Final = "slot"
_NUMBERS: Final = {"time": "f8", "steps": "i8", "frames": "i8", "wall_time": "f8"}
_SEQUENCE: Final = "slot_sequence"
_CHECKSUM: Final = "slot_checksum"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands.

    Parameters
    ----------
    time : float
        Time of the state.
    steps : int
        Steps taken to come there.
    tensors : mapping of str to array
        Every tensor of the state by its name, such as ``"activity/1"``.
    frames : int
        Frames that had been recorded then; the file may hold more, but never fewer.
    wall_time : float
        Seconds that the run took so far.
    """

    time: float
    steps: int
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    frames: int = 0
    wall_time: float = 0.0


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
        if fmt.variable_name(name).startswith(("size_", "slot")):
            raise RunFileError("The checkpoint keeps names that begin with 'size_' or 'slot' for itself.", given=name)
    return arrays


def checkpoint_room(tensors: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return how many bytes the numbers of both slots take at most; small arrays leave as much unused beside them."""
    sizes = [2 * array.nbytes for array in tensors.values()]
    return sum(size + min(size, SHARED_BYTES) for size in sizes)


def define_checkpoint(root: h5netcdf.File, tensors: Mapping[str, npt.NDArray[Any]], *, is_filled: bool = True) -> None:
    """Add the group ``checkpoint``, both slots empty, to a file that is open for writing.

    All of its space is taken at once, so that no later checkpoint needs any.

    Parameters
    ----------
    root : h5netcdf.File
        The file.
    tensors : mapping of str to array
        From :func:`storable`.
    is_filled : bool
        Whether the space of the tensors is taken; without it only the rest of a file can be weighed.
    """
    group = root.create_group(fmt.CHECKPOINT)
    group.dimensions[_SLOT] = 2
    for size in sorted({size for array in tensors.values() for size in array.shape}):
        group.dimensions[f"size_{size}"] = size
    for name, array in tensors.items():
        stored = np.dtype(_STORED_AS.get(array.dtype.name, array.dtype))
        dims = (_SLOT, *(f"size_{size}" for size in array.shape))
        variable = group.create_variable(fmt.variable_name(name), dims, stored)
        if is_filled:
            variable[...] = np.zeros(variable.shape, stored)
        variable.attrs.update({_NAME: name, _DTYPE: array.dtype.name})
    for name, kind in {**{f"slot_{each}": kind for each, kind in _NUMBERS.items()}, _CHECKSUM: "u4"}.items():
        group.create_variable(name, (_SLOT,), kind, data=np.zeros(2, kind))
    group.create_variable(_SEQUENCE, (_SLOT,), "i8", data=np.zeros(2, "i8"))


class CheckpointWriter:
    """Writes checkpoints into the slots of a file in turns.

    Parameters
    ----------
    file : h5py.File
        Open for writing, with the group; in SWMR mode or not.
    """

    def __init__(self, file: h5py.File) -> None:
        group = file[fmt.CHECKPOINT]
        self._file = file
        self._arrays = {each.attrs[_NAME]: each for each in group.values() if _NAME in each.attrs}
        self._numbers = {name: group[f"slot_{name}"] for name in _NUMBERS}
        self._checksum, self._sequence = group[_CHECKSUM], group[_SEQUENCE]
        self._number = int(self._sequence[...].max())

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; the one before stays whole.

        Raises
        ------
        RunFileError
            The tensors are not those that the file was made for.
        OSError
            The file cannot be written; the checkpoint before still counts.
        """
        arrays = storable(checkpoint.tensors)
        wanted = {name: (each.shape[1:], each.attrs[_DTYPE]) for name, each in self._arrays.items()}
        given = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
        if given != wanted:
            name = next(name for name in {**wanted, **given} if wanted.get(name) != given.get(name))
            raise RunFileError(
                "This state is not of the kind that the run file was made for.",
                where=f"tensor {name}",
                given=str(given.get(name, "missing")),
                allowed=str(wanted.get(name, "none")),
            )
        slot = (self._number + 1) % 2
        stored = {name: _stored(array) for name, array in arrays.items()}
        for name, bits in stored.items():
            self._arrays[name][slot] = bits
        numbers = _numbers(checkpoint)
        for name, value in numbers.items():
            self._numbers[name][slot] = value
        self._checksum[slot] = _checksum(stored, numbers, self._number + 1)
        self._file.flush()
        self._sequence[slot] = self._number + 1  # only now does the checkpoint count
        self._file.flush()
        self._number += 1


def last_sequence(file: h5py.File) -> int:
    """Return the number of the last checkpoint of a file, 0 without one; its own checksum is not looked at."""
    slots = file.get(f"{fmt.CHECKPOINT}/{_SEQUENCE}")
    if not isinstance(slots, h5py.Dataset) or slots.shape != (2,) or slots.dtype.kind != "i":
        return 0
    return int(slots[...].max())


def read_checkpoint(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the last state of a run that is on file.

    Parameters
    ----------
    path : str or Path
        A run file: complete, running or interrupted.

    Returns
    -------
    tensors : dict of str to array
        Every tensor by its name, in the order of writing, bit for bit and of its own dtype.
    attributes : dict
        ``time``, ``steps``, ``frames`` and ``wall_time`` [s], as of :class:`Checkpoint`.

    Raises
    ------
    RunFileError
        Not a run file, or one without a checkpoint, or with damaged ones only.
    """
    with open_hdf5(path) as file:
        if fmt.CHECKPOINT not in file:
            raise RunFileError("This run file holds no checkpoint.", where=str(path))
        try:
            return _read(file[fmt.CHECKPOINT])
        except Exception as error:  # a damaged file can make HDF5 raise anything
            raise RunFileError(f"The checkpoints of this file are damaged: {error}", where=str(path)) from error


def _read(group: h5py.Group) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    sequence = group[_SEQUENCE][...]
    for slot in np.argsort(-sequence, kind="stable"):
        stored: dict[str, npt.NDArray[Any]] = {}
        kinds: dict[str, str] = {}
        for dataset in group.values():
            if _NAME in dataset.attrs:
                name = str(dataset.attrs[_NAME])
                stored[name], kinds[name] = np.asarray(dataset[slot]), str(dataset.attrs[_DTYPE])
        numbers = {name: group[f"slot_{name}"][slot].item() for name in _NUMBERS}
        if sequence[slot] < 1 or group[_CHECKSUM][slot] != _checksum(stored, numbers, int(sequence[slot])):
            continue
        return {name: bits.view(kinds[name]) for name, bits in stored.items()}, numbers
    raise ValueError("neither fits its checksum")


def _stored(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    plain = np.ascontiguousarray(array).reshape(array.shape)
    return plain.view(_STORED_AS.get(array.dtype.name, array.dtype))


def _numbers(checkpoint: Checkpoint) -> dict[str, float | int]:
    return {
        "time": float(checkpoint.time),
        "steps": int(checkpoint.steps),
        "frames": int(checkpoint.frames),
        "wall_time": float(checkpoint.wall_time),
    }


def _checksum(stored: Mapping[str, npt.NDArray[Any]], numbers: Mapping[str, float | int], sequence: int) -> int:
    found = zlib.crc32(repr((sequence, sorted(numbers.items()))).encode())
    for name in sorted(stored):
        found = zlib.crc32(np.ascontiguousarray(stored[name]).tobytes(), found)
    return found
