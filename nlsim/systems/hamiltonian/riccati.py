"""Riccati flows: the gain P of a feedback π = P x + g as a state that runs forward in time.

The exact gain obeys dP/dt = −Q − AᵀP − P A + P S P − η P with P(T) = 0, a backward problem. Turned round it
is stable forward, and P_optimal(t) = P(T − t). Which terms are turned round is a matter of convention as
soon as there is dissipation; the four conventions differ in five signs and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import state_class
from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.linear_quadratic import LinearQuadratic
from nlsim.systems.hamiltonian.problem import align


class Convention(Enum):
    """Signs of (Q, AᵀP, P A, P S P, η P) in dP/dt.

    ``UNREVERSED``: the exact equation; run forward it leaves the optimal gain. ``ALL_TERMS``: its mirror
    image, which tends to the optimal stationary gain. ``NON_DISSIPATIVE``: all but the dissipation flipped,
    which tends to the gain of the problem with η of the other sign. ``COSTATE_ONLY``: the gain along
    the costate-only reversal; its gain escapes in finite time wherever that system oscillates.
    """

    UNREVERSED = (-1, -1, -1, +1, -1)
    ALL_TERMS = (+1, +1, +1, -1, +1)
    NON_DISSIPATIVE = (+1, +1, +1, -1, -1)
    COSTATE_ONLY = (+1, +1, -1, +1, -1)


@dataclass(frozen=True)
class RiccatiFlow:
    """The gain alone; the state is the tensor P of shape ``(..., n, n)``.

    Parameters
    ----------
    problem : LinearQuadratic
        Matrices and dissipation.
    convention : Convention
        Which terms are flipped.
    """

    problem: LinearQuadratic
    convention: Convention = Convention.ALL_TERMS

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return dP/dt; four products of n × n matrices (AᵀP and P A apart, since P need not be symmetric)."""
        return gain_velocity(self.problem, self.convention, state)

    def observables(self) -> Mapping[str, Observable]:
        """Return ``gain``."""
        seen = Observable("gain", ("row", "column"), "feedback gain P", lambda t, state, inputs: state)
        return {seen.name: seen}


def gain_velocity(problem: LinearQuadratic, convention: Convention, gain: Tensor) -> Tensor:
    """Return dP/dt under a convention."""
    weight, left, right, square, loss = convention.value
    velocity = weight * problem.tracking_weight
    velocity = velocity + left * problem.drift.mT @ gain + right * gain @ problem.drift
    velocity = velocity + square * gain @ problem.actuation @ gain
    return velocity + (loss * align(problem.dissipation)) * gain


def zero_gain(problem: LinearQuadratic) -> Tensor:
    """Return P = 0 with the ensemble axes of all constants of the problem."""
    eta = torch.as_tensor(problem.dissipation)[..., None, None]
    shape = (problem.drift + problem.actuation + problem.tracking_weight + eta).shape
    return problem.drift.new_zeros(shape)


@state_class
class FeedbackState:
    """The controlled state with the gain and the offset that control it.

    Attributes
    ----------
    activity : Tensor
        x, shape ``(..., sample, n)``.
    gain : Tensor
        P, shape ``(..., n, n)``, shared by all samples.
    offset : Tensor
        g, shape of x: the part of π = P x + g that answers the target.
    """

    activity: Tensor
    gain: Tensor
    offset: Tensor


@dataclass(frozen=True)
class RiccatiFeedback:
    """The true state run forward under v = −R⁻¹ Bᵀ (P x + g), while P and g run as the convention says.

    dx/dt = A x − S (P x + g). With π = P x + g the exact equations ask
    dg/dt = Q z − Aᵀ g + P S g − η g; its terms are flipped with those of P. Reversing P and g while the
    state runs forward is a feedback law; it is not the reversal of the state.

    Parameters
    ----------
    problem : LinearQuadratic
        Matrices and dissipation.
    convention : Convention
        Which terms are flipped.
    """

    problem: LinearQuadratic
    convention: Convention = Convention.ALL_TERMS

    def initial_state(self, activity: Tensor) -> FeedbackState:
        """Return the given x of shape ``(..., sample, n)`` with its ensemble axes, and P = 0, g = 0."""
        return FeedbackState(activity, zero_gain(self.problem), torch.zeros_like(activity))

    def costate(self, state: FeedbackState) -> Tensor:
        """Return π = P x + g, shape of x."""
        return state.activity @ state.gain.mT + state.offset

    def vector_field(self, t: float, state: FeedbackState, inputs: Inputs) -> FeedbackState:
        """Return (A x − S (P x + g), dP/dt, dg/dt); without a target z = 0."""
        problem = self.problem
        weight, left, _, square, loss = self.convention.value
        pulled = self.costate(state) @ problem.actuation
        offset_velocity = (
            left * state.offset @ problem.drift
            + square * (state.offset @ problem.actuation) @ state.gain.mT
            + (loss * align(problem.dissipation)) * state.offset
        )
        if inputs.target is not None:
            offset_velocity = offset_velocity - weight * inputs.target @ problem.tracking_weight
        return FeedbackState(
            state.activity @ problem.drift.mT - pulled,
            gain_velocity(problem, self.convention, state.gain),
            offset_velocity,
        )

    def observables(self) -> Mapping[str, Observable]:
        """Return ``activity``, ``gain``, ``offset`` and ``costate``."""
        seen = (
            Observable("activity", ("sample", "neuron"), "state x", lambda t, state, inputs: state.activity),
            Observable("gain", ("row", "column"), "feedback gain P", lambda t, state, inputs: state.gain),
            Observable("offset", ("sample", "neuron"), "feedback offset g", lambda t, state, inputs: state.offset),
            Observable(
                "costate", ("sample", "neuron"), "costate π = P x + g", lambda t, state, inputs: self.costate(state)
            ),
        )
        return {each.name: each for each in seen}
