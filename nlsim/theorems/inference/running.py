"""The inference learning that runs, on the random networks of the theorems: settle, let the weights jump."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from nlsim.core.system import Held, Inputs
from nlsim.systems.activation import IDENTITY
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import Precision, StepPrecision
from nlsim.systems.inference.rest import find_rest
from nlsim.systems.inference.update import NormalisedLeastMeanSquares, Update
from nlsim.systems.loss import LOSSES, SQUARED_ERROR
from nlsim.theorems.inference.proximal_cases import Draw

NLMS = NormalisedLeastMeanSquares()


def running(
    draw: Draw, precision: Precision, *, output: str = "settled", update: Update = NLMS, is_scaled: bool = True
) -> InferenceLearning:
    """Return the running system of a drawn network; its output is linear."""
    network = replace(draw.network, activations=(*draw.network.activations[:-1], IDENTITY))
    return InferenceLearning(network, LOSSES[draw.loss], precision, output, update, is_scaled)


def settle(system: InferenceLearning, weights: Layers, sample: tuple[Tensor, Tensor]) -> Layers:
    """Return the activities at rest, as a state of the system's flow.

    Raises
    ------
    ArithmeticError
        When none is found: a check must not go on with any other point.
    """
    inputs = Inputs(*sample)
    flow, start = system.moving(system.initial_state(weights, inputs), Held(inputs))
    rest = find_rest(flow, start, inputs)
    if not rest.is_at_rest:
        raise ArithmeticError(f"no rest state: {rest.ending}, residual {float(rest.residual.max()):.2g}")
    return rest.activity


def jumped(system: InferenceLearning, weights: Layers, sample: tuple[Tensor, Tensor], moved: Layers) -> Layers:
    """Return the weights after the system's own jump from given activities."""
    inputs = Inputs(*sample)
    state = replace(system.initial_state(weights, inputs), activity=moved)
    return system.jump(0.0, state, inputs, inputs).weight


def running_step(system: InferenceLearning, weights: Layers, sample: tuple[Tensor, Tensor]) -> Layers:
    """Return the weights after the running system has settled and jumped."""
    return jumped(system, weights, sample, settle(system, weights, sample))


def step_of(draw: Draw, kind: str, rate: float, sample: tuple[Tensor, Tensor] | None = None) -> Layers:
    """Return the weights after one running step with the precisions of a kind, from the drawn weights.

    The output of the squared error is settled in closed form; that of a softmax is a part of the state.
    """
    output = "settled" if draw.loss == SQUARED_ERROR.name else "free"
    system = running(draw, StepPrecision(rate, kind), output=output)
    return running_step(system, draw.weights(), sample or draw.sample())
