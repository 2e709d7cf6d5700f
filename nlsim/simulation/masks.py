"""The mask of a scenario: what is seen of the inputs, and how a network takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs, Signal
from nlsim.errors import ScenarioError
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.signals import samples_shown
from nlsim.systems.backprop import required_input
from nlsim.systems.masked.learning import GatedSignal, gated_input, with_constant
from nlsim.systems.masked.shares import GroupedMask, group_shares
from nlsim.systems.masked.signal import (
    Mask,
    MaskedSignal,
    MissingValues,
    Outage,
    Outages,
    RandomMask,
    Reliability,
    without_missing,
)


def make_mask(
    chosen: model.Outages | model.RandomMask | model.Reliability, sensors: int, samples: int, seed: int, like: Tensor
) -> Mask:
    """Return m(t) for inputs of so many sensors and samples."""
    if isinstance(chosen, model.RandomMask):
        each = samples if chosen.each == "sample" else None
        if chosen.groups is None:
            return RandomMask(sensors, chosen.rate, chosen.interval, each, seed, like)
        drawn = RandomMask(len(chosen.groups), chosen.rate, chosen.interval, each, seed, like)
        return GroupedMask(drawn, chosen.groups)
    if isinstance(chosen, model.Reliability):
        phase = generator(seed, "mask phase").uniform(0.0, 2 * math.pi, sensors)
        parts = (chosen.level, chosen.amplitude, chosen.frequency, phase if chosen.phase is None else chosen.phase)
        # one number a sensor, so that the mask has an entry for each even where they are alike
        level, amplitude, frequency, shift = (
            torch.as_tensor(each, dtype=like.dtype, device=like.device).expand(sensors) for each in parts
        )
        return Reliability(level, torch.minimum(amplitude, torch.minimum(level, 1 - level)), frequency, shift)
    outages = [
        Outage(sensor, each.start, each.stop)
        for each in chosen.outages
        for sensor in ((None,) if each.sensors == "all" else each.sensors)
    ]
    return Outages(outages, sensors, like)


def masked_signal(chosen: model.Mask, signal: Signal, sensors: int, samples: int, seed: int, like: Tensor) -> Signal:
    """Return the signal behind its mask; what the data do not have is never seen."""
    there = MissingValues(signal)
    if isinstance(chosen, model.MissingValues):
        return there
    return MaskedSignal(there, (make_mask(chosen, sensors, samples, seed, like),))


def bias_shares(chosen: model.Mask, like: Tensor) -> Tensor | None:
    """Return how much of the biases each input carries, tensors like ``like``; None where all carry the same."""
    return None if chosen.groups is None else group_shares(chosen.groups, dtype=like.dtype, device=like.device)


def gate_signal(
    signal: Signal, shares: Tensor | None = None, *, has_bias: bool
) -> tuple[Signal, Mapping[str, Observable]]:
    """Return a masked signal as a network takes it, and the channel of the observed fraction where there is one."""
    gated = GatedSignal(signal, has_bias, shares)
    if not has_bias:
        return gated, {}

    def fraction(t: float, state: object, inputs: Inputs) -> Tensor:
        return required_input(inputs)[..., -1]

    seen = Observable("observed_fraction", ("sample",), "observed fraction μ(m) of the inputs", fraction)
    return gated, {seen.name: seen}


def gate_samples(inputs: Tensor, shares: Tensor | None = None, *, has_bias: bool) -> Tensor:
    """Return test samples as the network takes them: all that the data have of them is seen."""
    shown = without_missing(Inputs(inputs))
    return required_input(with_constant(shown, shares) if has_bias else gated_input(shown))


def check_mask(source: LoadedScenario) -> None:
    """Refuse a mask where there are no inputs to be seen, sensors that are not there, and rules that divide by 0."""
    values = source.values
    if values.mask is None:
        return
    where = source.where("mask", "name")
    system, signal = values.system, values.signal
    if isinstance(signal, model.Target) or isinstance(system, model.Follower):
        raise ScenarioError(
            "There are no inputs to be masked.",
            where=where,
            given=f"{values.mask.name}, with the signal {signal.name}",
            allowed="signals with inputs: samples, series, sinusoids",
            advice="Leave out [mask].",
        )
    if isinstance(system, model.Learner) and isinstance(system.network, model.Graph):
        raise ScenarioError(
            "Masked inputs are for layered networks.",
            where=where,
            given=f"{values.mask.name}, with a graph",
            allowed="network.layers",
            advice="A neuron of a graph has inputs from its neighbours too, which no mask hides.",
        )
    sensors = _sensors(system)
    groups = values.mask.groups
    if groups is not None and sum(groups) != sensors:
        raise ScenarioError(
            "The groups do not cover the inputs.",
            where=source.where("mask", "groups"),
            given=f"{len(groups)} variables with {sum(groups)} inputs together",
            allowed=f"{sensors} inputs together",
            advice="Each entry says how many neighbouring inputs belong together; a number of its own has 1.",
        )
    if isinstance(values.mask, model.Reliability):
        _check_reliability(source, values.mask, sensors)
    if isinstance(values.mask, model.Outages):
        for position, outage in enumerate(values.mask.outages):
            missing = [] if outage.sensors == "all" else [each for each in outage.sensors if each >= sensors]
            if missing:
                raise ScenarioError(
                    "There is no such sensor.",
                    where=f"{source.where('mask', 'outages')}, entry {position + 1}",
                    given=missing[0],
                    allowed=f"0 to {sensors - 1}",
                )
    _check_normalisers(source)


def _check_reliability(source: LoadedScenario, mask: model.Reliability, sensors: int) -> None:
    """Refuse lists that do not fit the inputs, and a mask that leaves [0, 1]."""
    for key in ("level", "amplitude", "frequency", "phase"):
        given = getattr(mask, key)
        if isinstance(given, list) and len(given) != sensors:
            raise ScenarioError(
                f"The list '{key}' does not fit the inputs.",
                where=source.where("mask", key),
                given=f"{len(given)} numbers",
                allowed=f"one number, or a list of {sensors} (one per input)",
            )
    level, amplitude = np.broadcast_to(mask.level, sensors), np.broadcast_to(mask.amplitude, sensors)
    beyond = np.flatnonzero(amplitude > np.minimum(level, 1.0 - level) + 1e-12)  # 0.1 fits 0.9, whatever rounding says
    if beyond.size:
        first = int(beyond[0])
        raise ScenarioError(
            "This reliability leaves the range of a mask.",
            where=source.where("mask", "amplitude"),
            given=f"level {level[first]:g}, amplitude {amplitude[first]:g} (input {first})",
            allowed="level ± amplitude within 0 to 1",
            advice=f"Take an amplitude of at most {min(level[first], 1.0 - level[first]):g} there.",
        )


def _check_normalisers(source: LoadedScenario) -> None:
    """Refuse a blackout, sure or likely, where errors are divided by n = ‖(m ⊙ u, μ)‖² without an ε: it makes n = 0."""
    system = source.values.system
    for keys, has_each in _dividers(system):
        met = _blackouts(source, has_each=has_each)
        if met <= MOST_BLACKOUTS:
            continue
        owner = system if len(keys) == 1 else getattr(system, keys[0])
        time = "a time in which all inputs are missing"
        found = (
            time if math.isinf(met) else f"{met:.2g} draws of the mask expected to miss all inputs of what is divided"
        )
        raise ScenarioError(
            "Where nothing is seen, this rule divides by 0.",
            where=source.where("system", *keys),
            given=f"{getattr(owner, 'name', '')} with {keys[-1]} = 0, and {found}",
            allowed=f"{keys[-1]} > 0, or at most {MOST_BLACKOUTS:g} such draws expected in the whole run",
            advice=f"Set {'.'.join(('system', *keys))} = 1e-3: nothing seen then teaches nothing; "
            + ("or leave one sensor on." if math.isinf(met) else "or take a higher mask.rate."),
        )


MOST_BLACKOUTS = 1e-2
"""A run in a hundred may meet a sample of which nothing is seen, and end as diverged."""


def _dividers(system: model.System) -> list[tuple[tuple[str, ...], bool]]:
    """Return the keys of an ε that is 0, and whether a single sample without inputs is enough to divide by it.

    A precision belongs to each sample; the updates divide by the mean over the batch.
    """
    found: list[tuple[tuple[str, ...], bool]] = []
    precision, update = getattr(system, "precision", None), getattr(system, "update", None)
    if isinstance(precision, model.StepPrecision) and precision.epsilon == 0.0:
        found.append((("precision", "epsilon"), True))
    if isinstance(update, model.NormalisedLeastMeanSquares) and update.epsilon == 0.0:
        found.append((("update", "epsilon"), False))
    if isinstance(update, model.Adam) and update.is_normalised and update.normaliser_epsilon == 0.0:
        found.append((("update", "normaliser_epsilon"), False))
    if isinstance(system, model.BackpropagationProximal) and system.epsilon == 0.0:
        found.append((("epsilon",), False))
    return found


def _blackouts(source: LoadedScenario, *, has_each: bool) -> float:
    """Return how often nothing is seen of a sample, or of a whole batch: infinity where certain, else expected draws.

    What the data themselves do not have is not counted.
    """
    values = source.values
    assert isinstance(values.system, model.Learner | model.Responder)  # check_mask lets no other system through
    sensors, mask = _sensors(values.system), values.mask
    if isinstance(mask, model.RandomMask):
        if mask.rate == 0.0:
            return math.inf
        samples = samples_shown(values.signal) if mask.each == "sample" else 1
        drawn = sensors if mask.groups is None else len(mask.groups)
        dark = (1.0 - mask.rate) ** (drawn if has_each else drawn * samples)
        return math.ceil(values.until / mask.interval) * (samples if has_each else 1) * dark
    if isinstance(mask, model.Reliability):
        return math.inf if _fades_altogether(source, mask, sensors) else 0.0
    if not isinstance(mask, model.Outages):
        return 0.0
    every = set(range(sensors))
    for instant in {each.start for each in mask.outages if each.start < values.until}:
        silent: set[int] = set()
        for each in mask.outages:
            if each.start <= instant < each.stop:
                silent |= every if each.sensors == "all" else set(each.sensors)
        if silent >= every:
            return math.inf
    return 0.0


def _fades_altogether(source: LoadedScenario, mask: model.Reliability, sensors: int) -> bool:
    """Whether a soft mask is 0 for all inputs together, to a rounding, at an instant that a stepper may look at.

    Those are the ends and the middles of fixed steps, and any instant of adaptive ones. Cost: a few numbers for each
    time at which the slowest input fades.
    """
    values = source.values
    waves = make_mask(mask, sensors, 1, values.seed, torch.empty(0, dtype=torch.float64))
    assert isinstance(waves, Reliability)
    level, amplitude, frequency, phase = (
        each.numpy() for each in (waves.level, waves.amplitude, waves.frequency, waves.phase)
    )
    rounding = torch.finfo(getattr(torch, values.numerics.dtype)).eps
    if np.any(level - amplitude > rounding):
        return False  # an input that is always seen
    moves = (frequency != 0) & (amplitude > rounding)
    if not moves.any():
        times = np.zeros(1)
    else:
        slowest = np.flatnonzero(moves)[np.argmin(frequency[moves])]
        first = (1.5 * np.pi - phase[slowest]) % (2 * np.pi)  # where its sine is −1
        count = int(min(values.until * frequency[slowest] / (2 * np.pi), MOST_FADINGS)) + 1
        times = (first + 2 * np.pi * np.arange(-1, count + 1)) / frequency[slowest]
    if isinstance(values.stepper, model.FixedStep):
        times = np.round(times / (0.5 * values.stepper.dt)) * (0.5 * values.stepper.dt)
    times = times[(times >= 0) & (times <= values.until)]
    for j in range(sensors):
        times = times[level[j] + amplitude[j] * np.sin(frequency[j] * times + phase[j]) <= rounding]
    return bool(times.size)


MOST_FADINGS = 10**6
"""So many times are looked at, of runs in which the inputs fade more often."""


def _sensors(system: model.Learner | model.Responder) -> int:
    """Return how many inputs a mask speaks of."""
    if isinstance(system, model.Responder):
        return system.inputs
    assert isinstance(system.network, model.Layers)
    return system.network.layers[0]
