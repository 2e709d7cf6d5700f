"""Every system by name: the only list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.digraph import Digraph, digraph
from nlsim.systems.entry import SystemEntry
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations, RecurrentCostateReversal
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    LinearQuadraticState,
    linear_quadratic,
)
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.hamiltonian.reset import SampleReset, build_learning
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, TrackBall
from nlsim.systems.hamiltonian.tracking import (
    TrackingEquations,
    TrackingProblem,
    TrackingReversal,
    TrackingState,
    random_network,
)
from nlsim.systems.inference.entries import INFERENCE_LEARNERS
from nlsim.systems.loss import LOSSES, Loss
from nlsim.systems.masked.entries import MASKED_RESPONDERS, ResponderEntry
from nlsim.systems.network import LayeredNetwork, Network

Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class ControlEntry:
    """A system that follows a target.

    Attributes
    ----------
    name, summary, system
        As in :class:`SystemEntry`; ``system`` is the class of the exact equations.
    build : callable
        ``build(constants, like) -> system``, constants by their scenario names, tensors like ``like``.
    initial_state : callable
        ``initial_state(system, constants, seed, like) -> state`` at t = 0.
    """

    name: str
    summary: str
    system: type
    build: Callable[[Mapping[str, Any], Tensor], Any]
    initial_state: Callable[[Any, Mapping[str, Any], int, Tensor], Any]


def build_network(parameters: Mapping[str, Any], speed: Any, device: torch.device, dtype: torch.dtype) -> Network:
    """Return the network of a scenario's table.

    A table with ``arcs`` is a digraph, whose relative speeds come from a list of speeds, one a neuron; else it
    is layered: layers, activation, output_activation, bias.

    Raises
    ------
    NlsimError
        For a graph that the theory does not cover.
    """
    if "arcs" not in parameters:
        depth = len(parameters["layers"]) - 1
        hidden, output = ACTIVATIONS[parameters["activation"]], ACTIVATIONS[parameters["output_activation"]]
        return LayeredNetwork(tuple(parameters["layers"]), (hidden,) * (depth - 1) + (output,), parameters["bias"])
    inputs, neurons = parameters["inputs"], parameters["neurons"]
    every = [(j, i) for i in range(inputs, inputs + neurons) for j in range(inputs + neurons)]
    arcs = every if parameters["arcs"] == "all" else [(j, i) for j, i in parameters["arcs"]]
    return digraph(
        inputs,
        neurons,
        arcs,
        parameters["outputs"],
        ACTIVATIONS[parameters["activation"]],
        has_bias=parameters["bias"],
        speeds=speed if isinstance(speed, list) else None,
        device=device,
        dtype=dtype,
    )


def build_loss(name: str) -> Loss:
    """Return the loss of this name."""
    return LOSSES[name]


def _learning_problem(network: Network, loss: Loss, constants: Mapping[str, Any]) -> LearningProblem[Any]:
    speed = constants["speed"]
    if not isinstance(speed, list):
        speeds = (speed,) * len(network.sizes)
    elif isinstance(network, Digraph):
        speeds = (sum(speed) / len(speed),)
    else:
        speeds = tuple(speed)
    return LearningProblem(
        network, loss, speeds, constants["mass"], constants["dissipation"], constants["regularisation"]
    )


def _reversal(network: Network, loss: Loss, constants: Mapping[str, Any]) -> CostateReversal | RecurrentCostateReversal:
    problem = _learning_problem(network, loss, constants)
    return RecurrentCostateReversal(problem) if isinstance(network, Digraph) else CostateReversal(problem)


def samples_in(inputs: Inputs) -> int:
    """Return how many samples are shown together."""
    shown = inputs.target if inputs.input is None else inputs.input
    assert shown is not None
    return int(shown.shape[-2])


def _learning_state(system: CostateReversal | HamiltonEquations, weights: Weights, inputs: Inputs) -> LearningState:
    return system.problem.initial_state(weights, samples_in(inputs))


def _heavy_ball_state(system: HeavyBall, weights: Weights, inputs: Inputs) -> HeavyBallState:
    return HeavyBallState(weights, tuple(torch.zeros_like(w) for w in weights))


def _hamiltonian_learning(network: Network, loss: Loss, constants: Mapping[str, Any]) -> SampleReset:
    assert isinstance(network, LayeredNetwork)
    return build_learning(network, loss, **constants)


def _linear_quadratic(constants: Mapping[str, Any], like: Tensor) -> LinearQuadraticEquations | LinearQuadraticReversal:
    names = ("drift", "control", "tracking_weight", "control_weight")
    matrices = {name: like.new_tensor(constants[name]) for name in names}
    problem = linear_quadratic(**matrices, dissipation=constants["dissipation"])
    return LinearQuadraticReversal(problem) if constants["is_reversed"] else LinearQuadraticEquations(problem)


def _linear_quadratic_state(
    system: LinearQuadraticEquations | LinearQuadraticReversal, constants: Mapping[str, Any], seed: int, like: Tensor
) -> LinearQuadraticState:
    return system.problem.initial_state(like.new_tensor(constants["start"]).unsqueeze(0))


def _tracking(constants: Mapping[str, Any], like: Tensor) -> TrackingEquations | TrackingReversal:
    names = ("tracking_weight", "control_weight", "regularisation", "speed", "dissipation")
    problem = TrackingProblem(
        **{name: constants[name] for name in names}, activation=ACTIVATIONS[constants["activation"]]
    )
    return TrackingReversal(problem) if constants["is_reversed"] else TrackingEquations(problem)


def _tracking_state(
    system: TrackingEquations | TrackingReversal, constants: Mapping[str, Any], seed: int, like: Tensor
) -> TrackingState:
    activity, weight = (drawn.to(like) for drawn in random_network(seed, constants["neurons"]))
    return system.problem.initial_state(activity, weight)


FLIPS: dict[str, type[PeriodicFlip] | type[TrackBall]] = {"periodic": PeriodicFlip, "track_ball": TrackBall}
"""Every way of flipping the sign of a vector field by its scenario name."""

LEARNERS = {
    each.name: each
    for each in (
        SystemEntry(
            "costate_reversal",
            "state and costate equations with the costates run forward (Betti & Gori, eq. 18-19)",
            CostateReversal,
            _reversal,
            _learning_state,
        ),
        SystemEntry(
            "hamilton_equations",
            "exact Hamilton equations as an initial-value problem, which blows up (eq. 12-14; a control)",
            HamiltonEquations,
            lambda network, loss, constants: HamiltonEquations(_learning_problem(network, loss, constants)),
            _learning_state,
        ),
        SystemEntry(
            "heavy_ball",
            "backpropagation with inertia, the limit of infinite speed (eq. 20)",
            HeavyBall,
            lambda network, loss, constants: HeavyBall(network, loss, **constants),
            _heavy_ball_state,
        ),
        SystemEntry(
            "hamiltonian_learning",
            "Hamiltonian Learning with sample-wise reset; SGD at special constants (Melacci et al.)",
            SampleReset,
            _hamiltonian_learning,
            lambda system, weights, inputs: system.initial_state(weights, samples_in(inputs)),
        ),
        *INFERENCE_LEARNERS,
    )
}
"""Systems that learn with a network by their scenario names."""

FOLLOWERS = {
    each.name: each
    for each in (
        ControlEntry(
            "linear_quadratic",
            "linear-quadratic control to follow a target, exact or with the costates reversed (section 4.2)",
            LinearQuadraticEquations,
            _linear_quadratic,
            _linear_quadratic_state,
        ),
        ControlEntry(
            "tracking",
            "a recurrent network without inputs that is to follow a target (section 5: five neurons)",
            TrackingEquations,
            _tracking,
            _tracking_state,
        ),
    )
}
"""Systems that follow a target by their scenario names."""

RESPONDERS = {each.name: each for each in MASKED_RESPONDERS}
"""Systems that respond to an input and do not learn by their scenario names."""

SYSTEMS: dict[str, SystemEntry | ControlEntry | ResponderEntry] = {**LEARNERS, **FOLLOWERS, **RESPONDERS}
"""Every system by its scenario name."""
