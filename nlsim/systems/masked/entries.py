"""Systems that respond to masked inputs, as scenarios name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.energy import MaskedEnergy
from nlsim.systems.masked.neumiss import NeuMissFlow, gaussian_conditioning
from nlsim.systems.masked.shares import group_shares


@dataclass(frozen=True)
class ResponderEntry:
    """A system that responds to an input and does not learn.

    Attributes
    ----------
    name : str
        Name in scenarios.
    summary : str
        One line for a person.
    system : type
        The class.
    build : callable
        ``build(constants, seed, like) -> system``, constants by their scenario names, weights drawn from the seed,
        tensors like ``like``. What it is built of offers ``initial_state(inputs)``.
    """

    name: str
    summary: str
    system: type
    build: Callable[[Mapping[str, Any], int, Tensor], Any]


def input_weights(seed: int, neurons: int, inputs: int, scale: float, like: Tensor) -> Tensor:
    """Draw W, uniform with standard deviation scale/√inputs; shape ``(neurons, inputs)``.

    Drawn in float64 on the CPU and then rounded and moved, so every device starts alike.
    """
    bound = scale * (3.0 / inputs) ** 0.5
    return torch.from_numpy(generator(seed, "input weights").uniform(-bound, bound, (neurons, inputs))).to(like)


def recurrent_weights(seed: int, neurons: int, norm: float, like: Tensor, *, is_symmetric: bool) -> Tensor | None:
    """Draw normal V and scale it to ‖V‖₂ = norm, to round-off; None where norm = 0.

    Parameters
    ----------
    seed : int
        Decides V; its direction does not depend on the norm.
    neurons : int
        Rows and columns.
    norm : float
        The largest singular value, at least 0.
    like : Tensor
        Its dtype and device are those of V.
    is_symmetric : bool
        Whether V = Vᵀ, to the bit. The eigenvalue of largest size may be negative.
    """
    if norm == 0.0:
        return None
    drawn = torch.from_numpy(generator(seed, "recurrent weights").normal(size=(neurons, neurons)))
    matrix = drawn + drawn.mT if is_symmetric else drawn
    scaled: Tensor = matrix * (norm / torch.linalg.matrix_norm(matrix, 2))
    return scaled.to(like)


def _each(value: float | list[float], count: int, like: Tensor) -> Tensor:
    """Return one number per neuron."""
    found: Tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(count)
    return found


def _some(value: float | list[float], count: int, like: Tensor) -> Tensor | None:
    """Return one number per neuron, or None where all are 0: then there is nothing to add."""
    found = _each(value, count, like)
    return found if bool((found != 0).any()) else None


def _shares(constants: Mapping[str, Any], like: Tensor) -> Tensor | None:
    """Return π of the groups of inputs, None where each input is one of its own."""
    groups = constants.get("groups")
    return None if groups is None else group_shares(groups, dtype=like.dtype, device=like.device)


def _neuron(constants: Mapping[str, Any], seed: int, like: Tensor) -> MaskedNeuron:
    count = constants["neurons"]
    return MaskedNeuron(
        input_weights(seed, count, constants["inputs"], constants["weight_scale"], like),
        ACTIVATIONS[constants["activation"]],
        _each(constants["bias"], count, like),
        recurrent_weights(seed, count, constants["recurrent_norm"], like, is_symmetric=constants["is_symmetric"]),
        _some(constants["intrinsic"], count, like),
        _some(constants["compensation"], count, like),
        constants["speed"],
        constants["form"],
        constants["outage"],
        _shares(constants, like),
    )


def _energy(constants: Mapping[str, Any], seed: int, like: Tensor) -> MaskedEnergy:
    count = constants["neurons"]
    drawn = recurrent_weights(seed, count, constants["recurrent_norm"], like, is_symmetric=True)
    return MaskedEnergy(
        input_weights(seed, count, constants["inputs"], constants["weight_scale"], like),
        like.new_zeros(count, count) if drawn is None else drawn,
        ACTIVATIONS[constants["activation"]],
        _each(constants["bias"], count, like),
        constants["speed"],
        constants.get("nudge", 0.0),
        _shares(constants, like),
        constants.get("largest_input"),
    )


def _neumiss(constants: Mapping[str, Any], seed: int, like: Tensor) -> NeuMissFlow:
    covariance = torch.as_tensor(constants["covariance"], dtype=like.dtype, device=like.device)
    ridge = constants["ridge"] * torch.eye(len(covariance), dtype=like.dtype, device=like.device)
    mean = _each(constants["mean"], constants["inputs"], like)
    return gaussian_conditioning(covariance + ridge, mean, constants["speed"])


MASKED_RESPONDERS = (
    ResponderEntry(
        "masked_neuron",
        "leaky neurons whose inputs come and go; in a blackout they forget, or hold (after Kia et al.)",
        MaskedNeuron,
        _neuron,
    ),
    ResponderEntry(
        "masked_energy",
        "neurons that descend an energy whose inputs come and go",
        MaskedEnergy,
        _energy,
    ),
    ResponderEntry(
        "neumiss",
        "NeuMiss as a flow: infers missing inputs from the others, as a Gaussian would (after Le Morvan et al.)",
        NeuMissFlow,
        _neumiss,
    ),
)
"""Systems that respond to masked inputs for the catalogue of all systems."""
