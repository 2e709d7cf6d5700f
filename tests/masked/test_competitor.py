"""First-layer rules: their closed forms, what they do when nothing is seen, and what they must not look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.errors import NlsimError
from nlsim.systems.masked.competitor import RULES
from nlsim.systems.masked.imputation import Standardised
from nlsim.systems.masked.mechanism import MissingEntries

ROWS, INPUTS, NEURONS = 60, 5, 3
TABLE = generator(1, "table").normal(2.0, 3.0, (ROWS, INPUTS)) @ generator(2, "mix").normal(size=(INPUTS, INPUTS))
MASK = MissingEntries(0.3).observed(TABLE, seed=3)
UNSEEN = generator(4, "unseen").normal(2.0, 3.0, (ROWS, INPUTS))
UNSEEN_MASK = MissingEntries(0.5).observed(UNSEEN, seed=5)


def layer_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = RULES[name].layer(INPUTS, NEURONS).double()
    with torch.no_grad():  # the constant of mPROMISSING starts at 0
        for each in layer.parameters():
            each.normal_()
    return layer


def answer(name: str, inputs: np.ndarray, mask: np.ndarray, layer: torch.nn.Module | None = None) -> Tensor:
    features, shown = RULES[name].prepare(TABLE, MASK)(inputs, mask)
    with torch.no_grad():
        return (layer or layer_of(name))(torch.as_tensor(features), torch.as_tensor(shown))


@pytest.mark.parametrize("name", RULES)
def test_what_a_missing_slot_holds_is_never_seen(name: str) -> None:
    clean = answer(name, UNSEEN, UNSEEN_MASK)
    assert torch.isfinite(clean).all()
    for junk in (np.nan, np.inf, -1e300):
        torn = np.where(MASK, TABLE, junk)
        features, shown = RULES[name].prepare(torn, MASK)(np.where(UNSEEN_MASK, UNSEEN, junk), UNSEEN_MASK)
        with torch.no_grad():
            assert torch.equal(layer_of(name)(torch.as_tensor(features), torch.as_tensor(shown)), clean)


@pytest.mark.parametrize("name", RULES)
def test_complete_rows_and_empty_rows_are_answered(name: str) -> None:
    for mask in (np.ones_like(UNSEEN_MASK), np.zeros_like(UNSEEN_MASK)):
        assert torch.isfinite(answer(name, UNSEEN, mask)).all()


def test_closed_forms() -> None:
    """Against s = Σ m w x in numpy; sums of ten products of numbers below 10: some 1e-14 of rounding."""
    standard = Standardised.fit(TABLE, MASK)
    features = np.where(UNSEEN_MASK, (UNSEEN - standard.mean) / standard.scale, 0.0)
    k = UNSEEN_MASK.sum(1, keepdims=True)
    found = {}
    for name in ("promissing", "mpromissing", "zero", "sparsity", "indicator"):
        layer = layer_of(name)
        named = {key.rpartition(".")[2]: each.detach().numpy() for key, each in layer.named_parameters()}
        s, b = features @ named["weight"][:, :INPUTS].T, named["bias"]
        if name == "promissing":
            expected = s + k / INPUTS * b
        elif name == "mpromissing":
            expected = s + k / INPUTS * b + (1 - k / INPUTS) * named["compensation"]
        elif name == "sparsity":
            expected = np.where(k > 0, INPUTS / np.maximum(k, 1) * s, 0.0) + b
        elif name == "indicator":
            expected = s + b + UNSEEN_MASK @ named["weight"][:, INPUTS:].T
        else:
            expected = s + b
        found[name] = np.abs(answer(name, UNSEEN, UNSEEN_MASK, layer).numpy() - expected).max()
    assert (k == 0).any()
    assert max(found.values()) <= 1e-13, found


def test_neumiss_iterates_the_masked_map() -> None:
    layer = layer_of("neumiss")
    named = {key: each.detach().numpy() for key, each in layer.named_parameters()}
    features, _ = RULES["neumiss"].prepare(TABLE, MASK)(UNSEEN, UNSEEN_MASK)
    rows = []
    for x, m in zip(features, UNSEEN_MASK, strict=True):
        start = np.where(m, x - named["mean"], 0.0)
        power = sum(np.linalg.matrix_power(np.diag(m) @ named["coupling"], n) for n in range(6))  # Neumann's series
        rows.append(named["dense.weight"] @ power @ start + named["dense.bias"])
    scale = np.abs(rows).max()
    # five products with a matrix of norm below 5 each: errors of 5⁵ · 5 · 1e-16 of the largest number
    assert np.abs(answer("neumiss", UNSEEN, UNSEEN_MASK).numpy() - rows).max() <= 2e-12 * scale


def test_mean_imputation_of_standardised_inputs_is_zero_imputation() -> None:
    layer = layer_of("zero")
    gap = (answer("mean", UNSEEN, UNSEEN_MASK, layer) - answer("zero", UNSEEN, UNSEEN_MASK, layer)).abs().max()
    # the mean of 60 standardised numbers is 0 to some roundings, and that is what is filled in
    assert 0 <= float(gap) <= 1e-14


def test_statistics_are_those_of_observed_training_entries() -> None:
    standard = Standardised.fit(np.where(MASK, TABLE, np.nan), MASK)
    for column in range(INPUTS):
        seen = TABLE[MASK[:, column], column]
        # two sums of 60 numbers below 30
        assert abs(standard.mean[column] - seen.mean()) <= 1e-13
        assert abs(standard.scale[column] - seen.std()) <= 1e-13


def test_columns_without_variation_or_without_entries_keep_their_scale() -> None:
    table = np.column_stack([np.full(4, 0.1), np.arange(4.0), np.arange(4.0)])
    mask = np.ones((4, 3), dtype=bool)
    mask[:, 2] = False
    standard = Standardised.fit(table, mask)
    assert standard.scale[0] == 1.0
    assert (standard.mean[2], standard.scale[2]) == (0.0, 1.0)
    for name in RULES:
        features, _ = RULES[name].prepare(table, mask)(table, mask)
        assert features.shape == table.shape
        assert np.isfinite(features).all()


def test_neighbours_and_regression_fill_in_what_columns_tell_of_each_other() -> None:
    """Fitted to a complete table, so both have a closed form: five nearest rows, and ridge regression in turns."""
    complete = np.ones_like(MASK)
    standard = Standardised.fit(TABLE, complete)
    known, _ = standard(TABLE, complete)
    hidden = UNSEEN[0].copy()
    hidden[1] = np.nan
    seen = np.delete((hidden - standard.mean) / standard.scale, 1)
    others, column = np.delete(known, 1, 1), known[:, 1]
    nearest = np.argsort(((others - seen) ** 2).sum(1))[:5]
    slopes = np.linalg.solve(others.T @ others + np.eye(4), others.T @ column)
    expected = {"knn": column[nearest].mean(), "iterative": seen @ slopes, "mean": 0.0}
    for name, value in expected.items():
        features, shown = RULES[name].prepare(TABLE, complete)(hidden[None], ~np.isnan(hidden[None]))
        assert shown.all()
        # a solution of four equations with a condition number below 1000 and numbers below 10
        assert abs(features[0, 1] - value) <= 1e-11, name
    assert abs(expected["iterative"] - expected["knn"]) > 0.01  # three different answers
    assert min(abs(expected["iterative"]), abs(expected["knn"])) > 0.01


def test_regression_goes_round_where_several_columns_are_missing() -> None:
    """Columns 1 and 2 are twice and three times column 0: the rounds settle near it."""
    draw = generator(6, "line").normal(size=300)
    table = np.column_stack([draw, 2 * draw, 3 * draw])
    mask = MissingEntries(0.2).observed(table, seed=1)
    hidden = np.array([[1.5, np.nan, np.nan]])
    features, _ = RULES["iterative"].prepare(table, mask)(hidden, ~np.isnan(hidden))
    found = features * Standardised.fit(table, mask).scale + Standardised.fit(table, mask).mean
    assert np.abs(found - [1.5, 3.0, 4.5]).max() < 0.2  # rows with nothing observed, 1 in 100, and the penalty shrink


def test_a_rule_is_fitted_without_labels_and_to_training_alone() -> None:
    for name, rule in RULES.items():
        one = rule.prepare(TABLE, MASK)
        features, _ = one(UNSEEN, UNSEEN_MASK)
        alone, _ = one(UNSEEN[:1], UNSEEN_MASK[:1])
        assert np.abs(features[:1] - alone).max() <= 1e-12, name  # other test rows play no part


def test_mistakes_are_refused() -> None:
    with pytest.raises(NlsimError, match="does not fit"):
        Standardised.fit(TABLE, MASK[:, :2])
    with pytest.raises(NlsimError, match="~isnan"):
        Standardised.fit(np.full_like(TABLE, np.nan), MASK)
