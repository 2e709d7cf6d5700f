"""Scenarios that learn with a network: system, network, loss, and what drives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Signal
from nlsim.errors import NlsimError, ScenarioError
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.masks import bias_shares, gate_samples, gate_signal, masked_signal
from nlsim.simulation.signals import Driven, held_samples, samples_shown, sinusoids, target
from nlsim.systems.catalogue import build_loss, build_network
from nlsim.systems.entry import SystemEntry
from nlsim.systems.evaluation import evaluation_observables
from nlsim.systems.loss import Loss
from nlsim.systems.network import Network


@dataclass(frozen=True)
class Learner:
    """A system that learns, before anything drives it.

    Attributes
    ----------
    source : LoadedScenario
        Where it came from.
    values : model of the system
        Its values in the scenario.
    entry : SystemEntry
        Its entry in the catalogue.
    system, network, loss
        What moves, what learns, and how badly it does.
    """

    source: LoadedScenario
    values: model.Learner
    entry: SystemEntry
    system: Any
    network: Network
    loss: Loss

    def drive(self, like: Tensor) -> Driven:
        """Return signal, initial state, and what can be measured on held-out samples; tensors like ``like``."""
        scenario, scale = self.source.values, self.values.network.weight_scale
        signal, observables = self._signal(like)
        if scenario.mask is not None:
            inputs, samples = _ends(self.values.network)[0], samples_shown(scenario.signal)
            signal = masked_signal(scenario.mask, signal, inputs, samples, scenario.seed, like)
            shares = bias_shares(scenario.mask, like)
            signal, more = gate_signal(signal, shares, has_bias=self.values.network.bias)
            observables = {**observables, **more}
        weights = self.network.initial_weights(scenario.seed, scale=scale, dtype=like.dtype, device=like.device)
        state = self.entry.initial_state(self.system, weights, signal.piece(0.0)(0.0))
        return Driven(signal, state, observables)

    def _signal(self, like: Tensor) -> tuple[Signal, Mapping[str, Observable]]:
        scenario = self.source.values
        inputs, outputs = _ends(self.values.network)
        match scenario.signal:
            case model.Samples() as chosen:
                data = held_samples(self.source, chosen, like)
                shown, targets = data.test
                if scenario.mask is not None:
                    shares = bias_shares(scenario.mask, like)
                    shown = gate_samples(shown, shares, has_bias=self.values.network.bias)
                return data.signal, evaluation_observables(self.network, self.loss, shown, targets)
            case model.Sinusoids() as chosen:
                return sinusoids(chosen, inputs, outputs, scenario.seed, like), {}
            case chosen:
                assert not isinstance(chosen, model.Series)  # check_fit lets no signal without targets through
                return target(chosen, outputs, scenario.seed, like, like.new_empty(1, 0)), {}


def build_learner(source: LoadedScenario, system: model.Learner, entry: SystemEntry, like: Tensor) -> Learner:
    """Make network, loss and system.

    Raises
    ------
    ScenarioError
        For a graph that the theory does not cover, and for constants that do not fit the network.
    """
    speed = getattr(system, "speed", None)
    network = _located(
        source, lambda: build_network(system.network.model_dump(), speed, like.device, like.dtype), "network"
    )
    loss = build_loss(system.network.loss)
    constants = system.model_dump(exclude={"name", "network", "flip"})
    return Learner(
        source, system, entry, _located(source, lambda: entry.build(network, loss, constants)), network, loss
    )


def _located(source: LoadedScenario, build: Callable[[], Any], *keys: str) -> Any:
    """Return what is built; an error of the values says where in the scenario they are."""
    try:
        return build()
    except NlsimError as error:
        where = source.where("system", *keys)
        raise ScenarioError(
            error.problem,
            where=where if error.where is None or keys else f"{where}, {error.where}",
            given=error.given,
            allowed=error.allowed,
            advice=error.advice,
        ) from None


def _ends(network: model.Layers | model.Graph) -> tuple[int, int]:
    """Return the numbers of inputs and outputs."""
    if isinstance(network, model.Graph):
        return network.inputs, len(network.outputs)
    return network.layers[0], network.layers[-1]
