"""What can be seen of a learning network: loss, Hamiltonian, gradient error, and the state itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.system import Inputs
from nlsim.systems.backprop import backpropagate, required_target, weight_observable
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, costate_gradient, hamiltonian


def relative_error(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> Tensor:
    """Return ‖found − expected‖/‖expected‖ over all layers together; shape: the ensemble axes."""
    gap = torch.stack([(f - e).square().sum((-2, -1)) for f, e in zip(found, expected, strict=True)]).sum(0)
    size = torch.stack([e.square().sum((-2, -1)) for e in expected]).sum(0)
    return torch.sqrt(gap / size)


def learning_observables(problem: LearningProblem[Any]) -> Mapping[str, Observable]:
    """Return ``loss``, ``hamiltonian``, ``gradient_error`` and, layer by layer, the state.

    ``gradient_error`` is ‖g − g_BP‖/‖g_BP‖ over all weights, g from the costates and g_BP from
    instantaneous backpropagation at the current input, target and weights.
    """

    def loss(t: float, state: LearningState, inputs: Inputs) -> Tensor:
        return problem.loss.value(problem.network.output(state.activity), required_target(inputs)).sum(-1)

    def gradient_error(t: float, state: LearningState, inputs: Inputs) -> Tensor:
        reference = backpropagate(problem.network, problem.loss, state.weight, inputs).gradient
        return relative_error(costate_gradient(problem, state, inputs), reference)

    seen = [
        Observable("loss", (), "loss L of the activities, summed over the current samples", loss),
        Observable(
            "hamiltonian",
            (),
            "Hamiltonian H/φ, summed over the current samples",
            lambda t, state, inputs: hamiltonian(problem, state, inputs),
            "1/time",
        ),
        Observable(
            "gradient_error",
            (),
            "relative distance of the costate gradient from the backpropagation gradient",
            gradient_error,
        ),
    ]
    for layer in range(len(problem.network.sizes)):
        seen += [
            _layer_observable("activity", layer, f"activities x_{layer + 1}"),
            _layer_observable("costate", layer, f"normalised costates π_{layer + 1}"),
            weight_observable("weight", layer, f"weights W_{layer + 1}", "1"),
            weight_observable("weight_costate", layer, f"normalised costates of the weights W_{layer + 1}", "1"),
        ]
    return {each.name: each for each in seen}


def _layer_observable(field: str, layer: int, long_name: str) -> Observable:
    return Observable(
        f"{field}/{layer + 1}",
        ("sample", f"layer_{layer + 1}"),
        long_name,
        lambda t, state, inputs: getattr(state, field)[layer],
    )
