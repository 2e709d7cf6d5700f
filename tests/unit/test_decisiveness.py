"""Measures of decisiveness and calibration against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import log_loss as their_log_loss

from nlsim.analysis.calibration import accuracy, expected_calibration_error, log_loss, reliability
from nlsim.analysis.decisiveness import (
    both_classes,
    mean_confidence,
    mean_distance_from_half,
    normalised_entropy,
    probabilities,
)
from nlsim.core.randomness import generator

ROUND_OFF = 1e-14  # some ten roundings of numbers below 3
RANDOM = generator(1, "simplex").dirichlet(np.full(4, 0.5), size=(3, 50))
LABELS = generator(2, "labels").integers(4, size=50)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_undecided_and_decided(classes: int) -> None:
    uniform, sure = np.full((7, classes), 1 / classes), np.eye(classes)
    assert abs(mean_confidence(uniform) - 1 / classes) <= ROUND_OFF
    assert abs(normalised_entropy(uniform) - 1) <= ROUND_OFF
    assert (mean_confidence(sure), normalised_entropy(sure)) == (1.0, 0.0)


def test_confidence_and_entropy_of_random_probabilities() -> None:
    by_hand = [sum(max(row) for row in each) / 50 for each in RANDOM.tolist()]
    assert np.abs(mean_confidence(RANDOM) - by_hand).max() <= ROUND_OFF
    assert np.abs(normalised_entropy(RANDOM) - entropy(RANDOM, axis=-1).mean(-1) / math.log(4)).max() <= ROUND_OFF


def test_distance_from_half() -> None:
    assert abs(mean_distance_from_half([0.5, 0.9, 0.2]) - (0 + 0.4 + 0.3) / 3) <= ROUND_OFF
    assert both_classes([0.25]).tolist() == [[0.75, 0.25]]
    p = 0.3
    expected = -(p * math.log2(p) + (1 - p) * math.log2(1 - p))  # base 2: log K = 1
    assert abs(normalised_entropy(both_classes([p])) - expected) <= ROUND_OFF


def test_accuracy_counts_right_ones_and_draws_lots_among_equals() -> None:
    p = np.array([[0.7, 0.3, 0.0], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert accuracy(p, [0, 2, 0, 1]) == pytest.approx((1 + 1 + 1 / 2 + 1 / 3) / 4, abs=ROUND_OFF)
    assert accuracy(p, [1, 0, 2, 1]) == pytest.approx((1 / 3) / 4, abs=ROUND_OFF)
    assert (accuracy(RANDOM, LABELS) == (RANDOM.argmax(-1) == LABELS).mean(-1)).all()


def test_log_loss() -> None:
    expected = [their_log_loss(LABELS, each, labels=range(4)) for each in RANDOM]
    assert np.abs(log_loss(RANDOM, LABELS) - expected).max() <= 5 * ROUND_OFF  # 50 numbers below 10
    assert abs(log_loss(np.full((5, 4), 0.25), LABELS[:5]) - math.log(4)) <= ROUND_OFF
    assert abs(log_loss([[1.0, 0.0]], [1]) - 12 * math.log(10)) <= ROUND_OFF
    assert log_loss([[1.0, 0.0]], [0]) == 0.0


def test_calibration_error_by_hand() -> None:
    """Confidences .6 (right), .7 (wrong) and .95 (right) in two bins: (0, ½] is empty, (½, 1] holds all."""
    p, y = both_classes([0.4, 0.7, 0.95]), [0, 0, 1]
    assert expected_calibration_error(p, y, bins=2) == pytest.approx(abs(2 / 3 - 2.25 / 3), abs=ROUND_OFF)
    found = reliability(p, y, bins=5)
    assert found.count.tolist() == [0, 0, 1, 1, 1]  # 0.6 lies in (0.4, 0.6]: the upper edge belongs to a bin
    assert expected_calibration_error(p, y, bins=5) == pytest.approx((0.4 + 0.7 + 0.05) / 3, abs=ROUND_OFF)
    more, answers = both_classes([0.4, 0.7, 0.95, 0.97]), [0, 0, 1, 0]  # two in the last bin, one of them wrong
    by_hand = (0.4 + 0.7 + 2 * abs(0.5 - 0.96)) / 4
    assert expected_calibration_error(more, answers, bins=5) == pytest.approx(by_hand, abs=ROUND_OFF)
    assert np.isnan(found.accuracy[:2]).all()
    assert found.confidence[2:] == pytest.approx([0.6, 0.7, 0.95], abs=ROUND_OFF)


def test_calibrated_probabilities_have_small_error_and_sharpened_ones_do_not() -> None:
    """Labels drawn from the probabilities themselves: each bin is off by its standard error only."""
    count = 20_000
    p = both_classes(generator(3, "calibrated").uniform(size=count))
    y = (generator(4, "outcome").uniform(size=count) < p[:, 1]).astype(int)
    found = reliability(p, y, bins=10)
    full = found.count > 0
    spread = np.sqrt(found.confidence[full] * (1 - found.confidence[full]) / found.count[full])
    assert (np.abs(found.accuracy[full] - found.confidence[full]) <= 5 * spread).all()
    sharp = both_classes((p[:, 1] > 0.5).astype(float))
    # certain where 3/4 are right on average; five standard errors of that fraction
    assert abs(expected_calibration_error(sharp, y) - 0.25) <= 5 * math.sqrt(3 / 16 / count)


@pytest.mark.parametrize(
    "given",
    [[[0.5, 0.4]], [[1.2, -0.2]], [[1.0]], [0.5, 0.5], np.zeros((0, 2)), [[np.nan, 0.5]]],
    ids=["sum", "range", "one class", "no samples' axis", "empty", "NaN"],
)
def test_what_is_no_probability_is_refused(given) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        probabilities(given)


@pytest.mark.parametrize("labels", [[0], [0, 2], [0, -1], [0.0, 1.0]])
def test_labels_that_do_not_fit_are_refused(labels) -> None:
    with pytest.raises(ValueError, match="labels"):
        accuracy([[0.5, 0.5], [0.1, 0.9]], labels)


def test_bins_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one bin"):
        reliability([[0.5, 0.5]], [0], bins=0)
    with pytest.raises(ValueError, match="shape"):
        reliability(RANDOM, LABELS)
