"""What is done to a run file before its first frame and after its last one."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.attribute import stored_attributes
from nlsim.record.format import ChannelSpec
from nlsim.record.layout import CoordinateSpec, dimension_sizes

_CHUNK_BYTES = 2**20
_CHUNK_FRAMES = 256
_BLOCK_BYTES = 2**20
_BLOCK_FRAMES = 256


@contextmanager
def netcdf(file: h5py.File) -> Iterator[h5netcdf.File]:
    """Look at an open, writable HDF5 file as netCDF-4; the HDF5 file stays open."""
    root = h5netcdf.File(file, "a")
    try:
        yield root
    finally:
        root.close()


def create(
    path: Path,
    channels: Sequence[ChannelSpec],
    coordinates: Sequence[CoordinateSpec],
    attributes: Mapping[str, Any],
    *,
    time_units: str,
    block: int,
) -> h5py.File:
    """Create a run file without frames and switch it to single-writer-multiple-reader mode.

    Parameters
    ----------
    path : Path
        The file.
    channels, coordinates : sequences
        What it will hold.
    attributes : mapping
        The caller's root attributes as they are stored.
    time_units : str
        Unit of time.
    block : int
        Frames that are written together.

    Returns
    -------
    h5py.File
        Open, in SWMR mode; datasets can grow, nothing can be added.

    Raises
    ------
    RunFileError
        The folder or the file cannot be used, or the channels do not fit together; nothing is left behind.
    """
    sizes = dimension_sizes(channels, coordinates)
    file = _create_empty(path)
    try:
        with netcdf(file) as root:
            root.dimensions = {fmt.TIME: None, **sizes}
            root.attrs.update(_own_attributes())
            root.attrs.update(attributes)
            # NaN marks a frame whose values are flushed and whose time is not yet
            time = root.create_variable(fmt.TIME, (fmt.TIME,), "f8", chunks=(_CHUNK_FRAMES,), fillvalue=math.nan)
            time.attrs.update({"units": time_units, "long_name": "time"})
            for coordinate in coordinates:
                _define_coordinate(root, coordinate)
            for channel in channels:
                _define_channel(root, channel, coordinates, block)
        file.flush()
        file.swmr_mode = True
    except BaseException:
        file.close()
        path.unlink()
        raise
    return file


@contextmanager
def replaced(path: Path) -> Iterator[h5netcdf.File]:
    """Change a closed file by changing a copy that then takes its place.

    At any instant the path holds a file that opens, and readers of the old one are not disturbed. Cost: one
    copy of the file, in time and for a moment in space.
    """
    copy = path.with_name(f".{path.name}.{os.getpid()}.closing")
    try:
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+", libver=fmt.LIBVER) as file, netcdf(file) as root:
            yield root
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


def frames_per_block(channels: Sequence[ChannelSpec]) -> int:
    """Return how many frames fill about 1 MiB, between 1 and 256."""
    frame = sum(spec.dtype.itemsize * math.prod(spec.shape) for spec in channels)
    return max(1, min(_BLOCK_FRAMES, _BLOCK_BYTES // max(frame, 1)))


def _create_empty(path: Path) -> h5py.File:
    if not os.path.isdir(path.parent):
        raise RunFileError(
            "The folder of the run file does not exist.",
            where=str(path.parent),
            advice="Create it, or choose another --out.",
        )
    try:
        # closing the run renames a file, so the folder itself must be writable
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError("the folder is not writable")
        return h5py.File(path, "x", libver=fmt.LIBVER, track_order=True)
    except FileExistsError:
        raise RunFileError(
            "This file exists already; a run never overwrites one.",
            where=str(path),
            advice="Choose another --out, or pass --force to replace it.",
        ) from None
    except OSError as error:
        raise RunFileError(
            f"The run file cannot be created: {error}",
            where=str(path),
            advice="Choose another --out, in a folder that you may write to.",
        ) from error


def _own_attributes() -> dict[str, Any]:
    own = {
        "Conventions": fmt.CONVENTIONS,
        fmt.SCHEMA_ATTRIBUTE: fmt.SCHEMA,
        fmt.STATE: fmt.RUNNING,
        fmt.ENDING: "",
        fmt.ENDING_DETAIL: "",
        fmt.WRITER_HOST: platform.node(),
        fmt.WRITER_PID: os.getpid(),
    }
    return stored_attributes(own)


def _define_channel(
    root: h5netcdf.File, channel: ChannelSpec, coordinates: Sequence[CoordinateSpec], block: int
) -> None:
    is_array = math.prod(channel.shape) > 1
    variable = root.create_variable(
        channel.variable,
        (fmt.TIME, *channel.dimensions),
        channel.dtype,
        chunks=_chunk(channel, block if is_array else _CHUNK_FRAMES),
        fillvalue=channel.dtype.type(math.nan) if channel.dtype.kind == "f" else None,
        **({"compression": "gzip", "compression_opts": 1, "shuffle": True} if is_array else {}),
    )
    variable.attrs.update(
        {
            fmt.CHANNEL: channel.name,
            "units": channel.units,
            "long_name": channel.long_name or channel.name,
        }
    )
    along = [c.name for c in coordinates if c.dim in channel.dimensions and c.name != c.dim]
    if along:
        variable.attrs["coordinates"] = " ".join(along)
    for dim, indices in channel.coordinates.items():
        name = fmt.selected_dimension(channel.variable, dim)
        labels = root.create_variable(name, (name,), "i8", data=indices.astype(np.int64))
        labels.attrs.update({"units": "1", "long_name": f"index along {dim}, from 0"})


def _define_coordinate(root: h5netcdf.File, coordinate: CoordinateSpec) -> None:
    if coordinate.is_text:
        text = h5py.string_dtype()
        variable = root.create_variable(coordinate.name, (coordinate.dim,), text, data=coordinate.values.astype(object))
    else:
        variable = root.create_variable(
            coordinate.name, (coordinate.dim,), coordinate.values.dtype, data=coordinate.values
        )
        variable.attrs["units"] = coordinate.units
    variable.attrs["long_name"] = coordinate.long_name or coordinate.name


def _chunk(channel: ChannelSpec, block: int) -> tuple[int, ...]:
    """Return one block, or as many halves of one as keep a chunk within 1 MiB (HDF5's cache)."""
    chunk = [block, *channel.shape]
    while math.prod(chunk) * channel.dtype.itemsize > _CHUNK_BYTES:
        longest = chunk.index(max(chunk))
        chunk[longest] = -(-chunk[longest] // 2)
    return tuple(chunk)
