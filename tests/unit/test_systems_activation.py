"""Slopes in closed form are the derivatives of their activations, at any size of argument."""

from __future__ import annotations

import mpmath
import pytest
import torch
from support.compare import EPS
from support.oracle import PLAIN_ACTIVATION

from nlsim.systems.activation import ACTIVATIONS

SAMPLES = torch.linspace(-8, 8, 161, dtype=torch.float64) + 0.013
LARGE = torch.tensor([-1e4, -750.0, -100.0, -37.0, 37.0, 100.0, 750.0, 1e4], dtype=torch.float64)
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
each_range = pytest.mark.parametrize("a", [SAMPLES, LARGE], ids=["moderate", "large"])


@each_activation
@each_range
def test_value_is_that_of_torch(activation, a):
    # at most a few roundings each, relative to the value
    assert torch.allclose(activation.value(a), PLAIN_ACTIVATION[activation.name](a), rtol=8 * EPS, atol=1e-300)


@each_activation
@each_range
def test_slope_is_the_derivative(activation, a):
    leaf = a.clone().requires_grad_()
    (expected,) = torch.autograd.grad(PLAIN_ACTIVATION[activation.name](leaf).sum(), leaf)
    found = activation.slope(a, activation.value(a))
    # 1 − y² and y (1 − y) round at the size of 1, so the error is absolute
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, rtol=0.0, atol=8 * EPS)


@pytest.mark.parametrize(
    ("name", "derivative"),
    [
        ("tanh", lambda a: mpmath.sech(a) ** 2),
        ("logistic", lambda a: mpmath.exp(-a) / (1 + mpmath.exp(-a)) ** 2),
        ("softplus", lambda a: 1 / (1 + mpmath.exp(-a))),
    ],
)
def test_slope_against_many_digits(name, derivative):
    activation = ACTIVATIONS[name]
    with mpmath.workdps(40):
        expected = [float(derivative(mpmath.mpf(float(a)))) for a in SAMPLES]
    found = activation.slope(SAMPLES, activation.value(SAMPLES))
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=8 * EPS)


@each_activation
def test_declared_bound(activation):
    reached = float(activation.value(LARGE).abs().max())
    assert (activation.bound is None) == (reached > 1.0)


def test_slope_of_relu_at_zero_is_zero():
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(ACTIVATIONS["relu"].slope(zero, zero)) == 0.0


@each_activation
def test_single_precision_stays_single(activation):
    a = SAMPLES.float()
    y = activation.value(a)
    assert (y.dtype, activation.slope(a, y).dtype) == (torch.float32, torch.float32)
