"""What is recorded: channels by name, cut to the chosen entries, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.errors import ScenarioError, did_you_mean
from nlsim.record.format import ChannelSpec
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario


@dataclass(frozen=True)
class Recorded:
    """One channel: an observable and, axis by axis, which entries of it are kept."""

    observable: Observable
    selection: tuple[torch.Tensor | None, ...]
    spec: ChannelSpec

    def read(self, t: float, state: Any, inputs: Inputs) -> NDArray[Any]:
        """Return the value now, cut to the selection."""
        value = self.observable.evaluate(t, state, inputs)
        for axis, chosen in enumerate(self.selection):
            if chosen is not None:
                value = value.index_select(axis, chosen)
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
    """

    times: list[float]
    channels: tuple[Recorded, ...]

    def read(self, t: float, state: Any, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Return channel name -> value at one time."""
        with torch.no_grad():
            return {each.spec.name: each.read(t, state, inputs) for each in self.channels}


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
        For an unknown channel, dimension or index.
    """
    where = source.where("record", "channels")
    recorded = []
    for written in source.values.record.channels:
        channel = model.Channel(name=written) if isinstance(written, str) else written
        if channel.name not in observables:
            guess = did_you_mean(channel.name, observables)
            raise ScenarioError(
                "There is no channel of this name.",
                where=where,
                given=channel.name,
                allowed=", ".join(observables),
                advice=f"Did you mean '{guess}'?" if guess else None,
            )
        observable = observables[channel.name]
        with torch.no_grad():
            value = observable.evaluate(0.0, state, inputs)
        recorded.append(_cut(channel, observable, value, where))
    return RecordPlan(times, tuple(recorded))


def _cut(channel: model.Channel, observable: Observable, value: torch.Tensor, where: str) -> Recorded:
    sizes = dict(zip(observable.dims, value.shape, strict=True))
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
    chosen_by_axis = [channel.select.get(dim) for dim in observable.dims]
    spec = ChannelSpec(
        name=channel.name,
        dims=observable.dims,
        shape=tuple(
            size if chosen is None else len(chosen) for size, chosen in zip(value.shape, chosen_by_axis, strict=True)
        ),
        dtype=np.dtype(str(value.dtype).removeprefix("torch.")),
        units=observable.units,
        long_name=observable.long_name,
        coordinates={dim: np.asarray(chosen) for dim, chosen in channel.select.items()},
    )
    selection = tuple(
        None if chosen is None else torch.tensor(chosen, device=value.device) for chosen in chosen_by_axis
    )
    return Recorded(observable, selection, spec)
