"""What is recorded: channels by name, cut to the chosen entries or reduced to a few numbers, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import ScenarioError, did_you_mean
from nlsim.record.format import ChannelSpec, variable_name
from nlsim.record.layout import CoordinateSpec
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.check import is_multiple
from nlsim.simulation.reduction import Reduction

_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Recorded:
    """One channel: an observable, axis by axis which entries of it are kept, and what they are made into.

    Attributes
    ----------
    observable : Observable
        What is read.
    selection : tuple of Tensor or None
        Indices kept along each axis; None: all.
    reduction : Reduction or None
        What the entries are made into.
    spec : ChannelSpec
        What a frame of it looks like in the file.
    """

    observable: Observable
    selection: tuple[torch.Tensor | None, ...]
    reduction: Reduction | None
    spec: ChannelSpec

    def is_due(self, t: float) -> bool:
        """Whether it is recorded at a record time."""
        return self.spec.every is None or is_multiple(t, self.spec.every)

    def read(self, t: float, state: Any, inputs: Inputs) -> NDArray[Any]:
        """Return the value now, cut to the selection and reduced, in the precision of the run."""
        value = self.observable.evaluate(t, state, inputs)
        for axis, chosen in enumerate(self.selection):
            if chosen is not None:
                value = value.index_select(axis, chosen)
        if self.reduction is not None:
            value = self.reduction(value)
        found: NDArray[Any] = value.detach().cpu().numpy()
        return found


@dataclass(frozen=True)
class RecordPlan:
    """Channels and times of a recording.

    Attributes
    ----------
    times : list of float
        Record times, increasing.
    channels : tuple of Recorded
        What is read at each.
    coordinates : tuple of CoordinateSpec
        Values along axes that do not change in time: the bins of histograms.
    """

    times: list[float]
    channels: tuple[Recorded, ...]
    coordinates: tuple[CoordinateSpec, ...] = field(default=())

    def read(self, t: float, state: Any, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Return channel name -> value of the channels that are due at a time."""
        with torch.no_grad():
            return {each.spec.name: each.read(t, state, inputs) for each in self.channels if each.is_due(t)}

    def filled(self, frame: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a frame of all channels, in which those that were not due are NaN."""
        if len(frame) == len(self.channels):
            return dict(frame)
        return {
            each.spec.name: frame[each.spec.name]
            if each.spec.name in frame
            else np.full(each.spec.shape, np.nan, each.spec.dtype)
            for each in self.channels
        }


def plan_record(
    source: LoadedScenario,
    observables: Mapping[str, Observable],
    times: list[float],
    state: Any,
    inputs: Inputs,
) -> RecordPlan:
    """Match the scenario's channels with the observables, reading each once to learn its shape.

    Raises
    ------
    ScenarioError
        For an unknown channel, dimension or index, a pattern that nothing matches, or times that never come.
    """
    where = source.where("record", "channels")
    recorded, coordinates = [], []
    for channel in _expanded(source.values.record.channels, observables, where):
        observable = observables[channel.name]
        with torch.no_grad():
            value = observable.evaluate(0.0, state, inputs)
        made, bins = _recorded(channel, observable, value, source)
        recorded.append(made)
        coordinates += bins
    return RecordPlan(times, tuple(recorded), tuple(coordinates))


def _expanded(
    written: Sequence[str | model.Channel], observables: Mapping[str, Observable], where: str
) -> list[model.Channel]:
    """Return the channels with patterns replaced by the names that they match; a name of its own goes before."""
    channels = [model.Channel(name=each) if isinstance(each, str) else each for each in written]
    plain = {each.recorded_name for each in channels if not _WILD & set(each.name)}
    found: dict[str, model.Channel] = {}
    for channel in channels:
        if not _WILD & set(channel.name):
            if channel.name not in observables:
                guess = did_you_mean(channel.name, observables)
                raise ScenarioError(
                    "There is no channel of this name.",
                    where=where,
                    given=channel.name,
                    allowed=", ".join(observables),
                    advice=f"Did you mean '{guess}'?" if guess else None,
                )
            found[channel.recorded_name] = channel
            continue
        matched = [name for name in observables if fnmatchcase(name, channel.name)]
        if not matched:
            raise ScenarioError(
                "No channel matches this pattern.", where=where, given=channel.name, allowed=", ".join(observables)
            )
        for name in matched:
            one = channel.model_copy(update={"name": name})
            if one.recorded_name not in plain:
                found.setdefault(one.recorded_name, one)
    return list(found.values())


def _recorded(
    channel: model.Channel, observable: Observable, value: torch.Tensor, source: LoadedScenario
) -> tuple[Recorded, list[CoordinateSpec]]:
    where, record = source.where("record", "channels"), source.values.record
    sizes = dict(zip(observable.dims, value.shape, strict=True))
    _check_selection(channel, sizes, where)
    chosen_by_axis = [channel.select.get(dim) for dim in observable.dims]
    shape = tuple(
        size if chosen is None else len(chosen) for size, chosen in zip(value.shape, chosen_by_axis, strict=True)
    )
    reduction, coordinates = None, []
    dims, dtype, long_name = observable.dims, np.dtype(str(value.dtype).removeprefix("torch.")), observable.long_name
    units, indices = observable.units, {dim: np.asarray(chosen) for dim, chosen in channel.select.items()}
    if channel.reduce is not None:
        variable = variable_name(channel.recorded_name)
        bins = torch.tensor(channel.bins, dtype=value.dtype, device=value.device) if channel.bins else None
        reduction = Reduction(channel.reduce, _axes(channel, observable.dims, where), bins)
        long_name = f"{reduction.description} of {long_name}"
        if bins is None:
            dims, shape = reduction.kept(dims), reduction.kept(shape)
            indices = {dim: each for dim, each in indices.items() if dim in dims}
        else:
            edges, units = np.asarray(channel.bins), "1"
            dims, shape, dtype, indices = (f"{variable}_bin",), (len(edges) - 1,), np.dtype(np.float64), {}
            coordinates = [
                CoordinateSpec(f"{variable}_{end}", dims[0], values, observable.units, f"{word} edge of the bin")
                for end, word, values in (("from", "lower", edges[:-1]), ("to", "upper", edges[1:]))
            ]
    if channel.every is not None:
        _check_thinning(channel, dtype, source)
    if record.dtype == "float32" and dtype.kind == "f":
        dtype = np.dtype(np.float32)
    spec = ChannelSpec(channel.recorded_name, dims, shape, dtype, units, long_name, indices, channel.every)
    selection = tuple(
        None if chosen is None else torch.tensor(chosen, device=value.device) for chosen in chosen_by_axis
    )
    return Recorded(observable, selection, reduction, spec), coordinates


def _check_selection(channel: model.Channel, sizes: Mapping[str, int], where: str) -> None:
    for dim, chosen in channel.select.items():
        if dim not in sizes:
            raise ScenarioError(
                f"The channel '{channel.name}' has no such dimension.",
                where=where,
                given=dim,
                allowed=", ".join(f"{name} (0 to {size - 1})" for name, size in sizes.items()) or "none",
            )
        beyond = [index for index in chosen if index >= sizes[dim]]
        if beyond:
            raise ScenarioError(
                f"The dimension '{dim}' of '{channel.name}' has no such entry.",
                where=where,
                given=beyond,
                allowed=f"0 to {sizes[dim] - 1}",
            )


def _axes(channel: model.Channel, dims: Sequence[str], where: str) -> tuple[int, ...]:
    for dim in channel.over:
        if dim not in dims:
            raise ScenarioError(
                f"The channel '{channel.name}' has no such dimension.",
                where=where,
                given=dim,
                allowed=", ".join(dims) or "none",
            )
    return tuple(axis for axis, dim in enumerate(dims) if not channel.over or dim in channel.over)


def _check_thinning(channel: model.Channel, dtype: np.dtype[Any], source: LoadedScenario) -> None:
    record, where = source.values.record, source.where("record", "channels")
    assert channel.every is not None
    if not is_multiple(channel.every, record.every):
        raise ScenarioError(
            f"The times of '{channel.name}' are not record times.",
            where=where,
            given=f"every = {channel.every:g}, with record.every = {record.every:g}",
            allowed=f"a multiple, for example {max(1, round(channel.every / record.every)) * record.every:g}",
        )
    if dtype.kind != "f":
        raise ScenarioError(
            f"'{channel.name}' holds whole numbers, which have no NaN for the times at which it is not recorded.",
            where=where,
            given=f"every = {channel.every:g}",
            allowed="no every of its own",
        )
