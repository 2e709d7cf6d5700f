"""Neurons connected by any digraph, cycles included: ẋ = c (−x + σ(W x + B u)) with fixed weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.system import Fraction, Inputs
from nlsim.systems.activation import Activation
from nlsim.systems.backprop import required_input


@dataclass(frozen=True)
class RecurrentNetwork:
    """A recurrent network of leaky neurons; its state is the tensor x of shape ``(..., sample, n)``.

    ẋ = c (−x + σ(W x + B u)). For c → ∞ it follows the rest state x = σ(W x + B u), provided the rest state
    attracts. Coupling is as fast as the leak, so neither sweeps (there is no order of layers) nor exponential
    steppers keep their order at large c; ``sdirk2`` does.

    Parameters
    ----------
    weight : Tensor
        W, shape ``(..., n, n)``; any digraph.
    input_weight : Tensor
        B, shape ``(..., n, input)``.
    activation : Activation
        σ.
    speed : float or Tensor
        c > 0 in 1/time; a tensor broadcasts against x: ``(n,)`` for one speed a neuron, ``(member, 1, 1)``
        for an ensemble.
    """

    weight: Tensor
    input_weight: Tensor
    activation: Activation
    speed: float | Tensor = 1.0

    def vector_field(self, t: float, state: Tensor, inputs: Inputs) -> Tensor:
        """Return c (σ(W x + B u) − x). Cost: a matrix product with W and one with B."""
        return self.speed * (self.activation.value(self._pre_activation(state, inputs)) - state)

    def rates(self, state: Tensor) -> Tensor:
        """Return c."""
        return torch.as_tensor(self.speed, dtype=state.dtype, device=state.device)

    def sweep_(self, t: float, state: Tensor, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Let every neuron close a fraction of the gap to σ(W x + B u) at the old x.

        A digraph with cycles has no order of layers, so this is one simultaneous step (leak implicit or exact,
        coupling explicit): of order 1, and as c → ∞ it is the network with unit delays.
        """
        target = self.activation.value(self._pre_activation(state, inputs))
        state.lerp_(target, fraction(self.rates(state) * dt))

    def slow_rate(self) -> float:
        """Return 0: every neuron is fast."""
        return 0.0

    def fastest_rate(self) -> float:
        """Return the largest c."""
        return float(self.speed.max()) if isinstance(self.speed, Tensor) else self.speed

    def linear_solver(self, t: float, state: Tensor, inputs: Inputs, scale: float) -> Callable[[Tensor], Tensor]:
        """Return r → (I − scale J)⁻¹ r with J = c (−I + diag(σ') W) averaged over the samples.

        One matrix for all samples of a member. It is exact where they share their slopes; the iteration of an
        implicit step contracts by about |J⁻¹ (J_sample − J)| at large c. Cost: one LU factorisation, 2n³/3, here;
        a call costs as much as a matrix product with W.
        """
        a = self._pre_activation(state, inputs)
        slope = self.speed * self.activation.slope(a, self.activation.value(a))
        leak = self.rates(state).expand_as(slope).mean(-2)
        matrix = torch.diag_embed(1 + scale * leak) - scale * slope.mean(-2).unsqueeze(-1) * self.weight
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return lambda r: torch.linalg.lu_solve(factors, pivots, r.mT).mT

    def _pre_activation(self, state: Tensor, inputs: Inputs) -> Tensor:
        return state @ self.weight.mT + required_input(inputs) @ self.input_weight.mT
