"""Systems that only jump: their weights stand still while a sample is shown, and nothing else is state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Inputs, Piece
from nlsim.systems.backprop import required_input, required_target, weight_observable
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork


@state_class
class WeightState:
    """Weights and what their rule remembers: all the state of a system that only jumps.

    Attributes
    ----------
    weight : tuple of Tensor
        W_l, shape ``(..., layer, sources [+ 1])``.
    moment : tuple of Tensor
        Moments of the rule; empty for rules without memory.
    """

    weight: Layers
    moment: Layers


@dataclass(frozen=True)
class Standstill:
    """The flow of nothing: what moves of a system that only jumps."""

    def vector_field(self, t: float, moving: tuple[()], inputs: Inputs) -> tuple[()]:
        """Return nothing."""
        return ()


class OnlyJumps:
    """What systems without a flow have in common, whatever their jump is."""

    def moving(self, state: WeightState, piece: Piece) -> tuple[Standstill, tuple[()]]:
        """Return nothing that moves."""
        return Standstill(), ()

    def whole(self, state: WeightState, moved: tuple[()]) -> WeightState:
        """Return the state."""
        return state

    def vector_field(self, t: float, state: WeightState, inputs: Inputs) -> WeightState:
        """Return zeros."""
        return no_motion(state)


def no_motion(state: WeightState) -> WeightState:
    """Return zeros of the shape of a state."""
    return WeightState(
        tuple(torch.zeros_like(w) for w in state.weight), tuple(torch.zeros_like(m) for m in state.moment)
    )


def weight_observables(network: LayeredNetwork, loss: Loss) -> Mapping[str, Observable]:
    """Return ``loss``, that of the network's own output, and ``weight/l`` of a state that has weights."""

    def value(t: float, state: Any, inputs: Inputs) -> Tensor:
        made = feedforward(network, state.weight, required_input(inputs))[-1]
        return loss.value(made, required_target(inputs)).sum(-1)

    seen = [Observable("loss", (), "loss of the network's own output, summed over samples", value)]
    for layer in range(network.depth):
        seen.append(weight_observable("weight", layer, f"weights into layer {layer + 1}, the bias last", "1"))
    return {each.name: each for each in seen}
