"""The flow of activities: a gradient flow sample by sample, the same when fused, and the descent it promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, snapshot
from support.learning import draw
from support.settling import linear_output, make_system, plain_energy, start

from nlsim.core.ending import Ending
from nlsim.core.state import map_leaves
from nlsim.core.system import Held, Inputs
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER, HEUN, RK4, ExplicitRungeKutta
from nlsim.integrate.loop import Loop
from nlsim.systems.inference.flow import Gains
from nlsim.systems.inference.precision import ConstantPrecision, StepPrecision
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.signals import Constant, HeldSamples

EULER_BY_FIELD = replace(
    EXPLICIT_EULER, name="euler by the field", stages=((), (0.0,)), nodes=(0.0, 0.0), weights=(1.0, 0.0)
)
"""Explicit Euler that never takes a system's own fused steps."""

PRECISIONS = {
    "one": (ConstantPrecision(), lambda layer, n: torch.ones_like(n)),
    "one a layer": (ConstantPrecision((0.5, 2.0, 0.8)), lambda layer, n: (0.5, 2.0, 0.8)[layer - 1] + 0 * n),
    "exact": (StepPrecision(0.7, "exact"), lambda layer, n: 1 / (0.7 * n)),
    "exact, penalty": (StepPrecision(0.7, "exact", 0.3), lambda layer, n: 1 / (0.7 * (n + 0.3))),
    "self-consistent": (StepPrecision(0.7, "self_consistent"), lambda layer, n: (1 / (0.7 * n)).detach()),
}
OUTPUTS = {
    "clamped": ("clamped", SQUARED_ERROR),
    "free": ("free", SQUARED_ERROR),
    "free, softmax": ("free", CROSS_ENTROPY),
    "settled": ("settled", SQUARED_ERROR),
    "settled, softmax": ("settled", CROSS_ENTROPY),
}
STEPPED = {
    **{name: precision for name, (precision, _) in PRECISIONS.items()},
    "equal": StepPrecision(0.7, "equal", 0.3),
    "feedforward": StepPrecision(0.7, "feedforward"),
}
each_precision = pytest.mark.parametrize("name", PRECISIONS)
each_output = pytest.mark.parametrize("output", OUTPUTS)
each_activation = pytest.mark.parametrize("activation", ["tanh", "softplus", "identity"])


def perturbed(state, scale=0.3):
    activity = tuple(h + scale * draw(60 + layer, *h.shape) for layer, h in enumerate(state.activity))
    return replace(state, activity=activity)


def gradient(system, state, inputs, gamma):
    """Return −∂F/∂ĥ by autograd through the energy written out again, the output being held where it is."""
    own = [h.detach().clone().requires_grad_() for h in state.activity]
    top = [] if system.output == "free" else [system.settling(state, inputs).activity[-1]]
    loss = None if system.output == "clamped" else system.loss.name
    energy = plain_energy(system.network, loss, state.weight, inputs.input, inputs.target, [*own, *top], gamma)
    return float(energy.detach()), tuple(-g for g in torch.autograd.grad(energy, own))


@each_precision
@each_output
@each_activation
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_field_is_minus_the_gradient_of_the_energy(name, output, activation, has_bias):
    precision, gamma = PRECISIONS[name]
    kind, loss = OUTPUTS[output]
    network = linear_output(activation=activation, has_bias=has_bias)
    system = make_system(network, precision=precision, output=kind, loss=loss)
    state, inputs = start(system)
    state = perturbed(state)
    energy, expected = gradient(system, state, inputs, gamma)
    assert_round_off(system.vector_field(0.0, state, inputs).activity, expected, 400)
    assert float(system.energy(0.0, state, inputs)) == pytest.approx(energy, rel=1e-13)
    # the part that a run steps, with the first prediction made once, is the same
    flow, moving = system.moving(state, Held(inputs))
    assert_round_off(flow.vector_field(0.0, moving, inputs), expected, 400)


