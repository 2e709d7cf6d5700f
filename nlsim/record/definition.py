"""How a run file comes to be: made whole beside its place, then put there, then opened for a live run."""

from __future__ import annotations

import glob
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.attribute import stored_attributes
from nlsim.record.checkpoint import Checkpoint, CheckpointWriter, checkpoint_room, define_checkpoint, storable
from nlsim.record.format import ChannelSpec
from nlsim.record.layout import CoordinateSpec, dimension_sizes
from nlsim.record.lock import claim
from nlsim.record.room import SHARED_BYTES, check_room, give_back, is_full, take_room
from nlsim.record.superblock import read_superblock, take_off_marks

_CHUNK_FRAMES = 256
_BLOCK_BYTES = 2**20
_BLOCK_FRAMES = 256
_CLOSING_BYTES = 2**16
"""What attributes that change may take: 4 KiB were measured, with 3 KiB of text among them."""


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
    checkpoint: Checkpoint | None,
    force: bool,
    compression: int = 0,
) -> int:
    """Create a run file without frames.

    It is made under a hidden name and then put in its place, so the path never holds half of one. With ``force``,
    where the path is a link, its place is that of the file behind it.

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
    checkpoint : Checkpoint or None
        Where the run stands before its first frame; None: the file has no checkpoints.
    force : bool
        Whether a file that is there is replaced.
    compression : int
        How hard arrays are packed, from 0 (not at all, but channels with times of their own lightly) to 9.

    Returns
    -------
    int
        The claim to write the file, see :func:`~nlsim.record.lock.claim`.

    Raises
    ------
    RunFileError
        The folder or the file cannot be used, or the channels do not fit together; nothing is left behind.
    """
    sizes = dimension_sizes(channels, coordinates)
    tensors = None if checkpoint is None else storable(checkpoint.tensors)
    path = _behind_link(path) if force else path  # else a link is in the way, wherever it leads
    _refuse_place(path, force=force)
    new = _beside(path, "new")

    def define(file: h5py.File, *, is_filled: bool) -> None:
        with netcdf(file) as root:
            root.dimensions = {fmt.TIME: None, **sizes}
            root.attrs.update(own_attributes())
            root.attrs.update(attributes)
            # NaN marks a frame whose values are flushed and whose time is not yet
            time = root.create_variable(fmt.TIME, (fmt.TIME,), "f8", chunks=(_CHUNK_FRAMES,), fillvalue=math.nan)
            time.attrs.update({"units": time_units, "long_name": "time"})
            for coordinate in coordinates:
                _define_coordinate(root, coordinate)
            for channel in channels:
                _define_channel(root, channel, coordinates, block, compression)
            if tensors is not None:
                define_checkpoint(root, tensors, is_filled=is_filled)

    room = 0
    try:
        room = _size_in_memory(lambda file: define(file, is_filled=False)) + checkpoint_room(tensors or {})
        check_room(new, room)
        with h5py.File(new, "w", libver=fmt.LIBVER, track_order=True) as file:
            define(file, is_filled=True)
            if checkpoint is not None:
                CheckpointWriter(file).write(checkpoint)
        return _put(new, path, force=force)
    except (OSError, RuntimeError) as error:
        if is_full(error):
            raise RunFileError(
                f"There is no room for the run file: {error}",
                where=str(path),
                allowed=f"{room} bytes free, before its first frame",
                advice="Make room, or choose another --out, on a disk that has some.",
            ) from error
        raise RunFileError(
            f"The run file cannot be created: {error}",
            where=str(path),
            advice="Choose another --out, in a folder that you may write to.",
        ) from error
    finally:
        with suppress(OSError):
            new.unlink()


def begin(path: Path) -> h5py.File:
    """Open a closed run file in single-writer-multiple-reader mode; arrays can grow, nothing can be added."""
    # HDF5's own lock, which every reader takes, would stop a run whose file is just being looked at; the claim is ours
    file = h5py.File(path, "r+", libver=fmt.LIBVER, locking=False)
    try:
        file.swmr_mode = True
    except BaseException:
        file.close()
        raise
    return file


