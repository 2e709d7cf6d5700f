"""What is not seen teaches nothing: sensitivities in time, contrastive learning (spec 6.4, 6.6; test 22)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from support.compare import assert_round_off, assert_same_bits
from support.learning import draw
from support.masked import GIVEN, INPUTS, NEURONS, SAMPLES, START, blackout, neuron, run

from nlsim.core.system import Relaxing
from nlsim.errors import NlsimError
from nlsim.integrate.explicit import RK4
from nlsim.integrate.exponential import ETDRK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.activation import TANH
from nlsim.systems.masked.energy import MaskedEnergy, contrastive_gradient
from nlsim.systems.masked.sensitivity import MaskedSensitivity, gradient
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages, RandomMask, Reliability
from nlsim.systems.signals import Constant

RANDOM = MaskedSignal(Constant(GIVEN), (RandomMask(INPUTS, 0.5, 0.4, SAMPLES, 2),))


def joint_run(system, signal, stepper, dt, until, records=()):
    joint = MaskedSensitivity(system)
    state = replace(joint.initial_state(GIVEN), neuron=START)
    return run(joint, signal, state, stepper, dt, until, records)


@pytest.mark.parametrize(("form", "outage"), [("state", "forget"), ("potential", "forget"), ("state", "hold")])
def test_22_sensitivities_are_those_of_autograd_through_the_run(form, outage):
    """Differentiate the loop itself (the exact sweep) by W and b, masks redrawn on the way."""
    system = neuron(form=form, outage=outage)
    found = joint_run(system, RANDOM, EXPONENTIAL_SWEEP, 0.2, 2.0).state
    weight, bias = system.weight.clone().requires_grad_(), system.bias.clone().requires_grad_()
    # RK4 in small steps, as the sweep works in place
    end = run(replace(system, weight=weight, bias=bias), RANDOM, START, RK4, 0.01, 2.0).state
    costate = draw(51, SAMPLES, NEURONS)
    expected = torch.autograd.grad((costate * end).sum(), (weight, bias))
    # RK4 with c dt = 0.015: 6e-12 a step, 200 steps
    for f, e in zip(gradient(found, costate), expected, strict=True):
        assert float((f - e).abs().max()) <= 5e-9


def test_22_sensitivities_are_leaky_integrals_over_the_observed_past():
    """Against SciPy's quadrature of the formula, under a soft mask."""
    soft = Reliability(
        torch.full((INPUTS,), 0.5, dtype=torch.float64),
        torch.full((INPUTS,), 0.5, dtype=torch.float64),
        torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64),
        draw(45, INPUTS),
    )
    system, end, c = neuron(), 1.5, 1.5
    found = joint_run(system, MaskedSignal(Constant(GIVEN), (soft,)), ETDRK4, 0.01, end).state
    u, w, b = GIVEN.input[0].numpy(), system.weight.numpy(), system.bias.numpy()

    def injected(t, i, j):
        m = soft.at(t).numpy()
        slope = 1 - np.tanh((w[i] * m * u).sum() + m.mean() * b[i]) ** 2
        return c * math.exp(-c * (end - t)) * slope * (m.mean() if j is None else m[j] * u[j])

    for i in range(NEURONS):
        for j, value in ((None, found.bias[0, i]), *((j, found.weight[0, i, j]) for j in range(INPUTS))):
            expected, _ = quad(injected, 0, end, args=(i, j), epsabs=1e-12, epsrel=1e-12)
            # ETDRK4 with steps in which the mask turns by 0.04: (0.04)⁴/100
            assert abs(float(value) - expected) <= 1e-7


def test_22_dead_sensors_leave_no_trace_and_blackouts_add_none():
    masks = Outages((Outage(2, 0.0, 1e9), Outage(None, 1.0, 1e9)), INPUTS)
    loop = joint_run(neuron(), MaskedSignal(Constant(GIVEN), (masks,)), EXPONENTIAL_SWEEP, 0.1, 1.8, [1.0])
    seen, later = (t.state for t in loop.ticks if t.is_record)
    assert_same_bits(later.weight[..., 2], torch.zeros(SAMPLES, NEURONS, dtype=torch.float64))
    # eight steps
    assert_round_off(later.bias, math.exp(-1.2) * seen.bias, 50)
    assert_round_off(later.weight, math.exp(-1.2) * seen.weight, 50)
    assert float(seen.bias.abs().min()) > 0.05


def test_22_where_neurons_hold_so_do_their_sensitivities():
    loop = joint_run(neuron(outage="hold"), blackout(1.0, 1e9), EXPONENTIAL_SWEEP, 0.1, 5.0, [1.0])
    before, after = (t.state for t in loop.ticks if t.is_record)
    assert_same_bits(after, before)


def test_coupled_neurons_are_refused():
    with pytest.raises(NlsimError) as refused:
        MaskedSensitivity(neuron(norm=0.5))
    assert refused.value.where == "system.recurrent"
    assert isinstance(MaskedSensitivity(neuron()), Relaxing)
    assert MaskedSensitivity(neuron()).fastest_rate() == 1.5


def learned(options, dark_steps=3):
    """Learn contrastively while all is seen, then in a blackout; return parameters before and after the blackout."""
    matrix = 0.2 * draw(61, NEURONS, NEURONS)
    weight = draw(62, NEURONS, INPUTS).requires_grad_()
    bias = draw(63, NEURONS).requires_grad_()
    teacher = torch.optim.SGD([weight, bias], lr=0.1, **options)

    def step(mask):
        inputs = replace(GIVEN, target=draw(64, SAMPLES, 2), mask=torch.full((INPUTS,), mask, dtype=torch.float64))
        free = MaskedEnergy(weight.detach(), (matrix + matrix.mT) / 2, TANH, bias.detach())
        nudged = replace(free, nudge=0.1)
        rest = run(free, Constant(inputs), START, RK4, 0.3, 15.0).state
        pulled = run(nudged, Constant(inputs), rest, RK4, 0.3, 15.0).state
        assert float((rest - pulled).abs().max()) > 1e-3
        weight.grad, bias.grad = contrastive_gradient(free, rest, nudged, pulled, inputs)
        teacher.step()

    start = (weight.detach().clone(), bias.detach().clone())
    for _ in range(2):
        step(1.0)
    before = (weight.detach().clone(), bias.detach().clone())
    for _ in range(dark_steps):
        step(0.0)
    return start, before, (weight.detach(), bias.detach())


def test_22_no_plasticity_in_a_blackout():
    start, before, after = learned({})
    assert float((start[0] - before[0]).abs().max()) > 1e-4, "nothing is learned when all is seen"
    assert_same_bits(after, before)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"weight_decay": 0.1}], ids=["momentum", "weight decay"])
def test_22_momentum_and_weight_decay_act_in_a_blackout_all_the_same(options):
    _, before, after = learned(options)
    assert float((after[0] - before[0]).abs().max()) > 1e-4
    if "weight_decay" in options:
        # three steps of W ← W(1 − 0.1 · 0.1) and no gradient
        assert_round_off(after, tuple(0.99**3 * each for each in before), 8)
