"""A sample's physics does not depend on its batch mates; forces on weights are sums over samples."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_round_off
from support.learning import make_inputs, make_network, make_problem, make_state, sample
from support.steppers import FIRST as STEPPERS

from nlsim.core.system import Inputs
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.hamiltonian.problem import hamiltonian
from nlsim.systems.loss import LOSSES

NETWORK = make_network()
SAMPLES = 6
ROUNDINGS = 100  # products of fewer than ten terms, in an order that may depend on the batch


def pick(inputs, index):
    return Inputs(inputs.input[index : index + 1], inputs.target[index : index + 1])


@pytest.mark.parametrize("kind", [CostateReversal, HamiltonEquations])
@pytest.mark.parametrize("loss", LOSSES)
def test_fast_part_of_the_field_is_each_samples_own(kind, loss):
    system = kind(make_problem(NETWORK, loss=LOSSES[loss]))
    state, inputs = make_state(NETWORK, SAMPLES), make_inputs(NETWORK, SAMPLES)
    field = system.vector_field(0.0, state, inputs)
    for index in range(SAMPLES):
        alone = system.vector_field(0.0, sample(state, index), pick(inputs, index))
        mine = sample(field, index)
        assert_round_off((mine.activity, mine.costate), (alone.activity, alone.costate), ROUNDINGS)


@pytest.mark.parametrize("kind", [CostateReversal, HamiltonEquations])
def test_force_on_the_weights_is_the_sum_over_samples(kind):
    # without the regulariser and dissipation, which belong to the weights and not to a sample
    system = kind(make_problem(NETWORK, regularisation=0.0, dissipation=0.0))
    state, inputs = make_state(NETWORK, SAMPLES), make_inputs(NETWORK, SAMPLES)
    together = system.vector_field(0.0, state, inputs).weight_costate
    parts = [
        system.vector_field(0.0, sample(state, index), pick(inputs, index)).weight_costate for index in range(SAMPLES)
    ]
    assert_round_off(together, tuple(sum(layer) for layer in zip(*parts, strict=True)), ROUNDINGS)


def test_hamiltonian_is_the_sum_over_samples():
    problem = make_problem(NETWORK, regularisation=0.0, mass=math.inf)
    state, inputs = make_state(NETWORK, SAMPLES), make_inputs(NETWORK, SAMPLES)
    parts = [hamiltonian(problem, sample(state, index), pick(inputs, index)) for index in range(SAMPLES)]
    assert_round_off(hamiltonian(problem, state, inputs), sum(parts), ROUNDINGS)


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_a_sample_moves_at_the_same_speed_in_any_batch(stepper):
    # frozen weights, so that nothing couples the samples: a batch mean would slow each down by 1/batch
    system = CostateReversal(make_problem(NETWORK, mass=math.inf))
    state, inputs = make_state(NETWORK, SAMPLES), make_inputs(NETWORK, SAMPLES)
    ended = stepper.advance(system, lambda t: inputs, state, 0.0, 0.05, 20)
    for index in range(SAMPLES):
        mine = pick(inputs, index)
        alone = stepper.advance(system, lambda t, mine=mine: mine, sample(state, index), 0.0, 0.05, 20)
        found = sample(ended, index)
        assert_round_off((found.activity, found.costate), (alone.activity, alone.costate), 20 * ROUNDINGS)


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_the_order_of_samples_does_not_matter(stepper):
    system = CostateReversal(make_problem(NETWORK))
    state, inputs = make_state(NETWORK, SAMPLES), make_inputs(NETWORK, SAMPLES)
    order = torch.tensor([3, 1, 5, 0, 4, 2])

    def shuffled(y):
        return type(y)(
            tuple(x[order] for x in y.activity), y.weight, tuple(p[order] for p in y.costate), y.weight_costate
        )

    other = Inputs(inputs.input[order], inputs.target[order])
    ended = stepper.advance(system, lambda t: inputs, state, 0.0, 0.05, 10)
    moved = stepper.advance(system, lambda t: other, shuffled(state), 0.0, 0.05, 10)
    assert_round_off(moved, shuffled(ended), 10 * ROUNDINGS)
