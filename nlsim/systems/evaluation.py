"""How well the current weights do on samples that never drive the system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.systems.loss import Loss
from nlsim.systems.network import Network


def evaluation_observables(network: Network, loss: Loss, inputs: Tensor, targets: Tensor) -> Mapping[str, Observable]:
    """Return ``test_loss`` and ``test_accuracy`` of a state that has a field ``weight``.

    Both read the network at rest: every layer at σ(W x̃), as after a long time at fixed input.

    Parameters
    ----------
    network, loss
        The network and its loss.
    inputs, targets : Tensor
        Test samples ``(count, input)`` and their one-hot targets ``(count, classes)``.
    """

    def loss_of(t: float, state: Any, inputs_now: Inputs) -> Tensor:
        return loss.value(network.rest_output(state.weight, inputs), targets).sum(-1)

    def accuracy_of(t: float, state: Any, inputs_now: Inputs) -> Tensor:
        output = network.rest_output(state.weight, inputs)
        return (output.argmax(-1) == targets.argmax(-1)).to(output.dtype).mean(-1)

    count = len(inputs)
    seen = (
        Observable("test_loss", (), f"loss L summed over the {count} test samples", loss_of),
        Observable("test_accuracy", (), f"share of the {count} test samples classified right", accuracy_of),
    )
    return {each.name: each for each in seen}
