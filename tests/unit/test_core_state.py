"""States as trees of tensors: names, copies, norms, and which tensor went bad."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_same_bits
from support.learning import make_network, make_state

from nlsim.core.state import clone, first_bad_leaf, leaves, map_leaves, named_leaves, norm, rebuild


@pytest.fixture
def state():
    return make_state(make_network(), 2)


def test_layers_are_named_from_one(state):
    names = [name for name, _ in named_leaves(state)]
    fields = ("activity", "weight", "costate", "weight_costate")
    assert names == [f"{field}/{layer}" for field in fields for layer in (1, 2, 3)]


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (torch.zeros(1), ["state"]),
        ((torch.zeros(1), torch.zeros(1)), ["1", "2"]),
        ({"q": torch.zeros(1), "p": torch.zeros(1)}, ["q", "p"]),
    ],
    ids=["tensor", "tuple", "dict"],
)
def test_bare_trees_are_states_too(tree, names):
    assert [name for name, _ in named_leaves(tree)] == names


def test_rebuild_undoes_leaves(state):
    assert_same_bits(rebuild(state, leaves(state)), state)


def test_clone_shares_no_memory(state):
    copy = clone(state)
    assert_same_bits(copy, state)
    pairs = zip(leaves(copy), leaves(state), strict=True)
    assert all(mine.data_ptr() != theirs.data_ptr() for mine, theirs in pairs)


def test_map_leaves_pairs_corresponding_tensors(state):
    doubled = map_leaves(torch.add, state, state)
    assert_same_bits(doubled, map_leaves(lambda leaf: 2 * leaf, state))


def test_norm_is_euclidean_over_everything(state):
    expected = math.sqrt(math.fsum(float(v) ** 2 for leaf in leaves(state) for v in leaf.flatten()))
    assert float(norm(state)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("field", "layer"), [("activity", 1), ("weight", 2), ("costate", 3), ("weight_costate", 1)])
def test_the_bad_tensor_is_named(state, field, layer, bad):
    assert first_bad_leaf(state) is None
    getattr(state, field)[layer - 1][-1, -1] = bad
    assert first_bad_leaf(state) == f"{field}/{layer}"


def test_opposite_infinities_are_still_bad(state):
    state.weight[0][0, 0], state.weight[0][0, 1] = math.inf, -math.inf
    assert first_bad_leaf(state) == "weight/1"


def test_finite_entries_whose_sum_overflows_are_not_bad():
    assert first_bad_leaf((torch.full((4,), 1e308, dtype=torch.float64),)) is None
    assert first_bad_leaf((torch.full((4,), 3e38, dtype=torch.float32),)) is None


def test_the_first_of_several_is_named(state):
    state.weight[1][0, 0] = math.nan
    state.costate[0][0, 0] = math.nan
    assert first_bad_leaf(state) == "weight/2"


def test_states_are_frozen(state):
    with pytest.raises(AttributeError):
        state.weight = ()
