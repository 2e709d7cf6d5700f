"""Initial weights: their spread, their biases, and that they depend on the seed and the layer alone."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_same_bits
from support.learning import make_network


def initial(network, seed, **options):
    return network.initial_weights(seed, dtype=torch.float64, device="cpu", **options)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_spread_is_scale_over_root_fan_in(scale):
    network = make_network((400, 300))
    (weight,) = initial(network, 5, scale=scale)
    bound = scale * (3 / 400) ** 0.5
    drawn = weight[:, :-1]
    assert float(drawn.abs().max()) <= bound
    # 120 000 uniform draws: the standard deviation has relative error √(0.8/4/120000) = 1.3e-3; four of them
    assert abs(float(drawn.std()) * 400**0.5 / scale - 1) <= 5.2e-3
    # and the mean has standard error scale/√(400 · 120000)
    assert abs(float(drawn.mean())) <= 4 * scale / (400 * 120_000) ** 0.5


def test_biases_start_at_zero_and_do_not_change_the_other_draws():
    (biased,), (bare,) = (
        initial(make_network((4, 3), has_bias=True), 1),
        initial(make_network((4, 3), has_bias=False), 1),
    )
    assert torch.equal(biased[:, -1], torch.zeros(3, dtype=torch.float64))
    assert biased.shape == (3, 5)
    assert bare.shape == (3, 4)


def test_same_seed_same_weights_other_seed_other_weights():
    network = make_network()
    assert_same_bits(initial(network, 8), initial(network, 8))
    assert not torch.equal(initial(network, 8)[0], initial(network, 9)[0])


def test_layers_draw_independently():
    network = make_network((3, 3, 3), has_bias=False)
    first, second = initial(network, 0)
    assert not torch.equal(first, second)
    # the draws of a layer do not depend on the sizes of the others
    wider = make_network((3, 3, 3, 7), has_bias=False)
    assert_same_bits(initial(wider, 0)[:2], (first, second))


def test_single_precision_is_the_rounded_double_precision():
    network = make_network()
    single = network.initial_weights(3, dtype=torch.float32, device="cpu")
    assert_same_bits(single, tuple(w.float() for w in initial(network, 3)))


def test_shapes_follow_the_widths():
    network = make_network((3, 4, 5, 2))
    assert network.depth == 3
    assert [tuple(w.shape) for w in initial(network, 0)] == [(4, 4), (5, 5), (2, 6)]
