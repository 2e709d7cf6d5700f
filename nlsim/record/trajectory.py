"""Reading a run file, whether its run is complete, still going, or was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.record import format as fmt
from nlsim.record.guard import refuse_foreign
from nlsim.record.lazy import guarded
from nlsim.record.lock import has_writer, is_claimed
from nlsim.record.screened import Screened
from nlsim.record.superblock import read_superblock

_TRIES: Final = 20
_PAUSE: Final = 0.05


def open_run(path: str | Path) -> xr.Dataset:
    """Open a run file; arrays stay on disk until they are used.

    Parameters
    ----------
    path : str or Path
        A run file.

    Returns
    -------
    xarray.Dataset
        One variable a channel, with the coordinate ``time``; attributes ``state`` (``complete``,
        ``running``, ``interrupted``), ``ending``, ``scenario`` and the rest. Of a run that is still going it
        holds the frames flushed so far; open it again for more. Close it, or use it in a ``with``.

    Raises
    ------
    RunFileError
        No such file; not HDF5; not a run file; damaged; written by a newer nlsim; or holding links to other
        files, objects that are neither numbers nor text, or arrays larger than the file can hold.

    Notes
    -----
    A file without an ending is ``running`` while a process writes it, ``interrupted`` when that is gone; from
    another machine that cannot be seen, and the state is ``running``. Cost: the attributes and the times are
    read.
    """
    path = Path(path)
    for _ in range(_TRIES):
        with open_hdf5(path):
            pass  # it is one of ours, and harmless
        was_claimed = is_claimed(path)  # asked first: what is read after it is of that instant or a later one
        try:
            return _open_dataset(path, was_claimed=was_claimed)
        except Exception as error:  # a damaged file can make the libraries raise anything
            reason = error
        if not was_claimed and not is_claimed(path):
            break
        # the writer added a block, or put the closed file in its place, between two of our reads
        time.sleep(_PAUSE)
    raise RunFileError(f"This run file cannot be read: {reason}", where=str(path)) from reason


def channels(dataset: xr.Dataset) -> dict[str, str]:
    """Return channel name -> variable name, in the order of recording."""
    found = {variable.attrs.get(fmt.CHANNEL): str(name) for name, variable in dataset.data_vars.items()}
    return {channel: name for channel, name in found.items() if channel is not None}


def scenario_text(dataset: xr.Dataset) -> str:
    """Return the scenario of a run, byte for byte as it was given.

    Raises
    ------
    RunFileError
        The run was recorded without one.
    """
    text = dataset.attrs.get(fmt.SCENARIO)
    if not isinstance(text, str):
        raise RunFileError("This run file holds no scenario.", where=f"attribute {fmt.SCENARIO}")
    return text


@contextmanager
def open_hdf5(path: str | Path, *, is_mine: bool = False) -> Iterator[h5py.File]:
    """Open a run file for reading as HDF5, once it is known to be one of ours and harmless.

    Every reading of a run file begins here.

    Parameters
    ----------
    path : str or Path
        The file.
    is_mine : bool
        Whether it is the caller who holds the claim to write it, and is not writing.

    Raises
    ------
    RunFileError
        As :func:`open_run`.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise RunFileError("There is no such run file.", where=str(path))
    reason: Exception
    for _ in range(_TRIES):
        was_claimed = is_claimed(path)
        try:
            file, source = _open_file(path, is_mine=is_mine)
        except RunFileError:
            raise
        except Exception as error:  # a damaged file can make HDF5 raise anything
            reason = error
        else:
            break
        if is_mine or not (was_claimed or is_claimed(path)):
            raise RunFileError(f"This run file cannot be opened: {reason}", where=str(path)) from reason
        time.sleep(_PAUSE)  # its writer is at work
    else:
        raise RunFileError(f"This run file cannot be opened: {reason}", where=str(path)) from reason
    with file, source:
        try:
            refuse_foreign(file, str(path), _size_of(path))
        except RunFileError:
            raise
        except Exception as error:
            raise RunFileError(f"This run file is damaged: {error}", where=str(path)) from error
        yield file


def _open_file(path: Path, *, is_mine: bool) -> tuple[h5py.File, AbstractContextManager[Any]]:
    """Return an open file, and what is to be closed after it."""
    manner = _manner(path, is_mine=is_mine)
    if manner is _Manner.LIVE:
        return h5py.File(path, "r", swmr=True, locking=False), nullcontext()
    source = Screened(path)
    try:
        return h5py.File(source, "r"), source
    except BaseException:
        source.close()
        raise


def _open_dataset(path: Path, *, was_claimed: bool | None) -> xr.Dataset:
    """Open a file that is harmless with xarray, its whole frames only."""
    manner = _manner(path)
    with ExitStack() as closing:
        source: Any = closing.enter_context(Screened(path)) if manner is _Manner.LEFT else path
        # a process opens a file with one way of locking only: the writer's where it lives, else that of other readers
        options = {"swmr": True, "locking": False} if manner is _Manner.LIVE else None
        dataset = closing.enter_context(
            xr.open_dataset(source, engine="h5netcdf", decode_times=False, decode_timedelta=False, driver_kwds=options)
        )
        whole = _whole_frames(guarded(dataset, str(path)), was_claimed=was_claimed)
        whole.set_close(closing.pop_all().close)
        return whole


def _size_of(path: Path) -> int:
    """Return how many bytes may belong to the file: what lies beyond the end of a closed one does not."""
    superblock = read_superblock(path)
    return superblock.size if superblock.is_live else min(superblock.size, superblock.end)


class _Manner(Enum):
    """How a file must be opened: closed properly, being written, or left by a writer that was killed."""

    CLOSED = 0
    LIVE = 1
    LEFT = 2


def _manner(path: Path, *, is_mine: bool = False) -> _Manner:
    superblock = read_superblock(path)
    if superblock.size < superblock.end:
        raise OSError(f"it is cut short: {superblock.size} of {superblock.end} bytes")
    if not superblock.is_live:
        return _Manner.CLOSED
    return _Manner.LEFT if is_mine or is_claimed(path) is False else _Manner.LIVE


def _whole_frames(dataset: xr.Dataset, *, was_claimed: bool | None) -> xr.Dataset:
    """Drop the frames whose time is not written yet, and say which state the file is in."""
    finite = np.isfinite(dataset[fmt.TIME].values)
    frames = len(finite) if finite.all() else int(finite.argmin())
    whole = dataset.isel({fmt.TIME: slice(0, frames)})  # keeps the arrays on disk
    host, pid = (whole.attrs.pop(name, None) for name in (fmt.WRITER_HOST, fmt.WRITER_PID))
    if whole.attrs[fmt.STATE] == fmt.RUNNING and not has_writer(was_claimed, host, pid):
        whole.attrs[fmt.STATE] = whole.attrs[fmt.ENDING] = fmt.INTERRUPTED
        whole.attrs[fmt.ENDING_DETAIL] = "the process that wrote the file is gone"
    return whole
