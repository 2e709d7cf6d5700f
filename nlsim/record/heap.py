"""Collections of HDF5's global heap, where texts and lists of references lie: whether reading one comes to an end.

A collection is a header (signature, version, size) and objects one after another, each with its index, its size and its
bytes; index 0 is the free space at the end. HDF5 goes from object to object by their sizes, without a checksum: where a
damaged size is 0, it stays where it is, for ever.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

SIGNATURE: Final = b"GCOL"
_HEADER: Final = struct.Struct("<4sB3xQ")
_OBJECT: Final = struct.Struct("<HH4xQ")
_MOST_OBJECTS: Final = 2**16


def is_sound(read: Callable[[int, int], bytes], at: int) -> bool:
    """Return whether the objects of a collection follow each other to its end.

    Parameters
    ----------
    read : callable
        ``read(at, size)``: so many bytes of the file, fewer at its end.
    at : int
        Where the collection begins.

    Notes
    -----
    Cost: one reading an object, of which there are at most 2^16.
    """
    header = read(at, _HEADER.size)
    if len(header) < _HEADER.size:
        return False
    _, _, size = _HEADER.unpack(header)
    place, end = at + _HEADER.size, at + size
    for _ in range(_MOST_OBJECTS):
        if place + _OBJECT.size > end:
            return True
        head = read(place, _OBJECT.size)
        if len(head) < _OBJECT.size:
            return False
        index, _, held = _OBJECT.unpack(head)
        taken = _OBJECT.size + (held + 7) // 8 * 8 if index else held
        if taken < _OBJECT.size or place + taken > end:
            return False
        place += taken
    return False
