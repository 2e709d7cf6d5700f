"""One writer a file: a lock that the system takes back when the writer is gone, however it went."""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Any, Final

from nlsim.errors import RunFileError

if sys.platform == "linux":
    import fcntl

_BYTE: Final = 2**62
"""The byte that is locked: far beyond every run file, and apart from what HDF5 locks."""
_UNKNOWN: Final = (errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""Faults of a file system that has no such locks."""


def claim(path: Path) -> int:
    """Claim the right to write a file, until the descriptor returned is closed or its process is gone.

    Readers are not hindered. Where the system has no such locks the descriptor is returned without one.

    Parameters
    ----------
    path : Path
        A file that is there.

    Returns
    -------
    int
        An open descriptor that holds the claim.

    Raises
    ------
    RunFileError
        Another process, or another writer of this one, holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK))
        except OSError as error:
            if error.errno in _UNKNOWN:
                return descriptor
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise RunFileError(
                "Another run is writing this file.",
                where=str(path),
                advice="Wait for it (nlsim watch shows how far it is), or choose another file.",
            ) from None
    return descriptor


def is_claimed(path: Path) -> bool | None:
    """Return whether a writer holds the file, or None where this system cannot tell.

    Raises
    ------
    RunFileError
        The file is gone.
    """
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RunFileError("There is no such run file.", where=str(path)) from None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_RDLCK))
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    finally:
        os.close(descriptor)
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def has_writer(claimed: bool | None, host: Any, pid: Any) -> bool:
    """Return whether a file without an ending was being written before it was read.

    The lock says so where there are locks; else, or on the word of another machine, what the file itself says.

    Parameters
    ----------
    claimed : bool or None
        What :func:`is_claimed` said before the file was read; afterwards its writer may have closed it.
    host, pid
        The machine and process that began it, as the file has them.
    """
    if claimed is not None and host == platform.node():
        return claimed
    return bool(claimed) or is_elsewhere(host, pid)


def is_elsewhere(host: Any, pid: Any) -> bool:
    """Return whether a writer may live that no lock shows: on another machine, or where there are no locks."""
    if host is None:
        return False
    if host != platform.node():
        return True  # locks do not always travel between machines
    return sys.platform != "linux" and _is_alive(pid)


def _request(kind: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, _BYTE, 1, 0)


def _is_alive(pid: Any) -> bool:
    if os.name != "posix":
        return True  # os.kill(pid, 0) would end the process
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
