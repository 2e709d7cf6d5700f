"""The implicit step of one sample: certificate, realisation, penalty, branches, and what must not pass for it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from support.inference import (
    BOTH_LOSSES,
    SMOOTH,
    augmented,
    autograd_certificate,
    make_net,
    make_sample,
    plain_loss,
    relative,
    stack,
)

from nlsim.errors import NlsimError
from nlsim.systems.activation import IDENTITY, RELU, TANH
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.implicit_step import follow_branch, solve_in_activities, solve_in_weights
from nlsim.systems.inference.minimum import MinimumEnding, minimise
from nlsim.systems.inference.proximal import ProximalProblem, certificate
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("loss", BOTH_LOSSES, ids=lambda each: each.name)
@pytest.mark.parametrize("activation", SMOOTH, ids=lambda each: each.name)
def test_certificate(depth, has_bias, loss, activation):
    """T3: stationary to 1e-10 by autograd's gradient; round-off is about α ε ‖∂²L‖/‖Δθ‖ ≤ 1e-13."""
    widths = (*(5, 7, 6, 5, 6, 7)[:depth], 4)
    network, weights = make_net(widths, activation, has_bias=has_bias, seed=depth)
    given, target = make_sample(widths, seed=depth, is_distribution=loss is CROSS_ENTROPY)
    for alpha in (0.01, 1.0, 50.0):
        step = solve_in_activities(ProximalProblem(network, loss, alpha), weights, given, target)
        found = autograd_certificate(network, loss, (alpha,) * depth, weights, step.weights, given, target)
        assert step.is_solved
        assert found <= 1e-10
        assert abs(step.residual - found) <= 1e-11


@pytest.mark.parametrize("loss", BOTH_LOSSES, ids=lambda each: each.name)
def test_both_solvers_agree_where_the_step_is_unique(loss):
    """T3, second way: Newton on the weights, at α below the inverse of the most negative curvature."""
    network, weights = make_net()
    given, target = make_sample(is_distribution=loss is CROSS_ENTROPY)
    problem = ProximalProblem(network, loss, 0.05)
    one, other = (solve(problem, weights, given, target) for solve in (solve_in_activities, solve_in_weights))
    assert one.is_solved
    assert other.is_solved
    assert relative(one.weights, other.weights, weights) <= 1e-12


def test_rates_of_each_layer():
    """T3 with α_l: replace α n_l by α_l n_l."""
    network, weights = make_net()
    given, target = make_sample()
    rates = (0.3, 1.7, 0.05)
    step = solve_in_activities(ProximalProblem(network, SQUARED_ERROR, rates), weights, given, target)
    assert step.is_solved
    assert autograd_certificate(network, SQUARED_ERROR, rates, weights, step.weights, given, target) <= 1e-12
    wrong = ProximalProblem(network, SQUARED_ERROR, tuple(reversed(rates)))
    assert certificate(wrong, weights, step.weights, given, target) > 0.1


@pytest.mark.parametrize("activation", [*SMOOTH, RELU], ids=lambda each: each.name)
@pytest.mark.parametrize("has_bias", [False, True])
def test_energy_of_any_activity_is_the_objective_of_its_weights(activation, has_bias):
    """T4 and T2: for any ĥ, J(NLMS(ĥ)) = G(ĥ), and the new forward pass gives ĥ; some hundred roundings."""
    network, weights = make_net(activation=activation, has_bias=has_bias)
    given, target = make_sample()
    problem = ProximalProblem(network, SQUARED_ERROR, 0.7)
    draw = torch.Generator().manual_seed(4)
    hidden = tuple(
        torch.randn((1, n), generator=draw, dtype=torch.float64).abs() + 0.1 for n in network.sizes
    )  # positive, so that a ReLU does not silence a layer
    new = problem.update(weights, given, hidden)
    energy = problem.energy(weights, given, target, hidden).sum()
    assert abs(problem.objective(weights, new, given, target) - energy) <= 1e-13 * energy
    for found, expected in zip(feedforward(network, new, given), hidden, strict=True):
        assert (found - expected).abs().max() <= 1e-13


