"""Deep linear networks: targets, energies and errors in closed form; the inference Hessian; the origin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.inference import augmented, make_net, make_sample, stack

from nlsim.errors import NlsimError
from nlsim.systems.activation import IDENTITY, TANH
from nlsim.systems.inference.energy import feedforward, free_energy, normalisers, predict
from nlsim.systems.inference.linear import (
    depth_scales,
    hard_clamp,
    inference_hessian,
    mean_excess,
    settle_hidden,
    soft_clamp,
    spread,
    tangent_kernel,
    with_skips,
)
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork

WIDTHS = (4, 5, 3, 6, 2)
PRECISIONS = (1.3, 0.4, 2.0, 0.7)


def problem(*, has_bias=True, count=3):
    network, weights = make_net(WIDTHS, IDENTITY, has_bias=has_bias)
    return network, weights, *make_sample(WIDTHS, count=count)


def energy_by_least_squares(network, weights, given, target, precisions, *, is_hard):
    """Return activities and F* of each sample by NumPy's least squares on the stacked √γ errors."""
    activities, energies = [], []
    for x, y in zip(given.numpy(), target.numpy(), strict=True):
        sizes = network.sizes[:-1] if is_hard else network.sizes
        ends = np.cumsum((0, *sizes))
        rows, right = [], []
        for layer, w in enumerate(weights):
            matrix = w.numpy()[:, :-1] if network.has_bias else w.numpy()
            bias = w.numpy()[:, -1] if network.has_bias else np.zeros(len(w))
            root = precisions[layer] ** 0.5
            block, constant = np.zeros((len(w), ends[-1])), bias.copy()
            if layer:
                block[:, ends[layer - 1] : ends[layer]] = -root * matrix
            else:
                constant += matrix @ x
            if layer < len(sizes):
                block[:, ends[layer] : ends[layer + 1]] = root * np.eye(len(w))
            else:
                constant -= y
            rows.append(block)
            right.append(root * constant)
        if not is_hard:
            last = np.zeros((len(y), ends[-1]))
            last[:, ends[-2] :] = np.eye(len(y))
            rows.append(last)
            right.append(y)
        A, b = np.vstack(rows), np.concatenate(right)
        h = np.linalg.lstsq(A, b, rcond=None)[0]
        activities.append(h)
        energies.append(0.5 * np.sum((A @ h - b) ** 2))
    return np.array(activities), np.array(energies)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("clamp", [soft_clamp, hard_clamp])
def test_closed_form_is_the_least_squares_solution(clamp, has_bias):
    """T10 (soft) and T11 (hard): activities and F* to 1e-12; systems of 18 unknowns of condition below 1e3."""
    network, weights, given, target = problem(has_bias=has_bias)
    rest = clamp(network, weights, given, target, PRECISIONS)
    is_hard = clamp is hard_clamp
    activity, energy = energy_by_least_squares(network, weights, given, target, PRECISIONS, is_hard=is_hard)
    found = torch.cat(rest.activity[:-1] if is_hard else rest.activity, -1).numpy()
    assert np.abs(found - activity).max() <= 1e-12
    assert np.abs(rest.energy.numpy() - energy).max() <= 1e-12
    if is_hard:
        assert (rest.activity[-1] - target).abs().max() <= 1e-13


@pytest.mark.parametrize("has_bias", [False, True])
def test_errors_and_energy_are_those_of_the_energy_module(has_bias):
    """T10: e_l = ĥ_l − p_l and F of the running code at the closed-form activities."""
    network, weights, given, target = problem(has_bias=has_bias)
    rest = soft_clamp(network, weights, given, target, PRECISIONS)
    errors = predict(network, weights, given, rest.activity[:-1]).errors(rest.activity)
    for a, b in zip(errors, rest.errors, strict=True):
        assert (a - b).abs().max() <= 1e-13
    value = free_energy(errors, PRECISIONS, loss=SQUARED_ERROR, output=rest.activity[-1], target=target)
    assert (value - rest.energy).abs().max() <= 1e-12


@pytest.mark.parametrize("has_bias", [False, True])
def test_spread_at_feedforward_precisions_is_the_tangent_kernel(has_bias):
    """T10: K = αΘ with Θ = J Jᵀ, J by autograd; and the output moves by (I + αΘ)⁻¹."""
    network, weights, given, target = problem(has_bias=has_bias, count=2)
    kernel, alpha = tangent_kernel(network, weights, given), 0.8
    for b in range(2):

        def output(*own, b=b):
            h = given[b]
            for w in own:
                h = w @ augmented(h, has_bias)
            return h

        rows = torch.cat([j.flatten(1) for j in torch.autograd.functional.jacobian(output, weights)], 1)
        assert (kernel[b] - rows @ rows.T).abs().max() <= 1e-12 * kernel[b].abs().max()
    h = feedforward(network, weights, given)
    normal = normalisers(weights, predict(network, weights, given, h[:-1]))
    rest = soft_clamp(network, weights, given, target, tuple(1 / (alpha * n) for n in normal))
    one = torch.eye(2, dtype=torch.float64)
    left = torch.linalg.solve(one + alpha * kernel, (target - h[-1]).unsqueeze(-1)).squeeze(-1)
    assert (target - rest.activity[-1] - left).abs().max() <= 1e-12


def test_envelope():
    """T11: ∂F*/∂W_l is the local gradient −γ_l e_l ãᵀ at rest, F* being differentiated by autograd."""
    network, weights, given, target = problem()
    own = [w.clone().requires_grad_() for w in weights]
    total = hard_clamp(network, tuple(own), given, target, PRECISIONS).energy.sum()
    slopes = torch.autograd.grad(total, own)
    rest = hard_clamp(network, weights, given, target, PRECISIONS)
    sources = (given, *rest.activity[:-1])
    for gamma, e, a, slope in zip(PRECISIONS, rest.errors, sources, slopes, strict=True):
        assert (slope + gamma * e.T @ augmented(a, True)).abs().max() <= 1e-11


