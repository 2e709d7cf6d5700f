"""What a file must be before it is read: one of ours, harmless, and not larger than it can be."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import h5py
import numpy as np

from nlsim.errors import RunFileError
from nlsim.record import format as fmt

_NETCDF_ATTRIBUTES: Final = frozenset({"DIMENSION_LIST", "REFERENCE_LIST"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_INFLATION: Final = 1100
"""Deflate makes at most 1032 bytes of one."""
_SLACK: Final = 2**16
_MOST_TEXTS: Final = 10**6
_NO_VARIABLE: Final = b"This is a netCDF dimension but not a netCDF variable"


def refuse_foreign(file: h5py.File, path: str, size: int) -> None:
    """Refuse a file that is not a run file, or holds what nlsim never writes.

    Nothing that is declared but not there is read: times cost no more memory than they have bytes on file, and an array
    that claims more than the file has bytes must have been stored, at deflate's best ratio at most.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    path : str
        Its name, for messages.
    size : int
        Its length in bytes.

    Raises
    ------
    RunFileError
        It names the object at fault.
    """
    schema = file.attrs.get(fmt.SCHEMA_ATTRIBUTE) if _is_number(file, fmt.SCHEMA_ATTRIBUTE) else None
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
    fault = file.visititems_links(_fault_of_link) or _fault_of_object("/", file, size, 0)
    if fault is None:
        frames = _frames(file, path)
        fault = file.visititems(lambda name, thing: _fault_of_object(name, thing, size, frames))
    if fault is not None:
        what, name = fault
        raise RunFileError(
            f"This run file holds {what}, which nlsim never writes; it is not read.", where=f"{path}: {name}"
        )
    _refuse_incomplete(file, path)


def _frames(file: h5py.File, path: str) -> int:
    """Return how many times are declared, once they are known to be stored."""
    time = file.get(fmt.TIME)
    if not isinstance(time, h5py.Dataset) or time.dtype != np.float64 or time.ndim != 1:
        raise RunFileError("This run file has no times.", where=f"{path}: {fmt.TIME}", allowed="one float64 a frame")
    fault = _fault_of_layout(time)
    if fault is None and time.size * time.dtype.itemsize > time.id.get_storage_size() + _SLACK:
        fault = f"{_shape_of(time)}, larger than the file can hold"
    if fault is None and time.compression is not None:
        fault = "times that are packed"
    if fault is not None:
        raise RunFileError(
            f"This run file holds {fault}, which nlsim never writes; it is not read.", where=f"{path}: {fmt.TIME}"
        )
    return int(time.size)


def _refuse_incomplete(file: h5py.File, path: str) -> None:
    states = (fmt.RUNNING, fmt.COMPLETE, fmt.INTERRUPTED)
    for name, allowed in ((fmt.STATE, states), (fmt.ENDING, None), (fmt.ENDING_DETAIL, None)):
        found = file.attrs.get(name)
        if not isinstance(found, str) or (allowed is not None and found not in allowed):
            raise RunFileError(
                "This run file does not say how its run stands.",
                where=f"{path}: attribute {name}",
                given=found,
                allowed=", ".join(allowed or ["text"]),
            )


def _fault_of_link(name: str, link: Any) -> tuple[str, str] | None:
    if not isinstance(link, h5py.HardLink):
        return "a link to elsewhere", printable_name(name)
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        return "a name", printable_name(name)
    return None


def _fault_of_object(name: str, thing: Any, size: int, frames: int) -> tuple[str, str] | None:
    if isinstance(thing, h5py.Dataset):
        what = _fault_of_array(thing, size, frames)
        if what is not None:
            return what, name
    elif not isinstance(thing, h5py.Group):
        return "an object that is neither an array nor a group", name
    for attribute in thing.attrs.keys() - _NETCDF_ATTRIBUTES:
        where = f"{name}, attribute {printable_name(attribute)}"
        held = thing.attrs.get_id(attribute)
        if not _is_plain(held.dtype):
            return "an attribute of neither numbers nor text", where
        if not _ATTRIBUTE.fullmatch(attribute):
            return "a name", where
        if math.prod(held.shape) * held.dtype.itemsize > size + _SLACK:
            return "an attribute larger than the file", where
    what = _fault_of_heap(thing)
    if what is not None:
        return what, name
    given = thing.attrs.get(fmt.CHANNEL)
    if given is not None and not (isinstance(given, str) and fmt.is_channel_name(given)):
        return "a name", f"{name}, attribute {fmt.CHANNEL}: {printable_name(str(given))}"
    return None


def _fault_of_heap(thing: h5py.Group | h5py.Dataset) -> str | None:
    """Read what lies in the global heap, once, while the file is screened; later readers would not come to an end."""
    if isinstance(thing, h5py.Dataset) and h5py.check_string_dtype(thing.dtype) is not None:
        if thing.size > _MOST_TEXTS:
            return f"more than {_MOST_TEXTS} texts"
        thing[...]
    for attribute in thing.attrs:
        held = thing.attrs.get_id(attribute)
        if held.dtype.hasobject:
            if math.prod(held.shape) > _MOST_TEXTS:
                return f"more than {_MOST_TEXTS} texts or references"
            thing.attrs[attribute]
    return None


def _fault_of_layout(array: h5py.Dataset) -> str | None:
    if array.is_virtual or array.external:
        return "an array that lies in another file"
    if not _is_plain(array.dtype):
        return "an array of neither numbers nor text"
    if array.shape is None:
        return "an array without a shape"
    created = array.id.get_create_plist()
    filters = {created.get_filter(i)[0] for i in range(created.get_nfilters())}
    if not filters <= _FILTERS:
        return "an array packed by a foreign filter"
    if array.chunks is not None and math.prod(array.chunks) * array.dtype.itemsize > fmt.CHUNK_BYTES:
        return f"an array in chunks of more than {fmt.CHUNK_BYTES} bytes"
    return None


def _fault_of_array(array: h5py.Dataset, size: int, frames: int) -> str | None:
    fault = _fault_of_layout(array)
    if fault is not None or _is_bare_dimension(array):
        return fault  # of a bare dimension only its length means something, and nobody reads more
    shape = array.shape
    if array.maxshape[:1] == (None,):
        shape = (min(shape[0], frames), *shape[1:])  # rows beyond are of frames that were not finished
    claimed = math.prod(shape) * array.dtype.itemsize
    if claimed <= size + _SLACK:
        return None
    if array.compression is None or claimed > array.id.get_storage_size() * _INFLATION + _SLACK:
        return f"{_shape_of(array)}, larger than the file can hold"
    return None


def _shape_of(array: h5py.Dataset) -> str:
    return f"an array of shape {array.shape}"


def _is_bare_dimension(array: h5py.Dataset) -> bool:
    if array.ndim != 1 or array.chunks is not None or "NAME" not in array.attrs:
        return False
    held = array.attrs.get_id("NAME")
    if held.dtype.kind != "S" or held.dtype.itemsize > 256 or math.prod(held.shape) != 1:
        return False
    return bytes(np.asarray(array.attrs["NAME"])).startswith(_NO_VARIABLE)


def _is_number(file: h5py.File, name: str) -> bool:
    return name in file.attrs and file.attrs.get_id(name).dtype.kind in "iu"


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" or h5py.check_string_dtype(dtype) is not None


def printable_name(name: str) -> str:
    """Return a name from a file as it can be shown: no control characters, and not endlessly long."""
    return repr(name[:120])[1:-1]
