"""The implicit step of a mini-batch: Gram form, dual form, and what is not one."""

from __future__ import annotations

import pytest
import torch
from support.inference import augmented, autograd_certificate, make_net, make_sample, relative

from nlsim.errors import NlsimError
from nlsim.systems.inference.batch import (
    gram_energy,
    gram_update,
    largest_batch,
    solve_by_duals,
    solve_by_gram,
)
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.implicit_step import solve_in_activities, solve_in_weights
from nlsim.systems.inference.minimum import MinimumEnding
from nlsim.systems.inference.proximal import ProximalProblem
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.theorems.inference.proximal_cases import Draw

WIDTHS = (6, 8, 7, 5)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
@pytest.mark.parametrize("loss", [SQUARED_ERROR, CROSS_ENTROPY], ids=lambda each: each.name)
def test_gram_form_is_the_implicit_step(count, loss):
    """T17: certificate by autograd ≤ 1e-10 up to B = 7, the rank of the inputs with their constant 1."""
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS, count=count, is_distribution=loss is CROSS_ENTROPY)
    step = solve_by_gram(ProximalProblem(network, loss, 0.5), weights, given, target)
    assert step.is_solved
    assert autograd_certificate(network, loss, (0.5,) * 3, weights, step.weights, given, target) <= 1e-10


def test_gram_form_of_one_sample_is_that_of_the_activities():
    """T17 at B = 1."""
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS)
    problem = ProximalProblem(network, SQUARED_ERROR, (0.5, 1.0, 0.2))
    by_gram = solve_by_gram(problem, weights, given, target)
    by_activity = solve_in_activities(problem, weights, given, target)
    assert relative(by_gram.weights, by_activity.weights, weights) <= 1e-12


def test_gram_energy_of_any_activities_is_the_objective():
    """T17: J of the closest weights is G, and their forward pass gives ĥ, for activities that minimise nothing."""
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS, count=4)
    problem = ProximalProblem(network, SQUARED_ERROR, 0.5)
    draw = torch.Generator().manual_seed(1)
    hidden = tuple(torch.randn((4, n), generator=draw, dtype=torch.float64) for n in network.sizes)
    new = gram_update(network, weights, given, hidden)
    value = gram_energy(problem, weights, given, target, hidden)
    assert abs(problem.objective(weights, new, given, target) - value) <= 1e-12 * value  # Gram condition about 1e2
    for found, expected in zip(feedforward(network, new, given), hidden, strict=True):
        assert (found - expected).abs().max() <= 1e-12


def test_more_samples_than_inputs_are_refused():
    """N10: the refusal names the dual variables and the largest batch."""
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS, count=8)
    problem = ProximalProblem(network, SQUARED_ERROR, 0.5)
    assert largest_batch(network, given) == 7
    with pytest.raises(NlsimError, match="singular") as caught:
        solve_by_gram(problem, weights, given, target)
    assert "dual variables" in (caught.value.advice or "")
    assert "at most 7" in (caught.value.advice or "")
    repeated = given[:3].repeat(2, 1)  # six samples, but only three different ones
    assert largest_batch(network, repeated) == 3
    with pytest.raises(NlsimError, match="singular"):
        solve_by_gram(problem, weights, repeated, target[:6])


def test_narrow_hidden_layers_bound_the_batch_too():
    """N10 in a hidden layer of two neurons and a bias: three samples at most."""
    network, weights = make_net((6, 2, 5))
    given, target = make_sample((6, 2, 5), count=4)
    assert largest_batch(network, given) == 3
    with pytest.raises(NlsimError, match="at most 3"):
        solve_by_gram(ProximalProblem(network, SQUARED_ERROR, 0.5), weights, given, target)


@pytest.mark.parametrize("count", [1, 5, 8, 12])
def test_dual_form_takes_any_batch(count):
    """T17 and N10: the dual variables give the same step where both exist, and a certified one beyond."""
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS, count=count)
    problem = ProximalProblem(network, SQUARED_ERROR, 0.3)
    step = solve_by_duals(problem, weights, given, target)
    assert step.is_solved
    assert autograd_certificate(network, SQUARED_ERROR, (0.3,) * 3, weights, step.weights, given, target) <= 1e-10
    newton = solve_in_weights(problem, weights, given, target)
    assert relative(step.weights, newton.weights, weights) <= 1e-10


def test_quasi_newton_alone_says_how_accurate_it_is(monkeypatch):
    """Above the limit of unknowns only L-BFGS runs: about 1e-7, reported and not called solved unless it is."""
    monkeypatch.setattr("nlsim.systems.inference.batch.NEWTON_UNKNOWNS", 10)
    network, weights = make_net(WIDTHS)
    given, target = make_sample(WIDTHS, count=10)
    step = solve_by_duals(ProximalProblem(network, SQUARED_ERROR, 0.3), weights, given, target)
    found = autograd_certificate(network, SQUARED_ERROR, (0.3,) * 3, weights, step.weights, given, target)
    assert found <= 1e-5
    assert step.residual == pytest.approx(found, rel=1e-3)
    short = solve_by_duals(ProximalProblem(network, SQUARED_ERROR, 0.3), weights, given, target, max_iterations=3)
    assert not short.is_solved
    assert short.residual > 1e-4


@pytest.mark.parametrize("count", [2, 4, 8])
def test_mean_normaliser_is_no_implicit_step(count):
    """N9: the batch mean of errors over the batch mean of n, even at the exact activities; correlated inputs."""
    network, weights = make_net((6, 5), seed=3)
    given, target = make_sample((6, 5), count=count)
    given = given[:1] + 0.3 * given  # correlated
    closest = solve_in_weights(ProximalProblem(network, SQUARED_ERROR, 1.0), weights, given, target)
    source = augmented(given, True)
    e = closest.activity[0] - source @ weights[0].T
    mean = weights[0] + (e.T @ source / count) / source.square().sum(-1).mean()
    assert relative((mean,), closest.weights, weights) >= 0.3


def test_a_valley_of_dependent_activities_is_reported():
    """Six samples of nearly collinear softplus activities lead the Gram search to dependent rows: it says that it
    failed, and the dual variables, which have no such edge, solve the step."""
    draw = Draw(WIDTHS, "softplus", seed=2560, samples=6)
    problem, weights, sample = draw.problem(0.5), draw.weights(), draw.sample()
    by_gram = solve_by_gram(problem, weights, *sample, max_iterations=40)
    assert by_gram.ending is not MinimumEnding.CONVERGED
    assert not by_gram.is_solved
    assert by_gram.residual > 0.01
    assert solve_by_duals(problem, weights, *sample).is_solved
