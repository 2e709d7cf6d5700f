"""What a model would say if it did not know: effects of removing inputs, what flips a decision, and Shapley values.

A model is any function f(x, m) → outputs of shape ``(sample, output)`` that answers for every mask, such as a network
whose first layer is a :class:`~nlsim.systems.masked.module.MaskedLinear`. To remove inputs is to clear their part of
the mask; nothing is put in their place.

In a masked neuron a(m) = Σ_j m_j c_j + w_c with c_j = w_j x_j + (b − w_c) π_j, so removing S changes a by exactly
Σ_{j∈S} c_j, and c_j is the Shapley value of input j. Through a nonlinear network effects of single inputs do not add
up; Shapley values do, Σ_j φ_j = f(m) − f(∅), by any number of permutations.

*Players* are the sets of inputs that come and go together: single inputs by default, or modalities.

References
----------
Shapley, *A value for n-person games*, 1953; Štrumbelj and Kononenko, *Knowledge and Information Systems* 2014, for
sampling permutations. The reading of missing inputs as counterfactuals is that of Kia et al., 2022, arXiv:2206.01640.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.errors import NlsimError
from nlsim.systems.masked.layer import as_number, gate

Model = Callable[[Tensor, Tensor], Tensor]
"""``f(values, mask) -> outputs``: ``(sample, input)`` twice to ``(sample, output)``."""

Players = Sequence[Sequence[int]]
"""Sets of inputs, none in two of them."""


def contributions(
    values: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    compensation: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """Return m_j c_j, c_j = w_j x_j + π_j (b − w_c): what each input adds to a masked neuron.

    They sum up to a(m) − a(∅), where a(∅) is w_c, or 0 without it, and are its Shapley values, for any m.

    Parameters
    ----------
    values, mask : Tensor
        x and m, shape ``(sample, input)``; missing slots may hold anything.
    weight, bias, compensation, shares : Tensor
        W, b, w_c and π, as :func:`~nlsim.systems.masked.layer.masked_affine` takes them: shapes
        ``(neuron, input)``, ``(neuron,)``, ``(neuron,)``, ``(input,)``.

    Returns
    -------
    Tensor
        Shape ``(sample, neuron, input)``.
    """
    number = as_number(mask, values.dtype).expand(values.shape)
    constant = weight.new_zeros(weight.shape[0])
    for each, sign in ((bias, 1.0), (compensation, -1.0)):
        constant = constant if each is None else constant + sign * each
    part = torch.full_like(weight[0], 1.0 / weight.shape[-1]) if shares is None else shares
    own = gate(values, number).unsqueeze(-2) * weight
    return own + number.unsqueeze(-2) * constant.unsqueeze(-1) * part


def without(mask: Tensor, removed: Sequence[int]) -> Tensor:
    """Return m∖S, a copy of the mask with these inputs missing."""
    left = mask.clone()
    left[..., list(removed)] = 0
    return left


def removal_effect(model: Model, values: Tensor, mask: Tensor, removed: Sequence[int]) -> Tensor:
    """Return Δ_S = f(x, m) − f(x, m∖S), shape ``(sample, output)``: what knowing x_S adds to the outputs."""
    return model(values, mask) - model(values, without(mask, removed))


def margin(outputs: Tensor, choice: Tensor) -> Tensor:
    """Return by how much outputs speak for a choice, shape ``(sample,)``.

    Parameters
    ----------
    outputs : Tensor
        Shape ``(sample, output)``: logits of the classes, or one logit, of the second of two.
    choice : Tensor
        Index of a class, shape ``(sample,)``.
    """
    if outputs.shape[-1] == 1:
        return torch.where(choice == 1, outputs[..., 0], -outputs[..., 0])
    own = outputs.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
    others = outputs.scatter(-1, choice.unsqueeze(-1), -math.inf)
    return own - others.amax(-1)


def decision(outputs: Tensor) -> Tensor:
    """Return the class that outputs speak for, shape ``(sample,)``; one output decides by its sign."""
    return (outputs[..., 0] > 0).long() if outputs.shape[-1] == 1 else outputs.argmax(-1)


@dataclass(frozen=True)
class Flip:
    """How removing inputs one after another undid a decision.

    Attributes
    ----------
    choice : int
        The class decided for with all that was observed.
    removed : tuple of int
        Players removed, in this order.
    margins : tuple of float
        Margin of the choice before, and after each removal.
    """

    choice: int
    removed: tuple[int, ...]
    margins: tuple[float, ...]

    @property
    def is_flipped(self) -> bool:
        """Whether another class won."""
        return self.margins[-1] < 0

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is left that speaks for either side."""
        return self.margins[-1] == 0