def without_bias_count(network, weights, given, activity):
    """Return the NLMS step with normalisers that forget the constant input."""
    bare = replace(network, has_bias=False)
    problem = ProximalProblem(bare, SQUARED_ERROR, 1.0)
    sources = (given, *(network.activations[0].value(h) for h in activity[:-1]))
    new = []
    for w, a, h in zip(weights, sources, activity, strict=True):
        e = h - augmented(a, True) @ w.T
        new.append(w + e.T @ augmented(a, True) / a.square().sum())
    assert problem.penalty == 0
    return tuple(new)


def before_the_nonlinearity(network, weights, given, activity):
    """Return the NLMS step with normalisers of ĥ in place of φ(ĥ)."""
    sources = (given, *(network.activations[0].value(h) for h in activity[:-1]))
    raw = (given, *activity[:-1])
    new = []
    for w, a, r, h in zip(weights, sources, raw, activity, strict=True):
        e = h - augmented(a, True) @ w.T
        new.append(w + e.T @ augmented(a, True) / augmented(r, True).square().sum())
    return tuple(new)


@pytest.mark.parametrize("wrong", [without_bias_count, before_the_nonlinearity])
def test_wrong_normalisers_do_not_realise_the_activities(wrong):
    """N5: T2 must fail, by much more than round-off."""
    network, weights = make_net()
    given, target = make_sample()
    step = solve_in_activities(ProximalProblem(network, SQUARED_ERROR, 1.0), weights, given, target)
    gap = max(
        float((a - b).abs().max())
        for a, b in zip(
            feedforward(network, wrong(network, weights, given, step.activity), given), step.activity, strict=True
        )
    )
    assert gap > 1e-3


def test_penalty_in_the_normaliser():
    """T16: with ε the step solves the quadratic penalty, to 1e-12; its distance to the implicit step has slope 1."""
    network, weights = make_net()
    given, target = make_sample()
    problem = ProximalProblem(network, SQUARED_ERROR, 0.5)
    exact = solve_in_activities(problem, weights, given, target)
    penalties, distances = (1e-2, 1e-3, 1e-4), []
    for epsilon in penalties:
        padded = replace(problem, penalty=epsilon)
        step = solve_in_activities(padded, weights, given, target)
        assert step.ending is MinimumEnding.CONVERGED
        assert step.residual <= 1e-12
        # eliminating the weights of the quadratic penalty leaves G
        value = padded.penalised(weights, step.weights, given, target, step.activity)
        assert abs(float(value - padded.energy(weights, given, target, step.activity))) <= 1e-12
        distances.append(relative(step.weights, exact.weights, weights))
    for a, b in itertools.pairwise(distances):
        assert abs(torch.log10(torch.tensor(a / b)) - 1) <= 0.02  # the next term is ε/n ≤ 1e-2 of the first
    assert certificate(problem, weights, step.weights, given, target) > 1e-6


def test_the_certificate_passes_where_the_distance_fails():
    """N16: with w = (a, −a) J is even under (w₁, w₂) → (−w₂, −w₁), so its minima come in pairs of equal value."""
    network = LayeredNetwork((1, 1, 1), (IDENTITY,) * 2, has_bias=False)
    one = torch.ones((1, 1), dtype=torch.float64)
    weights, problem = (0.3 * one, -0.3 * one), ProximalProblem(network, SQUARED_ERROR, 10.0)
    plus = solve_in_weights(problem, weights, one, one, start=(one, one))
    minus = solve_in_activities(problem, weights, one, one, start=(-one, one))
    for step in (plus, minus):
        assert step.is_solved
        assert autograd_certificate(network, SQUARED_ERROR, problem.rates, weights, step.weights, one, one) <= 1e-10
    mirrored = tuple(-w for w in reversed(plus.weights))
    assert relative(minus.weights, mirrored, weights) <= 1e-12
    assert relative(minus.weights, plus.weights, weights) > 0.5
    # so the distance to the other minimum would fail a step that is implicit, and a certificate on a wrong step fails
    between = tuple((a + b) / 2 for a, b in zip(plus.weights, minus.weights, strict=True))
    assert certificate(problem, weights, between, one, one) > 0.1


