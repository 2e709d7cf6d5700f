"""The Hamiltonian against its formula written out in plain loops, sample by sample and neuron by neuron."""

from __future__ import annotations

import math

import pytest
from support.learning import make_inputs, make_network, make_problem, make_state

from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.systems.loss import LOSSES

SIGMA = {"tanh": math.tanh, "logistic": lambda a: 1 / (1 + math.exp(-a)), "relu": lambda a: max(a, 0.0)}


def plain_loss(name, x, z):
    if name == "squared_error":
        return math.fsum(0.5 * (xi - zi) ** 2 for xi, zi in zip(x, z, strict=True))
    total = math.log(math.fsum(math.exp(xi) for xi in x))
    return -math.fsum(zi * (xi - total) for xi, zi in zip(x, z, strict=True))


def plain_hamiltonian(problem, state, inputs):
    """Return −|p|²/2mc + c(L + k|W|²/2) + π·f with c the mean speed over neurons (Betti & Gori, eq. 8, 11)."""
    network = problem.network
    widths = network.widths[1:]
    c = sum(n * speed for n, speed in zip(widths, problem.speed, strict=True)) / sum(widths)
    terms = []
    for sample in range(len(inputs.input)):
        source = inputs.input[sample].tolist()
        for layer in range(network.depth):
            weight = state.weight[layer].tolist()
            sigma = SIGMA[network.activations[layer].name]
            x, pi = (each[layer][sample].tolist() for each in (state.activity, state.costate))
            padded = [*source, 1.0] if network.has_bias else source
            for i, row in enumerate(weight):
                a = math.fsum(w * s for w, s in zip(row, padded, strict=True))
                terms.append(pi[i] * problem.speed[layer] * (sigma(a) - x[i]))
            source = x
        terms.append(c * plain_loss(problem.loss.name, source, inputs.target[sample].tolist()))
    for weight, p in zip(state.weight, state.weight_costate, strict=True):
        for w, each in zip(weight.flatten().tolist(), p.flatten().tolist(), strict=True):
            terms.append(0.5 * c * problem.regularisation * w**2 - each**2 / (2 * problem.mass * c))
    return math.fsum(terms)


@pytest.mark.parametrize("activation", SIGMA)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_hamiltonian_is_its_formula(activation, loss, has_bias):
    problem = make_problem(make_network(activation=activation, has_bias=has_bias), loss=LOSSES[loss])
    state, inputs = make_state(problem.network, 4), make_inputs(problem.network, 4)
    expected = plain_hamiltonian(problem, state, inputs)
    # about 150 terms of size 1 to 5
    assert float(hamiltonian(problem, state, inputs)) == pytest.approx(expected, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("kind", [CostateReversal, HamiltonEquations])
def test_both_systems_show_the_same_hamiltonian(kind):
    problem = make_problem()
    state, inputs = make_state(problem.network, 3), make_inputs(problem.network, 3)
    expected = plain_hamiltonian(problem, state, inputs)
    assert float(kind(problem).hamiltonian(0.0, state, inputs)) == pytest.approx(expected, rel=1e-13)


def test_hamiltonian_of_frozen_weights_has_no_kinetic_part():
    frozen = make_problem(mass=math.inf)
    state, inputs = make_state(frozen.network, 3), make_inputs(frozen.network, 3)
    assert float(hamiltonian(frozen, state, inputs)) == pytest.approx(plain_hamiltonian(frozen, state, inputs))
