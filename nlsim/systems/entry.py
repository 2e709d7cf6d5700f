"""What a catalogue says of a system that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.systems.loss import Loss
from nlsim.systems.network import Network

_Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class SystemEntry:
    """A system that learns with a network.

    Attributes
    ----------
    name : str
        Name in scenarios.
    summary : str
        One line for a person.
    system : type
        The class.
    build : callable
        ``build(network, loss, constants) -> system``, constants by their scenario names.
    initial_state : callable
        ``initial_state(system, weights, inputs) -> state`` at t = 0, where the inputs are the given ones.
    """

    name: str
    summary: str
    system: type
    build: Callable[[Network, Loss, Mapping[str, Any]], Any]
    initial_state: Callable[[Any, _Weights, Inputs], Any]
