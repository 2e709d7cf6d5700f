"""One entry of an array over time, which a curve or a portrait is drawn of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray

from nlsim.errors import RunFileError

_MOST_SHOWN = 8


def choose(variable: xarray.DataArray, entry: str | None) -> xarray.DataArray:
    """Return a channel that has one number a frame, or the entry of an array that a person chose.

    Parameters
    ----------
    variable : xarray.DataArray
        Over ``time`` and any other axes.
    entry : str or None
        Its index along each axis but time, in their order, such as ``"0,3"``; of an axis of which only some entries
        were recorded, the index in the whole. None: nothing was chosen, which only suits one number a frame.

    Returns
    -------
    xarray.DataArray
        Over ``time``; its ``long_name`` ends with the entry.

    Raises
    ------
    RunFileError
        An array without a choice, a choice in a channel that is no array, or one that the array has not.
    """
    axes = [str(dim) for dim in variable.dims if dim != "time"]
    if not axes and entry is None:
        return variable
    name = str(variable.attrs.get("channel", variable.name))
    if not axes:
        raise RunFileError("This channel has one number a frame and no entries.", given=f"{name}[{entry}]")
    if entry is None:
        raise RunFileError(
            "This channel is an array, of which one entry can be drawn.",
            given=name,
            allowed=_ranges(variable, axes),
            advice=f"Choose one, such as '{name}[{','.join(str(_indices(variable, dim)[0]) for dim in axes)}]'.",
        )
    places = _places(variable, axes, entry)
    if places is None:
        raise RunFileError("There is no such entry.", given=f"{name}[{entry}]", allowed=_ranges(variable, axes))
    return _at(variable, axes, places)


def first_entry(variable: xarray.DataArray) -> xarray.DataArray:
    """Return the first entry of every axis but time, named by it."""
    axes = [str(dim) for dim in variable.dims if dim != "time"]
    return _at(variable, axes, [0] * len(axes)) if axes else variable


def _at(variable: xarray.DataArray, axes: Sequence[str], places: Sequence[int]) -> xarray.DataArray:
    indices = ",".join(str(_indices(variable, dim)[place]) for dim, place in zip(axes, places, strict=True))
    found = variable.isel(dict(zip(axes, places, strict=True)))
    return found.assign_attrs(long_name=f"{variable.attrs.get('long_name', variable.name)} [{indices}]")


def _places(variable: xarray.DataArray, axes: Sequence[str], entry: str) -> list[int] | None:
    """Return where an entry lies along each axis, or None where it does not."""
    chosen = [part.strip() for part in entry.split(",")]
    if len(chosen) != len(axes):
        return None
    known = [[str(index) for index in _indices(variable, dim)] for dim in axes]
    if any(index not in indices for index, indices in zip(chosen, known, strict=True)):
        return None
    return [indices.index(index) for index, indices in zip(chosen, known, strict=True)]


def _indices(variable: xarray.DataArray, dim: str) -> list[int]:
    """Return the indices of what was recorded along an axis: those that the file gives, else from 0."""
    given = variable.coords.get(dim)
    if given is not None and given.dtype.kind in "iu":
        return [int(index) for index in np.asarray(given.values)]
    return list(range(variable.sizes[dim]))


def _ranges(variable: xarray.DataArray, axes: Sequence[str]) -> str:
    return "; ".join(f"{dim.removeprefix(f'{variable.name}_')} {_range(_indices(variable, dim))}" for dim in axes)


def _range(indices: Sequence[int]) -> str:
    if len(indices) > 1 and list(indices) == list(range(indices[0], indices[-1] + 1)):
        return f"{indices[0]} to {indices[-1]}"
    return ", ".join(map(str, indices[:_MOST_SHOWN])) + (", …" if len(indices) > _MOST_SHOWN else "")
