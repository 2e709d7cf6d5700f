"""A dense recurrent network without inputs whose first neuron has to follow a target; every arc is learned.

x_i' = c (−x_i + tanh((W x)_i)), loss q (x_1 − z)²/2 + r_w |W|²/2, weight velocities cost r |dW/dt|²/2, no discount.
Written out on its own, from the definition, for tests and benchmarks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlsim.core.state import state_class
from nlsim.core.system import Inputs


@state_class
class RecurrentState:
    """Activities ``(..., n)``, weights ``(..., n, n)`` and their costates."""

    activity: Tensor
    weight: Tensor
    costate: Tensor
    weight_costate: Tensor


@dataclass(frozen=True)
class Wave:
    """Target z(t) = amplitude · sin(frequency · t)."""

    amplitude: float = 0.5
    frequency: float = 1.5

    def edge_after(self, t: float) -> float:
        return math.inf

    def piece(self, t: float) -> Any:
        return lambda now: Inputs(
            None, torch.tensor(self.amplitude * math.sin(self.frequency * now), dtype=torch.float64)
        )


@dataclass(frozen=True)
class Tracking:
    """The Hamilton equations (sign +1) or their costate-only reversal (sign −1)."""

    speed: float = 1.0
    accuracy: float = 100.0
    effort: float = 0.1
    decay: float = 0.1
    sign: int = +1

    def vector_field(self, t: Any, state: RecurrentState, inputs: Inputs) -> RecurrentState:
        x, w, px, pw = state.activity, state.weight, state.costate, state.weight_costate
        y = torch.tanh((w @ x.unsqueeze(-1)).squeeze(-1))
        pulled = self.speed * (1 - y * y) * px
        first = torch.zeros_like(x)
        first[..., 0] = 1.0
        gap = self.accuracy * (x[..., :1] - inputs.target.unsqueeze(-1)) * first
        h_x = (w.mT @ pulled.unsqueeze(-1)).squeeze(-1) - self.speed * px + gap
        h_w = pulled.unsqueeze(-1) * x.unsqueeze(-2) + self.decay * w
        return RecurrentState(self.speed * (y - x), -pw / self.effort, -self.sign * h_x, -self.sign * h_w)

    def cost_rate(self, t: Any, state: RecurrentState, inputs: Inputs) -> Tensor:
        """Return the integrand of the cost at dW/dt = −p_W/r."""
        tracking = self.accuracy * (state.activity[..., 0] - inputs.target).square()
        effort = state.weight_costate.square().sum((-2, -1)) / self.effort
        return 0.5 * (tracking + effort + self.decay * state.weight.square().sum((-2, -1)))

    def boundary(self, neurons: int, seed: int = 0) -> RecurrentState:
        """Return random activities and weights at the start, and costates 0 at the end."""
        draw = torch.Generator().manual_seed(seed)
        x = torch.rand(neurons, generator=draw, dtype=torch.float64) - 0.5
        w = torch.randn(neurons, neurons, generator=draw, dtype=torch.float64) / math.sqrt(neurons)
        return RecurrentState(x, w, torch.zeros_like(x), torch.zeros_like(w))
