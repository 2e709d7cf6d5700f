"""Counterfactuals: exact in the first layer, complete through a network."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.learning import draw
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.systems.masked.counterfactual import (
    contributions,
    decision,
    margin,
    removal_effect,
    shapley_by_enumeration,
    shapley_by_permutation,
    smallest_flip,
    without,
)
from nlsim.systems.masked.layer import masked_affine

INPUTS, NEURONS, SAMPLES = 5, 4, 3
WEIGHT, BIAS, LEVEL = draw(1, NEURONS, INPUTS, low=-2.0, high=2.0), draw(2, NEURONS), draw(3, NEURONS, low=-1.0)
VALUES = draw(4, SAMPLES, INPUTS, low=-2.0, high=2.0)
MASK = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 0, 1]], dtype=torch.bool)
SHARES = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64)
READ_OUT = draw(5, 3, NEURONS, low=-2.0, high=2.0)
ROUND_OFF = 2e-14  # sums of at most 2⁵ terms below 10


def layer(values: Tensor, mask: Tensor) -> Tensor:
    return masked_affine(values, mask, WEIGHT, BIAS)


def network(values: Tensor, mask: Tensor) -> Tensor:
    return torch.tanh(layer(values, mask)) @ READ_OUT.mT + 0.3


def by_orders(model, values: Tensor, mask: Tensor) -> Tensor:
    """Average the gain of each input over all 120 orders: the definition, without a weight of a subset."""
    gains = []
    for order in itertools.permutations(range(INPUTS)):
        seen, row = torch.zeros_like(mask), [None] * INPUTS
        for j in order:
            more = seen.clone()
            more[j] = mask[j]
            row[j] = (model(values[None], more[None]) - model(values[None], seen[None]))[0]
            seen = more
        gains.append(torch.stack(row))
    return torch.stack(gains).mean(0)


@pytest.mark.parametrize("level", [None, LEVEL], ids=["promissing", "mpromissing"])
@pytest.mark.parametrize("shares", [None, SHARES], ids=["equal", "shares"])
def test_removing_a_set_changes_a_neuron_by_the_sum_of_its_contributions(level, shares) -> None:
    def model(values: Tensor, mask: Tensor) -> Tensor:
        return masked_affine(values, mask, WEIGHT, BIAS, compensation=level, shares=shares)

    torn = VALUES.masked_fill(~MASK, float("nan"))
    parts = contributions(torn, MASK, WEIGHT, BIAS, compensation=level, shares=shares)
    assert parts.shape == (SAMPLES, NEURONS, INPUTS)
    for size in range(INPUTS + 1):
        for removed in itertools.combinations(range(INPUTS), size):
            effect = removal_effect(model, torn, MASK, removed)
            assert (effect - parts[..., list(removed)].sum(-1)).abs().max() <= ROUND_OFF
    nothing = torch.zeros(NEURONS, dtype=torch.float64) if level is None else level
    assert (parts.sum(-1) + nothing - model(torn, MASK)).abs().max() <= ROUND_OFF


def test_contributions_of_soft_masks_and_without_a_bias() -> None:
    soft = draw(6, SAMPLES, INPUTS)
    parts = contributions(VALUES, soft, WEIGHT, BIAS)
    assert (parts.sum(-1) - masked_affine(VALUES, soft, WEIGHT, BIAS)).abs().max() <= ROUND_OFF
    bare = contributions(VALUES, MASK, WEIGHT)
    assert (bare - MASK[:, None] * WEIGHT * VALUES[:, None]).abs().max() <= ROUND_OFF


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_shapley_values_of_a_network_are_averages_over_all_orders(sample: int) -> None:
    x, m = VALUES[sample], MASK[sample]
    exact = shapley_by_enumeration(network, x, m)
    assert exact.shape == (INPUTS, 3)
    assert (exact - by_orders(network, x, m)).abs().max() <= ROUND_OFF
    assert (exact[~m] == 0).all()
    whole = network(x[None], m[None]) - network(x[None], torch.zeros_like(m)[None])
    assert (exact.sum(0) - whole[0]).abs().max() <= ROUND_OFF


def test_effects_of_single_inputs_do_not_add_up_through_a_network() -> None:
    x, m = VALUES[1], MASK[1]
    whole = (network(x[None], m[None]) - network(x[None], torch.zeros_like(m)[None]))[0]
    singles = sum(removal_effect(network, x[None], m[None], (j,))[0] for j in range(INPUTS))
    assert (singles - whole).abs().max() > 0.1


def test_sampled_orders_are_complete_and_come_close() -> None:
    x, m = VALUES[1], MASK[1]
    exact = shapley_by_enumeration(network, x, m)
    whole = (network(x[None], m[None]) - network(x[None], torch.zeros_like(m)[None]))[0]
    for permutations in (1, 7, 400):
        sampled = shapley_by_permutation(network, x, m, permutations=permutations, seed=2)
        assert (sampled.sum(0) - whole).abs().max() <= ROUND_OFF
    # a gain lies within the range of the outputs over all masks; 400 pairs of orders: five standard errors
    masks = torch.tensor(list(itertools.product((False, True), repeat=INPUTS)))
    outputs = network(x.expand(masks.shape), masks)
    spread = float((outputs.amax(0) - outputs.amin(0)).max())
    assert 0 < (sampled - exact).abs().max() <= 5 * spread / math.sqrt(400)
    assert torch.equal(sampled, shapley_by_permutation(network, x, m, permutations=400, seed=2))


def test_one_order_is_enough_in_the_first_layer() -> None:
    parts = contributions(VALUES, MASK, WEIGHT, BIAS)
    for sample in range(SAMPLES):
        x, m = VALUES[sample], MASK[sample]
        for found in (shapley_by_enumeration(layer, x, m), shapley_by_permutation(layer, x, m, permutations=1)):
            assert (found - parts[sample].mT).abs().max() <= ROUND_OFF


def test_players_are_sets_of_inputs() -> None:
    players = ((0, 3), (1,), (2, 4))
    x, m = VALUES[1], MASK[1]
    parts = contributions(x[None], m[None], WEIGHT, BIAS)[0].mT
    together = torch.stack([parts[list(each)].sum(0) for each in players])
    assert (shapley_by_enumeration(layer, x, m, players) - together).abs().max() <= ROUND_OFF
    found = shapley_by_permutation(network, x, m, players, permutations=3)
    whole = (network(x[None], m[None]) - network(x[None], torch.zeros_like(m)[None]))[0]
    assert (found.sum(0) - whole).abs().max() <= ROUND_OFF
    some = shapley_by_enumeration(network, x, m, players[:2])  # inputs of no player are always known
    kept = (network(x[None], m[None]) - network(x[None], without(m, (0, 1, 3))[None]))[0]
    assert (some.sum(0) - kept).abs().max() <= ROUND_OFF


def one_neuron(values: Tensor, mask: Tensor) -> Tensor:
    return masked_affine(values, mask, torch.ones(1, values.shape[-1], dtype=torch.float64))


def test_the_smallest_flip_of_one_neuron_is_the_smallest_there_is() -> None:
    for seed in range(30):
        x = draw(seed, 6, low=-1.0, high=1.5)
        full = torch.ones(6, dtype=torch.bool)
        flip = smallest_flip(one_neuron, x, full)
        sign = 1.0 if x.sum() > 0 else -1.0
        assert flip.choice == (x.sum() > 0)
        assert flip.margins[0] == pytest.approx(abs(float(x.sum())), abs=ROUND_OFF)
        undone = [
            size
            for size in range(7)
            for kept in itertools.combinations(range(6), 6 - size)
            if sign * float(x[list(kept)].sum()) <= 0
        ]
        assert len(flip.removed) == min(undone)
        assert flip.is_flipped or flip.is_neutral
        assert (sign * x[list(flip.removed)] > 0).all()


def test_a_decision_all_inputs_agree_on_ends_neutral() -> None:
    x = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    flip = smallest_flip(one_neuron, x, torch.ones(3, dtype=torch.bool))
    assert flip.removed == (1, 2, 0)
    assert flip.margins == (3.5, 1.5, 0.5, 0.0)
    assert (flip.is_neutral, flip.is_flipped) == (True, False)


def test_a_flip_with_players_and_missing_inputs() -> None:
    x = torch.tensor([3.0, -1.0, -1.0, 9.0], dtype=torch.float64)
    mask = torch.tensor([True, True, True, False])
    flip = smallest_flip(one_neuron, x, mask, ((1, 2), (3,), (0,)))
    assert flip.removed == (2,)  # player 1 has nothing observed, player 0 speaks against
    assert flip.margins == (1.0, -2.0)
    assert flip.is_flipped


def test_a_decision_that_no_removal_undoes_ends_with_nothing_known() -> None:
    def sure(values: Tensor, mask: Tensor) -> Tensor:
        return 2.0 + one_neuron(values, mask)

    x = torch.tensor([-1.0, 9.0], dtype=torch.float64)
    flip = smallest_flip(sure, x, torch.tensor([True, False]))
    assert flip.removed == (0,)  # not input 1, which is missing as it is
    assert flip.margins == (1.0, 2.0)
    assert (flip.is_flipped, flip.is_neutral) == (False, False)


def test_one_order_forwards_and_backwards_is_all_there_is_of_two_players() -> None:
    x, m, players = VALUES[1], MASK[1], ((0, 3), (1, 2, 4))
    sampled = shapley_by_permutation(network, x, m, players, permutations=1)
    assert (sampled - shapley_by_enumeration(network, x, m, players)).abs().max() <= ROUND_OFF


def test_margins_and_decisions() -> None:
    outputs = torch.tensor([[1.0, 4.0, 2.0], [0.0, -1.0, -3.0]])
    assert decision(outputs).tolist() == [1, 0]
    assert margin(outputs, decision(outputs)).tolist() == [2.0, 1.0]
    assert margin(outputs, torch.tensor([2, 2])).tolist() == [-2.0, -3.0]
    single = torch.tensor([[0.7], [-0.2]])
    assert decision(single).tolist() == [1, 0]
    assert margin(single, torch.tensor([1, 1])).tolist() == pytest.approx([0.7, -0.2])
    assert margin(single, torch.tensor([0, 0])).tolist() == pytest.approx([-0.7, 0.2])


@pytest.mark.parametrize("players", [((0,), (0,)), ((5,),), ((-1,),), ((),)])
def test_players_that_are_none_are_refused(players) -> None:
    with pytest.raises(NlsimError, match="do not overlap"):
        shapley_by_enumeration(layer, VALUES[0], MASK[0], players)


def test_too_many_players_and_no_orders_are_refused() -> None:
    with pytest.raises(NlsimError, match="shapley_by_permutation"):
        shapley_by_enumeration(one_neuron, draw(1, 17), torch.ones(17, dtype=torch.bool))
    with pytest.raises(NlsimError, match="1 or more"):
        shapley_by_permutation(layer, VALUES[0], MASK[0], permutations=0)
