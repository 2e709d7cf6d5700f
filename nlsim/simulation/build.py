"""From scenario values to objects: the one place that knows both.

Whatever is wrong with a scenario is found here or by the schema, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nlsim.core.observable import Observable
from nlsim.core.randomness import generator
from nlsim.core.system import Inputs, Signal
from nlsim.data.catalogue import load, split
from nlsim.errors import NlsimError, ScenarioError
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import Control, FixedStep
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.check import (
    check_data,
    check_loss,
    check_memory,
    check_parts,
    check_speeds,
    check_stability,
    check_times,
    check_tolerance,
    check_widths,
    pick_device,
)
from nlsim.simulation.plan import RecordPlan, plan_record
from nlsim.systems.catalogue import SYSTEMS, build_loss, build_network
from nlsim.systems.evaluation import evaluation_observables
from nlsim.systems.loss import Loss
from nlsim.systems.network import Network
from nlsim.systems.signals import HeldSamples, Sinusoid, one_hot


@dataclass(frozen=True)
class Simulation:
    """A scenario made of objects, ready to run.

    Attributes
    ----------
    source : LoadedScenario
        Where it came from.
    system, control, signal, state
        What moves, how it is stepped, what drives it, and from where it starts.
    plan : RecordPlan
        What will be recorded, and when.
    """

    source: LoadedScenario
    system: Any
    control: Control
    signal: Signal
    state: Any
    plan: RecordPlan


def build(source: LoadedScenario) -> Simulation:
    """Make the objects of a scenario.

    Raises
    ------
    ScenarioError, DataError, DeviceError, CapabilityError
        With file, table and key, what was given and what is allowed.
    """
    values = source.values
    device, dtype = pick_device(source), getattr(torch, values.numerics.dtype)
    check_data(source)
    check_speeds(source)
    check_tolerance(source)
    check_memory(source, _samples(values.signal))
    check_loss(source)
    entry = SYSTEMS[values.system.name]
    network = _network(source, device, dtype)
    loss = build_loss(values.system.network.loss)
    system = entry.build(network, loss, values.system.model_dump(exclude={"name", "network"}))
    control = build_control(values.stepper)
    control.require(system)
    check_stability(source, system)
    times = check_times(source)
    signal, samples, evaluation = _signal(source, network, loss, device, dtype)
    weights = network.initial_weights(values.seed, scale=values.system.network.weight_scale, dtype=dtype, device=device)
    state = entry.initial_state(system, weights, samples)
    observables = {**system.observables(), **evaluation}
    plan = plan_record(source, observables, times, state, signal.piece(0.0)(0.0))
    return Simulation(source, system, control, signal, state, plan)


def build_control(chosen: model.FixedStep | model.Adaptive) -> Control:
    """Return the stepper of a scenario's table, with its way of choosing steps."""
    if isinstance(chosen, model.FixedStep):
        return FixedStep(STEPPERS[chosen.name], chosen.dt)
    return AdaptiveRungeKutta(**chosen.model_dump(exclude={"name"}))


def _samples(signal: model.Samples | model.Sinusoids) -> int:
    """Return how many samples are shown together."""
    return signal.batch if isinstance(signal, model.Samples) else signal.samples


def _network(source: LoadedScenario, device: torch.device, dtype: torch.dtype) -> Network:
    system = source.values.system
    try:
        return build_network(system.network.model_dump(), getattr(system, "speed", None), device, dtype)
    except NlsimError as error:
        raise ScenarioError(
            error.problem,
            where=source.where("system", "network"),
            given=error.given,
            allowed=error.allowed,
            advice=error.advice,
        ) from None


def _signal(
    source: LoadedScenario, network: Network, loss: Loss, device: torch.device, dtype: torch.dtype
) -> tuple[Signal, int, Mapping[str, Observable]]:
    """Return the signal, how many samples it shows at a time, and what can be measured on held-out ones."""
    values = source.values
    if isinstance(values.signal, model.Sinusoids):
        ends = _ends(values.system.network)
        return _sinusoids(values.signal, ends, values.seed, device, dtype), values.signal.samples, {}
    chosen = values.signal
    data = load(chosen.dataset)
    check_widths(source, data.inputs.shape[1], len(data.classes))
    order = generator(values.seed, "split").permutation(len(data.labels))
    parts = split(data, chosen.test_fraction, order, is_centred=chosen.centred)
    check_parts(source, len(parts.train_labels), len(parts.test_labels))

    def tensors(inputs: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
        moved = torch.from_numpy(inputs).to(device=device, dtype=dtype)
        return moved, one_hot(torch.from_numpy(labels).to(device), len(data.classes), dtype)

    train = tensors(parts.train_inputs, parts.train_labels)
    test = tensors(parts.test_inputs, parts.test_labels)
    signal = HeldSamples(*train, chosen.batch, chosen.interval, values.seed)
    return signal, chosen.batch, evaluation_observables(network, loss, *test)


def _ends(network: model.Layers | model.Graph) -> tuple[int, int]:
    """Return the numbers of inputs and outputs."""
    if isinstance(network, model.Graph):
        return network.inputs, len(network.outputs)
    return network.layers[0], network.layers[-1]


def _sinusoids(
    chosen: model.Sinusoids, ends: tuple[int, int], seed: int, device: torch.device, dtype: torch.dtype
) -> Sinusoid:
    """Return sinusoids of one frequency with random phases; targets have half the amplitude."""

    def full(value: float) -> Inputs:
        each = torch.tensor(value, device=device, dtype=dtype)
        return Inputs(each, each)

    def phase(purpose: str, width: int) -> torch.Tensor:
        drawn = generator(seed, purpose).uniform(0.0, 2 * torch.pi, (chosen.samples, width))
        return torch.from_numpy(drawn).to(device=device, dtype=dtype)

    inputs, outputs = ends
    amplitude = Inputs(full(chosen.amplitude).input, full(0.5 * chosen.amplitude).target)
    phases = Inputs(phase("input phase", inputs), phase("target phase", outputs))
    return Sinusoid(full(0.0), amplitude, full(chosen.frequency), phases)
