"""Loss gradients in closed form against autograd of torch's own losses."""

from __future__ import annotations

import pytest
import torch
from support.compare import EPS
from support.learning import draw
from support.oracle import PLAIN_LOSS

from nlsim.systems.loss import LOSSES

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_scale = pytest.mark.parametrize("scale", [1.0, 1e3], ids=["moderate", "large"])


def outputs_and_targets(scale):
    return scale * draw(1, 6, 4), torch.softmax(draw(2, 6, 4), -1)


@each_loss
@each_scale
def test_value_is_that_of_torch_summed_over_samples(loss, scale):
    x, z = outputs_and_targets(scale)
    # sums of 24 numbers: at most that many roundings of the largest partial sum
    expected = PLAIN_LOSS[loss.name](x, z)
    assert loss.value(x, z).shape == (6,)
    assert abs(float(loss.value(x, z).sum() - expected)) <= 50 * EPS * max(scale, float(expected))


@each_loss
@each_scale
def test_gradient_is_the_derivative(loss, scale):
    x, z = outputs_and_targets(scale)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(PLAIN_LOSS[loss.name](leaf, z), leaf)
    # the softmax takes differences of numbers of size scale: relative error scale · eps in each exponential
    assert torch.allclose(loss.gradient(x, z), expected, rtol=0.0, atol=10 * EPS * scale)


def test_cross_entropy_weighs_unnormalised_targets():
    loss, (x, z) = LOSSES["cross_entropy"], outputs_and_targets(1.0)
    weighted = 3.0 * z
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-(weighted * torch.log_softmax(leaf, -1)).sum(), leaf)
    assert torch.allclose(loss.gradient(x, weighted), expected, rtol=0.0, atol=30 * EPS)
    assert torch.allclose(loss.value(x, weighted), -(weighted * torch.log_softmax(x, -1)).sum(-1), rtol=30 * EPS)


@each_loss
def test_loss_is_smallest_where_the_gradient_vanishes(loss):
    z = outputs_and_targets(1.0)[1]
    rest = z if loss.name == "squared_error" else z.log()
    assert float(loss.gradient(rest, z).abs().max()) <= 8 * EPS
    moved = rest + 0.1 * draw(3, *rest.shape)
    assert (loss.value(moved, z) > loss.value(rest, z)).all()
