"""Activities that settle in sweeps: how fast each layer relaxes, and the order in which the layers are visited.

The flow of a hidden layer is dĥ_l/dt = f_l with

    f_l = −r_l (ĥ_l − g_l),    r_l = a_l + d_l + b_l ‖W_{l+1}‖²,

the target g_l being whatever makes it so. A step closes a fraction of the gap, ĥ_l ← ĥ_l + s(r_l dt)/r_l · f_l; it
stands still exactly where f = 0, so what rests under a sweep rests under the flow, whatever r_l is.

**Why r_l has three terms.** The error that a layer feels from above contains the layer itself: in a linear net its own
curvature is a_l + d_l + b_l W_{l+1}ᵀ W_{l+1}. A rate of a_l + d_l alone leaves the last part explicit: with one hidden
layer a sweep at large dt then multiplies the gap by −b ‖W‖²/a, and with several it diverges in most nets too. With
‖W‖² in the rate, r_l bounds the curvature (slopes φ' are at most 1): in a linear net at constant precisions every
sweep lowers the free energy, at every dt; and as the Hessian is block tridiagonal it is below twice its diagonal
blocks, so the steppers that move all layers at once are stable too. With curved activations it is a measured law, not
a proved one.

**Why downwards.** Settling begins at the forward pass, where the only error is at the output: one sweep from the output
down carries it to every layer, upwards it would climb down a layer a sweep. The predictions of the layers below are
then those of the old activities, all made in one pass, so a sweep costs what one vector field does (upwards: half as
much again). Close to rest both orders converge at the same rate, that of Gauss and Seidel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlsim.core.system import Fraction, Inputs
from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.network import Constant, LayeredNetwork

if TYPE_CHECKING:
    from nlsim.systems.inference.flow import ActivityFlow

POWER_STEPS = 20
"""Steps of the power method for ‖W‖²; of random matrices it then finds nine tenths or more in 99 of 100."""

SAFETY = 1.1
"""Factor on what the power method finds, which is never above ‖W‖²."""

LOSS_CURVATURE = 1.0
"""Largest curvature of a loss: 1 of the squared error, Σy/2 of the cross-entropy (so for targets of sum 2 at most)."""

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
"""Angle whose multiples fill the circle evenly."""


def squared_norms(network: LayeredNetwork, weights: Layers) -> Layers:
    """Return ‖W_l‖² in the spectral norm, biases left out, up to a tenth; shape ``(..., 1, 1)`` each.

    By the power method from a start that is the same for all weights of a shape, times :data:`SAFETY`. A sweep needs
    half of ‖W‖² to be stable, so an error of a tenth costs it nothing.

    Cost: forty products of a matrix with a vector a layer, without a read by the host.
    """
    return tuple(_squared_norm(w[..., :-1] if network.has_bias else w) for w in weights)


def _squared_norm(matrix: Tensor) -> Tensor:
    angles = GOLDEN_ANGLE * torch.arange(1, matrix.shape[-1] + 1, dtype=torch.float64)
    vector = torch.cos(angles).to(matrix).unsqueeze(-1)
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(POWER_STEPS):
        vector = vector / torch.linalg.vector_norm(vector, dim=-2, keepdim=True).clamp(min=tiny)
        vector = matrix.mT @ (matrix @ vector)
    found: Tensor = SAFETY * torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
    return found


def relaxation_rates(flow: ActivityFlow, moving: Layers) -> Layers:
    """Return r_l of everything that moves, broadcastable to it: ``(..., 1, 1)`` or ``(..., sample, 1)``.

    Precisions that follow the activities are taken at the forward pass of a held input: the rates of a stretch are
    then numbers of the weights and the input alone. (A sweep takes those of the moment.)

    Raises
    ------
    NlsimError
        For such precisions where the input is not held.
    """
    norms = flow.weights  # constant precisions look at their number alone
    if not isinstance(flow.precision, ConstantPrecision):
        if flow.held is None:
            raise NlsimError(
                "Precisions that follow the activities give rates only where the input stands still.",
                where="rates",
                given=type(flow.precision).__name__,
                allowed="a held input, or constant precisions",
                advice="Use implicit_sweep or exponential_sweep, which take the rates of the moment.",
            )
        norms = flow.feedforward_normalisers(flow.held)
    precisions = flow.precision.values(norms, norms)
    found = [_rate(flow, layer, precisions, norms) for layer in range(flow.network.depth - 1)]
    if flow.output == "free":
        like = moving[-1]
        found.append(torch.as_tensor(_output_rate(flow, precisions), dtype=like.dtype, device=like.device))
    return tuple(found)


def sweep_down_(flow: ActivityFlow, moving: Layers, inputs: Inputs, dt: float, fraction: Fraction) -> None:
    """Advance activities in place by dt: the output, if it is free, then the hidden layers from the last to the first.

    Every layer answers to the new error of the layer above and to the old prediction from below. An output that is
    clamped or settled stays where the old prediction puts it.

    Cost: two matrix products a layer, as one vector field.
    """
    seen = flow.settling(moving, inputs)
    predictions, above = seen.predictions.prediction, seen.errors[-1]
    if flow.output == "free":
        rate = torch.as_tensor(_output_rate(flow, seen.precisions), dtype=above.dtype, device=above.device)
        moving[-1].add_(flow.output_velocity(moving[-1], seen, inputs) * _length(rate, dt, fraction))
        above = moving[-1] - predictions[-1]
    for layer in reversed(range(flow.network.depth - 1)):
        h, rate = moving[layer], _rate(flow, layer, seen.precisions, seen.normalisers)
        h.add_(flow.hidden_velocity(layer, h, seen, above) * _length(rate, dt, fraction))
        above = h - predictions[layer]


def _rate(flow: ActivityFlow, layer: int, precisions: tuple[Constant, ...], normalisers: Layers) -> Tensor:
    """Return a + d + b ‖W‖² of a hidden layer."""
    own, feed, _, decay = flow.couplings(layer, precisions, normalisers)
    rate = own + feed * flow.squared_norms[layer]
    return rate if decay is None else rate + decay


def _output_rate(flow: ActivityFlow, precisions: tuple[Constant, ...]) -> Constant:
    """Return γ_L plus the curvature of the loss."""
    gamma = precisions[-1]
    return 1.0 + LOSS_CURVATURE / gamma if flow.is_scaled else gamma + LOSS_CURVATURE


def _length(rate: Tensor, dt: float, fraction: Fraction) -> Tensor:
    """Return s(r dt)/r, and its limit dt at r = 0."""
    moves = rate > 0
    safe = torch.where(moves, rate, torch.ones_like(rate))
    return torch.where(moves, fraction(safe * dt) / safe, torch.full_like(rate, dt))
