"""From scenario values to objects: the one place that knows both.

Whatever is wrong with a scenario is found here or by the schema, before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nlsim.core.system import Signal
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import Control, FixedStep
from nlsim.integrate.loop import moving_part
from nlsim.scenario import model
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.check import (
    check_data,
    check_flip_step,
    check_loss,
    check_memory,
    check_speeds,
    check_stability,
    check_times,
    check_tolerance,
    pick_device,
)
from nlsim.simulation.fit import check_fit
from nlsim.simulation.followers import Follower, build_follower
from nlsim.simulation.learners import Learner, build_learner
from nlsim.simulation.masks import check_mask
from nlsim.simulation.plan import RecordPlan, plan_record
from nlsim.simulation.responders import Responder, build_responder
from nlsim.simulation.signals import samples_shown
from nlsim.systems.catalogue import FLIPS, FOLLOWERS, LEARNERS, RESPONDERS
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip


@dataclass(frozen=True)
class Simulation:
    """A scenario made of objects, ready to run.

    Attributes
    ----------
    source : LoadedScenario
        Where it came from.
    system, control, signal, state
        What moves, how it is stepped, what drives it, and from where it starts.
    plan : RecordPlan
        What will be recorded, and when.
    """

    source: LoadedScenario
    system: Any
    control: Control
    signal: Signal
    state: Any
    plan: RecordPlan


def build(source: LoadedScenario) -> Simulation:
    """Make the objects of a scenario.

    Raises
    ------
    ScenarioError, DataError, DeviceError, CapabilityError
        With file, table and key, what was given and what is allowed.
    """
    values = source.values
    like = torch.empty(0, device=pick_device(source), dtype=getattr(torch, values.numerics.dtype))
    check_fit(source)
    check_mask(source)
    check_data(source)
    check_speeds(source)
    check_tolerance(source)
    check_memory(source, samples_shown(values.signal))
    check_loss(source)
    made = _build_system(source, like)
    flip = getattr(values.system, "flip", None)
    policy = None if flip is None else FLIPS[flip.name](**flip.model_dump(exclude={"name"}))
    system = made.system if policy is None else SignFlip(made.system, policy)
    control = build_control(values.stepper)
    check_flip_step(source, system)
    check_stability(source, system)
    times = check_times(source)
    driven = made.drive(like)
    signal = policy.drive(driven.signal) if isinstance(policy, PeriodicFlip) else driven.signal
    control.require(moving_part(system, driven.state, signal.piece(0.0))[0])
    observables = {**system.observables(), **driven.observables}
    plan = plan_record(source, observables, times, driven.state, signal.piece(0.0)(0.0))
    return Simulation(source, system, control, signal, driven.state, plan)


def _build_system(source: LoadedScenario, like: torch.Tensor) -> Learner | Follower | Responder:
    system = source.values.system
    if isinstance(system, model.Follower):
        return build_follower(source, system, FOLLOWERS[system.name], like)
    if isinstance(system, model.Responder):
        return build_responder(source, system, RESPONDERS[system.name], like)
    return build_learner(source, system, LEARNERS[system.name], like)


def build_control(chosen: model.FixedStep | model.Adaptive) -> Control:
    """Return the stepper of a scenario's table, with its way of choosing steps."""
    if isinstance(chosen, model.FixedStep):
        return FixedStep(STEPPERS[chosen.name], chosen.dt)
    return AdaptiveRungeKutta(**chosen.model_dump(exclude={"name"}))
