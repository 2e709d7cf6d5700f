"""T22: error coordinates have the same rest states, better conditioning, and begin with backpropagation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, make_weights
from support.settling import linear_output, near_target, one_hot_target

from nlsim.core.system import Held
from nlsim.errors import UnknownNameError
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.inference.error_form import ErrorFormLearning
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision
from nlsim.systems.inference.update import LeastMeanSquares, NormalisedLeastMeanSquares
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR

OUTPUTS = {
    "clamped": ("clamped", SQUARED_ERROR),
    "free": ("free", SQUARED_ERROR),
    "free, softmax": ("free", CROSS_ENTROPY),
    "settled": ("settled", SQUARED_ERROR),
    "settled, softmax": ("settled", CROSS_ENTROPY),
}
each_output = pytest.mark.parametrize("output", OUTPUTS)
GAMMAS = (0.8, 1.2, 0.9)


def pair(output, gammas=GAMMAS, update=None, samples=2):
    kind, loss = OUTPUTS[output]
    network = linear_output()
    weights = tuple(0.7 * w for w in make_weights(network))
    inputs = one_hot_target(network, samples) if loss is CROSS_ENTROPY else near_target(network, weights, samples)
    rule = update or NormalisedLeastMeanSquares()
    form = (network, loss, ConstantPrecision(gammas), kind, rule)
    return ErrorFormLearning(*form), InferenceLearning(*form), weights, inputs


@each_output
def test_the_field_is_minus_the_gradient_of_the_energy(output):
    system, _, weights, inputs = pair(output)
    state = system.initial_state(weights, inputs)
    errors = [(0.3 * draw(7 + k, *e.shape)).requires_grad_() for k, e in enumerate(state.error)]
    # the energy written out again
    source, total = inputs.input, 0.0
    for layer, w in enumerate(weights):
        z = torch.cat((source, torch.ones_like(source[:, :1])), -1) @ w.T
        if layer < len(errors):
            z = z + errors[layer]
            total = total + GAMMAS[layer] / 2 * errors[layer].square().sum()
        source = torch.tanh(z)
    if system.output == "clamped":
        total = total + GAMMAS[-1] / 2 * (inputs.target - z).square().sum()
    else:
        top = z
        if system.output == "settled":
            seen = system.flow(weights).settling(tuple(e.detach() for e in errors), inputs)
            top = seen.activity[-1]  # the minimum, so that it may be held
            total = total + GAMMAS[-1] / 2 * (top - z).square().sum()
        total = total + system.loss.value(top, inputs.target).sum()
    expected = tuple(-g for g in torch.autograd.grad(total, errors))
    at = replace(state, error=tuple(e.detach() for e in errors))
    assert_round_off(system.vector_field(0.0, at, inputs).error, expected, 300)
    assert float(system.energy(0.0, at, inputs)) == pytest.approx(float(total.detach()), rel=1e-13)


@pytest.mark.parametrize(
    "output", [name for name in OUTPUTS if name != "settled, softmax"]
)  # slow; free rests there too
def test_rest_states_and_updates_are_those_of_the_state_form(output):
    # softest modes decay at 0.15 or more: e^{−30} is left of both
    system, plain, weights, inputs = pair(output)
    own, other = system.initial_state(weights, inputs), plain.initial_state(weights, inputs)
    flow, start = system.moving(own, Held(inputs))
    own = system.whole(own, RK4.advance(flow, Held(inputs), start, 0.0, 0.3, 700))
    flow, start = plain.moving(other, Held(inputs))
    other = plain.whole(other, RK4.advance(flow, Held(inputs), start, 0.0, 0.3, 700))
    seen, plainly = system.flow(weights).settling(own.error, inputs), plain.settling(other, inputs)
    assert_round_off(seen.activity, plainly.activity, 1e-10 / 2**-52)
    assert_round_off(seen.errors, plainly.errors, 1e-10 / 2**-52)
    assert max(float(e.abs().max()) for e in seen.errors) > 1e-2
    assert float(system.energy(0.0, own, inputs)) == pytest.approx(float(plain.energy(0.0, other, inputs)), rel=1e-10)
    assert_round_off(
        system.jump(0.0, own, inputs, inputs).weight, plain.jump(0.0, other, inputs, inputs).weight, 1e-10 / 2**-52
    )


def orthogonal(depth, width=6):
    network = linear_output((width,) * (depth + 1), "identity", has_bias=False)
    weights = tuple(torch.linalg.qr(draw(layer, width, width))[0] for layer in range(depth))
    return network, weights, near_target(network, weights, 1)


def condition(flow, moving, inputs):
    sizes = [each.numel() for each in moving]

    def field(point):
        parts = [p.reshape(m.shape) for p, m in zip(point.split(sizes), moving, strict=True)]
        return torch.cat([f.reshape(-1) for f in flow.vector_field(0.0, tuple(parts), inputs)])

    hessian = -torch.func.jacrev(field)(torch.cat([m.reshape(-1) for m in moving]))
    values = torch.linalg.eigvalsh(0.5 * (hessian + hessian.T))
    return float(values[-1] / values[0])


@pytest.mark.parametrize("depth", [4, 8, 16, 32])
def test_conditioning_with_orthogonal_weights(depth):
    network, weights, inputs = orthogonal(depth)
    form = (network, SQUARED_ERROR, ConstantPrecision(), "free", LeastMeanSquares(1.0))
    system, plain = ErrorFormLearning(*form), InferenceLearning(*form)
    own = condition(system.flow(weights), system.begin(weights, inputs), inputs)
    other = condition(plain.flow(weights), plain.begin(weights, inputs), inputs)
    # E has the Hessian 1 + 𝟙𝟙ᵀ ⊗ 1: L + 1; F the second difference matrix: cot²(π/(2(L + 1))), about 4L²/π²
    assert own == pytest.approx(depth + 1, rel=1e-10)
    assert other == pytest.approx(1 / math.tan(math.pi / (2 * (depth + 1))) ** 2, rel=1e-9)


@pytest.mark.parametrize("loss", [SQUARED_ERROR, CROSS_ENTROPY], ids=lambda each: each.name)
def test_the_first_step_is_backpropagation(loss):
    network = linear_output()
    weights = make_weights(network)
    inputs = one_hot_target(network, 2) if loss is CROSS_ENTROPY else near_target(network, weights, 2)
    system = ErrorFormLearning(network, loss, ConstantPrecision(), "free", LeastMeanSquares(1.0))
    offsets = [torch.zeros(2, n, dtype=torch.float64, requires_grad=True) for n in network.sizes]
    x = inputs.input
    for w, offset, activation in zip(weights, offsets, network.activations, strict=True):
        x = activation.value(torch.cat((x, torch.ones_like(x[:, :1])), -1) @ w.T + offset)
    deltas = torch.autograd.grad(loss.value(x, inputs.target).sum(), offsets)
    state = system.initial_state(weights, inputs)
    after = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.25, 1)
    assert_round_off(after.error, tuple(-0.25 * d for d in deltas), 200)


@each_output
def test_energy_never_rises(output):
    system, _, weights, inputs = pair(output)
    state = system.initial_state(weights, inputs)
    energies = []
    for _ in range(60):
        energies.append(float(system.energy(0.0, state, inputs)))
        state = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, 0.03, 1)
    assert all(later < before for before, later in pairwise(energies))


def test_an_ensemble_is_its_members():
    system, _, _, inputs = pair("free")
    members = [make_weights(system.network, seed) for seed in (3, 4)]
    both = tuple(torch.stack(each) for each in zip(*members, strict=True))

    def after(weights):
        state = EXPLICIT_EULER.advance(system, Held(inputs), system.initial_state(weights, inputs), 0.0, 0.05, 5)
        return system.jump(0.0, state, inputs, inputs).weight

    together = after(both)
    for index, weights in enumerate(members):
        assert_round_off(tuple(w[index] for w in together), after(weights), 200)


def test_refusals():
    with pytest.raises(UnknownNameError):
        ErrorFormLearning(linear_output(), SQUARED_ERROR, ConstantPrecision(), "open", LeastMeanSquares(1.0))
