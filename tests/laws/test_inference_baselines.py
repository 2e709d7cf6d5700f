"""Steps of backpropagation are torch's own, BP-prox is its definition, and joint descent descends."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, snapshot
from support.learning import draw, make_weights
from support.oracle import PLAIN_ACTIVATION, autograd_gradient
from support.settling import linear_output, near_target, one_hot_target

from nlsim.core.system import Held
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import HEUN
from nlsim.integrate.loop import Loop
from nlsim.systems.inference.baselines import BackpropagationProximal, BackpropagationSteps, GradientDescent
from nlsim.systems.inference.update import Adam
from nlsim.systems.loss import CROSS_ENTROPY, LOSSES, SQUARED_ERROR
from nlsim.systems.signals import HeldSamples

TORCH = {
    "sgd": (GradientDescent(0.2), lambda own: torch.optim.SGD(own, lr=0.2)),
    "adam": (Adam(0.01), lambda own: torch.optim.Adam(own, lr=0.01)),
}


def batches(signal, count, interval):
    return [signal.piece((n + 0.5) * interval)(0.0) for n in range(count)]


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_is_that_of_torch(name, loss):
    descent, make = TORCH[name]
    network = linear_output()
    weights = make_weights(network)
    labels = one_hot_target(network, 6).target
    signal = HeldSamples(draw(1, 6, 5), labels, 2, 1.0, 0)
    system = BackpropagationSteps(network, LOSSES[loss], descent)
    loop = Loop(system, FixedStep(HEUN, 0.5), signal, system.initial_state(weights, signal.piece(0.0)(0.0)), until=8.0)
    list(loop)

    own = [w.clone().requires_grad_() for w in weights]
    optimiser = make(own)
    for inputs in batches(signal, 8, 1.0):
        for w, g in zip(own, autograd_gradient(network, LOSSES[loss], own, inputs), strict=True):
            w.grad = g / 2  # the mean over the two samples
        optimiser.step()
    # Adam divides by the size of a gradient entry, which magnifies the roundings of small ones
    assert_round_off(loop.state.weight, tuple(w.detach() for w in own), 1e5 if name == "adam" else 1e3)
    assert max(float((w - v).abs().max()) for w, v in zip(loop.state.weight, weights, strict=True)) > 0.03


def plain_prox(network, weights, inputs, alpha, epsilon, output_of):
    """Return the weights after BP-prox, written out again with autograd."""
    own = [w.clone().requires_grad_() for w in weights]
    x, sources = inputs.input, []
    for layer, w in enumerate(own):
        x = torch.cat((x, torch.ones_like(x[:, :1])), -1) if network.has_bias else x
        sources.append(x.detach())
        h = x @ w.T
        x = PLAIN_ACTIVATION[network.activations[layer].name](h)
    n = sources[-1].square().sum(-1, keepdim=True)
    error = output_of(h.detach(), alpha * n, inputs.target) - h.detach()
    gradients = torch.autograd.grad((h * error).sum() / len(h), own)
    return tuple(
        w.detach() + g / (a.square().sum(-1).mean() + epsilon) for w, g, a in zip(own, gradients, sources, strict=True)
    )


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_bp_prox_is_its_definition(has_bias, epsilon, alpha):
    network = linear_output(has_bias=has_bias)
    weights = make_weights(network)
    inputs = near_target(network, weights, 3)
    system = BackpropagationProximal(network, SQUARED_ERROR, alpha, epsilon)
    found = system.jump(1.0, system.initial_state(weights, inputs), inputs, inputs).weight
    expected = plain_prox(network, weights, inputs, alpha, epsilon, lambda p, an, y: (p + an * y) / (1 + an))
    assert_round_off(found, expected, 300)


def test_bp_prox_with_a_softmax_takes_the_exact_target():
    network = linear_output()
    weights = make_weights(network)
    inputs = one_hot_target(network, 3)
    system = BackpropagationProximal(network, CROSS_ENTROPY, 0.7)

    def root(p, an, y):
        # ĥ = p + α n (y − softmax ĥ) by Newton's method on each row
        rows = []
        for own, size, target in zip(p, an, y, strict=True):
            h = own.clone()
            for _ in range(60):
                s = torch.softmax(h, -1)
                jacobian = torch.eye(len(h), dtype=h.dtype) + size * (torch.diag(s) - torch.outer(s, s))
                h = h - 0.5 * torch.linalg.solve(jacobian, h - own - size * (target - s))
            rows.append(h)
        return torch.stack(rows)

    expected = plain_prox(network, weights, inputs, 0.7, 0.0, root)
    found = system.jump(1.0, system.initial_state(weights, inputs), inputs, inputs).weight
    # sixty halvings leave 1e-18 of the distance
    assert_round_off(found, expected, 1000)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3])
def test_bp_prox_of_one_layer_is_the_implicit_step(alpha):
    # T1: W + α/(1 + α n) (y − W ã) ãᵀ
    network = linear_output((5, 4))
    weights = make_weights(network)
    inputs = near_target(network, weights, 1)
    system = BackpropagationProximal(network, SQUARED_ERROR, alpha)
    found = system.jump(1.0, system.initial_state(weights, inputs), inputs, inputs).weight[0]
    a = torch.cat((inputs.input[0], torch.ones(1, dtype=torch.float64)))
    expected = weights[0] + alpha / (1 + alpha * a @ a) * torch.outer(inputs.target[0] - weights[0] @ a, a)
    assert_round_off(found, expected, 50)


def test_bp_prox_of_several_layers_can_raise_the_loss():
    # the control of that: all layers step towards the same target, each as far as it alone would have to
    network = linear_output((5, 7, 7, 7, 4), "identity")
    weights = make_weights(network)
    inputs = near_target(network, weights, 1)
    system = BackpropagationProximal(network, SQUARED_ERROR, 1e3)
    loss = system.observables()["loss"]
    state = system.initial_state(weights, inputs)
    after = system.jump(1.0, state, inputs, inputs)
    assert float(loss.evaluate(0.0, after, inputs)) > 2 * float(loss.evaluate(0.0, state, inputs))


@pytest.mark.parametrize("kind", ["steps", "prox"])
def test_nothing_moves_between_jumps_and_a_jump_is_pure(kind):
    network = linear_output()
    weights = make_weights(network)
    inputs = near_target(network, weights, 2)
    system = (
        BackpropagationSteps(network, SQUARED_ERROR, Adam(0.1))
        if kind == "steps"
        else BackpropagationProximal(network, SQUARED_ERROR, 1.0)
    )
    state = system.initial_state(weights, inputs)
    before = snapshot(state)
    flow, moving = system.moving(state, Held(inputs))
    assert_same_bits(system.whole(state, HEUN.advance(flow, Held(inputs), moving, 0.0, 0.1, 7)), before)
    assert_same_bits(HEUN.advance(system, Held(inputs), state, 0.0, 0.1, 7), before)
    after = system.jump(1.0, state, inputs, inputs)
    assert_same_bits(state, before)
    assert all(bool((w != v).any()) for w, v in zip(after.weight, weights, strict=True))


def test_an_ensemble_of_rates_is_its_members():
    network = linear_output()
    weights = make_weights(network)
    inputs = near_target(network, weights, 2)
    rates = torch.tensor([0.1, 10.0], dtype=torch.float64)
    both = tuple(torch.stack((w, w)) for w in weights)
    for make in (
        lambda rate: BackpropagationProximal(network, SQUARED_ERROR, rate),
        lambda rate: BackpropagationSteps(network, SQUARED_ERROR, GradientDescent(rate)),
    ):
        system = make(rates[:, None, None])
        together = system.jump(1.0, system.initial_state(both, inputs), inputs, inputs).weight
        for index, rate in enumerate(rates.tolist()):
            alone = make(rate).jump(1.0, make(rate).initial_state(weights, inputs), inputs, inputs).weight
            assert_round_off(tuple(w[index] for w in together), alone, 200)


def test_refusals():
    network = linear_output()
    with pytest.raises(NlsimError, match="positive size"):
        GradientDescent(0.0)
    with pytest.raises(NlsimError, match="positive size"):
        BackpropagationProximal(network, SQUARED_ERROR, -1.0)
    with pytest.raises(NlsimError, match="normaliser"):
        BackpropagationProximal(network, SQUARED_ERROR, 1.0, -0.1)
    bent = type(network)(network.widths, (network.activations[0],) * 3)
    for make in (
        lambda: BackpropagationProximal(bent, SQUARED_ERROR, 1.0),
        lambda: BackpropagationSteps(bent, SQUARED_ERROR, GradientDescent(0.1)),
    ):
        with pytest.raises(CapabilityError, match="linear output"):
            make()


def test_small_steps_descend_the_loss():
    network = linear_output()
    weights = make_weights(network)
    inputs = near_target(network, weights, 3)
    system = BackpropagationSteps(network, SQUARED_ERROR, GradientDescent(0.02))
    state, losses = system.initial_state(weights, inputs), []
    loss = system.observables()["loss"]
    for _ in range(30):
        losses.append(float(loss.evaluate(0.0, state, inputs)))
        state = system.jump(1.0, state, inputs, inputs)
    assert all(later < before for before, later in pairwise(losses))
    assert losses[-1] < 0.7 * losses[0]
