"""The symplectic form of a step, by automatic differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlsim.core.state import leaves, rebuild


def step_jacobian(stepper: Any, system: Any, piece: Any, state: Any, t: float, dt: float, steps: int = 1) -> Tensor:
    """Return ∂(state after the steps)/∂(state), leaves flattened in their order."""
    parts = leaves(state)

    def advance(flat: Tensor) -> Tensor:
        split = flat.split([leaf.numel() for leaf in parts])
        own = rebuild(state, [each.reshape(leaf.shape) for each, leaf in zip(split, parts, strict=True)])
        after = stepper.advance(system, piece, own, t, dt, steps)
        return torch.cat([leaf.reshape(-1) for leaf in leaves(after)])

    return torch.func.jacrev(advance)(torch.cat([leaf.reshape(-1) for leaf in parts]))


def canonical_form(dimension: int) -> Tensor:
    """Return J = (0 I; −I 0) for positions first, then momenta; ``dimension`` is that of the phase space."""
    identity, zero = torch.eye(dimension // 2, dtype=torch.float64), torch.zeros(dimension // 2, dimension // 2)
    return torch.cat((torch.cat((zero, identity), 1), torch.cat((-identity, zero), 1))).to(torch.float64)


def defect(matrix: Tensor, factor: float = 1.0) -> float:
    """Return the largest entry of MᵀJM − factor·J, relative to max(1, largest entry of M squared)."""
    form = canonical_form(len(matrix))
    scale = max(1.0, float(matrix.abs().max()) ** 2)
    return float((matrix.T @ form @ matrix - factor * form).abs().max()) / scale