def exchange(path: Path, descriptor: int, change: Callable[[h5py.File], None]) -> int:
    """Change a closed or abandoned file by changing a copy that then takes its place.

    At any instant the path holds a file that opens, and readers of the old one are not disturbed. Where the path
    is a link, the file behind it is changed. Cost: one copy of the file, in time and for a moment in space.

    Parameters
    ----------
    path : Path
        The file.
    descriptor : int
        The claim to write it; it is given back.
    change : callable
        What is done to the copy, open for writing.

    Returns
    -------
    int
        The claim to write what is there now.

    Raises
    ------
    RunFileError
        The file has been taken away.
    """
    try:
        refuse_if_gone(path, descriptor)
        path = _behind_link(path)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.closing"):
            left.unlink(missing_ok=True)  # by a writer that was killed here
        copy = _beside(path, "closing")
        try:
            shutil.copy(path, copy)
            if read_superblock(copy).is_live:
                take_off_marks(copy)
            new = claim(copy)
            try:
                take_room(new, _CLOSING_BYTES)
                with h5py.File(copy, "r+", libver=fmt.LIBVER) as file:
                    change(file)
                give_back(new, read_superblock(copy).end)
                os.fsync(new)
                copy.replace(path)
            except BaseException:
                os.close(new)
                raise
            return new
        finally:
            copy.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def refuse_if_gone(path: Path, descriptor: int) -> None:
    """Refuse to go on when the file that is claimed is no longer at its path."""
    try:
        there = os.stat(path)
    except OSError:
        there = None
    if there is None or not os.path.samestat(there, os.fstat(descriptor)):
        raise RunFileError(
            "The run file was taken away while it was written.",
            where=str(path),
            advice="The frames written before are in the file that was moved; nlsim recover makes it plain.",
        )


def frames_per_block(channels: Sequence[ChannelSpec]) -> int:
    """Return how many frames fill about 1 MiB, between 1 and 256."""
    frame = sum(spec.dtype.itemsize * math.prod(spec.shape) for spec in channels)
    return max(1, min(_BLOCK_FRAMES, _BLOCK_BYTES // max(frame, 1)))


def own_attributes() -> dict[str, Any]:
    """Return the root attributes of a file whose run is going in this process, as they are stored."""
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


def _size_in_memory(define: Callable[[h5py.File], None]) -> int:
    """Return how large a file is that is made so, nothing of it being kept."""
    with h5py.File(
        "room", "w", driver="core", backing_store=False, block_size=4096, libver=fmt.LIBVER, track_order=True
    ) as file:
        define(file)
        file.flush()
        return int(file.id.get_filesize()) + SHARED_BYTES


def _refuse_place(path: Path, *, force: bool) -> None:
    if not os.path.isdir(path.parent):
        raise RunFileError(
            "The folder of the run file does not exist.",
            where=str(path.parent),
            advice="Create it, or choose another --out.",
        )
    if os.path.lexists(path) and not force:
        raise _there_already(path)
    if os.path.isdir(path):
        raise RunFileError("A folder is in the place of the run file.", where=str(path), advice="Choose another --out.")
    # closing the run renames a file, so the folder itself must be writable
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RunFileError(
            "The run file cannot be created: the folder is not writable.",
            where=str(path.parent),
            advice="Choose another --out, in a folder that you may write to.",
        )


def _there_already(path: Path) -> RunFileError:
    return RunFileError(
        "This file exists already; a run never overwrites one.",
        where=str(path),
        advice="Choose another --out, or pass --force to replace it.",
    )


def _put(new: Path, path: Path, *, force: bool) -> int:
    """Put a file in its place, claimed already, and return the claim."""
    before = claim(path) if force and path.is_file() else None  # a file that is being written is not replaced
    try:
        descriptor = claim(new)
        try:
            if force:
                new.replace(path)
            else:
                _link(new, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    finally:
        if before is not None:
            os.close(before)


def _link(new: Path, path: Path) -> None:
    try:
        os.link(new, path)  # which never replaces a file
    except FileExistsError:
        raise _there_already(path) from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise _there_already(path) from None
        new.replace(path)


def _behind_link(path: Path) -> Path:
    """Return the file that a link leads to, which is the one to be replaced; the link stays."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{what}")


def _define_channel(
    root: h5netcdf.File,
    channel: ChannelSpec,
    coordinates: Sequence[CoordinateSpec],
    block: int,
    compression: int,
) -> None:
    is_array = math.prod(channel.shape) > 1
    level = compression or (0 if channel.every is None else 1)  # NaN packs to nearly nothing
    packed = {"compression": "gzip", "compression_opts": level, "shuffle": True}  # with a checksum of its own
    filters = {} if not is_array else packed if level else {"fletcher32": True}
    variable = root.create_variable(
        channel.variable,
        (fmt.TIME, *channel.dimensions),
        channel.dtype,
        chunks=_chunk(channel, block if is_array else _CHUNK_FRAMES),
        fillvalue=channel.dtype.type(math.nan) if channel.dtype.kind == "f" else None,
        **filters,
    )
    variable.attrs.update(
        {
            fmt.CHANNEL: channel.name,
            "units": channel.units,
            "long_name": channel.long_name or channel.name,
        }
    )
    if channel.every is not None:
        variable.attrs[fmt.RECORDED_EVERY] = channel.every
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
    while math.prod(chunk) * channel.dtype.itemsize > fmt.CHUNK_BYTES:
        longest = chunk.index(max(chunk))
        chunk[longest] = -(-chunk[longest] // 2)
    return tuple(chunk)