@each_precision
@each_output
def test_the_scaled_flow_is_the_flow_divided_by_the_precision(name, output):
    precision, _ = PRECISIONS[name]
    kind, loss = OUTPUTS[output]
    system = make_system(precision=precision, output=kind, loss=loss, decay=(0.3, 0.1))
    state, inputs = start(system)
    state = perturbed(state)
    plain = system.vector_field(0.0, state, inputs).activity
    scaled = replace(system, is_scaled=True).vector_field(0.0, state, inputs).activity
    gammas = system.settling(state, inputs).precisions
    for f, s, gamma in zip(plain, scaled, gammas, strict=False):
        assert_round_off(s * gamma, f, 100)


def test_the_decay_pulls_to_zero():
    system = make_system()
    state, inputs = start(system)
    without = system.vector_field(0.0, state, inputs).activity
    with_decay = replace(system, decay=(0.3, 0.1)).vector_field(0.0, state, inputs).activity
    for f, g, h, d in zip(without, with_decay, state.activity, (0.3, 0.1), strict=True):
        assert_round_off(g, f - d * h, 10)
    more = replace(system, decay=(0.3, 0.1)).energy(0.0, state, inputs) - system.energy(0.0, state, inputs)
    assert float(more) == pytest.approx(
        sum(d / 2 * float(h.square().sum()) for h, d in zip(state.activity, (0.3, 0.1), strict=True))
    )


def test_decoupled_gains_are_geometric_precisions():
    # −γ_top e_l + γ_bot φ' Wᵀe is the flow of γ_l ∝ (γ_bot/γ_top)^l, times γ_top/γ_l
    top, bottom = 0.5, 0.8
    gammas = tuple((bottom / top) ** layer for layer in (1, 2, 3))
    by_hand = make_system(gains=Gains(top, bottom))
    derived = make_system(precision=ConstantPrecision(gammas), is_scaled=True)
    state, inputs = start(by_hand)
    state = perturbed(state)
    expected = tuple(top * f for f in derived.vector_field(0.0, state, inputs).activity)
    assert_round_off(by_hand.vector_field(0.0, state, inputs).activity, expected, 20)


@pytest.mark.parametrize("name", STEPPED)
@each_output
@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_fused_euler_steps_are_euler_steps(name, output, is_scaled, has_bias):
    precision = STEPPED[name]
    kind, loss = OUTPUTS[output]
    system = make_system(
        linear_output(has_bias=has_bias), precision=precision, output=kind, loss=loss, is_scaled=is_scaled
    )
    state, inputs = start(system)
    before = snapshot(state)
    flow, moving = system.moving(state, Held(inputs))
    fused = EXPLICIT_EULER.advance(flow, Held(inputs), moving, 0.0, 0.05, 20)
    plain = EULER_BY_FIELD.advance(system, Held(inputs), state, 0.0, 0.05, 20)
    assert_round_off(fused, plain.activity, 200)
    assert max(float((f - m).abs().max()) for f, m in zip(fused, moving, strict=True)) > 1e-3
    assert_same_bits(state, before)


def test_a_network_of_one_layer_has_nothing_to_settle():
    system = make_system(linear_output((5, 4)))
    state, inputs = start(system)
    assert state.activity == ()
    flow, moving = system.moving(state, Held(inputs))
    assert EXPLICIT_EULER.advance(flow, Held(inputs), moving, 0.0, 0.1, 3) == ()


@each_precision
@each_output
def test_no_sample_sees_its_batch(name, output):
    precision, _ = PRECISIONS[name]
    kind, loss = OUTPUTS[output]
    system = make_system(precision=precision, output=kind, loss=loss)
    state, inputs = start(system, samples=5)
    state = perturbed(state)
    together = system.vector_field(0.0, state, inputs).activity
    for sample in range(5):
        alone = replace(state, activity=tuple(h[sample : sample + 1] for h in state.activity))
        own = Inputs(inputs.input[sample : sample + 1], inputs.target[sample : sample + 1])
        for one, all_ in zip(system.vector_field(0.0, alone, own).activity, together, strict=True):
            # matrix products of one row and of five sum in another order
            assert_round_off(one, all_[sample : sample + 1], 50)


