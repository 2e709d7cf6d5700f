"""What a run file looks like: names, states, and the rules for variables and dimensions.

A run file is an HDF5 file that is also valid netCDF-4. Everything here is plain values; files are
touched in :mod:`nlsim.record.writer` and :mod:`nlsim.record.trajectory` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError

SCHEMA: Final = 1
"""Version of the layout of a run file; a reader refuses files with a larger one."""

CONVENTIONS: Final = "nlsim-1"
"""Our own convention, not "CF-1.11": CF wants a time counted from a date, units known to UDUNITS, monotonic
coordinates, and no fill value on a coordinate. Time in a run is a pure number, the recorded neurons come in
the order they were asked for, and a NaN time marks a frame that was not finished."""

LIBVER: Final = ("v110", "v110")
"""Bounds of the HDF5 format: the oldest that a live file can have."""

CHUNK_BYTES: Final = 2**20
"""The largest chunk of an array, HDF5's cache; a reader refuses larger ones."""

TIME: Final = "time"
CHECKPOINT: Final = "checkpoint"

SCHEMA_ATTRIBUTE: Final = "nlsim_schema"
STATE: Final = "state"
ENDING: Final = "ending"
ENDING_DETAIL: Final = "ending_detail"
SCENARIO: Final = "scenario"
CHANNEL: Final = "channel"
RECORDED_EVERY: Final = "recorded_every"
"""Of a channel with times of its own: their distance; at the others it is NaN."""
WRITER_HOST: Final = "writer_host"
WRITER_PID: Final = "writer_pid"

RUNNING: Final = "running"
COMPLETE: Final = "complete"
INTERRUPTED: Final = "interrupted"

_CHANNEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z0-9_]+)*")
_DIMENSION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBERS = ("float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def variable_name(channel: str) -> str:
    """Return the netCDF variable of a channel: ``"activity/2"`` becomes ``"activity_2"``.

    Raises
    ------
    RunFileError
        The name has other than letters, digits, ``_`` and ``/``.
    """
    if not _CHANNEL_NAME.fullmatch(channel):
        raise RunFileError(
            "This name cannot be a channel.",
            given=channel,
            allowed="letters, digits and '_', in parts joined by '/', with a letter first",
        )
    return channel.replace("/", "_")


def is_channel_name(name: str) -> bool:
    """Whether a channel can have this name."""
    return bool(_CHANNEL_NAME.fullmatch(name))


def selected_dimension(variable: str, dim: str) -> str:
    """Return the netCDF dimension of an axis of which only some entries are recorded."""
    return f"{variable}_{dim}"


def number_type(dtype: npt.DTypeLike, where: str) -> np.dtype[Any]:
    """Return a dtype that netCDF-4 knows, in native byte order; refuse any other with RunFileError."""
    given = np.dtype(dtype)
    if given.name not in _NUMBERS:
        raise RunFileError(
            "netCDF-4 has no such number.",
            where=where,
            given=given.name,
            allowed=", ".join(_NUMBERS),
            advice="Record truth values as int8, and real and imaginary parts as two channels.",
        )
    return given.newbyteorder("=")


def check_dimension(dim: str, where: str) -> None:
    """Refuse, with RunFileError, a name that no axis and no coordinate can have."""
    if not _DIMENSION_NAME.fullmatch(dim) or dim in (TIME, CHECKPOINT):
        raise RunFileError(
            "This name cannot be an axis or a coordinate.",
            where=where,
            given=dim,
            allowed=f"letters, digits and '_', with a letter first; not '{TIME}' or '{CHECKPOINT}'",
        )


@dataclass(frozen=True, eq=False)
class ChannelSpec:
    """One recorded quantity: what a frame of it looks like.

    Parameters
    ----------
    name : str
        Channel name, such as ``"loss"`` or ``"activity/2"``.
    dims : tuple of str
        Names of the axes of one frame, without ``time``; no name twice.
    shape : tuple of int
        Sizes of these axes, at least 1; of a selected axis, how many entries are recorded.
    dtype : numpy.dtype
        Integer or float of at most 64 bits.
    units : str
        ``"1"`` for a pure number.
    long_name : str
        For a person: what it is, with its symbol.
    coordinates : mapping of str to array
        For each axis of which only some entries are recorded, their indices (from 0), shape ``(size,)``.
    every : float or None
        Distance of its own times, > 0; its frames at other times are NaN, and the file says so.

    Raises
    ------
    RunFileError
        Names, sizes, dtype or indices that cannot be written.
    """

    name: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float64))
    units: str = "1"
    long_name: str = ""
    coordinates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    every: float | None = None

    def __post_init__(self) -> None:
        variable_name(self.name)
        where = f"channel {self.name}"
        object.__setattr__(self, "dtype", number_type(self.dtype, where))
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if len(self.dims) != len(self.shape) or len(set(self.dims)) != len(self.dims) or 0 in self.shape:
            raise RunFileError(
                "Every axis of a channel needs a name of its own and at least one entry.",
                where=where,
                given=f"dims {self.dims}, shape {self.shape}",
                advice="Name the two sides of a square matrix differently, such as to_1 and from_1.",
            )
        for dim in self.dims:
            check_dimension(dim, where)
        object.__setattr__(self, "coordinates", {d: np.array(i) for d, i in self.coordinates.items()})
        for dim, index in self.coordinates.items():
            if dim not in self.dims:
                raise RunFileError(
                    "Indices are given for an axis that the channel does not have.", where=where, given=dim
                )
            size = self.shape[self.dims.index(dim)]
            if index.dtype.kind not in "iu" or index.shape != (size,) or index.min() < 0:
                raise RunFileError(
                    "Indices of the recorded entries must be one integer from 0 for each of them.",
                    where=f"{where}, axis {dim}",
                    given=index.tolist(),
                    allowed=f"{size} integers, at least 0",
                )

    @property
    def variable(self) -> str:
        """Name of the netCDF variable."""
        return variable_name(self.name)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the netCDF dimensions of one frame: a selected axis has one of its own."""
        return tuple(selected_dimension(self.variable, d) if d in self.coordinates else d for d in self.dims)
