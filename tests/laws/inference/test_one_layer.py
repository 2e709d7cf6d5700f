"""One layer: closed forms against Newton, SciPy's roots and each other; and near misses that must fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from support.inference import augmented, make_net, make_sample, relative

from nlsim.systems.activation import IDENTITY, LOGISTIC, SOFTPLUS
from nlsim.systems.inference.closed_form import cross_entropy_target, generalised_linear_root, linear_step
from nlsim.systems.inference.implicit_step import solve_in_activities, solve_in_weights
from nlsim.systems.inference.proximal import ProximalProblem
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR

RATES = (1e-3, 0.1, 1.0, 30.0, 1e3)


def inference_step(weight, source, target, alpha, *, normaliser=None, rate=1.0):
    """Return the step of IL-prox written out: target (p + αn y)/(1 + αn), then the normalised step."""
    n = float(source.square().sum()) if normaliser is None else normaliser
    p = source @ weight.T
    settled = (p + alpha * n * target) / (1 + alpha * n)
    return weight + rate * (settled - p).T @ source / n


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("alpha", RATES)
def test_one_layer_four_ways(has_bias, alpha):
    """T1: IL-prox = closed form = Newton prox, and T13: the residual shrinks by 1/(1 + αn)."""
    network, weights = make_net((5, 4), has_bias=has_bias)
    given, target = make_sample((5, 4))
    source = augmented(given, has_bias)
    closed = linear_step(weights[0], source, target, alpha)
    problem = ProximalProblem(network, SQUARED_ERROR, alpha)
    # differences of weights of size 1 hold α‖r‖ ≥ 1e-3 to 1e-13
    for found in (
        inference_step(weights[0], source, target, alpha),
        solve_in_activities(problem, weights, given, target).weights[0],
        solve_in_weights(problem, weights, given, target).weights[0],
    ):
        assert relative((found,), (closed,), weights) <= 1e-12
    before, after = target - source @ weights[0].T, target - source @ closed.T
    assert (after - before / (1 + alpha * source.square().sum())).abs().max() <= 1e-13


@pytest.mark.parametrize("alpha", RATES[1:])
def test_near_misses_of_one_layer(alpha):
    """N5 (normaliser without the bias) and N6 (rate ≠ 1 on top of the target): off by what they leave out."""
    _, weights = make_net((5, 4))
    given, target = make_sample((5, 4))
    source = augmented(given, True)
    n = float(source.square().sum())
    closed = linear_step(weights[0], source, target, alpha)
    forgotten = inference_step(weights[0], source, target, alpha, normaliser=n - 1)
    # α(n − 1)/(1 + α(n − 1))/(n − 1) against α/(1 + αn)
    expected = (1 + alpha * n) / (1 + alpha * (n - 1)) - 1
    assert relative((forgotten,), (closed,), weights) == pytest.approx(expected, rel=1e-9)
    assert expected > 1e-2
    for rate in (0.5, 1.5):
        scaled = inference_step(weights[0], source, target, alpha, rate=rate)
        assert relative((scaled,), (closed,), weights) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("alpha", RATES)
def test_batch_of_a_linear_model(alpha):
    """T1 for a batch: the summed loss is B times the mean, so α_mean = Bα; checked by Newton, with fewer and more
    samples than inputs, and with an ensemble axis."""
    network, weights = make_net((5, 4))
    for count in (3, 9):
        given, target = make_sample((5, 4), count=count)
        source = augmented(given, True)
        closed = linear_step(weights[0], source, target, alpha)
        problem = ProximalProblem(network, SQUARED_ERROR, count * alpha)
        newton = solve_in_weights(problem, weights, given, target)
        # αAAᵀ has a condition of up to α·100: some 1e5 units of round-off at α = 1e3
        assert relative(newton.weights, (closed,), weights) <= 1e-11
        stacked = linear_step(torch.stack((weights[0], 2 * weights[0])), source, target, alpha)
        assert (stacked[0] - closed).abs().max() <= 1e-13


@pytest.mark.parametrize("mean", [LOGISTIC, SOFTPLUS, IDENTITY], ids=lambda each: each.name)
def test_generalised_linear_root_is_that_of_brent(mean):
    """Root of ξ = α(y − g(η + ξn)) for 200 draws at once, α n up to 1e6, against SciPy's bracketing solver."""
    draw = np.random.default_rng(5)
    eta, y = draw.normal(size=200) * 5, draw.normal(size=200) * 2
    n, alpha = 10 ** draw.uniform(-3, 3, 200), 10 ** draw.uniform(-3, 3, 200)
    args = [torch.as_tensor(each) for each in (eta, n, y, alpha)]
    found = generalised_linear_root(*args, mean).numpy()

    g = {
        "logistic": lambda a: 1 / (1 + np.exp(-a)) if a > -700 else 0.0,
        "softplus": lambda a: np.logaddexp(a, 0.0),
        "identity": lambda a: a,
    }[mean.name]
    for k in range(200):
        start = alpha[k] * (y[k] - g(eta[k]))
        expected = brentq(
            lambda xi, k=k: xi - alpha[k] * (y[k] - g(eta[k] + xi * n[k])),
            min(0.0, start),
            max(0.0, start),
            xtol=1e-300,
            rtol=4 * np.finfo(float).eps,
        )
        # the equation is evaluated to some ulp of αy and divided by its slope 1 + αng' ≥ 1; η + ξn cancels to ulp(η)/n
        allowed = 1e-14 * (abs(expected) + abs(eta[k]) / n[k] * min(1.0, alpha[k] * n[k]) + alpha[k] * abs(y[k]))
        assert abs(found[k] - expected) <= allowed
        assert min(0.0, start) <= found[k] <= max(0.0, start)


