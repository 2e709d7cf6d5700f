"""Systems to flip the sign of, and a run that flips it."""

from __future__ import annotations

import torch

from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip
from nlsim.systems.hamiltonian.tracking import TrackingEquations
from nlsim.systems.signals import Constant
from support.control import (
    make_quadratic,
    make_quadratic_state,
    make_tracking,
    make_tracking_state,
    target,
)


def start_of(x=0.3, p=-0.2):
    return LinearQuadraticState(*(torch.full((1, 1), v, dtype=torch.float64) for v in (x, p)))


def flipped(system, signal, state, half_period, halves, stepper, step, **options):
    policy = PeriodicFlip(half_period)
    loop = Loop(
        SignFlip(system, policy), FixedStep(stepper, step), policy.drive(signal), state,
        until=halves * half_period, **options,
    )  # fmt: skip
    ticks = list(loop)
    return loop, ticks


FAMILIES = {
    "quadratic": (
        lambda: LinearQuadraticEquations(make_quadratic(3)),
        lambda: make_quadratic_state(3),
        Constant(target(3)),
    ),
    "tracking": (
        lambda: TrackingEquations(make_tracking(dissipation=0.0)),
        make_tracking_state,
        Constant(target(2)),
    ),
}
