"""Both vector fields are partial derivatives of the scalar Hamiltonian, with the signs that name them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.compare import assert_round_off
from support.learning import make_inputs, make_network, make_problem, make_state

from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import costate_gradient, hamiltonian
from nlsim.systems.loss import LOSSES

SIGNS = {HamiltonEquations: +1, CostateReversal: -1}
NETWORKS = [(3, 2), (3, 5, 2), (3, 4, 5, 2)]
CASES = list(itertools.product(SIGNS, NETWORKS, LOSSES, (True, False)))

# every entry is a sum of fewer than fifty products of numbers of size up to 5, formed in two ways
ROUNDINGS = 500


def expected_field(problem, state, inputs, sign):
    slope = torch.func.grad(lambda y: hamiltonian(problem, y, inputs))(state)
    theta = problem.dissipation

    def costates(h, pi):
        return tuple(-sign * each - theta * p for each, p in zip(h, pi, strict=True))

    return type(state)(
        slope.costate,
        slope.weight_costate,
        costates(slope.activity, state.costate),
        costates(slope.weight, state.weight_costate),
    )


@pytest.mark.parametrize(("kind", "widths", "loss", "has_bias"), CASES)
def test_vector_field_is_the_gradient_of_the_hamiltonian(kind, widths, loss, has_bias):
    problem = make_problem(make_network(widths, has_bias=has_bias), loss=LOSSES[loss])
    state, inputs = make_state(problem.network, 6), make_inputs(problem.network, 6)
    found = kind(problem).vector_field(0.0, state, inputs)
    assert_round_off(found, expected_field(problem, state, inputs, SIGNS[kind]), ROUNDINGS)


@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_for_every_activation(kind, activation):
    problem = make_problem(make_network(activation=activation))
    state, inputs = make_state(problem.network, 6), make_inputs(problem.network, 6)
    found = kind(problem).vector_field(0.0, state, inputs)
    assert_round_off(found, expected_field(problem, state, inputs, SIGNS[kind]), ROUNDINGS)


@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize(
    "constants",
    [
        {"dissipation": 0.0, "regularisation": 0.0},
        {"dissipation": 2.5},
        {"regularisation": 3.0},
        {"mass": 0.2},
        {"mass": math.inf},
        {"speed": (5.0, 0.5, 2.0)},
    ],
    ids=str,
)
def test_for_every_constant(kind, constants):
    problem = make_problem(**constants)
    state, inputs = make_state(problem.network, 6), make_inputs(problem.network, 6)
    found = kind(problem).vector_field(0.0, state, inputs)
    assert_round_off(found, expected_field(problem, state, inputs, SIGNS[kind]), ROUNDINGS)


@pytest.mark.parametrize("regularisation", [0.0, 0.7])
def test_costate_gradient_is_its_definition(regularisation):
    # Σ_samples (c_l/c) σ'(a_l) π_l x̃ᵀ_{l−1}, written out; tanh' = 1 − tanh²
    problem = make_problem(regularisation=regularisation)
    network = problem.network
    state, inputs = make_state(network, 5), make_inputs(network, 5)
    speed = [1.0, 1.7, 2.4]
    c = (4 * speed[0] + 5 * speed[1] + 2 * speed[2]) / 11
    expected, source = [], inputs.input
    for layer in range(3):
        padded = torch.cat((source, torch.ones(5, 1, dtype=torch.float64)), -1)
        slope = 1 - torch.tanh(torch.einsum("oi,si->so", state.weight[layer], padded)) ** 2
        expected.append(torch.einsum("so,so,si->oi", slope, state.costate[layer], padded) * speed[layer] / c)
        source = state.activity[layer]
    assert_round_off(costate_gradient(problem, state, inputs), tuple(expected), ROUNDINGS)


@pytest.mark.parametrize("kind", SIGNS)
def test_fastest_rate_bounds_the_decay_of_the_linear_part(kind):
    # costates decay at c + θ under the reversal; the exact equations have them grow at c − θ
    rates = {CostateReversal: 2.4 + 0.3, HamiltonEquations: 2.4}
    assert kind(make_problem()).fastest_rate() == pytest.approx(rates[kind])
