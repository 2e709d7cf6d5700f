"""Small systems with known solutions; the state is a bare tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.system import Inputs

NOTHING = Inputs()


def still(_: float) -> Inputs:
    """Give no inputs at any time."""
    return NOTHING


@dataclass(frozen=True)
class Silence:
    """A signal without inputs and without edges."""

    def edge_after(self, t: float) -> float:
        return math.inf

    def piece(self, t: float) -> Any:
        return still


@dataclass(frozen=True)
class Decay:
    """ẏ = −r y."""

    rate: float = 1.0

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return -self.rate * state


@dataclass(frozen=True)
class RelaxingDecay:
    """The same as a relaxing system with target 0."""

    rate: float = 1.0

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return -self.rate * state

    def rates(self, state: Tensor) -> Tensor:
        return torch.as_tensor(self.rate, dtype=state.dtype)

    def sweep_(self, t: float, state: Tensor, inputs: Inputs, dt: float, fraction: Any) -> None:
        state.lerp_(torch.zeros_like(state), fraction(self.rate * dt))

    def slow_rate(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Swing:
    """ẏ = −y² (cos t + u)/2, which with u = cos t is solved by 1/(1/y₀ + sin t).

    Half of the time dependence comes through t and half through the inputs, so a stepper that is wrong
    in either is found out.
    """

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return -state.square() * (math.cos(t) + inputs.input) / 2

    def piece(self, t: float) -> Inputs:
        return Inputs(torch.tensor(math.cos(t), dtype=torch.float64))

    def exact(self, t: float, start: float) -> float:
        return 1.0 / (1.0 / start + math.sin(t))


@dataclass(frozen=True)
class Oscillator:
    """q̈ = −q, state (q, p); the flow is a rotation."""

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        q, p = state.unbind(-1)
        return torch.stack((p, -q), -1)

    def exact(self, t: float) -> Tensor:
        return torch.tensor([math.cos(t), -math.sin(t)], dtype=torch.float64)


@dataclass(frozen=True)
class Explosion:
    """ẏ = y², which from y₀ > 0 is infinite at t = 1/y₀."""

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        return state.square()


@dataclass(frozen=True)
class VanDerPol:
    """A stack of ẍ = μ (1 − x²) ẋ − x, state (..., 2), one μ each."""

    stiffness: Tensor

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        x, v = state.unbind(-1)
        return torch.stack((v, self.stiffness * (1 - x * x) * v - x), -1)
