"""Residual inference is a gradient flow, its updates are those of the energy, and skips must fit."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, make_weights
from support.settling import linear_output

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.inference.skip import ResidualFlow, depth_scaling, output_covariance
from nlsim.systems.inference.update import LeastMeanSquares, NormalisedLeastMeanSquares

WIDTHS = (5, 6, 6, 6, 3)
MULTIPLIERS, SKIPS = (0.4, 0.7, 1.3, 0.5), (False, True, True, False)


def case(has_bias=True, samples=2):
    network = linear_output(WIDTHS, has_bias=has_bias)
    weights = make_weights(network)
    inputs = Inputs(draw(1, samples, 5), draw(2, samples, 3))
    hidden = tuple(draw(10 + n, samples, 6) for n in range(3))
    return ResidualFlow(network, weights, MULTIPLIERS, SKIPS), hidden, inputs


def plain_energy(flow, weights, hidden, inputs):
    """Return F summed over samples, written out again."""
    state, source, total = inputs.input, inputs.input, 0.0
    for w, a, s, h in zip(weights, MULTIPLIERS, SKIPS, (*hidden, inputs.target), strict=True):
        if flow.network.has_bias:
            source = torch.cat((source, torch.ones_like(source[:, :1])), -1)
        p = a * source @ w.T + (state if s else 0.0)
        total = total + 0.5 * (h - p).square().sum()
        state, source = h, torch.tanh(h)
    return total


@pytest.mark.parametrize("has_bias", [True, False])
def test_field_and_update_are_gradients_of_the_energy(has_bias):
    flow, hidden, inputs = case(has_bias)
    own = [h.clone().requires_grad_() for h in hidden]
    weights = [w.clone().requires_grad_() for w in flow.weights]
    energy = plain_energy(flow, weights, own, inputs)
    slopes = torch.autograd.grad(energy, (*own, *weights))
    assert_round_off(flow.vector_field(0.0, hidden, inputs), tuple(-s for s in slopes[:3]), 200)
    assert float(flow.energy(0.0, hidden, inputs).sum()) == pytest.approx(float(energy.detach()), rel=1e-13)
    moved, _ = LeastMeanSquares(0.3).apply(flow.network, flow.weights, (), flow.settling(hidden, inputs))
    # the update is a mean over two samples
    assert_round_off(moved, tuple(w - 0.15 * s for w, s in zip(flow.weights, slopes[3:], strict=True)), 200)


def test_errors_vanish_on_the_forward_pass():
    flow, _, inputs = case()
    made = flow.forward(inputs.input)
    seen = flow.settling(made[:-1], Inputs(inputs.input, made[-1]))
    assert_round_off(seen.errors, tuple(torch.zeros_like(e) for e in seen.errors), 20)


def test_the_normalised_step_realises_activities():
    flow, hidden, inputs = case(samples=1)
    new, _ = NormalisedLeastMeanSquares().apply(flow.network, flow.weights, (), flow.settling(hidden, inputs))
    made = ResidualFlow(flow.network, new, MULTIPLIERS, SKIPS).forward(inputs.input)
    assert_round_off(made, (*hidden, inputs.target), 50)


def test_multipliers_of_mu_pc():
    multipliers, skips = depth_scaling(linear_output(WIDTHS))
    # D = 5, N = 6, L = 4
    assert multipliers == pytest.approx((5**-0.5, 24**-0.5, 24**-0.5, 1 / 6), rel=1e-15)
    assert skips == (False, True, True, False)


def test_output_covariance_is_that_of_noise_in_every_layer():
    network = linear_output(WIDTHS, "identity", has_bias=False)
    weights = make_weights(network)
    flow = ResidualFlow(network, weights, MULTIPLIERS, SKIPS)

    def output(*noise):
        state = torch.ones(1, 5, dtype=torch.float64)
        for layer, (w, a, s) in enumerate(zip(weights, MULTIPLIERS, SKIPS, strict=True)):
            made = a * state @ w.T + (state if s else 0.0)
            state = made + noise[layer] if layer < len(noise) else made
        return state.reshape(-1)

    # S = 1 + Σ_l (∂h_L/∂noise_l)(∂h_L/∂noise_l)ᵀ, by autograd
    noise = tuple(torch.zeros(6, dtype=torch.float64) for _ in range(3))
    jacobians = torch.autograd.functional.jacobian(output, noise)
    expected = torch.eye(3, dtype=torch.float64) + sum(j @ j.T for j in jacobians)
    assert_round_off(output_covariance(network, flow.weights, MULTIPLIERS, SKIPS), expected, 200)


def test_refusals():
    network = linear_output(WIDTHS)
    weights = make_weights(network)
    with pytest.raises(NlsimError, match="one multiplier"):
        ResidualFlow(network, weights, (1.0,), SKIPS)
    with pytest.raises(NlsimError, match="one width"):
        ResidualFlow(network, weights, MULTIPLIERS, (True, True, True, False))
    with pytest.raises(NlsimError, match="one width"):
        depth_scaling(linear_output((5, 6, 7, 3)))