def test_linear_mean_gives_the_linear_step():
    """The identity as mean: ξ = α(y − η)/(1 + αn)."""
    eta, n, y = (torch.tensor([each], dtype=torch.float64) for each in (0.3, 2.0, 1.7))
    found = generalised_linear_root(eta, n, y, 0.9, IDENTITY)
    assert abs(float(found) - 0.9 * 1.4 / 2.8) <= 1e-15


@pytest.mark.parametrize("alpha", RATES)
def test_cross_entropy_target_is_the_implicit_step(alpha):
    """T18: one layer, the root and the normalised step against Newton on the proximal objective of the weights."""
    network, weights = make_net((5, 4))
    given, target = make_sample((5, 4), is_distribution=True)
    source = augmented(given, True)
    n, p = float(source.square().sum()), source @ weights[0].T
    settled = cross_entropy_target(p, alpha * n, target)
    residual = settled - p - alpha * n * (target - torch.softmax(settled, -1))
    assert residual.abs().max() <= 1e-15 * (10 + alpha * n)  # softmax is rounded to some 1e-16, times αn
    new = weights[0] + (settled - p).T @ source / n
    newton = solve_in_weights(ProximalProblem(network, CROSS_ENTROPY, alpha), weights, given, target)
    assert newton.is_solved
    assert relative((new,), newton.weights, weights) <= 1e-10


def test_cross_entropy_target_takes_ensembles_and_counts():
    """Targets that sum to s ≠ 1, many members, pulls from 1e-4 to 1e6, predictions of size 50."""
    draw = torch.Generator().manual_seed(2)
    p = 50 * torch.randn((6, 20, 7), generator=draw, dtype=torch.float64)
    z = 3 * torch.rand((6, 20, 7), generator=draw, dtype=torch.float64)
    pull = 10 ** (10 * torch.rand((6, 20, 1), generator=draw, dtype=torch.float64) - 4)
    h = cross_entropy_target(p, pull, z)
    residual = h - p - pull * (z - z.sum(-1, keepdim=True) * torch.softmax(h, -1))
    assert (residual.abs() / (1 + p.abs() + pull * z.sum(-1, keepdim=True))).max() <= 1e-13
    assert (h[2, 3] - cross_entropy_target(p[2, 3], pull[2, 3], z[2, 3])).abs().max() <= 1e-9 * h[2, 3].abs().max()


@pytest.mark.parametrize(("pull", "least"), [(0.2, 0.1), (2.0, 0.4), (20.0, 0.5)])
def test_probability_target_is_no_implicit_step(pull, least):
    """N8: p + αn/(1 + αn) (y − softmax p), in place of the root, at αn ≥ 0.2."""
    _, weights = make_net((5, 4))
    given, _ = make_sample((5, 4))
    source = augmented(given, True)
    target = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    p = source @ weights[0].T
    exact = cross_entropy_target(p, pull, target) - p
    heuristic = pull / (1 + pull) * (target - torch.softmax(p, -1))
    assert float((heuristic - exact).norm() / exact.norm()) >= least
