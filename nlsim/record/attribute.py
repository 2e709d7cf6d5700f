"""What may be an attribute of a run file, and how it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record.format import (
    ENDING,
    ENDING_DETAIL,
    SCHEMA_ATTRIBUTE,
    STATE,
    WRITER_HOST,
    WRITER_PID,
)

RESERVED_ATTRIBUTES: Final = frozenset(
    {"Conventions", SCHEMA_ATTRIBUTE, STATE, ENDING, ENDING_DETAIL, WRITER_HOST, WRITER_PID, "coordinates"}
    | {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}
)
"""Root attributes that the writer sets itself, or that HDF5 and netCDF need for themselves."""

Attribute = str | int | float | Sequence[str] | Sequence[int] | Sequence[float]
"""What an attribute of a run file may hold."""

_ATTRIBUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def root_attributes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a caller's root attributes as they are stored.

    Raises
    ------
    RunFileError
        One of them cannot be stored, or has a name that the writer keeps for itself.
    """
    for name in sorted(RESERVED_ATTRIBUTES & (given or {}).keys()):
        raise RunFileError("The run file keeps this attribute for itself.", given=name, advice="Choose another name.")
    return stored_attributes(given)


def stored_attributes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return attributes as they are stored; raises as :func:`attribute_value` does."""
    return {name: attribute_value(name, value) for name, value in (given or {}).items()}


def attribute_value(name: str, value: object) -> str | list[str] | npt.NDArray[Any]:
    """Return an attribute's value as it is stored; truth values become 0 and 1.

    Text keeps every byte of its UTF-8 form, whatever its length. A list of one entry reads back as that
    entry: netCDF does not tell them apart.

    Raises
    ------
    RunFileError
        The value is not text, a number, or a flat list of one of them; or text holds a NUL or half of a
        surrogate pair, which no netCDF reader would give back.
    """
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise RunFileError(
            "This name cannot be an attribute.",
            given=name,
            allowed="letters, digits, '_', '.' and '-', with a letter first",
        )
    plain: Any = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    items: list[Any] = list(plain) if isinstance(plain, list | tuple) else [plain]
    if items and all(isinstance(item, str) for item in items):
        if any(_UNSTORABLE.search(item) for item in items):
            raise RunFileError("Text in a run file cannot hold NUL or lone surrogates.", where=name)
        return items if isinstance(plain, list | tuple) else str(plain)
    if all(isinstance(item, int | float) for item in items):
        numbers = np.asarray(plain)
        if numbers.dtype.kind == "b":
            numbers = numbers.astype(np.int8)
        if numbers.dtype.kind in "iuf":
            return numbers
    raise RunFileError(
        "This value cannot be an attribute of a run file.",
        where=name,
        given=value,
        allowed="text, a number of at most 64 bits, or a flat list of one of them",
        advice="Leave out what has no value; store tables as text.",
    )


def printable(error: BaseException) -> str:
    """Return an error's type and message as text that an attribute can hold."""
    text = f"{type(error).__name__}: {error}".replace("\0", "")
    return text.encode("utf-8", "replace").decode("utf-8")
