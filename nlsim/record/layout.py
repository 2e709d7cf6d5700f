"""Whether a set of channels and coordinates fits into one file, and which axes it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlsim.errors import RunFileError
from nlsim.record.format import CHECKPOINT, TIME, ChannelSpec, check_dimension, number_type


@dataclass(frozen=True, eq=False)
class CoordinateSpec:
    """Values along an axis that do not change in time, such as a swept parameter along ``ensemble``.

    Parameters
    ----------
    name : str
        Name of the netCDF variable; may equal ``dim``.
    dim : str
        The axis it belongs to.
    values : array
        Numbers or text, shape ``(size,)``.
    units : str
        ``"1"`` for a pure number; not used for text.
    long_name : str
        For a person.
    """

    name: str
    dim: str
    values: npt.NDArray[Any]
    units: str = "1"
    long_name: str = ""

    def __post_init__(self) -> None:
        where = f"coordinate {self.name}"
        check_dimension(self.name, where)
        check_dimension(self.dim, where)
        object.__setattr__(self, "values", np.array(self.values))
        if self.values.ndim != 1 or not self.values.size:
            raise RunFileError("A coordinate needs one value for each entry of its axis.", where=where)
        if not self.is_text:
            object.__setattr__(self, "values", self.values.astype(number_type(self.values.dtype, where)))

    @property
    def is_text(self) -> bool:
        """Whether the values are text."""
        return self.values.dtype.kind == "U"


def dimension_sizes(channels: Iterable[ChannelSpec], coordinates: Sequence[CoordinateSpec] = ()) -> dict[str, int]:
    """Return the netCDF dimensions (without ``time``) of a set of channels, or refuse the set.

    Raises
    ------
    RunFileError
        Two channels make one variable, an axis has two sizes, or one name is a variable and an axis.
    """
    owners: dict[str, str] = {TIME: "the time of the frames", CHECKPOINT: "the checkpoint"}
    sizes: dict[str, int] = {}
    plain: set[str] = set()

    def own(variable: str, owner: str) -> None:
        if variable in owners:
            raise RunFileError(
                "Two quantities would be one variable of the run file.",
                given=f"{owners[variable]} and {owner}, both '{variable}'",
                advice="Rename one of them.",
            )
        owners[variable] = owner

    def size_of(dim: str, size: int, owner: str) -> None:
        if sizes.setdefault(dim, size) != size:
            raise RunFileError(
                "One axis name has two sizes.",
                where=owner,
                given=f"{dim} = {size}, elsewhere {sizes[dim]}",
                advice="Give axes of different sizes different names.",
            )

    for channel in channels:
        own(channel.variable, f"channel {channel.name}")
        for dim, netcdf_dim, size in zip(channel.dims, channel.dimensions, channel.shape, strict=True):
            if dim in channel.coordinates:
                own(netcdf_dim, f"indices of {dim} in channel {channel.name}")
            else:
                plain.add(dim)
            size_of(netcdf_dim, size, f"channel {channel.name}")
    for coordinate in coordinates:
        own(coordinate.name, f"coordinate {coordinate.name}")
        size_of(coordinate.dim, coordinate.values.size, f"coordinate {coordinate.name}")
        plain.add(coordinate.dim)
    labels = {c.name for c in coordinates if c.name == c.dim}
    for dim in sorted((plain & owners.keys()) - labels):
        raise RunFileError(
            "One name is a variable and an axis of the run file.",
            given=f"{owners[dim]}, and the axis {dim}",
            advice="Rename one of them.",
        )
    return sizes
