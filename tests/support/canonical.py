"""Small Hamiltonian systems in canonical pairs; the state is a bare tensor (..., 2) of position and momentum.

Half of each time dependence comes through t and half through the inputs, so a stepper that is wrong in either
is found out. At ``force = 0`` they are autonomous. Kicks and drifts read a copy of what they do not move, so that
automatic differentiation in reverse can look through steps that write in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs

NOTHING = Inputs(torch.tensor(0.0, dtype=torch.float64))


def wave(t: float) -> Inputs:
    """Return u(t) = sin 2t."""
    return Inputs(torch.tensor(math.sin(2 * t), dtype=torch.float64))


def still(t: float) -> Inputs:
    return NOTHING


@dataclass(frozen=True)
class Harmonic:
    """H = (p² + ω² q²)/2."""

    frequency: float = 1.0

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        q, p = state.unbind(-1)
        return torch.stack((p, -(self.frequency**2) * q), -1)

    def kick_(self, t: float, state: Tensor, inputs: Inputs, dt: float) -> None:
        state[..., 1] -= dt * self.frequency**2 * state[..., 0].clone()

    def drift_(self, t: float, state: Tensor, inputs: Inputs, dt: float) -> None:
        state[..., 0] += dt * state[..., 1].clone()

    def energy(self, state: Tensor) -> Tensor:
        q, p = state.unbind(-1)
        return (p * p + self.frequency**2 * q * q) / 2


@dataclass(frozen=True)
class Pendulum:
    """H = √(1 + p²)·(1 + A cos t) − (1 + A u(t)) cos q: splits, nonlinear in both parts, moving in both."""

    force: float = 0.5

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        q, p = state.unbind(-1)
        return torch.stack((self._speed(t, p), self._force(q, inputs)), -1)

    def kick_(self, t: float, state: Tensor, inputs: Inputs, dt: float) -> None:
        state[..., 1] += dt * self._force(state[..., 0].clone(), inputs)

    def drift_(self, t: float, state: Tensor, inputs: Inputs, dt: float) -> None:
        state[..., 0] += dt * self._speed(t, state[..., 1].clone())

    def _speed(self, t: float, p: Tensor) -> Tensor:
        return (1 + self.force * math.cos(t)) * p / torch.sqrt(1 + p * p)

    def _force(self, q: Tensor, inputs: Inputs) -> Tensor:
        return -(1 + self.force * inputs.input) * torch.sin(q)

    def energy(self, state: Tensor) -> Tensor:
        """Return H without forcing."""
        q, p = state.unbind(-1)
        return torch.sqrt(1 + p * p) - torch.cos(q)


@dataclass(frozen=True)
class Product:
    """H = (q² + 1)(p² + 1)/2 + A (q cos t + p u(t))/2: does not split."""

    force: float = 1.0

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        q, p = state.unbind(-1)
        velocity = (q * q + 1) * p + self.force * inputs.input / 2
        return torch.stack((velocity, -(p * p + 1) * q - self.force * math.cos(t) / 2), -1)

    def energy(self, state: Tensor) -> Tensor:
        """Return H without forcing."""
        q, p = state.unbind(-1)
        return (q * q + 1) * (p * p + 1) / 2


@dataclass(frozen=True)
class Damped:
    """Any of them with −θ p added to the momentum equation."""

    undamped: Any
    theta: float = 0.4

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        field = self.undamped.vector_field(t, state, inputs)
        return field - self.theta * state * torch.tensor([0.0, 1.0], dtype=state.dtype)

    def conservative(self) -> Any:
        return self.undamped

    def dissipate_(self, state: Tensor, dt: float) -> None:
        state[..., 1] *= math.exp(-self.theta * dt)


def autonomous(system: Any) -> Any:
    return replace(system, force=0.0)


def pair(q: float, p: float) -> Tensor:
    return torch.tensor([q, p], dtype=torch.float64)
