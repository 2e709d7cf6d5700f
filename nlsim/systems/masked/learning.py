"""Masks around networks that learn: Hamiltonian learning, inference learning and backpropagation alike.

The masked pre-activation W(m ⊙ u) + μ(m) b is that of a layer whose constant input is μ(m) in the place of 1. So a
network needs no change: its input brings its own constant,

    ũ = (m_1 u_1, …, m_p u_p, μ(m)),

and every gradient follows: ∂L/∂W_ij = δ_i m_j u_j and ∂L/∂b_i = δ_i μ(m). A sensor that is silent teaches its synapses
exactly nothing, and in a blackout the biases of the first layer learn nothing either. What learns with inertia goes on
moving by it: it is the forces that stop.

References
----------
Kia et al., *PROMISSING: Pruning Missing Values in Neural Networks*, 2022, arXiv:2206.01640, for one layer; its use in
networks whose learning is a flow is derived here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlsim.core.system import Held, Inputs, Piece, Signal, interval_after
from nlsim.systems.backprop import required_input
from nlsim.systems.masked.layer import gate, observed_fraction
from nlsim.systems.masked.shares import check_shares


def gated_input(inputs: Inputs) -> Inputs:
    """Return the inputs of a network without biases: m ⊙ u, and no mask. Cost: one pass over the input."""
    given = required_input(inputs)
    return replace(inputs, input=given if inputs.mask is None else gate(given, inputs.mask), mask=None)


def with_constant(inputs: Inputs, shares: Tensor | None = None) -> Inputs:
    """Return the inputs of a network with biases: (m ⊙ u, μ(m)), shape ``(..., sample, input + 1)``, and no mask.

    Inputs without a mask are complete: μ = 1. Cost: one pass over the input.

    Parameters
    ----------
    inputs : Inputs
        u, shape ``(..., sample, input)``, with its mask.
    shares : Tensor or None
        π, shape ``(input,)``, ≥ 0 with sum 1: μ = Σ_j π_j m_j; 1/p each by default.
    """
    given = required_input(inputs)
    if inputs.mask is None:
        gated, fraction = given, torch.ones_like(given[..., :1])
    else:
        gated = gate(given, inputs.mask)
        fraction = observed_fraction(inputs.mask.expand(gated.shape), gated.dtype, shares)
    return replace(inputs, input=torch.cat((gated, fraction), -1), mask=None)


@dataclass(frozen=True, eq=False)
class GatedSignal:
    """A masked signal as a network takes it: the input gated, and the observed fraction as the constant of biases.

    Parameters
    ----------
    signal : Signal
        u(t), z(t) and m(t), such as a :class:`~nlsim.systems.masked.signal.MaskedSignal`.
    has_bias : bool
        Whether the network has biases; without them there is no share to take away.
    shares : Tensor or None
        π, shape ``(input,)``, ≥ 0 with sum 1: how much of the biases each input carries; 1/p each by default. See
        :func:`~nlsim.systems.masked.shares.group_shares`.

    Raises
    ------
    NlsimError
        For shares that are none.
    """

    signal: Signal
    has_bias: bool = True
    shares: Tensor | None = None

    def __post_init__(self) -> None:
        if self.shares is not None:
            check_shares(self.shares, required_input(self.signal.piece(0.0)(0.0)).shape[-1])

    def edge_after(self, t: float) -> float:
        """Return the next edge of the signal."""
        return self.signal.edge_after(t)

    def interval_after(self, t: float) -> float:
        """Return the end of the signal's interval."""
        return interval_after(self.signal, t)

    def piece(self, t: float) -> Piece:
        """Return the signal's piece with its constant; held where it is held."""
        inner = self.signal.piece(t)
        if isinstance(inner, Held):
            return Held(self._take(inner.inputs))
        return lambda now: self._take(inner(now))

    def _take(self, inputs: Inputs) -> Inputs:
        return with_constant(inputs, self.shares) if self.has_bias else gated_input(inputs)
