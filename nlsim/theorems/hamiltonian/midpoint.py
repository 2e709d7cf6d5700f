"""A plain implicit midpoint rule, to see flips under a time-symmetric method at steps of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Piece

S = TypeVar("S")


@dataclass(frozen=True)
class ImplicitMidpoint:
    """y⁺ = y + h k with k = f(t + h/2, y + h k/2), by Newton's method on the flattened state.

    Made for a handful of steps of small states: every iteration forms the whole Jacobian.
    """

    name: str = "midpoint by Newton"
    order: int = 2
    stability_limit: float = float("inf")

    def require(self, system: Any) -> None:
        """Need nothing but a vector field written in torch operations."""

    def advance(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps."""
        shapes = [leaf.shape for leaf in leaves(state)]

        def unflatten(flat: Tensor) -> S:
            parts = torch.split(flat, [shape.numel() for shape in shapes])
            return rebuild(state, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

        for n in range(steps):
            middle = t + (n + 0.5) * dt
            inputs = piece(middle)

            def field(flat: Tensor, middle: float = middle, inputs: Any = inputs) -> Tensor:
                velocity = system.vector_field(middle, unflatten(flat), inputs)
                return torch.cat([leaf.reshape(-1) for leaf in leaves(velocity)])

            flat = torch.cat([leaf.reshape(-1) for leaf in leaves(state)])
            state = unflatten(flat + dt * _slope(field, flat, dt))
        return state


def _slope(field: Any, flat: Tensor, dt: float) -> Tensor:
    slope: Tensor = field(flat)
    eye = torch.eye(len(flat), dtype=flat.dtype)
    for _ in range(50):
        point = flat + 0.5 * dt * slope
        residual = slope - field(point)
        matrix = eye - 0.5 * dt * torch.func.jacrev(field)(point)
        change = torch.linalg.solve(matrix, residual)
        slope = slope - change
        if float(change.abs().max()) <= 1e-14 * (1 + float(slope.abs().max())):
            return slope
    return torch.full_like(slope, torch.nan)  # no solution found: the caller sees it in the state
