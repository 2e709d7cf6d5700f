"""What is done with the file of a run that stopped: made plain for every reader, or opened to go on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.attribute import stored_attributes
from nlsim.record.checkpoint import last_sequence
from nlsim.record.definition import exchange, netcdf, own_attributes, refuse_if_gone
from nlsim.record.format import ChannelSpec
from nlsim.record.lock import claim, is_elsewhere
from nlsim.record.trajectory import open_hdf5


def recover(path: str | Path, *, force: bool = False) -> int:
    """Make the file of a run that was killed one that any netCDF-4 reader opens.

    The frames that were committed are kept, what was not is cut off, and the file says that its run was
    interrupted. A file that is plain already stays as it is.

    Parameters
    ----------
    path : str or Path
        The file.
    force : bool
        Whether a file that was begun on another machine, where its run may be going on, is taken all the same.

    Returns
    -------
    int
        How many frames it holds.

    Raises
    ------
    RunFileError
        Not a run file, or one that is being written.
    """
    path = Path(path)
    descriptor, frames, is_running = _claim(path, force=force)
    if not is_running:
        os.close(descriptor)
        return frames
    final = stored_attributes(
        {
            fmt.STATE: fmt.INTERRUPTED,
            fmt.ENDING: fmt.INTERRUPTED,
            fmt.ENDING_DETAIL: "the process that wrote the file is gone",
        }
    )

    def end(file: h5py.File) -> None:
        _cut(file, frames)
        with netcdf(file) as root:
            for name in (fmt.WRITER_HOST, fmt.WRITER_PID):
                root.attrs.pop(name, None)
            root.attrs.update(final)

    os.close(_exchanged(path, descriptor, end))
    return frames


class Glance(NamedTuple):
    """What tells whether a file was written to since it was looked at.

    Attributes
    ----------
    frames : int
        Its whole frames.
    checkpoint : int
        Sequence number of its last checkpoint; 0 without one.
    ending : str
        Why its run stopped; empty while it goes on, or if its process was killed.
    """

    frames: int
    checkpoint: int
    ending: str


def glance(path: str | Path) -> Glance:
    """Look at a run file before all else is read of it that a writer will rely on.

    Raises
    ------
    RunFileError
        As of :func:`~nlsim.record.trajectory.open_run`.
    """
    with open_hdf5(path) as file:
        return _glance(file)


def _glance(file: h5py.File) -> Glance:
    return Glance(whole_frames(file), last_sequence(file), str(file.attrs[fmt.ENDING]))


def reopen(path: Path, attributes: Mapping[str, Any], *, seen: Glance | None = None, force: bool = False) -> int:
    """Make the file of a run that stopped ready to go on, and claim it.

    Parameters
    ----------
    path : Path
        The file.
    attributes : mapping
        Root attributes that change, as they are stored.
    seen : Glance, optional
        The file as the caller has read it; it must be so still.
    force : bool
        As of :func:`recover`.

    Returns
    -------
    int
        The claim to write it.

    Raises
    ------
    RunFileError
        Not a run file, or one that is being written, or has been since.
    """
    descriptor, frames, _ = _claim(path, force=force, seen=seen)

    def go_on(file: h5py.File) -> None:
        _cut(file, frames)
        with netcdf(file) as root:
            root.attrs.update(own_attributes())
            root.attrs.update(attributes)

    return _exchanged(path, descriptor, go_on)


def whole_frames(file: h5py.File) -> int:
    """Return how many frames of a file are whole: those before the first without a time.

    Raises
    ------
    RunFileError
        The times cannot be read.
    """
    try:
        finite = np.isfinite(file[fmt.TIME][...])
    except Exception as error:  # a damaged file can make HDF5 raise anything
        raise RunFileError(f"The times of this run file cannot be read: {error}", where=str(file.name)) from error
    return len(finite) if finite.all() else int(finite.argmin())


def refuse_other_channel(file: h5py.File, spec: ChannelSpec, path: Path) -> None:
    """Refuse a file whose channel of this name has another shape or number, or that has none."""
    array = file.get(spec.variable)
    if not isinstance(array, h5py.Dataset) or array.shape[1:] != spec.shape or array.dtype != spec.dtype:
        found = "none" if not isinstance(array, h5py.Dataset) else f"{array.dtype} of shape {array.shape[1:]}"
        raise RunFileError(
            "The channel of the run file is not the one that would be recorded.",
            where=f"{path}: channel {spec.name}",
            given=found,
            allowed=f"{spec.dtype} of shape {spec.shape}",
        )


def _claim(path: Path, *, force: bool, seen: Glance | None = None) -> tuple[int, int, bool]:
    """Claim a file that is there, and return its whole frames and whether it says that its run is going."""
    if not path.is_file():
        raise RunFileError("There is no such run file.", where=str(path))
    try:
        descriptor = claim(path)
    except OSError as error:
        raise RunFileError(f"The run file cannot be written: {error}", where=str(path)) from error
    try:
        refuse_if_gone(path, descriptor)  # another file may have been put in its place since
        with open_hdf5(path, is_mine=True) as file:
            is_running = file.attrs[fmt.STATE] == fmt.RUNNING
            host, pid = file.attrs.get(fmt.WRITER_HOST), file.attrs.get(fmt.WRITER_PID)
            if is_running and not force and is_elsewhere(host, pid):
                raise RunFileError(
                    "This file was begun on another machine, where its run may be going on.",
                    where=str(path),
                    advice="If you know that it is not, pass --force.",
                )
            now = _glance(file)
            if seen not in (None, now):
                raise RunFileError(
                    "Another process has gone on with this run since it was read.",
                    where=str(path),
                    advice="Look at it again (nlsim show); if it has not reached its end, resume it again.",
                )
            return descriptor, now.frames, is_running
    except BaseException:
        os.close(descriptor)
        raise


def _exchanged(path: Path, descriptor: int, change: Callable[[h5py.File], None]) -> int:
    try:
        return exchange(path, descriptor, change)
    except RunFileError:
        raise
    except Exception as error:  # a damaged file can make HDF5 raise anything
        raise RunFileError(
            f"The run file cannot be changed: {error}",
            where=str(path),
            advice="It is as it was. A copy of it must fit on the disk beside it; a damaged file cannot be mended.",
        ) from error


def _cut(file: h5py.File, frames: int) -> None:
    """Cut every array to the whole frames, and wipe what a killed writer may have left behind the last time."""
    for array in file.values():
        if isinstance(array, h5py.Dataset) and array.maxshape[:1] == (None,):
            array.resize(frames, axis=0)
    time = file[fmt.TIME]
    beyond = frames + time.chunks[0]
    time.resize(beyond, axis=0)
    time[frames:] = math.nan
    time.resize(frames, axis=0)
