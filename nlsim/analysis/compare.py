"""Two runs side by side: the same scenario, the same bits, and if not, where they part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray

_BLOCK_BYTES = 2**23


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may lie apart: |a − b| ≤ absolute + relative max(|a|, |b|).

    Attributes
    ----------
    relative, absolute : float
        Both ≥ 0; with both 0 the numbers must be equal (0 and −0 are, and so are two NaN).
    """

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True)
class ChannelDifference:
    """How a channel of one run differs from that of another, over the frames that both have.

    Attributes
    ----------
    name : str
        The channel.
    obstacle : str
        Why the two cannot be compared entry by entry; empty when they can.
    first : float or None
        Time of the first frame whose bits differ; None when none does.
    first_beyond : float or None
        Time of the first frame that differs by more than the tolerance.
    largest : float
        Largest |a − b|; infinite where one is NaN or infinite and the other is not.
    largest_time : float or None
        Its time; None when no two numbers differ.
    scale : float
        Largest finite |a| or |b|, to judge ``largest`` by.
    """

    name: str
    obstacle: str = ""
    first: float | None = None
    first_beyond: float | None = None
    largest: float = 0.0
    largest_time: float | None = None
    scale: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether every bit is the same."""
        return not self.obstacle and self.first is None

    @property
    def is_within(self) -> bool:
        """Whether nothing lies beyond the tolerance."""
        return not self.obstacle and self.first_beyond is None


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common.

    Attributes
    ----------
    is_same_text : bool
        Whether the scenarios are the same byte for byte.
    values : mapping of str to (str, str)
        The scenario's values that differ, by ``table.key``.
    endings : (str, str)
        How the two ended.
    only : (tuple of str, tuple of str)
        Channels that only the one or the other has.
    frames : (int, int)
        How many frames each has.
    common : int
        At how many times both have a frame.
    channels : tuple of ChannelDifference
        Every channel of both, in the order of the first run.
    state : tuple of ChannelDifference
        The tensors of the final states, when they were given.
    only_state : (tuple of str, tuple of str)
        Tensors that only the one or the other final state has.
    """

    is_same_text: bool
    values: Mapping[str, tuple[str, str]]
    endings: tuple[str, str]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    frames: tuple[int, int]
    common: int
    channels: tuple[ChannelDifference, ...]
    state: tuple[ChannelDifference, ...] = ()
    only_state: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def is_same_times(self) -> bool:
        """Whether both have the same times."""
        return self.frames == (self.common, self.common)

    @property
    def is_same_frame(self) -> bool:
        """Whether values, ending, channels, times and the names in the final state are the same."""
        parts = (self.values, *self.only, *self.only_state)
        return self.is_same_times and self.endings[0] == self.endings[1] and not any(parts)

    @property
    def is_identical(self) -> bool:
        """Whether the two runs are the same bit for bit: values of the scenario, ending, times, channels, state."""
        return self.is_same_frame and all(each.is_identical for each in (*self.channels, *self.state))

    @property
    def is_within(self) -> bool:
        """Whether the two runs differ in nothing but numbers, and these by no more than the tolerance."""
        return self.is_same_frame and all(each.is_within for each in (*self.channels, *self.state))

    def parting(self, *, beyond: bool = False) -> ChannelDifference | None:
        """Return the channel that differs first (of several at one time, the first recorded), or None."""
        when = {id(each): each.first_beyond if beyond else each.first for each in self.channels}
        parted = [each for each in self.channels if when[id(each)] is not None]
        return min(parted, key=lambda each: float(when[id(each)] or 0.0), default=None)


def compare(
    one: xarray.Dataset,
    other: xarray.Dataset,
    *,
    tolerance: Tolerance | None = None,
    states: tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]] | None = None,
) -> Comparison:
    """Compare two runs.

    Parameters
    ----------
    one, other : xarray.Dataset
        As :func:`nlsim.open_run` returns them.
    tolerance : Tolerance, optional
        Beyond which a difference counts; by default none is allowed.
    states : pair of mappings of str to array, optional
        The final states, as ``read_checkpoint`` returns them.

    Returns
    -------
    Comparison
        Wall time, versions and the other facts about where a run comes from are left out: they say nothing about
        what was computed.

    Notes
    -----
    Cost: both runs are read once, some 8 MiB at a time.
    """
    allowed = tolerance or Tolerance()
    here, there = _channels(one), _channels(other)
    times, left, right = np.intersect1d(one["time"].values, other["time"].values, return_indices=True)
    names = [name for name in here if name in there]
    tensors, only_state = _compare_states(states, allowed)
    return Comparison(
        one.attrs.get("scenario") == other.attrs.get("scenario"),
        _differing_values(one, other),
        (str(one.attrs.get("ending", "")), str(other.attrs.get("ending", ""))),
        (tuple(name for name in here if name not in there), tuple(name for name in there if name not in here)),
        (one.sizes["time"], other.sizes["time"]),
        len(times),
        tuple(
            _compare_channel(name, one[here[name]], other[there[name]], (left, right), times, allowed) for name in names
        ),
        tensors,
        only_state,
    )


def _channels(data: xarray.Dataset) -> dict[str, str]:
    """Return channel -> variable; what has no channel's name goes by its own."""
    return {str(variable.attrs.get("channel", name)): str(name) for name, variable in data.data_vars.items()}


