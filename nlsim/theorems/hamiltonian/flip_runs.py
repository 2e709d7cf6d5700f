"""Runs of a flipped system that is to track a sinusoid: the numbers of the tracking tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.state import leaves
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.stepper import Stepper
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadratic, LinearQuadraticEquations, LinearQuadraticState
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip, SignFlip
from nlsim.systems.hamiltonian.tracking import TrackingEquations, TrackingProblem, TrackingState, random_network
from nlsim.systems.signals import SineTarget

SCALAR = ScalarLinearQuadratic(-1.0, 1.0, 100.0, 0.1)
"""The scalar tracking problem: a = −1, b = 1, r = 0.1, and q = 100 unless said otherwise."""

SCALAR_FREQUENCY, SCALAR_STEP, SCALAR_HORIZON, SCALAR_START = 0.5, 0.01, 40.0, 0.3
NET_AMPLITUDE, NET_FREQUENCY, NET_STEP, NET_HORIZON = 0.5, 0.05, 0.05, 400.0


@dataclass(frozen=True)
class Tracked:
    """How well a run tracked, over the second half of its horizon.

    Attributes
    ----------
    rms, relative : Tensor
        rms of x_0 − z, and that over the rms of z; shape: the ensemble axes.
    ending : Ending
        Why the run stopped; numbers of a run that diverged are NaN.
    largest : Tensor
        Largest norm of the state at the end of any step of the second half.
    """

    rms: Tensor
    relative: Tensor
    ending: Ending
    largest: Tensor


def track(
    system: Any,
    state: Any,
    signal: SineTarget,
    *,
    step: float,
    horizon: float,
    half_period: float | None = None,
    stepper: Stepper = EXPLICIT_EULER,
    policy: Any = None,
) -> Tracked:
    """Run a system flipped every ``half_period`` (by default every step), or by another policy, and compare.

    The error is looked at after every step. Cost: one loop over horizon/step steps.
    """
    flip = PeriodicFlip(half_period or step)
    driven = signal if policy is not None else flip.drive(signal)
    flipped = SignFlip(system, policy or flip)
    # the loop shows the end of each stretch; where a stretch has several steps it is cut after each of them
    has_single_steps = policy is None and half_period in (None, step)
    check_every = 100 if has_single_steps else 1
    loop = Loop(flipped, FixedStep(stepper, step), driven, state, until=horizon, check_every=check_every)
    seen = [(tick.t, tick.state) for tick in loop if tick.t > horizon / 2]
    assert loop.ending is not None
    if not loop.ending.is_success:
        lost = torch.full_like(state.activity[..., 0, 0], torch.nan)
        return Tracked(lost, lost, loop.ending, lost)
    target = signal.amplitude * torch.sin(signal.frequency * torch.tensor([t for t, _ in seen], dtype=torch.float64))
    output = torch.stack([each.activity[..., 0, 0] for _, each in seen], -1)
    rms = (output - target).square().mean(-1).sqrt()
    parts = [torch.stack([leaves(each)[k] for _, each in seen]) for k in range(len(leaves(state)))]
    largest = torch.stack([part.square().sum((-2, -1)) for part in parts]).sum(0).amax(0).sqrt()
    return Tracked(rms, rms / target.square().mean().sqrt(), loop.ending, largest)


def scalar_problem(weights: Sequence[float]) -> LinearQuadratic:
    """Return the scalar problem as an ensemble over q."""
    one = SCALAR.matrices()
    q = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    return LinearQuadratic(one.drift.expand_as(q), one.actuation.expand_as(q), q)


def scalar_tracking(
    weights: Sequence[float],
    *,
    step: float = SCALAR_STEP,
    horizon: float = SCALAR_HORIZON,
    start: float = SCALAR_START,
    **options: Any,
) -> Tracked:
    """Return the rms errors of scalar tracking of sin ωt, one for each q; options of :func:`track`."""
    problem = scalar_problem(weights)
    x = torch.full((len(weights), 1, 1), start, dtype=torch.float64)
    state: LinearQuadraticState = problem.initial_state(x)
    signal = SineTarget(1.0, SCALAR_FREQUENCY)
    return track(LinearQuadraticEquations(problem), state, signal, step=step, horizon=horizon, **options)


def network_tracking(
    weights: Sequence[float],
    seeds: Sequence[int],
    *,
    step: float = NET_STEP,
    horizon: float = NET_HORIZON,
    initial: Callable[[int], tuple[Tensor, Tensor]] = random_network,
    **options: Any,
) -> Tracked:
    """Return the errors of the five-neuron net, shape (q, seed), all as one ensemble; options of :func:`track`.

    c = 1, r = m c = 0.1, r_w = 1, φ ≡ 1, z = 0.5 sin 0.05 t; ``initial(seed)`` gives x(0) and W(0).
    """
    starts = [initial(seed) for seed in seeds]
    lead = (len(weights), len(seeds))
    q = torch.tensor(weights, dtype=torch.float64)[:, None].expand(lead)
    activity = torch.stack([x for x, _ in starts]).expand(*lead, -1, -1)
    weight = torch.stack([w for _, w in starts]).expand(*lead, -1, -1)
    problem = TrackingProblem(q)
    state: TrackingState = problem.initial_state(activity, weight)
    signal = SineTarget(NET_AMPLITUDE, NET_FREQUENCY)
    return track(TrackingEquations(problem), state, signal, step=step, horizon=horizon, **options)
