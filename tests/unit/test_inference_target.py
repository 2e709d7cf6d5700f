"""Targets of the output: best compromises between loss and prediction, and the heuristic that is not one."""

from __future__ import annotations

import pytest
import torch
from support.compare import EPS
from support.learning import draw

from nlsim.systems.inference.target import heuristic_target, settle_cross_entropy, settle_rule, settle_squared_error
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR


def posed(seed=0, scale=3.0):
    target = torch.nn.functional.one_hot(torch.arange(12) % 5, 5).double()
    return scale * draw(seed, 12, 5), target


@pytest.mark.parametrize("gamma", [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(
    ("settle", "loss"), [(settle_squared_error, SQUARED_ERROR), (settle_cross_entropy, CROSS_ENTROPY)]
)
def test_settled_outputs_are_stationary(gamma, settle, loss):
    prediction, target = posed()
    output = settle(prediction, gamma, target)
    # the terms of the residual are of size 1 and γ|ĥ| ≤ 20 γ: a dozen roundings of each
    left = loss.gradient(output, target) + gamma * (output - prediction)
    assert float(left.abs().max()) <= 12 * EPS * (1 + 20 * gamma) * 4
    assert float((output - prediction).abs().max()) > 1e-5


def test_soft_labels_need_not_sum_to_one():
    prediction, _ = posed()
    target = draw(4, 12, 5, low=0.0)
    output = settle_cross_entropy(prediction, 0.3, target)
    assert float((CROSS_ENTROPY.gradient(output, target) + 0.3 * (output - prediction)).abs().max()) <= 100 * EPS


def test_each_sample_has_its_own_precision():
    prediction, target = posed()
    gamma = 10.0 ** draw(9, 12, 1, low=-3.0, high=3.0)
    for settle in (settle_squared_error, settle_cross_entropy):
        together = settle(prediction, gamma, target)
        for k in range(12):
            alone = settle(prediction[k : k + 1], float(gamma[k]), target[k : k + 1])
            assert float((together[k] - alone[0]).abs().max()) <= 1e-12


def test_the_published_closed_form():
    # (p + α n y)/(1 + α n) at γ = 1/(α n)
    prediction, target = posed()
    alpha_n = 2.7
    expected = (prediction + alpha_n * target) / (1 + alpha_n)
    assert float((settle_squared_error(prediction, 1 / alpha_n, target) - expected).abs().max()) <= 1e-14


def test_probabilities_in_the_place_of_outputs_are_first_order_only():
    # N8: the heuristic's relative error falls like α n and is 0.1 or more from α n = 0.2 on
    prediction, target = posed(scale=1.0)
    errors = {}
    for alpha_n in (1e-3, 1e-2, 0.22, 100.0):
        exact = settle_cross_entropy(prediction, 1 / alpha_n, target)
        found = heuristic_target(prediction, 1 / alpha_n, target)
        step = alpha_n / (1 + alpha_n) * (target - torch.softmax(prediction, -1))
        assert float((found - prediction - step).abs().max()) <= 1e-15
        errors[alpha_n] = float((found - exact).norm() / (exact - prediction).norm())
    assert errors[1e-2] / errors[1e-3] == pytest.approx(10, rel=0.1)
    assert errors[0.22] >= 0.1
    assert errors[100.0] >= 0.5


def test_the_clamped_output_is_the_target():
    prediction, target = posed()
    assert torch.equal(settle_rule("clamped", SQUARED_ERROR)(prediction, 2.0, target), target)