def _compare_channel(
    name: str,
    one: xarray.DataArray,
    other: xarray.DataArray,
    frames: tuple[NDArray[np.intp], NDArray[np.intp]],
    times: NDArray[np.float64],
    tolerance: Tolerance,
) -> ChannelDifference:
    obstacle = _obstacle(one, other)
    if obstacle:
        return ChannelDifference(name, obstacle)
    if one.dims[:1] != ("time",):  # not ours; one frame without a time
        return _differ(name, iter([(one.values[None], other.values[None])]), np.full(1, np.nan), tolerance)
    frame_bytes = max(one.dtype.itemsize * int(np.prod(one.shape[1:], dtype=np.int64)), 1)
    size = max(1, _BLOCK_BYTES // frame_bytes)
    pairs = (
        (one[left].values, other[right].values)
        for left, right in ((frames[0][at : at + size], frames[1][at : at + size]) for at in range(0, len(times), size))
    )
    return _differ(name, pairs, times, tolerance)


def _obstacle(one: xarray.DataArray, other: xarray.DataArray) -> str:
    if one.dims != other.dims:
        return f"dimensions {', '.join(map(str, one.dims))} and {', '.join(map(str, other.dims))}"
    if one.shape[1:] != other.shape[1:]:
        return f"shapes {one.shape[1:]} and {other.shape[1:]} of a frame"
    for dim in one.dims[1:]:
        mine, yours = one[dim].values, other[dim].values  # without labels, 0, 1, … in both
        if not np.array_equal(mine, yours):
            return f"different entries along {dim}"
    return f"numbers {one.dtype} and {other.dtype}" if one.dtype != other.dtype else ""


def _differ(
    name: str,
    pairs: Iterator[tuple[NDArray[Any], NDArray[Any]]],
    times: NDArray[np.float64],
    tolerance: Tolerance,
) -> ChannelDifference:
    first = first_beyond = largest_time = None
    largest, scale, start = 0.0, 0.0, 0
    for a, b in pairs:
        count = len(a)
        when = times[start : start + count]
        start += count
        axes = tuple(range(1, a.ndim))
        differs = np.any(_bits(a) != _bits(b), axis=axes)
        gap, size = _distance(a, b)
        beyond = np.any(gap > tolerance.absolute + tolerance.relative * size, axis=axes)
        first = _earlier(first, differs, when)
        first_beyond = _earlier(first_beyond, beyond, when)
        scale = max(scale, float(np.max(size, initial=0.0)))
        worst = gap.reshape(count, -1).max(axis=1, initial=0.0)
        if worst.max(initial=0.0) > largest:
            largest, largest_time = float(worst.max()), float(when[worst.argmax()])
    return ChannelDifference(name, "", first, first_beyond, largest, largest_time, scale)


def _earlier(found: float | None, hits: Any, times: NDArray[np.float64]) -> float | None:
    return float(times[hits.argmax()]) if found is None and hits.any() else found


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    plain = np.ascontiguousarray(values)
    return plain.view(f"u{plain.dtype.itemsize}") if plain.dtype.kind in "iuf" else plain


def _distance(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return |a − b| and the larger finite magnitude of the two, entry by entry."""
    if a.dtype.kind not in "iufb":
        return (a != b).astype(np.float64), np.ones(a.shape)
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(x - y)
    gap[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
    gap[np.isnan(gap)] = np.inf
    sizes = np.maximum(np.where(np.isfinite(x), np.abs(x), 0.0), np.where(np.isfinite(y), np.abs(y), 0.0))
    return gap, sizes


def _compare_states(
    states: tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]] | None, tolerance: Tolerance
) -> tuple[tuple[ChannelDifference, ...], tuple[tuple[str, ...], tuple[str, ...]]]:
    if states is None:
        return (), ((), ())
    here, there = states
    only = (tuple(name for name in here if name not in there), tuple(name for name in there if name not in here))
    found = []
    for name in here:
        if name not in there:
            continue
        a, b = np.asarray(here[name]), np.asarray(there[name])
        if a.shape != b.shape or a.dtype != b.dtype:
            found.append(ChannelDifference(name, f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"))
        else:
            found.append(_differ(name, iter([(a[None], b[None])]), np.zeros(1), tolerance))
    return tuple(found), only


def _differing_values(one: xarray.Dataset, other: xarray.Dataset) -> dict[str, tuple[str, str]]:
    here, there = scenario_values(one), scenario_values(other)
    names = [*here, *(name for name in there if name not in here)]
    return {
        name: (here.get(name, "not given"), there.get(name, "not given"))
        for name in names
        if here.get(name) != there.get(name)
    }


def scenario_values(data: xarray.Dataset) -> dict[str, str]:
    """Return every value of a run's scenario as text, by ``table.key``; of one that is not valid, its text."""
    from nlsim.errors import NlsimError
    from nlsim.scenario.load import parse_scenario
    from nlsim.scenario.overrides import read_overrides

    text = data.attrs.get("scenario")
    if not isinstance(text, str):
        return {}
    overrides = read_overrides(data.attrs)
    try:
        values = parse_scenario(text, overrides=overrides).values.model_dump(mode="json")
    except NlsimError:
        return {"scenario": text, "scenario_overrides": "; ".join(overrides)}
    return dict(_flat("", values))


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), each)
    else:
        yield prefix, str(value)
