"""Systems of inference learning, and the backpropagation they are compared with, as scenarios name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.systems.entry import SystemEntry
from nlsim.systems.inference.baselines import BackpropagationProximal, BackpropagationSteps, Descent, GradientDescent
from nlsim.systems.inference.error_form import ErrorFormLearning
from nlsim.systems.inference.exact_backprop import FixedPredictionLearning, ZeroDivergence
from nlsim.systems.inference.flow import Gains
from nlsim.systems.inference.implicit_sgd import ImplicitSGD
from nlsim.systems.inference.incremental import IncrementalLearning
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision, Precision, StepPrecision
from nlsim.systems.inference.sequential import MeanSizeUpdate, SequentialLearning
from nlsim.systems.inference.update import Adam, LeastMeanSquares, NormalisedLeastMeanSquares, Update
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork, Network

PRECISIONS: dict[str, Callable[..., Precision]] = {"constant": ConstantPrecision, "step": StepPrecision}
"""Every rule for precisions by its scenario name."""

UPDATES: dict[str, Callable[..., Update]] = {
    "lms": LeastMeanSquares,
    "nlms": NormalisedLeastMeanSquares,
    "adam": Adam,
    "mean_size": MeanSizeUpdate,
}
"""Every jump of the weights of inference learning by its scenario name."""

DESCENTS: dict[str, Callable[..., Descent]] = {"sgd": GradientDescent, "adam": Adam}
"""Every way of turning a gradient into a step by its scenario name."""


def _named(kinds: Mapping[str, Callable[..., Any]], values: Mapping[str, Any]) -> Any:
    """Return the object that a table with a name stands for; lists become tuples."""
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key != "name"}
    return kinds[values["name"]](**given)


def _layered(network: Network) -> LayeredNetwork:
    assert isinstance(network, LayeredNetwork)  # the schema lets no other network through
    return network


def _inference(network: Network, loss: Loss, constants: Mapping[str, Any]) -> InferenceLearning:
    gains = constants["gains"]
    return InferenceLearning(
        _layered(network),
        loss,
        _named(PRECISIONS, constants["precision"]),
        constants["output"],
        _named(UPDATES, constants["update"]),
        is_scaled=constants["is_scaled"],
        decay=tuple(constants["decay"]),
        gains=None if gains is None else Gains(**gains),
    )


def _incremental(network: Network, loss: Loss, constants: Mapping[str, Any]) -> IncrementalLearning:
    others = {key: value for key, value in constants.items() if key != "precision"}
    return IncrementalLearning(_layered(network), loss, _named(PRECISIONS, constants["precision"]), **others)


def _sequential(network: Network, loss: Loss, constants: Mapping[str, Any]) -> SequentialLearning:
    others = {key: value for key, value in constants.items() if key != "update"}
    return SequentialLearning(_layered(network), loss, _named(UPDATES, constants["update"]), **others)


def _backpropagation(network: Network, loss: Loss, constants: Mapping[str, Any]) -> BackpropagationSteps:
    return BackpropagationSteps(_layered(network), loss, _named(DESCENTS, constants["descent"]))


def _proximal(network: Network, loss: Loss, constants: Mapping[str, Any]) -> BackpropagationProximal:
    return BackpropagationProximal(_layered(network), loss, **constants)


def _zero_divergence(network: Network, loss: Loss, constants: Mapping[str, Any]) -> ZeroDivergence:
    return ZeroDivergence(_layered(network), loss, _named(DESCENTS, constants["descent"]))


def _fixed_prediction(network: Network, loss: Loss, constants: Mapping[str, Any]) -> FixedPredictionLearning:
    return FixedPredictionLearning(_layered(network), loss, _named(DESCENTS, constants["descent"]))


def _error_form(network: Network, loss: Loss, constants: Mapping[str, Any]) -> ErrorFormLearning:
    precision, update = _named(PRECISIONS, constants["precision"]), _named(UPDATES, constants["update"])
    return ErrorFormLearning(_layered(network), loss, precision, constants["output"], update)


def _implicit_sgd(network: Network, loss: Loss, constants: Mapping[str, Any]) -> ImplicitSGD:
    return ImplicitSGD(_layered(network), loss, **constants)


def _begin(system: Any, weights: tuple[Tensor, ...], inputs: Inputs) -> Any:
    return system.initial_state(weights, inputs)


INFERENCE_LEARNERS = (
    SystemEntry(
        "inference",
        "predictive coding: activities settle, then weights jump (Alonso et al. 2022)",
        InferenceLearning,
        _inference,
        _begin,
    ),
    SystemEntry(
        "incremental_inference",
        "predictive coding with activities and weights moving together (Salvatori et al.)",
        IncrementalLearning,
        _incremental,
        _begin,
    ),
    SystemEntry(
        "sequential_inference",
        "predictive coding by a few sweeps from output to input (Alonso et al. 2024)",
        SequentialLearning,
        _sequential,
        _begin,
    ),
    SystemEntry(
        "backpropagation",
        "a step of SGD or Adam on each batch, the baseline",
        BackpropagationSteps,
        _backpropagation,
        _begin,
    ),
    SystemEntry(
        "backpropagation_proximal",
        "BP-prox: the targets and updates of IL-prox without inference, a baseline",
        BackpropagationProximal,
        _proximal,
        _begin,
    ),
    SystemEntry(
        "error_form",
        "predictive coding whose state is the errors (ePC): deep networks settle as fast as shallow ones",
        ErrorFormLearning,
        _error_form,
        _begin,
    ),
    SystemEntry(
        "fixed_prediction",
        "predictive coding with predictions held at the forward pass: backpropagation at rest",
        FixedPredictionLearning,
        _fixed_prediction,
        _begin,
    ),
    SystemEntry(
        "zero_divergence",
        "Z-IL: every layer learns when the output error passes, which is backpropagation",
        ZeroDivergence,
        _zero_divergence,
        _begin,
    ),
    SystemEntry(
        "implicit_sgd",
        "implicit SGD solved to round-off at every batch, the reference of the proximal rules",
        ImplicitSGD,
        _implicit_sgd,
        _begin,
    ),
)
"""Systems of inference learning for the catalogue of all systems."""