@each_precision
@pytest.mark.parametrize("output", ["clamped", "settled", "free"])
def test_an_ensemble_is_its_members(name, output):
    precision, _ = PRECISIONS[name]
    system = make_system(precision=precision, output=output)
    first, inputs = start(system, seed=3)
    second, _ = start(system, seed=5)
    both = map_leaves(lambda one, other: torch.stack((one, other)), first, second)
    both = perturbed(both)
    together = system.vector_field(0.0, both, inputs).activity
    for member, single in enumerate((first, second)):
        own = replace(single, activity=tuple(h[member] for h in both.activity))
        for one, all_ in zip(system.vector_field(0.0, own, inputs).activity, together, strict=True):
            assert_round_off(all_[member], one, 100)


@pytest.mark.parametrize("name", ["one", "one a layer", "exact", "exact, penalty"])
@each_output
@pytest.mark.parametrize("stepper", [EXPLICIT_EULER, HEUN, RK4], ids=lambda each: each.name)
def test_energy_never_rises_along_the_flow(name, output, stepper: ExplicitRungeKutta):
    precision, _ = PRECISIONS[name]
    kind, loss = OUTPUTS[output]
    system = make_system(precision=precision, output=kind, loss=loss)
    state, inputs = start(system)
    energies = [float(system.energy(0.0, state, inputs))]
    for _ in range(60):
        state = stepper.advance(system, Held(inputs), state, 0.0, 0.02, 1)
        energies.append(float(system.energy(0.0, state, inputs)))
    # a step below 1/λ_max decreases F by dt |f|²/2 or more; here λ_max dt stays below 0.3
    assert all(later < before for before, later in pairwise(energies))
    assert energies[-1] < 0.98 * energies[0]


def test_ascent_is_seen():
    # the control of the law above: against the flow the energy rises at once
    system = make_system()
    state, inputs = start(system)
    state = perturbed(state)
    after = EXPLICIT_EULER.advance(system, Held(inputs), state, 0.0, -0.02, 1)
    assert float(system.energy(0.0, after, inputs)) > float(system.energy(0.0, state, inputs))


@pytest.mark.parametrize("kind", ["exact", "self_consistent", "feedforward", "equal"])
@pytest.mark.parametrize("output", ["settled", "clamped"])
def test_the_same_sample_in_a_larger_batch_is_the_same_run(kind, output):
    system = make_system(precision=StepPrecision(0.5, kind), output=output, is_scaled=True)
    weights = start(system)[0].weight
    one = start(system, samples=6)[1]

    def run(times):
        inputs = one.input.repeat_interleave(times, 0)
        targets = one.target.repeat_interleave(times, 0)
        signal = HeldSamples(inputs, targets, times, 2.0, 0)
        signal._orders.update({epoch: torch.arange(6 * times) for epoch in range(3)})
        state = system.initial_state(weights, signal.piece(0.0)(0.0))
        loop = Loop(system, FixedStep(EXPLICIT_EULER, 0.1), signal, state, until=24.0)
        list(loop)
        assert loop.ending is Ending.REACHED_END
        return loop.state.weight

    alone = run(1)
    assert max(float((w - v).abs().max()) for w, v in zip(alone, weights, strict=True)) > 0.05
    for times in (4, 16, 64):
        # 12 updates of 20 steps; a mean of equal numbers and a longer sum differ by roundings, not amplified much
        assert_round_off(run(times), alone, 3000)


def test_rest_is_where_the_field_is_small():
    system = make_system(linear_output((16, 32, 32, 32, 8), "identity"))
    state, inputs = start(system)
    loop = Loop(
        system,
        FixedStep(EXPLICIT_EULER, 0.05),
        Constant(inputs),
        state,
        until=1e4,
        steady_tolerance=1e-6,
        check_every=10,
    )
    list(loop)
    assert loop.ending is Ending.STEADY
    flow, moving = system.moving(loop.state, Held(inputs))
    size = float(torch.sqrt(sum(h.square().sum() for h in moving)))
    assert float(torch.sqrt(sum(f.square().sum() for f in flow.vector_field(0.0, moving, inputs)))) <= 1e-6 * size
