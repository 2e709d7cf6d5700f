"""Room on the disk, asked for before HDF5 needs it.

HDF5 does not survive a write that fails: what it could not write stays in its caches, later calls and the end of the
process fall over it. So the room for a block is taken first, by a call that fails cleanly.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

INDEX_BYTES: Final = 2**16
"""More than what the index of one array and the header of the file grow by in one block."""


def take_room(descriptor: int, length: int) -> None:
    """Take room for so many bytes beyond the end of a file; where the system cannot do that, nothing is done.

    The file is longer by them, in zeros; what is left of them is given back by :func:`give_back`.

    Parameters
    ----------
    descriptor : int
        The file, open for writing.
    length : int
        How many bytes, at least 1.

    Raises
    ------
    OSError
        There is no such room; the file is as it was.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    end = os.fstat(descriptor).st_size
    try:
        os.posix_fallocate(descriptor, end, length)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(descriptor, end)  # some file systems leave what they had room for
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def give_back(descriptor: int, end: int) -> None:
    """Cut off a file's room beyond its end."""
    if os.fstat(descriptor).st_size > end:
        os.ftruncate(descriptor, end)


def check_room(path: Path, length: int) -> None:
    """Raise OSError unless a file of so many bytes has room at this path; nothing is left there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        take_room(descriptor, length)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(path)
