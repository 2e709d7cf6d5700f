"""Deep linear networks: what inference settles at, in closed form.

With constant precisions γ_l, T_l = W_L ⋯ W_{l+1} (T_L = I) and the output residual r = y − h_L before inference,

    K = Σ_l T_l T_lᵀ/γ_l,   y − ĥ_L = (I + K)⁻¹ r,   γ_l e_l = T_lᵀ (y − ĥ_L),   F* = ½ rᵀ (I + K)⁻¹ r

when the output is pulled by ½‖y − ĥ_L‖² (soft clamp), and

    S = Σ_l T_l T_lᵀ/γ_l,   γ_l e_l = T_lᵀ S⁻¹ r,   F* = ½ rᵀ S⁻¹ r

when ĥ_L = y (hard clamp); γ_L is then the output precision λ. With γ_l = 1/(α n_l) at the feedforward activities
K = αΘ, Θ being the tangent kernel of the network at its sample, so the output moves as Levenberg–Marquardt would
move it. Residual networks are covered by :func:`with_skips`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers, feedforward, normalisers, predict
from nlsim.systems.network import Constant, LayeredNetwork


@dataclass(frozen=True)
class LinearEquilibrium:
    """Where the activities of a deep linear network come to rest.

    Attributes
    ----------
    activity : tuple of Tensor
        ĥ_1 … ĥ_L, shape ``(..., sample, layer)``.
    errors : tuple of Tensor
        e_1 … e_L, the same shapes.
    energy : Tensor
        F* of each sample, shape ``(..., sample)``.
    """

    activity: Layers
    errors: Layers
    energy: Tensor


def matrices(network: LayeredNetwork, weights: Layers) -> Layers:
    """Return the W_l without their bias columns."""
    return tuple(w[..., :-1] for w in weights) if network.has_bias else weights


def tails(network: LayeredNetwork, weights: Layers) -> Layers:
    """Return T_l = W_L ⋯ W_{l+1} for l = 1..L, shape ``(..., output, layer)``; T_L = I.

    Cost: one matrix product a layer.
    """
    plain = matrices(network, weights)
    width = plain[-1].shape[-2]
    found = [torch.eye(width, dtype=plain[-1].dtype, device=plain[-1].device)]
    for w in reversed(plain[1:]):
        found.append(found[-1] @ w)
    return tuple(reversed(found))


def spread(network: LayeredNetwork, weights: Layers, precisions: Sequence[Constant]) -> Tensor:
    """Return K = Σ_l T_l T_lᵀ/γ_l, also called S under a hard clamp; shape ``(..., sample, output, output)``.

    Parameters
    ----------
    network : LayeredNetwork
        All of its activations must be the identity.
    weights : tuple of Tensor
        W_1 … W_L, shapes ``(..., neurons, sources + bias)``.
    precisions : sequence of float or Tensor
        γ_1 … γ_L > 0, each a number or of shape ``(..., sample, 1)``. Without a sample axis anywhere, that of the
        result has length 1.

    Raises
    ------
    NlsimError
        For an activation that is not the identity.
    """
    require_linear(network)
    total: Tensor | None = None
    for gamma, tail in zip(precisions, tails(network, weights), strict=True):
        term = (tail @ tail.mT).unsqueeze(-3) / (gamma.unsqueeze(-1) if isinstance(gamma, Tensor) else gamma)
        total = term if total is None else total + term
    assert total is not None  # a network has a layer
    return total


def tangent_kernel(network: LayeredNetwork, weights: Layers, given: Tensor) -> Tensor:
    """Return Θ = Σ_l n_l T_l T_lᵀ = (∂h_L/∂θ)(∂h_L/∂θ)ᵀ of each sample, shape ``(..., sample, output, output)``.

    n_l is the squared norm of what feeds layer l, the 1 of a bias included, at the feedforward activities.
    """
    made = predict(network, weights, given, feedforward(network, weights, given)[:-1])
    return spread(network, weights, tuple(1 / n for n in normalisers(weights, made)))


def soft_clamp(
    network: LayeredNetwork, weights: Layers, given: Tensor, target: Tensor, precisions: Sequence[Constant]
) -> LinearEquilibrium:
    """Return the minimum of ½‖y − ĥ_L‖² + Σ γ_l ‖e_l‖²/2.

    Parameters
    ----------
    network, weights, precisions
        As for :func:`spread`.
    given, target : Tensor
        Shapes ``(..., sample, input)`` and ``(..., sample, output)``.

    Notes
    -----
    Cost: some matrix products a layer and one system of the size of the output a sample.

    References
    ----------
    Innocenti, Achour, Singh and Buckley, NeurIPS 2024, for the hard clamp; the soft one is derived likewise.
    """
    K = spread(network, weights, precisions)
    one = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    return _equilibrium(network, weights, given, target, precisions, one + K)


def hard_clamp(
    network: LayeredNetwork, weights: Layers, given: Tensor, target: Tensor, precisions: Sequence[Constant]
) -> LinearEquilibrium:
    """Return the minimum of Σ γ_l ‖e_l‖²/2 at ĥ_L = y; γ_L = λ is the precision of the output.

    Parameters and cost as for :func:`soft_clamp`.
    """
    return _equilibrium(network, weights, given, target, precisions, spread(network, weights, precisions))


def _equilibrium(
    network: LayeredNetwork,
    weights: Layers,
    given: Tensor,
    target: Tensor,
    precisions: Sequence[Constant],
    system: Tensor,
) -> LinearEquilibrium:
    residual = target - feedforward(network, weights, given)[-1]
    pull = torch.linalg.solve(system, residual.unsqueeze(-1)).squeeze(-1)
    errors = tuple(pull @ tail / gamma for gamma, tail in zip(precisions, tails(network, weights), strict=True))
    activity, source = [], given
    for w, e in zip(weights, errors, strict=True):
        source = network.pre_activation(w, source) + e
        activity.append(source)
    return LinearEquilibrium(tuple(activity), errors, 0.5 * (residual * pull).sum(-1))


def inference_hessian(network: LayeredNetwork, weights: Layers, precisions: Sequence[float]) -> Tensor:
    """Return ∂²F/∂ĥ² over the hidden layers, block tridiagonal; the same under either clamp.

    Diagonal blocks γ_l I + γ_{l+1} W_{l+1}ᵀ W_{l+1}, blocks beside them −γ_{l+1} W_{l+1}.

    Parameters
    ----------
    network, weights
        As for :func:`spread`; at least one hidden layer.
    precisions : sequence of float
        γ_1 … γ_L > 0.

    Returns
    -------
    Tensor
        Shape ``(..., hidden, hidden)``, hidden neurons of all layers in order; dense, for spectra and checks.

    References
    ----------
    Innocenti et al., NeurIPS 2024, on the conditioning of inference.
    """
    require_linear(network)
    plain, hidden = matrices(network, weights), network.sizes[:-1]
    ends = torch.tensor((0, *hidden)).cumsum(0).tolist()
    lead = sum(w[..., 0, 0] for w in plain).shape  # type: ignore[union-attr]
    full = plain[0].new_zeros((*lead, ends[-1], ends[-1]))
    for layer, width in enumerate(hidden):
        here, above = slice(ends[layer], ends[layer + 1]), plain[layer + 1]
        one = torch.eye(width, dtype=full.dtype, device=full.device)
        full[..., here, here] = precisions[layer] * one + precisions[layer + 1] * above.mT @ above
        if layer + 1 < len(hidden):
            there = slice(ends[layer + 1], ends[layer + 2])
            full[..., there, here] = -precisions[layer + 1] * above
            full[..., here, there] = -precisions[layer + 1] * above.mT
    return full


def settle_hidden(
    network: LayeredNetwork, weights: Layers, given: Tensor, output: Tensor, precisions: Sequence[float]
) -> Layers:
    """Return ĥ_1 … ĥ_{L−1} at rest for a clamped output, by elimination from the first layer to the last.

    Solves H ĥ = b, b holding γ_1 W_1 x̃ in the first block and γ_L W_Lᵀ(y − bias) in the last (and what biases add
    in between), with H of :func:`inference_hessian`.

    Parameters
    ----------
    network, weights, precisions
        As for :func:`inference_hessian`.
    given, output : Tensor
        x and ĥ_L, shapes ``(..., sample, input)`` and ``(..., sample, output)``.

    Notes
    -----
    Cost: one system of the size of each layer, linear in depth.
    """
    require_linear(network)
    plain, biases = matrices(network, weights), [w[..., -1] if network.has_bias else 0.0 * w[..., 0] for w in weights]
    # with the layers below eliminated, those act on layer l as a prediction q of precision matrix P
    one = [torch.eye(n, dtype=plain[0].dtype, device=plain[0].device) for n in network.sizes]
    guess, trust = network.pre_activation(weights[0], given), precisions[0] * one[0]
    kept: list[tuple[Tensor, Tensor]] = []
    for layer in range(1, network.depth):
        kept.append((guess, trust))
        w = plain[layer]
        cover = torch.linalg.solve(trust, w.mT)  # P⁻¹ Wᵀ
        guess = guess @ w.mT + biases[layer].unsqueeze(-2)
        trust = torch.linalg.inv(one[layer] / precisions[layer] + w @ cover)
    above, settled = output, list[Tensor]()
    for layer in reversed(range(1, network.depth)):
        q, P = kept[layer - 1]
        w, gamma = plain[layer], precisions[layer]
        drive = q @ P + gamma * (above - biases[layer].unsqueeze(-2)) @ w
        above = torch.linalg.solve(P + gamma * w.mT @ w, drive.mT).mT
        settled.append(above)
    return tuple(reversed(settled))


def with_skips(network: LayeredNetwork, weights: Layers, scales: Sequence[float] | None = None) -> Layers:
    """Return the weights a_l W_l, plus I on every layer but the first and the last: a residual network as a plain one.

    Parameters
    ----------
    network, weights
        Linear, its hidden layers of one width.
    scales : sequence of float, optional
        a_1 … a_L; 1 by default. They multiply biases too.

    Raises
    ------
    NlsimError
        When the hidden layers differ in width.
    """
    require_linear(network)
    if len(set(network.sizes[:-1])) > 1:
        raise NlsimError(
            "A skip connection needs hidden layers of one width.",
            where="widths",
            given=network.widths,
            allowed="equal hidden widths",
            advice="Make the hidden layers alike, or leave the skips out.",
        )
    factors = (1.0,) * network.depth if scales is None else scales
    found = [a * w for a, w in zip(factors, weights, strict=True)]
    for layer in range(1, network.depth - 1):
        rows, columns = found[layer].shape[-2:]
        found[layer] = found[layer] + torch.eye(rows, columns, dtype=found[layer].dtype, device=found[layer].device)
    return tuple(found)


def depth_scales(network: LayeredNetwork) -> tuple[float, ...]:
    """Return the μPC multipliers a_1 = D^(−1/2), a_l = (N L)^(−1/2), a_L = 1/N: D inputs, N hidden, L layers.

    For unit-Gaussian weights with skips on the hidden layers between.

    References
    ----------
    Innocenti, Achour and Buckley, NeurIPS 2025.
    """
    inputs, width, depth = network.widths[0], network.sizes[0], network.depth
    return (inputs**-0.5, *((width * depth) ** -0.5 for _ in range(depth - 2)), 1 / width)


def mean_excess(width: int, depth: int) -> float:
    """Return E[S − 1] = (L/N) [(1 + 1/L)^(L−1) − 1] of a linear μPC network with one output, N hidden, L layers.

    Small when N ≫ L: F* is then the loss, and learning by inference back-propagation.
    """
    return depth / width * ((1 + 1 / depth) ** (depth - 1) - 1)


def require_linear(network: LayeredNetwork) -> None:
    """Refuse a network with a hidden activation that is not the identity."""
    names = [each.name for each in network.activations[:-1]]
    if any(name != "identity" for name in names):
        raise NlsimError(
            "The closed forms hold for linear networks only.",
            where="activations",
            given=names,
            allowed="identity",
            advice="Use nlsim.systems.inference.implicit_step for other activations.",
        )