@pytest.mark.parametrize("depth", [3, 4])
def test_origin_is_a_strict_saddle_of_the_settled_energy(depth):
    """T11: λ_min of ∂²F*(0) is −λ_max of Σ y yᵀ/B, while the loss has no curvature there at all."""
    widths = (3,) * depth + (2,)
    network = LayeredNetwork(widths, (IDENTITY,) * depth, has_bias=False)
    given, target = make_sample(widths, count=5)
    shapes = [network.weight_shape(layer) for layer in range(depth)]

    def split(row):
        parts = torch.split(row, [a * b for a, b in shapes])
        return tuple(p.reshape(s) for p, s in zip(parts, shapes, strict=True))

    def settled(row):
        return hard_clamp(network, split(row), given, target, (1.0,) * depth).energy.mean()

    def plain(row):
        return SQUARED_ERROR.value(feedforward(network, split(row), given)[-1], target).mean()

    origin = torch.zeros(sum(a * b for a, b in shapes), dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(settled, origin)
    expected = -torch.linalg.eigvalsh(target.T @ target / 5)[-1]
    assert abs(torch.linalg.eigvalsh(curvature)[0] - expected) <= 1e-10
    assert torch.autograd.functional.hessian(plain, origin).abs().max() == 0


@pytest.mark.parametrize("has_bias", [False, True])
def test_elimination_solves_the_inference_hessian(has_bias):
    """T11: block elimination, the dense Hessian and the closed form give one rest state."""
    network, weights, given, target = problem(has_bias=has_bias)
    settled = settle_hidden(network, weights, given, target, PRECISIONS)
    rest = hard_clamp(network, weights, given, target, PRECISIONS)
    for a, b in zip(settled, rest.activity, strict=False):
        assert (a - b).abs().max() <= 1e-12
    sizes = network.sizes[:-1]

    def energy(row):
        hidden = tuple(part[None] for part in torch.split(row, list(sizes)))
        errors = predict(network, weights, given[:1], hidden).errors((*hidden, target[:1]))
        return free_energy(errors, PRECISIONS).sum()

    expected = torch.autograd.functional.hessian(energy, torch.zeros(sum(sizes), dtype=torch.float64))
    assert (inference_hessian(network, weights, PRECISIONS) - expected).abs().max() <= 1e-13
    stacked = tuple(torch.stack((w, 2 * w)) for w in weights)
    assert (inference_hessian(network, stacked, PRECISIONS)[0] - expected).abs().max() <= 1e-13


def test_ensembles_of_closed_forms():
    network, weights, given, target = problem()
    stacked = tuple(torch.stack((w, 0.5 * w)) for w in weights)
    for clamp in (soft_clamp, hard_clamp):
        both = clamp(network, stacked, given, target, PRECISIONS)
        half = clamp(network, tuple(0.5 * w for w in weights), given, target, PRECISIONS)
        assert (both.energy[1] - half.energy).abs().max() <= 1e-13
        assert (stack(tuple(h[1] for h in both.activity)) - stack(half.activity)).abs().max() <= 1e-12
    settled = settle_hidden(network, stacked, given, target, PRECISIONS)
    alone = settle_hidden(network, weights, given, target, PRECISIONS)
    assert (settled[0][0] - alone[0]).abs().max() <= 1e-13


def test_skips_are_added_to_the_layers_between():
    network, weights = make_net((3, 4, 4, 4, 2), IDENTITY, has_bias=False)
    given, _ = make_sample((3, 2))
    h = given @ weights[0].T
    for w in weights[1:-1]:
        h = h + h @ w.T
    expected = h @ weights[-1].T
    assert (feedforward(network, with_skips(network, weights), given)[-1] - expected).abs().max() <= 1e-14
    uneven, others = make_net((3, 4, 5, 2), IDENTITY)
    with pytest.raises(NlsimError, match="one width"):
        with_skips(uneven, others)


@pytest.mark.parametrize("depth", [4, 16])
def test_excess_of_depth_scaled_networks(depth):
    """T23: the mean of S − 1 over 400 draws within 3 standard errors of its formula, in one batched product."""
    width, draws = 64, 400
    widths = (10, *(width,) * (depth - 1), 1)
    network = LayeredNetwork(widths, (IDENTITY,) * depth, has_bias=False)
    draw = torch.Generator().manual_seed(depth)
    weights = tuple(torch.randn((draws, b, a), generator=draw, dtype=torch.float64) for a, b in pairwise(widths))
    scaled = with_skips(network, weights, depth_scales(network))
    excess = spread(network, scaled, (1.0,) * depth)[:, 0, 0, 0] - 1
    error = float(excess.std() / draws**0.5)
    assert error < 0.03 * float(excess.mean())
    assert abs(float(excess.mean()) - mean_excess(width, depth)) <= 3 * error
    plain = spread(network, tuple(a * w for a, w in zip(depth_scales(network), weights, strict=True)), (1.0,) * depth)
    assert abs(float(plain.mean()) - 1 - mean_excess(width, depth)) > 3 * error  # the skips matter


def test_other_activations_are_refused():
    network, weights = make_net((4, 5, 2), TANH)
    with pytest.raises(NlsimError, match="linear networks only") as caught:
        soft_clamp(network, weights, *make_sample((4, 5, 2)), (1.0, 1.0))
    assert "implicit_step" in (caught.value.advice or "")
