"""Digraphs: the layered net in another form, and derivatives through the fixed point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nlsim.core.state import leaves
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.activation import LOGISTIC, TANH
from nlsim.systems.backprop import backpropagate
from nlsim.systems.digraph import (
    Digraph,
    as_digraph,
    digraph,
    fast_abscissa,
    join_activity,
    join_weights,
    rest_activity,
)
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations, RecurrentCostateReversal
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState, hamiltonian
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork

CYCLIC_ARCS = [(0, 2), (1, 3), (2, 3), (3, 2), (2, 2), (3, 4), (4, 2)]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cyclic(**more: object) -> Digraph:
    return digraph(2, 3, CYCLIC_ARCS, [4], TANH, **more)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("loss", [SQUARED_ERROR, CROSS_ENTROPY])
def test_layers_and_their_digraph_have_the_same_field(has_bias: bool, loss: object) -> None:
    layered = LayeredNetwork((3, 4, 2, 3), (LOGISTIC,) * 3, has_bias)
    graph = as_digraph(layered)
    speeds = (1.5, 0.7, 2.0)
    weights = tuple(randn(*layered.weight_shape(layer), seed=layer) for layer in range(3))
    activity = tuple(randn(5, n, seed=10 + n) for n in layered.sizes)
    costate = tuple(randn(5, n, seed=20 + n) for n in layered.sizes)
    momenta = tuple(randn(*w.shape, seed=30 + i) for i, w in enumerate(weights))
    inputs = Inputs(randn(5, 3, seed=40), randn(5, 3, seed=41))
    problem = LearningProblem(layered, loss, speeds, 0.6, 0.3, 0.2)
    per_neuron = torch.cat(
        [torch.full((n,), c, dtype=torch.float64) for n, c in zip(layered.sizes, speeds, strict=True)]
    )
    mean = float(per_neuron.mean())
    joined_problem = LearningProblem(replace(graph, speeds=per_neuron / mean), loss, (mean,), 0.6, 0.3, 0.2)
    state = LearningState(activity, weights, costate, momenta)
    joined = LearningState(
        join_activity(activity), join_weights(layered, weights), join_activity(costate), join_weights(layered, momenta)
    )
    for one, other in (
        (CostateReversal(problem), RecurrentCostateReversal(joined_problem)),
        (HamiltonEquations(problem), HamiltonEquations(joined_problem)),
    ):
        field, joint = one.vector_field(0.0, state, inputs), other.vector_field(0.0, joined, inputs)
        expected = LearningState(
            join_activity(field.activity),
            join_weights(layered, field.weight),
            join_activity(field.costate),
            join_weights(layered, field.weight_costate),
        )
        # sums of at most a dozen products of size 1: a few dozen roundings
        torch.testing.assert_close(leaves(joint), leaves(expected), rtol=1e-13, atol=1e-13)
        assert one.fastest_rate() == pytest.approx(other.fastest_rate(), rel=1e-14)
    torch.testing.assert_close(
        hamiltonian(problem, state, inputs), hamiltonian(joined_problem, joined, inputs), rtol=1e-13, atol=1e-13
    )


def test_field_is_that_of_the_hamiltonian_on_a_cycle() -> None:
    network = cyclic(has_bias=True, speeds=[1.0, 2.0, 4.0])
    problem = LearningProblem(network, SQUARED_ERROR, (1.3,), 0.6, 0.0, 0.2)
    mask = network.mask
    state = LearningState(
        (randn(4, 3),),
        (randn(*mask.shape, seed=1) * mask,),
        (randn(4, 3, seed=2),),
        (randn(*mask.shape, seed=3) * mask,),
    )
    inputs = Inputs(randn(4, 2, seed=4), randn(4, 1, seed=5))
    gradient = torch.func.grad(lambda y: hamiltonian(problem, y, inputs))(state)
    field = HamiltonEquations(problem).vector_field(0.0, state, inputs)
    expected = LearningState(
        gradient.costate,
        gradient.weight_costate,
        tuple(-g for g in gradient.activity),
        tuple(-g * mask for g in gradient.weight),
    )
    torch.testing.assert_close(leaves(field), leaves(expected), rtol=1e-13, atol=1e-13)


def test_recurrent_backpropagation_is_autograd_through_the_fixed_point() -> None:
    network = cyclic(has_bias=True)
    weight = (0.6 * randn(*network.mask.shape) * network.mask).requires_grad_()
    inputs = Inputs(randn(3, 2, seed=1), randn(3, 1, seed=2))
    assert fast_abscissa(network, (weight.detach(),), inputs) < -0.2
    x = torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(400):  # contracts by at least e^-0.2 a pass: below rounding after 400
        x = torch.tanh(network.pre_activation(weight, network.source(0, inputs.input, (x,))))
    SQUARED_ERROR.value(network.output((x,)), inputs.target).sum().backward()
    found = backpropagate(network, SQUARED_ERROR, (weight.detach(),), inputs)
    torch.testing.assert_close(found.activity[0], x.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.gradient[0], weight.grad, rtol=0, atol=1e-12)


def test_backpropagation_on_both_forms_agrees() -> None:
    layered = LayeredNetwork((3, 4, 2), (TANH,) * 2)
    weights = tuple(randn(*layered.weight_shape(layer), seed=layer) for layer in range(2))
    inputs = Inputs(randn(5, 3), randn(5, 2, seed=1))
    flat = backpropagate(layered, SQUARED_ERROR, weights, inputs)
    joint = backpropagate(as_digraph(layered), SQUARED_ERROR, join_weights(layered, weights), inputs)
    torch.testing.assert_close(joint.gradient, join_weights(layered, flat.gradient), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(joint.costate, join_activity(flat.costate), rtol=1e-13, atol=1e-13)


def test_weights_off_the_arcs_do_nothing() -> None:
    network = cyclic()
    weight = randn(*network.mask.shape)
    inputs = Inputs(randn(2, 2, seed=1), randn(2, 1, seed=2))
    problem = LearningProblem(network, SQUARED_ERROR, (1.0,), 1.0)
    states = [
        LearningState((randn(2, 3, seed=3),), (w,), (randn(2, 3, seed=4),), (torch.zeros_like(weight),))
        for w in (weight, weight * network.mask)
    ]
    fields = [RecurrentCostateReversal(problem).vector_field(0.0, each, inputs) for each in states]
    torch.testing.assert_close(leaves(fields[0]), leaves(fields[1]), rtol=0, atol=0)
    assert not fields[0].weight_costate[0][~network.mask].any()
    assert fields[0].weight_costate[0][network.mask].all()


def test_rest_is_where_nothing_moves() -> None:
    network = cyclic()
    (weight,) = network.initial_weights(0, scale=2.0, dtype=torch.float64, device="cpu")
    inputs = Inputs(randn(6, 2), None)
    x = rest_activity(network, (weight,), inputs)
    again = torch.tanh(network.pre_activation(weight, network.source(0, inputs.input, (x,))))
    torch.testing.assert_close(again, x, rtol=0, atol=1e-14)
    assert not weight[~network.mask].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"arcs": [(0, 1), (1, 2)]}, "leads into an input"),
        ({"arcs": [(0, 2), (2, 3)]}, "feeds no neuron"),
        ({"arcs": [*CYCLIC_ARCS, (5, 2)]}, "not there"),
        ({"arcs": [*CYCLIC_ARCS, (0, 2)]}, "comes twice"),
        ({"outputs": [1]}, "not distinct neurons"),
        ({"outputs": []}, "not distinct neurons"),
        ({"speeds": [1.0, -1.0, 1.0]}, "speeds do not fit"),
        ({"speeds": [1.0]}, "speeds do not fit"),
    ],
)
def test_graphs_the_theory_does_not_cover_are_refused(arguments: dict, words: str) -> None:
    good = {"inputs": 2, "neurons": 3, "arcs": CYCLIC_ARCS, "outputs": [4], "activation": TANH}
    digraph(**good)
    with pytest.raises(NlsimError, match=words):
        digraph(**{**good, **arguments})


def test_layers_of_different_kinds_are_refused() -> None:
    with pytest.raises(NlsimError, match="different activations"):
        as_digraph(LayeredNetwork((2, 2, 2), (TANH, LOGISTIC)))
