"""Incremental inference learning: one gradient flow of activities and weights, along which the free energy falls."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits
from support.learning import draw, make_weights
from support.settling import linear_output, near_target, one_hot_target, plain_energy

from nlsim.core.system import Held
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.incremental import IncrementalLearning
from nlsim.systems.inference.precision import ConstantPrecision, StepPrecision
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.signals import HeldSamples

PRECISIONS = {
    "one": (ConstantPrecision(), lambda layer, n: torch.ones_like(n)),
    "one a layer": (ConstantPrecision((0.5, 2.0, 0.8)), lambda layer, n: (0.5, 2.0, 0.8)[layer - 1] + 0 * n),
    "exact": (StepPrecision(0.7, "exact"), lambda layer, n: 1 / (0.7 * n)),
}
OUTPUTS = {
    "clamped": ("clamped", SQUARED_ERROR),
    "free": ("free", SQUARED_ERROR),
    "free, softmax": ("free", CROSS_ENTROPY),
    "settled": ("settled", SQUARED_ERROR),
}
each_precision = pytest.mark.parametrize("name", PRECISIONS)
each_output = pytest.mark.parametrize("output", OUTPUTS)


def case(name="one", output="clamped", rate=0.2, samples=3, **options):
    kind, loss = OUTPUTS[output]
    network = linear_output()
    weights = make_weights(network)
    inputs = one_hot_target(network, samples) if loss is CROSS_ENTROPY else near_target(network, weights, samples)
    system = IncrementalLearning(network, loss, PRECISIONS[name][0], kind, rate, **options)
    return system, system.initial_state(weights, inputs), inputs


@each_precision
@each_output
def test_the_field_is_minus_the_gradient_of_the_energy_in_both(name, output):
    system, state, inputs = case(name, output)
    state = replace(state, activity=tuple(h + 0.3 * draw(5, *h.shape) for h in state.activity))
    activity = [h.clone().requires_grad_() for h in state.activity]
    weights = [w.clone().requires_grad_() for w in state.weight]
    top = [] if system.output == "free" else [system._settling_system().settling(state, inputs).activity[-1]]
    loss = None if system.output == "clamped" else system.loss.name
    energy = plain_energy(
        system.network, loss, weights, inputs.input, inputs.target, [*activity, *top], PRECISIONS[name][1]
    )
    slopes = torch.autograd.grad(energy, (*activity, *weights))
    field = system.vector_field(0.0, state, inputs)
    # a settled output minimises the energy, so its own motion does not count; the weights' rate is a mean over three
    assert_round_off(field.activity, tuple(-s for s in slopes[: len(activity)]), 400)
    assert_round_off(field.weight, tuple(-0.2 * s / 3 for s in slopes[len(activity) :]), 400)


@each_precision
@each_output
def test_joint_descent(name, output):
    # steps below 1/λ_max of the joint Hessian descend; here λ_max dt stays below 0.5
    system, state, inputs = case(name, output)
    energies = [float(system.energy(0.0, state, inputs))]
    for _ in range(300):
        state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.05, 1)
        energies.append(float(system.energy(0.0, state, inputs)))
    assert all(later < before for before, later in pairwise(energies))
    assert energies[-1] < 0.5 * energies[0]


def test_ascent_is_seen():
    system, state, inputs = case()
    state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.05, 1)
    after = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, -0.05, 1)
    assert float(system.energy(0.0, after, inputs)) > float(system.energy(0.0, state, inputs))


def test_the_energy_falls_at_the_rate_of_its_gradients():
    # dF/dt = −‖dĥ/dt‖² − (B/η) ‖dW/dt‖² by a central difference: h² of a third derivative, below 1e-6
    system, state, inputs = case("exact", "free")
    state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.05, 4)
    field = system.vector_field(0.0, state, inputs)
    h = 1e-4

    def energy(by):
        moved = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, by, 1)
        return float(system.energy(0.0, moved, inputs))

    expected = -sum(float(f.square().sum()) for f in field.activity)
    expected -= 3 / 0.2 * sum(float(f.square().sum()) for f in field.weight)
    assert (energy(h) - energy(-h)) / (2 * h) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("restarts", [True, False])
def test_edges(restarts):
    system, _, _ = case(restarts=restarts)
    weights = make_weights(system.network)
    signal = HeldSamples(draw(1, 4, 5), draw(2, 4, 4), 1, 1.0, 0)
    state = system.initial_state(weights, signal.piece(0.0)(0.0))
    loop = Loop(system, FixedStep(EXPLICIT_EULER, 0.1), signal, state, until=1.0)
    last = list(loop)[-1].state
    assert_same_bits(loop.state.weight, last.weight)
    begun = signal.piece(1.0)(1.0)
    expected = feedforward(system.network, last.weight, begun.input)[:-1] if restarts else last.activity
    assert_same_bits(loop.state.activity, expected)
    assert any(bool((h != f).any()) for h, f in zip(last.activity, expected, strict=True)) is restarts


def test_it_learns():
    system, state, inputs = case(rate=0.5)
    loss = system.observables()["loss"]
    before = float(loss.evaluate(0.0, state, inputs))
    after = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.05, 2000)
    assert float(loss.evaluate(0.0, after, inputs)) < 0.01 * before


def test_refusals():
    network = linear_output()
    with pytest.raises(CapabilityError, match="joint flow"):
        IncrementalLearning(network, SQUARED_ERROR, StepPrecision(0.1, "feedforward"), "clamped", 0.1)
    with pytest.raises(CapabilityError, match="joint flow"):
        IncrementalLearning(network, CROSS_ENTROPY, ConstantPrecision(), "heuristic", 0.1)
    with pytest.raises(NlsimError, match="positive size"):
        IncrementalLearning(network, SQUARED_ERROR, ConstantPrecision(), "clamped", 0.0)
