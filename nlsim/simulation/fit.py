"""What the schema cannot know of system, flip and signal: whether they fit together."""

from __future__ import annotations

from nlsim.errors import ScenarioError
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.matrix import check_definite, check_shape


def check_fit(source: LoadedScenario) -> None:
    """Refuse a signal that the system cannot use, a flip that cannot be meant, lists and matrices of wrong shapes."""
    values = source.values
    if isinstance(values.system, model.Follower):
        _check_target(source)
    elif isinstance(values.system, model.Responder):
        _check_responder(source, values.system)
    else:
        _check_input(source, values.system.network)
    _check_edges(source)
    _check_flip(source)
    _check_frequencies(source)
    if isinstance(values.system, model.LinearQuadratic):
        _check_matrices(source, values.system)
    if isinstance(values.system, model.Tracking) and values.system.outputs > values.system.neurons:
        raise ScenarioError(
            "There are more outputs than neurons.",
            where=source.where("system", "outputs"),
            given=values.system.outputs,
            allowed=f"1 to {values.system.neurons}",
        )


def _check_target(source: LoadedScenario) -> None:
    values = source.values
    if not isinstance(values.signal, model.Target):
        raise ScenarioError(
            "This system follows a target and has no inputs.",
            where=source.where("signal", "name"),
            given=f"{values.signal.name}, with the system {values.system.name}",
            allowed="sine_target, patched_cosine",
            advice="For a signal with inputs take a system with a network, such as costate_reversal.",
        )


def _check_input(source: LoadedScenario, network: model.Layers | model.Graph) -> None:
    signal = source.values.signal
    if isinstance(signal, model.Series):
        raise ScenarioError(
            "This signal has no targets, and a network learns by them.",
            where=source.where("signal", "name"),
            given=f"{signal.name}, with the system {source.values.system.name}",
            allowed="samples, sinusoids",
            advice="A system that responds and does not learn takes it, such as neumiss or masked_neuron.",
        )
    inputs = network.inputs if isinstance(network, model.Graph) else network.layers[0]
    if isinstance(signal, model.Target) and inputs:
        raise ScenarioError(
            "This signal is a target without inputs, and the network has inputs.",
            where=source.where("signal", "name"),
            given=f"{signal.name}, with {inputs} inputs",
            allowed="samples, sinusoids",
            advice="Or take a graph with inputs = 0, or the system tracking.",
        )


_ONLY_JUMPS = (
    model.InferenceLearning,
    model.SequentialLearning,
    model.BackpropagationSteps,
    model.BackpropagationProximal,
    model.ErrorFormLearning,
    model.FixedPredictionLearning,
    model.ZeroDivergence,
    model.ImplicitSGD,
)
"""Learners whose weights move at the end of an interval and at no other time."""


def _check_edges(source: LoadedScenario) -> None:
    system, signal = source.values.system, source.values.signal
    if isinstance(system, _ONLY_JUMPS) and isinstance(signal, model.Sinusoids):
        raise ScenarioError(
            "The weights of this system move when an interval ends, and this signal has no intervals.",
            where=source.where("signal", "name"),
            given=f"{signal.name}, with the system {system.name}",
            allowed="samples",
            advice="incremental_inference learns from inputs that move.",
        )


def _check_flip(source: LoadedScenario) -> None:
    system = source.values.system
    flip = getattr(system, "flip", None)
    if flip is None:
        return
    if getattr(system, "is_reversed", False):
        raise ScenarioError(
            "Costates that run forward and a flip of the whole field exclude each other.",
            where=source.where("system", "flip"),
            given="is_reversed = true, and a flip",
            allowed="one of them",
            advice="Leave out [system.flip], or set is_reversed = false.",
        )
    if isinstance(flip, model.PeriodicFlip) and flip.offset >= flip.half_period:
        raise ScenarioError(
            "The offset of the flip does not lie within the first stretch.",
            where=source.where("system", "flip", "offset"),
            given=flip.offset,
            allowed=f"from 0 to below half_period = {flip.half_period:g}",
        )


def _check_frequencies(source: LoadedScenario) -> None:
    signal = source.values.signal
    if isinstance(signal, model.PatchedCosine) and signal.lowest_frequency > signal.highest_frequency:
        raise ScenarioError(
            "The range of frequencies is empty.",
            where=source.where("signal", "lowest_frequency"),
            given=f"{signal.lowest_frequency:g} to {signal.highest_frequency:g}",
            allowed=f"at most highest_frequency = {signal.highest_frequency:g}",
        )


def _check_matrices(source: LoadedScenario, system: model.LinearQuadratic) -> None:
    n, k = len(system.drift), len(system.control[0])
    for key, rows, columns in (
        ("drift", n, n),
        ("control", n, k),
        ("tracking_weight", n, n),
        ("control_weight", k, k),
    ):
        check_shape(source, key, getattr(system, key), rows, columns)
    if len(system.start) != n:
        raise ScenarioError(
            "The start does not fit the drift.",
            where=source.where("system", "start"),
            given=f"{len(system.start)} numbers",
            allowed=f"{n}, one for each row of drift",
        )
    for key, is_strict in (("tracking_weight", False), ("control_weight", True)):
        problem = f"The weight '{key}' is not one that has a minimiser."
        check_definite(source, key, getattr(system, key), problem, is_strict=is_strict)


def _check_responder(source: LoadedScenario, system: model.Responder) -> None:
    values = source.values
    if isinstance(values.signal, model.Target):
        raise ScenarioError(
            "This system responds to inputs, and this signal is a target without any.",
            where=source.where("signal", "name"),
            given=f"{values.signal.name}, with the system {system.name}",
            allowed="samples, series, sinusoids",
        )
    if isinstance(system, model.MaskedEnergy) and system.nudge != 0.0 and not isinstance(values.signal, model.Samples):
        raise ScenarioError(
            "There is no target to be nudged to.",
            where=source.where("system", "nudge"),
            given=f"nudge = {system.nudge:g}, with the signal {values.signal.name}",
            allowed="0, or the signal samples",
        )
    if isinstance(system, model.MaskedEnergy) and system.activation == "relu":
        raise ScenarioError(
            "These neurons would never move: they start from s = 0, where relu is flat.",
            where=source.where("system", "activation"),
            given="relu",
            allowed="tanh, logistic, softplus, identity",
            advice="softplus is relu with a rounded corner.",
        )
    if isinstance(system, model.NeuMiss):
        lists: tuple[str, ...] = ("mean",)
        count, what = system.inputs, "input"
        if system.covariance is not None:
            check_shape(source, "covariance", system.covariance, count, count)
            problem = "A covariance is symmetric and positive definite."
            check_definite(source, "covariance", system.covariance, problem, is_strict=system.ridge == 0.0)
        elif not isinstance(values.signal, model.Samples | model.Series):
            raise ScenarioError(
                "There are no data whose covariance could be taken.",
                where=source.where("system", "covariance"),
                given=f"none, with the signal {values.signal.name}",
                allowed=f"a list of {count} rows",
                advice="Give the covariance, or take the signal samples or series.",
            )
    else:
        lists = ("bias", "intrinsic", "compensation")
        count, what = system.neurons, "neuron"
    for key in lists:
        given = getattr(system, key, None)
        if isinstance(given, list) and len(given) != count:
            raise ScenarioError(
                f"The list '{key}' does not fit the system.",
                where=source.where("system", key),
                given=f"{len(given)} numbers",
                allowed=f"one number, or a list of {count} (one per {what})",
            )
