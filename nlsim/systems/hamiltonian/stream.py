"""Reversed streaming: backpropagation through time as a forward run of the costates.

The n tokens of a sequence are streamed forward, the states kept; then they are streamed in reverse while
the costates run on, the weights held (β = 0) until the end (Melacci et al., eq. 26–27). With ψ = n − j the
index of the stored state that step j of the reverse stream is at, s = −1,

    z ← z + τ (φ ∂L(h_ψ)/∂h + c (∂f̂/∂h)ᵀ z − c z − η z),    f̂ and its derivative at (u_ψ, h_ψ)
    ω ← ω + τ (c (∂f̂/∂θ)ᵀ z − η ω),                         the derivative at (u_{ψ−1}, h_{ψ−1})

and at c τ = 1 the bracket of z is zᵀ ∂h_{ψ+1}/∂h_ψ. For η = 0 and φ = 1/τ the final ω is the gradient of the
summed loss, at every c τ: it is that of the leaky network h⁺ = h + τc (f̂ − h) where c τ < 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.hamiltonian.problem import LearningState, align
from nlsim.systems.hamiltonian.robust import HamiltonianLearning
from nlsim.systems.hamiltonian.transition import Tensors
from nlsim.systems.network import Constant


@dataclass(frozen=True)
class ReverseStep:
    """Where the reverse stream is.

    Attributes
    ----------
    index : int
        ψ, the stored state it was at.
    costate : tuple of Tensor
        z.
    weight_costate : tuple of Tensor
        ω.
    """

    index: int
    costate: Tensors
    weight_costate: Tensors


def stored_index(step: int, count: int) -> int:
    """Return ψ = n − j: the stored state h_ψ that step j = 0 … n − 1 of the reverse stream is at."""
    return count - step


def stream_forward(
    learning: HamiltonianLearning, weights: Tensors, stream: Sequence[Inputs], start: Tensors, *, tau: float
) -> tuple[Tensors, ...]:
    """Return the states h_0 … h_n of a stream of n tokens, by Euler steps τ of dh/dt = c (f̂ − h).

    Parameters
    ----------
    learning : HamiltonianLearning
        The network and its speeds.
    weights : tuple of Tensor
        θ, held.
    stream : sequence of Inputs
        u_0 … u_{n−1}.
    start : tuple of Tensor
        h_0, part by part ``(..., sample, neuron)``.
    tau : float
        Length of a step [time].
    """
    stored = [start]
    for index, inputs in enumerate(stream):
        rates = learning.rates_at(index * tau)
        proposed = learning.network.propose(weights, inputs, stored[-1]).value
        steps = zip(stored[-1], proposed, rates, strict=True)
        stored.append(tuple(torch.lerp(h, f, tau * c) for h, f, c in steps))
    return tuple(stored)


def stream_reverse(
    learning: HamiltonianLearning,
    weights: Tensors,
    stream: Sequence[Inputs],
    stored: Sequence[Tensors],
    *,
    tau: float,
    length: int | None = None,
) -> Iterator[ReverseStep]:
    """Stream tokens in reverse from the last stored state, yielding z and ω after each step.

    Tokens without a target are not scored. Cost: one forward pass a token and three matrix products a layer.

    Parameters
    ----------
    learning : HamiltonianLearning
        Networks, loss, η and φ; β is not used. Schedules are asked at the time of the token; φ multiplies
        the regulariser too, once a scored token.
    weights : tuple of Tensor
        θ, held.
    stream : sequence of Inputs
        The tokens in their forward order; the target of token k − 1 scores h_k.
    stored : sequence of tuple of Tensor
        h_0 … h_n as :func:`stream_forward` returns them.
    tau : float
        Length of a step [time].
    length : int, optional
        How many tokens to stream in reverse, 1 to n (by default all): truncated backpropagation through
        time of this length, at 1 that of a feed-forward network.

    Raises
    ------
    NlsimError
        When there is not one stored state more than tokens, or the length is out of range.
    """
    count = len(stream)
    if len(stored) != count + 1:
        raise NlsimError(
            "The stored states do not belong to the stream.",
            where="stored",
            given=f"{len(stored)} states",
            allowed=f"{count + 1}: the initial one and one a token",
        )
    if length is not None and not 1 <= length <= count:
        raise NlsimError("The length is out of range.", where="length", given=length, allowed=f"1 to {count}")
    return _reverse(learning, weights, stream, stored, tau, count if length is None else length)


def _reverse(
    learning: HamiltonianLearning,
    weights: Tensors,
    stream: Sequence[Inputs],
    stored: Sequence[Tensors],
    tau: float,
    length: int,
) -> Iterator[ReverseStep]:
    eta, count = align(learning.constants.eta), len(stream)
    omega = tuple(torch.zeros_like(w) for w in weights)
    costate = pulled = tuple(torch.zeros_like(h) for h in stored[-1])
    later_rates: tuple[Constant, ...] = (0.0,) * len(costate)  # of the step from h_ψ to h_ψ+1; none from h_n
    for step in range(length):
        index = stored_index(step, count)
        t, inputs = (index - 1) * tau, stream[index - 1]
        rates, passed = learning.rates_at(t), learning.network.propose(weights, inputs, stored[index - 1])
        costate = tuple(
            (1 - tau * (c + eta)) * z + tau * b for c, z, b in zip(later_rates, costate, pulled, strict=True)
        )
        if inputs.target is None:
            output_forces = tuple(torch.zeros_like(w) for w in learning.network.split(weights)[1])
        else:
            at = LearningState(stored[index], weights, costate, omega)
            injected, output_forces = learning.loss_forces(t, at, inputs)
            costate = tuple(z + tau * q for z, q in zip(costate, injected, strict=True))
        driven = tuple(c * z for c, z in zip(rates, costate, strict=True))
        forces = (*passed.to_weight(driven), *output_forces)
        if inputs.target is not None:
            forces = learning.with_regulariser(t, forces, weights)
        omega = tuple((1 - tau * eta) * old + tau * force for old, force in zip(omega, forces, strict=True))
        yield ReverseStep(index, costate, omega)
        pulled, later_rates = passed.to_activity(driven), rates


def learn_sequence(
    learning: HamiltonianLearning,
    state: LearningState,
    stream: Sequence[Inputs],
    *,
    tau: float,
    length: int | None = None,
) -> LearningState:
    """Return the state after a sequence: streamed forward and in reverse, then one step −τ β ω of the weights.

    At η = 0, φ = 1/τ that is a step of gradient descent with learning rate τ β along the gradient of
    (truncated) backpropagation through time. The costates start at 0 whatever they were.

    Parameters
    ----------
    learning, stream, tau, length
        As in :func:`stream_reverse`.
    state : LearningState
        h_0 and θ.

    Returns
    -------
    LearningState
        h_n, the new θ, and z and ω as the reverse stream left them.
    """
    stored = stream_forward(learning, state.weight, stream, state.activity, tau=tau)
    *_, last = stream_reverse(learning, state.weight, stream, stored, tau=tau, length=length)
    beta = align(learning.constants.beta)
    weight = tuple(w - (tau * beta) * omega for w, omega in zip(state.weight, last.weight_costate, strict=True))
    return LearningState(stored[-1], weight, last.costate, last.weight_costate)
