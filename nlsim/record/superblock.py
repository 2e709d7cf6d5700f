"""The first 48 bytes of a run file: what HDF5 keeps there, and how a killed writer's marks are taken off."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nlsim.errors import RunFileError

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_LAYOUT: Final = struct.Struct("<8sBBBBQQQQI")
"""Signature, version, sizes of offsets and lengths, flags, base, extension, end of file, root, checksum."""
HEAD_BYTES: Final = _LAYOUT.size
_WRITER: Final = 0b001
_SWMR_WRITER: Final = 0b100
_WORD: Final = 2**32 - 1


@dataclass(frozen=True)
class Superblock:
    """What the superblock says.

    Attributes
    ----------
    is_live : bool
        Whether the file is being written, or was when its process was killed.
    end : int
        How long the file should be, in bytes.
    size : int
        How long it is.
    """

    is_live: bool
    end: int
    size: int


def read_superblock(path: Path) -> Superblock:
    """Return what the superblock of a file says; HDF5 need not open the file for that.

    Given a damaged live file, HDF5 waits, each time twice as long, for a writer to repair it.

    Raises
    ------
    RunFileError
        Not an HDF5 file, or one of a version that nlsim never writes.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, os.SEEK_END)
    if len(head) < HEAD_BYTES or not head.startswith(_SIGNATURE):
        raise RunFileError(
            "This is not an HDF5 file, so not a run file.",
            where=str(path),
            advice="Run files are what 'nlsim run' writes; scenarios are TOML.",
        )
    _, version, offsets, lengths, flags, _, _, end, _, checksum = _LAYOUT.unpack(head)
    if (version, offsets, lengths) != (3, 8, 8):
        raise RunFileError(
            "This is an HDF5 file, but not a run file of nlsim.",
            where=str(path),
            given=f"superblock version {version}, sizes {offsets} and {lengths}",
            allowed="version 3, sizes 8 and 8",
        )
    if checksum != lookup3(head[:-4]):
        raise RunFileError("This run file is damaged: its first bytes do not match their checksum.", where=str(path))
    return Superblock(bool(flags & (_WRITER | _SWMR_WRITER)), end, size)


def take_off_marks(path: Path) -> None:
    """Make a killed writer's file one that HDF5 opens for writing; what `h5clear -s --increment=0` does.

    The marks of the writer are taken off, and the end of the file is where the file ends, so that nothing
    new is put upon blocks that the superblock had not heard of.
    """
    with open(path, "r+b") as file:
        head = without_marks(file.read(HEAD_BYTES), file.seek(0, os.SEEK_END))
        file.seek(0)
        file.write(head)


def without_marks(head: bytes, size: int) -> bytes:
    """Return the first bytes of a file of this size without a writer's marks, its end being the end of the file."""
    fields = list(_LAYOUT.unpack(head))
    fields[4] &= ~(_WRITER | _SWMR_WRITER)
    fields[7] = max(fields[7], size)
    plain = _LAYOUT.pack(*fields)[:-4]
    return plain + struct.pack("<I", lookup3(plain))


def lookup3(data: bytes) -> int:
    """Return Bob Jenkins' lookup3 hash (hashlittle, initial value 0), the checksum of HDF5's metadata."""

    def turn(value: int, by: int) -> int:
        return ((value << by) | (value >> (32 - by))) & _WORD

    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    if not data:
        return c
    blocks = (len(data) - 1) // 12  # the last block, of up to twelve bytes, is mixed in another way
    words: tuple[int, ...] = struct.unpack(f"<{3 * (blocks + 1)}I", data.ljust(12 * (blocks + 1), b"\0"))
    for i in range(0, 3 * blocks, 3):
        a, b, c = (a + words[i]) & _WORD, (b + words[i + 1]) & _WORD, (c + words[i + 2]) & _WORD
        a = ((a - c) & _WORD) ^ turn(c, 4)
        c = (c + b) & _WORD
        b = ((b - a) & _WORD) ^ turn(a, 6)
        a = (a + c) & _WORD
        c = ((c - b) & _WORD) ^ turn(b, 8)
        b = (b + a) & _WORD
        a = ((a - c) & _WORD) ^ turn(c, 16)
        c = (c + b) & _WORD
        b = ((b - a) & _WORD) ^ turn(a, 19)
        a = (a + c) & _WORD
        c = ((c - b) & _WORD) ^ turn(b, 4)
        b = (b + a) & _WORD
    a, b, c = (a + words[-3]) & _WORD, (b + words[-2]) & _WORD, (c + words[-1]) & _WORD
    c = ((c ^ b) - turn(b, 14)) & _WORD
    a = ((a ^ c) - turn(c, 11)) & _WORD
    b = ((b ^ a) - turn(a, 25)) & _WORD
    c = ((c ^ b) - turn(b, 16)) & _WORD
    a = ((a ^ c) - turn(c, 4)) & _WORD
    b = ((b ^ a) - turn(a, 14)) & _WORD
    return ((c ^ b) - turn(b, 24)) & _WORD
