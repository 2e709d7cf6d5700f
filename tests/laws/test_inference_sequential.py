"""Sequential inference brings errors to all layers at once, rests where the flow rests, and MQ is its definition."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off
from support.learning import make_weights
from support.settling import linear_output, make_system, near_target, plain_energy

from nlsim.core.system import Held
from nlsim.errors import NlsimError, UnknownNameError
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.systems.inference.energy import feedforward
from nlsim.systems.inference.sequential import MeanSizeUpdate, SequentialLearning
from nlsim.systems.loss import SQUARED_ERROR


def case(samples=2, **options):
    network = linear_output()
    weights = tuple(0.7 * w for w in make_weights(network))
    values = {"update": MeanSizeUpdate(0.01), "output": "clamped", **options}
    return SequentialLearning(network, SQUARED_ERROR, **values), weights, near_target(network, weights, samples)


def deltas(network, weights, inputs):
    """Return −∂ℓ/∂h by autograd through offsets."""
    samples = len(inputs.input)
    offsets = [torch.zeros(samples, n, dtype=torch.float64, requires_grad=True) for n in network.sizes]
    x = inputs.input
    for w, offset, activation in zip(weights, offsets, network.activations, strict=True):
        x = activation.value(torch.cat((x, torch.ones_like(x[:, :1])), -1) @ w.T + offset)
    return [-d for d in torch.autograd.grad(SQUARED_ERROR.value(x, inputs.target).sum(), offsets)]


@pytest.mark.parametrize("step", [1.0, 0.3])
def test_the_first_sweep_brings_gamma_to_the_k_of_backpropagation(step):
    system, weights, inputs = case()
    forward = feedforward(system.network, weights, inputs.input)
    swept = system.sweep(weights, forward[:-1], inputs, step)
    expected = deltas(system.network, weights, inputs)
    for layer, h in enumerate(swept):
        assert_round_off(h - forward[layer], step ** (2 - layer) * expected[layer], 100)


def test_simultaneous_steps_bring_it_one_layer():
    system, weights, inputs = case()
    plain = make_system(system.network)
    state = EXPLICIT_EULER.advance(plain, Held(inputs), plain.initial_state(weights, inputs), 0.0, 1.0, 1)
    forward = feedforward(system.network, weights, inputs.input)
    assert_round_off(state.activity[0], forward[0], 10)
    assert float((state.activity[1] - forward[1]).abs().max()) > 1e-2


def test_it_rests_where_the_flow_rests():
    system, weights, inputs = case(is_cooling=False, step=0.2, sweeps=600)
    plain = make_system(system.network)
    state = plain.initial_state(weights, inputs)
    flow, start = plain.moving(state, Held(inputs))
    state = plain.whole(state, RK4.advance(flow, Held(inputs), start, 0.0, 0.25, 480))
    assert_round_off(system.infer(weights, inputs).errors, plain.settling(state, inputs).errors, 1e-12 / 2**-52)
    assert max(float(e.abs().max()) for e in system.infer(weights, inputs).errors) > 1e-2


def test_the_step_cools():
    system, weights, inputs = case(step=0.4, sweeps=3)
    hidden = feedforward(system.network, weights, inputs.input)[:-1]
    for step in (0.4, 0.2, 0.4 / 3):
        hidden = system.sweep(weights, hidden, inputs, step)
    assert_round_off(system.infer(weights, inputs).activity[:-1], hidden, 1)


def test_a_settled_output_is_refreshed():
    system, weights, inputs = case(output="settled", strength=3.0)
    seen = system.infer(weights, inputs)
    # (p + β y)/(1 + β) at the prediction after the sweeps
    p = seen.predictions.prediction[-1]
    assert_round_off(seen.activity[-1], (p + 3.0 * inputs.target) / 4.0, 10)


def test_sweeps_lower_the_energy():
    system, weights, inputs = case()
    hidden, energies = feedforward(system.network, weights, inputs.input)[:-1], []
    for _ in range(30):
        energies.append(
            float(
                plain_energy(
                    system.network, None, weights, inputs.input, inputs.target, [*hidden, inputs.target],
                    lambda layer, n: torch.ones_like(n),
                )
            )
        )  # fmt: skip
        hidden = system.sweep(weights, hidden, inputs, 0.05)
    assert all(later < before for before, later in pairwise(energies))


def test_mean_size_updates_are_their_definition():
    system, weights, inputs = case(update=MeanSizeUpdate(0.02))
    state = system.initial_state(weights, inputs)
    own, sizes = [w.clone() for w in weights], [0.02] * 3
    for count in range(1, 5):
        seen = system.infer(tuple(own), inputs)
        for layer in range(3):
            source = seen.predictions.source[layer]
            source = torch.cat((source, torch.ones_like(source[:, :1])), -1)
            g = torch.einsum("bi,bj->ij", seen.errors[layer], source) / 2
            own[layer] = own[layer] + (0.02 / (sizes[layer] + 1e-6) + 1e-3) * g
            rho = min(count / (count + 1), 0.9999)
            sizes[layer] = rho * sizes[layer] + (1 - rho) * float(g.abs().mean())
        state = system.jump(0.0, state, inputs, inputs)
        assert_round_off(state.weight, tuple(own), 300)
    assert_round_off(
        torch.cat([v.reshape(-1) for v in state.moment]), torch.tensor([*sizes, 4.0], dtype=torch.float64), 300
    )


def test_memory_has_an_end():
    update = MeanSizeUpdate(0.02, memory=0.6)
    system, weights, inputs = case(update=update)
    state = system.initial_state(weights, inputs)
    for _ in range(3):
        before, seen = state, system.infer(state.weight, inputs)
        state = system.jump(0.0, state, inputs, inputs)
    g = seen.errors[0].T @ torch.cat((inputs.input, torch.ones(2, 1, dtype=torch.float64)), -1) / 2
    # 3/4 is beyond the end of memory
    assert float(state.moment[0]) == pytest.approx(0.6 * float(before.moment[0]) + 0.4 * float(g.abs().mean()), 1e-12)


def test_it_learns():
    system, weights, inputs = case(update=MeanSizeUpdate(0.002), output="settled", step=0.2)
    loss = system.observables()["loss"]
    state = system.initial_state(weights, inputs)
    before = float(loss.evaluate(0.0, state, inputs))
    for _ in range(200):
        state = system.jump(0.0, state, inputs, inputs)
    assert float(loss.evaluate(0.0, state, inputs)) < 0.05 * before


def test_an_ensemble_is_its_members():
    system, _, inputs = case()
    members = [make_weights(system.network, seed) for seed in (3, 4)]
    both = tuple(torch.stack(each) for each in zip(*members, strict=True))

    def after(weights):
        state = system.initial_state(weights, inputs)
        return system.jump(0.0, system.jump(0.0, state, inputs, inputs), inputs, inputs).weight

    together = after(both)
    for index, weights in enumerate(members):
        assert_round_off(tuple(w[index] for w in together), after(weights), 200)


def test_refusals():
    system, _, _ = case()
    with pytest.raises(NlsimError, match="sweep"):
        replace(system, sweeps=0)
    with pytest.raises(NlsimError, match="positive size"):
        replace(system, step=0.0)
    with pytest.raises(UnknownNameError):
        replace(system, output="free")
    with pytest.raises(NlsimError, match="positive size"):
        MeanSizeUpdate(-1.0)
