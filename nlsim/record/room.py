"""Room on the disk, asked for before HDF5 needs it.

HDF5 does not survive a write that fails: what it could not write stays in its caches, later calls and the end of the
process fall over it. So the room for a block is taken first, by a call that fails cleanly.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

SHARED_BYTES: Final = 2 * 2048
"""HDF5 takes the room of small things from pieces of 2048 bytes, one piece for indices and one for numbers."""
_PIECE: Final = 2048
_INDEX_HEAD: Final = 512
"""More than the header (72 bytes) and the first block of an index (at most 352)."""
_INDEX_ENTRY: Final = 24
"""An entry of an index is at most 20 bytes (address 8, size 8, filters 4); its block's own 22 bytes are shared by 16 or
more of them, the checksum of a page (4) by 1024."""
_FIRST_BLOCK: Final = 16
_IN_HEAD: Final = 4
_PAGE: Final = 1024
_FULL: Final = (errno.ENOSPC, errno.EFBIG, *((errno.EDQUOT,) if hasattr(errno, "EDQUOT") else ()))


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room: on the disk, in a quota, or under a limit of the process."""
    return isinstance(error, OSError) and error.errno in _FULL


def array_room(shape: Sequence[int], chunks: Sequence[int], itemsize: int, first: int, end: int) -> int:
    """Return a bound of the bytes that a file grows by when frames of one array are written.

    Every chunk that a frame falls into is written anew, at most as large as it is unpacked; then the index of chunks
    grows. HDF5 keeps it (format of version 3, one unlimited axis) as an extensible array: 4 entries in its head, then
    levels u = 0, 1, … of 2^⌊u/2⌋ blocks of 16·2^⌈u/2⌉ entries each, taken whole when the first entry falls into them;
    a level has a table of its blocks, 8 bytes each, and a bit for each page of 1024 entries. So k new entries take at
    most k entries and one block more, and the tables of the levels they reach: O(√chunks).

    Parameters
    ----------
    shape : sequence of int
        Of one frame.
    chunks : sequence of int
        Of the array, frames first.
    itemsize : int
        Bytes of a number.
    first, end : int
        The frames first ≤ i < end are written; the array had ``first`` of them, or more that are written again.

    Notes
    -----
    What does not fit into the rest of a piece of 2048 bytes leaves that rest, smaller than itself, unused: small
    things count twice. Beside all arrays of a file there is :data:`SHARED_BYTES`.
    """
    across = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks[1:], strict=True))
    touched = ((end - 1) // chunks[0] - first // chunks[0] + 1) * across
    size = math.prod(chunks) * itemsize
    before, after = (-(-count // chunks[0]) * across for count in (first, end))
    return touched * (size + min(size, _PIECE)) + 2 * _index_room(before, after)


def _index_room(before: int, after: int) -> int:
    if after == before:
        return 0
    lowest, highest = _level(before), _level(after)
    entries = after - before + (_FIRST_BLOCK << (highest + 1) // 2)
    tables = sum(32 + (1 << level // 2) * (8 + _bits(level)) for level in range(lowest, highest + 1))
    return _INDEX_ENTRY * entries + tables + (0 if before else _INDEX_HEAD)


def _level(chunks: int) -> int:
    """Return the level that the entry after so many falls into."""
    return (max(chunks - _IN_HEAD, 0) // _FIRST_BLOCK + 1).bit_length() - 1


def _bits(level: int) -> int:
    return -(-(_FIRST_BLOCK << (level + 1) // 2) // (8 * _PAGE))


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