def test_a_branch_is_continuous():
    """Follow two ladders of different rungs to the same step."""
    network, weights = make_net(scale=1.5)
    given, target = make_sample()
    problem = ProximalProblem(network, SQUARED_ERROR, 3.0)
    fine = follow_branch(problem, weights, given, target, [0.5 * 1.15**k / 1.15**30 for k in range(30)] + [1.0])
    finer = follow_branch(problem, weights, given, target, [0.5 * 1.08**k / 1.08**60 for k in range(60)] + [1.0])
    assert fine.is_solved
    assert relative(fine.weights, finer.weights, weights) <= 1e-10
    assert fine.iterations > 30


def test_a_search_that_fails_says_so():
    network, weights = make_net()
    given, target = make_sample()
    problem = ProximalProblem(network, SQUARED_ERROR, 1.0)
    step = solve_in_activities(problem, weights, given, target, max_iterations=1)
    assert step.ending is MinimumEnding.BUDGET_SPENT
    assert not step.is_solved
    assert step.residual > 1e-6
    broken = solve_in_activities(problem, weights, given * float("nan"), target)
    assert broken.ending is MinimumEnding.NOT_FINITE
    assert not broken.is_solved


def test_a_saddle_is_not_called_a_minimum():
    found = minimise(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, torch.zeros(2, dtype=torch.float64))
    assert found.ending is MinimumEnding.SADDLE
    start = torch.tensor([1.0, 0.1], dtype=torch.float64)
    away = minimise(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4, start)
    assert away.ending is MinimumEnding.CONVERGED
    assert abs(float(away.point[1]) - 0.5**0.5) <= 1e-14


def test_gradient_is_that_of_autograd():
    for loss in BOTH_LOSSES:
        network, weights = make_net(activation=TANH)
        given, target = make_sample(count=3, is_distribution=True)
        own = [w.clone().requires_grad_() for w in weights]
        expected = torch.autograd.grad(plain_loss(network, loss, own, given, target), own)
        found = ProximalProblem(network, loss, 1.0).gradient(weights, given, target)
        assert float((stack(found) - stack(expected)).abs().max()) <= 1e-15 * 20


def test_ensembles_are_members_side_by_side():
    network, first = make_net(seed=1)
    second = make_net(seed=2)[1]
    given, target = make_sample()
    problem = ProximalProblem(network, SQUARED_ERROR, 1.0)
    both = tuple(torch.stack(pair) for pair in zip(first, second, strict=True))
    moved = tuple(1.1 * w for w in both)
    together = certificate(problem, both, moved, given, target)
    value = problem.objective(both, moved, given, target)
    for k, weights in enumerate((first, second)):
        new = tuple(1.1 * w for w in weights)
        assert together[k] == pytest.approx(float(certificate(problem, weights, new, given, target)), rel=1e-14)
        assert value[k] == pytest.approx(float(problem.objective(weights, new, given, target)), rel=1e-14)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": (1.0, 1.0)}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"penalty": -1.0}, "penalty"),
    ],
)
def test_refused_problems(change, where):
    network, _ = make_net()
    with pytest.raises(NlsimError) as caught:
        ProximalProblem(**{"network": network, "loss": SQUARED_ERROR, "rate": 1.0} | change)
    assert caught.value.where == where
    assert caught.value.advice


def test_refused_samples_and_ladders():
    network, weights = make_net()
    problem = ProximalProblem(network, SQUARED_ERROR, 1.0)
    with pytest.raises(NlsimError, match="one sample"):
        solve_in_activities(problem, weights, *make_sample(count=2))
    with pytest.raises(NlsimError, match="normaliser"):
        solve_in_weights(replace(problem, penalty=0.1), weights, *make_sample())
    for ladder in ([], [0.5], [0.5, 0.5, 1.0], [-1.0, 1.0]):
        with pytest.raises(NlsimError, match="increasing shares"):
            follow_branch(problem, weights, *make_sample(), ladder)
