"""Scenarios whose system responds to an input and does not learn; what it sees of the input, the mask says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Signal
from nlsim.errors import ScenarioError
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.masks import masked_signal
from nlsim.simulation.signals import Driven, held_samples, held_series, samples_shown, sinusoids
from nlsim.systems.masked.entries import ResponderEntry
from nlsim.systems.series import HeldSeries
from nlsim.systems.signals import HeldSamples


@dataclass(frozen=True)
class Responder:
    """A system that responds, with the signal it is to see.

    Attributes
    ----------
    source : LoadedScenario
        Where it came from.
    values : model of the system
        Its values in the scenario.
    system
        What moves.
    signal : Signal
        What would be seen were there no mask.
    """

    source: LoadedScenario
    values: model.Responder
    system: Any
    signal: Signal

    def drive(self, like: Tensor) -> Driven:
        """Return the signal behind its mask and the initial state, tensors like ``like``."""
        scenario, signal = self.source.values, self.signal
        if scenario.mask is not None:
            samples = samples_shown(scenario.signal)
            signal = masked_signal(scenario.mask, signal, self.values.inputs, samples, scenario.seed, like)
        return Driven(signal, self.system.initial_state(signal.piece(0.0)(0.0)), {})


def build_responder(source: LoadedScenario, system: model.Responder, entry: ResponderEntry, like: Tensor) -> Responder:
    """Make the system, of the data it will see where it is made of data, and its signal."""
    scenario = source.values
    signal: Signal
    if isinstance(scenario.signal, model.Samples):
        signal = held_samples(source, scenario.signal, like).signal
    elif isinstance(scenario.signal, model.Series):
        signal = held_series(source, scenario.signal, like)
    else:
        assert isinstance(scenario.signal, model.Sinusoids)  # check_fit lets no other signal through
        signal = sinusoids(scenario.signal, system.inputs, None, scenario.seed, like)
    groups = None if scenario.mask is None else scenario.mask.groups
    constants = {
        **system.model_dump(),
        **_moments(source, system, signal),
        "groups": groups,
        "largest_input": _largest_input(scenario.signal, signal, system.inputs, like),
    }
    return Responder(source, system, entry.build(constants, scenario.seed, like), signal)


def _largest_input(chosen: model.Signal, signal: Signal, inputs: int, like: Tensor) -> Tensor:
    """Return the largest |u_j| that a signal ever shows, shape ``(input,)``; what nobody recorded is never shown."""
    if isinstance(signal, HeldSamples | HeldSeries):
        shown = signal.inputs if isinstance(signal, HeldSamples) else signal.values
        return shown.abs().nan_to_num(nan=0.0).amax(0)
    assert isinstance(chosen, model.Sinusoids)  # build_responder makes no other signal
    return like.new_full((inputs,), chosen.amplitude)


def _moments(source: LoadedScenario, system: model.Responder, signal: Signal) -> Mapping[str, Any]:
    """Return mean and covariance of what NeuMiss is to know, those of the training inputs where none are given.

    Of an incomplete table or series the complete rows alone are taken: they give a covariance that is one. Where rows
    are incomplete for a reason that has to do with their values, it is that of the others.

    Raises
    ------
    ScenarioError
        When their covariance, ridge included, is not positive definite in the scenario's dtype.
    """
    if not isinstance(system, model.NeuMiss):
        return {}
    if system.covariance is not None or not isinstance(signal, HeldSamples | HeldSeries):
        return {"mean": 0.0 if system.mean is None else system.mean}
    seen = _complete_rows(source, signal)
    dtype = signal.inputs.dtype if isinstance(signal, HeldSamples) else signal.values.dtype
    mean = seen.mean(0) if system.mean is None else system.mean
    covariance = torch.cov(seen.mT).reshape(system.inputs, system.inputs)
    least, most = (float(each) + system.ridge for each in torch.linalg.eigvalsh(covariance)[[0, -1]])
    if not least > torch.finfo(dtype).eps * system.inputs * most:
        raise ScenarioError(
            "The covariance of the training inputs is singular.",
            where=source.where("system", "ridge"),
            given=f"a smallest eigenvalue of {least:.3g}, ridge = {system.ridge:g} included; the largest is {most:.3g}",
            allowed="a ridge that makes all eigenvalues positive",
            advice=f"Set system.ridge = {1e-2 * most:.1g}: some inputs hardly vary, or follow from others.",
        )
    return {"mean": mean, "covariance": covariance}


def _complete_rows(source: LoadedScenario, signal: HeldSamples | HeldSeries) -> Tensor:
    """Return the training samples, or the records before the start, of which no value is missing, in float64.

    Raises
    ------
    ScenarioError
        When there are fewer than two.
    """
    is_table = isinstance(signal, HeldSamples)
    given = signal.inputs if isinstance(signal, HeldSamples) else signal.before
    assert given is not None
    known = given.to(torch.float64)
    complete = known[~known.isnan().any(-1)]
    if len(complete) < 2:
        rows = "training samples" if is_table else "records before the start"
        raise ScenarioError(
            f"There are no complete {rows}, whose covariance could be taken.",
            where=source.where("signal", "test_fraction" if is_table else "training"),
            given=f"{len(known)} {'samples' if is_table else 'records'}, {len(complete)} of them complete",
            allowed="at least two complete ones",
            advice="Give system.covariance."
            if is_table
            else "Set a larger signal.training, or give system.covariance.",
        )
    return complete
