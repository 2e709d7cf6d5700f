"""References that do not come from the code under test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from nlsim.core.state import leaves, rebuild


def flatten(state: Any) -> np.ndarray:
    return torch.cat([leaf.reshape(-1) for leaf in leaves(state)]).numpy()


def unflatten(flat: np.ndarray, like: Any) -> Any:
    shapes = [leaf.shape for leaf in leaves(like)]
    parts = torch.as_tensor(flat).split([shape.numel() for shape in shapes])
    return rebuild(like, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def scipy_flow(
    system: Any, piece: Any, state: Any, start: float, stop: float, *, method: str = "DOP853", rtol: float = 1e-13
) -> Any:
    """Return the state at ``stop`` by SciPy's adaptive solver at a tight tolerance."""

    def right_hand_side(t: float, flat: np.ndarray) -> np.ndarray:
        return flatten(system.vector_field(t, unflatten(flat, state), piece(t)))

    solution = solve_ivp(
        right_hand_side, (start, stop), flatten(state).copy(), method=method, rtol=rtol, atol=rtol * 1e-2
    )
    assert solution.success, solution.message
    return unflatten(solution.y[:, -1].copy(), state)


def autograd_gradient(network: Any, loss: Any, weights: Any, inputs: Any) -> tuple[torch.Tensor, ...]:
    """Return ∂(Σ_samples L)/∂W of a network written out again in plain torch, by autograd."""
    own = [w.detach().clone().requires_grad_() for w in weights]
    x = inputs.input
    for weight, activation in zip(own, network.activations, strict=True):
        if network.has_bias:
            x = torch.cat((x, x.new_ones((*x.shape[:-1], 1))), -1)
        x = PLAIN_ACTIVATION[activation.name](x @ weight.T)
    return torch.autograd.grad(PLAIN_LOSS[loss.name](x, inputs.target), own)


PLAIN_ACTIVATION = {
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "softplus": torch.nn.Softplus(threshold=50.0),
    "relu": torch.relu,
    "identity": lambda a: a,
}

PLAIN_LOSS = {
    "squared_error": lambda x, z: 0.5 * torch.nn.functional.mse_loss(x, z, reduction="sum"),
    "cross_entropy": lambda x, z: torch.nn.functional.cross_entropy(x, z, reduction="sum"),
}
