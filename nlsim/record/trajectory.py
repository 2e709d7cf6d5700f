"""Reading a run file, whether its run is complete, still going, or was killed."""

from __future__ import annotations

import os
import platform
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.record import format as fmt

_TRIES: Final = 20
_PAUSE: Final = 0.05
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK: Final = struct.Struct("<8xB2xB16xQ")
"""Of an HDF5 superblock of version 3: its version, its flags, and the size that the file should have."""
_SWMR_WRITER: Final = 0b100
_NETCDF_ATTRIBUTES: Final = frozenset({"DIMENSION_LIST", "REFERENCE_LIST"})


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
        No such file; not HDF5; not a run file; written by a newer nlsim; or holding links to other files or
        objects that are neither numbers nor text.

    Notes
    -----
    A file without an ending is ``running`` while the process that writes it lives, ``interrupted`` when it
    is gone; from another machine that cannot be seen, and the state is ``running``. Cost: the attributes
    and the times are read.
    """
    path = Path(path)
    for _ in range(_TRIES):
        with open_hdf5(path) as file:
            is_live = bool(file.swmr_mode)
        try:
            dataset = xr.open_dataset(
                path,
                engine="h5netcdf",
                decode_times=False,
                decode_timedelta=False,
                driver_kwds={"swmr": True} if is_live else None,
            )
        except (OSError, ValueError, KeyError) as error:
            # the writer added a block, or put the closed file in its place, between two of our reads
            reason = error
            time.sleep(_PAUSE)
            continue
        return _whole_frames(dataset)
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
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open a run file for reading as HDF5, once it is known to be one of ours and harmless.

    Raises
    ------
    RunFileError
        As :func:`open_run`.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise RunFileError("There is no such run file.", where=str(path))
    file = _open_any(path)
    try:
        _refuse_foreign(file, str(path))
        yield file
    finally:
        file.close()


def _open_any(path: Path) -> h5py.File:
    for _ in range(_TRIES):
        try:
            return h5py.File(path, "r", swmr=_has_live_writer(path))
        except OSError as error:
            reason = error
        time.sleep(_PAUSE)
    raise RunFileError(f"This run file cannot be opened: {reason}", where=str(path)) from reason


def _has_live_writer(path: Path) -> bool:
    """Whether the file is being written, or was when its process was killed.

    Read from the superblock, because the SWMR mode cannot be tried on any file: given a damaged one, HDF5
    waits, each time twice as long, for a writer to repair it.
    """
    with open(path, "rb") as file:
        head = file.read(_SUPERBLOCK.size)
        size = file.seek(0, os.SEEK_END)
    if len(head) < _SUPERBLOCK.size or not head.startswith(_SIGNATURE):
        raise RunFileError(
            "This is not an HDF5 file, so not a run file.",
            where=str(path),
            advice="Run files are what 'nlsim run' writes; scenarios are TOML.",
        )
    version, flags, end = _SUPERBLOCK.unpack(head)
    is_live = version >= 3 and bool(flags & _SWMR_WRITER)
    if is_live and size < end:
        raise OSError(f"it is cut short: {size} of {end} bytes")
    return is_live


def _refuse_foreign(file: h5py.File, path: str) -> None:
    schema = file.attrs.get(fmt.SCHEMA_ATTRIBUTE)
    if not isinstance(schema, int | np.integer):
        raise RunFileError(
            "This is an HDF5 file, but not a run file of nlsim.",
            where=path,
            allowed=f"a root attribute {fmt.SCHEMA_ATTRIBUTE}",
        )
    if schema > fmt.SCHEMA:
        raise RunFileError(
            "This run file was written by a newer nlsim.",
            where=path,
            given=f"schema {schema}",
            allowed=f"up to {fmt.SCHEMA}",
            advice="Install a newer nlsim.",
        )

    # a fault is returned, not raised: h5py does not let an exception through a visit of links
    fault = file.visititems_links(_fault_of_link) or _fault_of_object("/", file)
    fault = fault or file.visititems(_fault_of_object)
    if fault is not None:
        what, name = fault
        raise RunFileError(
            f"This run file holds {what}, which nlsim never writes; it is not read.", where=f"{path}: {name}"
        )


def _fault_of_link(name: str, link: Any) -> tuple[str, str] | None:
    return None if isinstance(link, h5py.HardLink) else ("a link to elsewhere", name)


def _fault_of_object(name: str, thing: Any) -> tuple[str, str] | None:
    if isinstance(thing, h5py.Dataset):
        if thing.is_virtual or thing.external:
            return "an array that lies in another file", name
        if not _is_plain(thing.dtype):
            return "an array of neither numbers nor text", name
    for attribute in thing.attrs.keys() - _NETCDF_ATTRIBUTES:
        if not _is_plain(thing.attrs.get_id(attribute).dtype):
            return "an attribute of neither numbers nor text", f"{name}, attribute {attribute}"
    return None


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" or h5py.check_string_dtype(dtype) is not None


def _whole_frames(dataset: xr.Dataset) -> xr.Dataset:
    """Drop the frames whose time is not written yet, and say which state the file is in."""
    frames = int(np.isfinite(dataset[fmt.TIME].values).sum())
    whole = dataset.isel({fmt.TIME: slice(0, frames)})  # keeps the arrays on disk, and how to close them
    host, pid = (whole.attrs.pop(name, None) for name in (fmt.WRITER_HOST, fmt.WRITER_PID))
    if whole.attrs[fmt.STATE] == fmt.RUNNING and host == platform.node() and not _is_alive(pid):
        whole.attrs[fmt.STATE] = whole.attrs[fmt.ENDING] = fmt.INTERRUPTED
        whole.attrs[fmt.ENDING_DETAIL] = "the process that wrote the file is gone"
    return whole


def _is_alive(pid: Any) -> bool:
    if os.name != "posix":
        return True  # os.kill(pid, 0) would end the process
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
