"""Scenarios whose system follows a target: linear-quadratic control, and the network that tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.signals import Driven, target
from nlsim.systems.catalogue import ControlEntry


@dataclass(frozen=True)
class Follower:
    """A system that follows a target, before anything drives it.

    Attributes
    ----------
    source : LoadedScenario
        Where it came from.
    values : model of the system
        Its values in the scenario.
    entry : ControlEntry
        Its entry in the catalogue.
    system
        What moves.
    """

    source: LoadedScenario
    values: model.Follower
    entry: ControlEntry
    system: Any

    def drive(self, like: Tensor) -> Driven:
        """Return the target and the initial state, tensors like ``like``."""
        scenario = self.source.values
        assert isinstance(scenario.signal, model.Target)
        state = self.entry.initial_state(self.system, self.values.model_dump(), scenario.seed, like)
        return Driven(target(scenario.signal, _outputs(self.values), scenario.seed, like), state, {})


def build_follower(source: LoadedScenario, system: model.Follower, entry: ControlEntry, like: Tensor) -> Follower:
    """Make the system."""
    return Follower(source, system, entry, entry.build(system.model_dump(), like))


def _outputs(system: model.Follower) -> int:
    """Return how wide the target is: every entry of a controlled state has one, and Q says which ones count."""
    return system.outputs if isinstance(system, model.Tracking) else len(system.drift)
