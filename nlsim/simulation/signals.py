"""The signal of a scenario, made of its values; what is drawn depends on the seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs, Signal
from nlsim.data.catalogue import load, split
from nlsim.data.series import load_series
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.check import check_complete, check_parts, check_series, check_widths
from nlsim.systems.series import HeldSeries
from nlsim.systems.signals import HeldSamples, PatchedCosine, SineTarget, Sinusoid, one_hot


@dataclass(frozen=True)
class Driven:
    """What a system needs besides itself to run.

    Attributes
    ----------
    signal : Signal
        What drives it.
    state : tree of tensors
        From where it starts.
    observables : mapping
        What can be measured apart from the system's own channels.
    """

    signal: Signal
    state: Any
    observables: Mapping[str, Observable]


@dataclass(frozen=True)
class DataSignal:
    """A stream of training samples, and the samples kept for testing."""

    signal: HeldSamples
    test: tuple[Tensor, Tensor]


def samples_shown(signal: model.Signal) -> int:
    """Return how many samples a signal shows together."""
    match signal:
        case model.Samples():
            return signal.batch
        case model.Sinusoids():
            return signal.samples
        case _:
            return 1


def held_samples(source: LoadedScenario, chosen: model.Samples, like: Tensor) -> DataSignal:
    """Load the data set, check it against the network, and split it."""
    seed = source.values.seed
    data = load(chosen.dataset)
    check_complete(source, data)
    check_widths(source, data.inputs.shape[1], len(data.classes))
    order = generator(seed, "split").permutation(len(data.labels))
    parts = split(data, chosen.test_fraction, order, is_centred=chosen.centred, is_scaled=chosen.scaled)
    check_parts(source, len(parts.train_labels), len(parts.test_labels))

    def tensors(inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
        moved = torch.from_numpy(inputs).to(like)
        return moved, one_hot(torch.from_numpy(labels).to(like.device), len(data.classes), like.dtype)

    train = tensors(parts.train_inputs, parts.train_labels)
    test = tensors(parts.test_inputs, parts.test_labels)
    return DataSignal(HeldSamples(*train, chosen.batch, chosen.interval, seed), test)


def held_series(source: LoadedScenario, chosen: model.Series, like: Tensor) -> HeldSeries:
    """Load the time series, check it against the system and the run, and scale it by what lies before the start."""
    data = load_series(chosen.series)
    check_widths(source, data.values.shape[1], 0)
    check_series(source, chosen, data)
    before, after = data.values[: chosen.training], data.values[chosen.training :]
    known = np.ma.masked_invalid(before)
    centre = known.mean(0).filled(0.0) if chosen.centred else 0.0
    scale = known.std(0).filled(1.0) if chosen.scaled else np.ones(1)
    scale = np.where(scale == 0.0, 1.0, scale)
    first, rest = (torch.from_numpy((each - centre) / scale).to(like) for each in (before, after))
    return HeldSeries(rest, chosen.interval, first)


def sinusoids(chosen: model.Sinusoids, inputs: int, outputs: int | None, seed: int, like: Tensor) -> Sinusoid:
    """Return sinusoids of one frequency with random phases; targets, if any, have half the amplitude."""

    def full(value: float) -> Inputs:
        each = like.new_tensor(value)
        return Inputs(each, None if outputs is None else each)

    def phase(purpose: str, width: int) -> Tensor:
        drawn = generator(seed, purpose).uniform(0.0, 2 * torch.pi, (chosen.samples, width))
        return torch.from_numpy(drawn).to(like)

    amplitude = Inputs(full(chosen.amplitude).input, full(0.5 * chosen.amplitude).target)
    phases = Inputs(phase("input phase", inputs), None if outputs is None else phase("target phase", outputs))
    return Sinusoid(full(0.0), amplitude, full(chosen.frequency), phases)


def target(
    chosen: model.SineTarget | model.PatchedCosine, outputs: int, seed: int, like: Tensor, given: Tensor | None = None
) -> SineTarget | PatchedCosine:
    """Return a target to follow; ``given`` is the input that a network without inputs wants."""
    if isinstance(chosen, model.SineTarget):
        return SineTarget(chosen.amplitude, chosen.frequency, outputs, like, given)
    return PatchedCosine(
        seed,
        chosen.interval,
        chosen.lowest_frequency,
        chosen.highest_frequency,
        chosen.amplitude,
        outputs,
        like,
        given,
    )