def smallest_flip(model: Model, values: Tensor, mask: Tensor, players: Players | None = None) -> Flip:
    """Remove, one by one, the player whose loss hurts the decision most, until it is flipped or neutral.

    Greedy, so the set need not be the smallest there is; in a single masked neuron it is. Cost: at most P rounds of
    one batch of up to P samples, for P players.

    Parameters
    ----------
    model : callable
        f.
    values, mask : Tensor
        x and m of one sample, shape ``(input,)``.
    players : sequence, optional
        Which inputs go together; those with nothing observed are left out.
    """
    sets = _sets(mask, players)
    here = model(values[None], mask[None])
    choice = decision(here)
    margins, removed, left = [float(margin(here, choice)[0])], list[int](), list(range(len(sets)))
    left = [k for k in left if bool((mask[list(sets[k])] > 0).any())]
    now = mask
    while left and margins[-1] > 0:
        masks = torch.stack([without(now, sets[k]) for k in left])
        after = margin(model(values.expand(masks.shape), masks), choice.expand(len(left)))
        worst = int(after.argmin())
        margins.append(float(after[worst]))
        now = masks[worst]
        removed.append(left.pop(worst))
    return Flip(int(choice[0]), tuple(removed), tuple(margins))


MAX_PLAYERS = 16
"""Enumeration asks for 2^P answers: 65 536 of them."""


def shapley_by_enumeration(model: Model, values: Tensor, mask: Tensor, players: Players | None = None) -> Tensor:
    """Return exact Shapley values φ_j = Σ_{S∌j} |S|! (P − |S| − 1)!/P! (f(S ∪ j) − f(S)).

    Parameters
    ----------
    model : callable
        f, asked once for a batch of all 2^P masks.
    values, mask : Tensor
        x and m of one sample, shape ``(input,)``. A player with nothing observed has the value 0.
    players : sequence, optional
        Which inputs go together.

    Returns
    -------
    Tensor
        Shape ``(player, output)``; Σ_j φ_j = f(x, m) − f(x, ∅), where ∅ keeps what belongs to no player.

    Raises
    ------
    NlsimError
        For more than 16 players.
    """
    sets = _sets(mask, players)
    count = len(sets)
    if count > MAX_PLAYERS:
        raise NlsimError(
            "Enumeration of this many players would not end soon.",
            where="players",
            given=count,
            allowed=f"at most {MAX_PLAYERS}",
            advice="Group inputs into players, or use shapley_by_permutation.",
        )
    codes = torch.arange(2**count, device=mask.device)
    joined = (codes[:, None] >> torch.arange(count, device=mask.device)) & 1
    masks = _masks(mask, sets, joined.bool())
    outputs = model(values.expand(masks.shape), masks)
    size = joined.sum(-1)
    chances = [1.0 / (count * math.comb(count - 1, k)) for k in range(count)]
    chance = outputs.new_tensor(chances)
    rows = []
    for player in range(count):
        absent = codes[joined[:, player] == 0]
        gains = outputs[absent + 2**player] - outputs[absent]
        rows.append((chance[size[absent], None] * gains).sum(0))
    return torch.stack(rows)


def shapley_by_permutation(
    model: Model,
    values: Tensor,
    mask: Tensor,
    players: Players | None = None,
    *,
    permutations: int = 100,
    seed: int = 0,
) -> Tensor:
    """Return Shapley values estimated from random orders in which players are revealed.

    Every order is followed to its end and then backwards, so the estimates sum up to f(x, m) − f(x, ∅) to round-off
    whatever their number; each is unbiased, and exact where gains do not depend on the order.

    Parameters
    ----------
    model, values, mask, players
        As for :func:`shapley_by_enumeration`.
    permutations : int
        N ≥ 1 orders; 2 N (P + 1) answers are asked for in one batch.
    seed : int
        Of the orders.
    """
    sets = _sets(mask, players)
    count = len(sets)
    if permutations < 1:
        raise NlsimError("Sampling needs an order.", where="permutations", given=permutations, allowed="1 or more")
    draw = generator(seed, "order of players")
    forwards = np.stack([draw.permutation(count) for _ in range(permutations)])
    orders = torch.as_tensor(np.concatenate((forwards, forwards[:, ::-1])), device=mask.device)
    place = orders.argsort(-1)  # when each player comes
    joined = place[:, None, :] < torch.arange(count + 1, device=mask.device)[:, None]
    masks = _masks(mask, sets, joined.flatten(0, 1))
    outputs = model(values.expand(masks.shape), masks).reshape(*joined.shape[:2], -1)
    gains = outputs.diff(dim=1)  # (order, step, output)
    steps = place.unsqueeze(-1).expand(*place.shape, gains.shape[-1])
    mean: Tensor = gains.gather(1, steps).mean(0)
    return mean


def _sets(mask: Tensor, players: Players | None) -> Players:
    """Return the players, single inputs by default, or refuse sets that overlap or reach beyond the inputs."""
    count = mask.shape[-1]
    if players is None:
        return [(j,) for j in range(count)]
    members = [j for each in players for j in each]
    if len(set(members)) != len(members) or any(not 0 <= j < count for j in members) or not all(map(len, players)):
        raise NlsimError(
            "Players are sets of inputs that do not overlap.",
            where="players",
            given=[list(each) for each in players],
            allowed=f"inputs 0 to {count - 1}, each at most once, no empty set",
        )
    return players


def _masks(mask: Tensor, sets: Players, joined: Tensor) -> Tensor:
    """Return the mask with only those players that joined; joined has the shape ``(case, player)``."""
    belongs = torch.zeros(len(sets), mask.shape[-1], dtype=torch.bool, device=mask.device)
    for row, each in enumerate(sets):
        belongs[row, list(each)] = True
    absent = (~joined).float() @ belongs.float() > 0
    return torch.where(absent, torch.zeros_like(mask), mask)
