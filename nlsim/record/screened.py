"""A view of a run file in which nothing keeps HDF5 waiting."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from nlsim.record.heap import SIGNATURE, is_sound
from nlsim.record.superblock import HEAD_BYTES, without_marks


class Screened(io.RawIOBase):
    """A file to be read as HDF5, shown without what HDF5 would wait for or read for ever; nothing is written.

    The marks of a killed writer are left out: with them HDF5 would read the file only in the mode for live files, in
    which it waits for a writer to repair whatever is damaged. A collection of the global heap that would hold HDF5 for
    ever is shown without its signature, so that it is refused.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._head = without_marks(self._file.read(HEAD_BYTES) or b"", self._size)
        self._at = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be sought."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, however far: a damaged file has addresses beyond every file, and HDF5 asks for them."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer from the place, and go on; beyond the end there are zeros, as HDF5 has it."""
        view = memoryview(buffer).cast("B")
        count = 0
        if 0 <= self._at < self._size:
            self._file.seek(self._at)
            count = int(self._file.readinto(view) or 0)
            covered = self._head[self._at : self._at + count]
            view[: len(covered)] = covered
            self._hide_endless(view[:count])
        view[count:] = bytes(len(view) - count)
        self._at += len(view)
        return len(view)

    def _hide_endless(self, view: memoryview) -> None:
        shown = bytes(view)
        found = shown.find(SIGNATURE)
        while found >= 0:
            if not is_sound(lambda at, size: os.pread(self._file.fileno(), size, at), self._at + found):
                view[found : found + len(SIGNATURE)] = bytes(len(SIGNATURE))
            found = shown.find(SIGNATURE, found + 1)
