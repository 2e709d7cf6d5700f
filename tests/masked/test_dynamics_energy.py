"""Energy-based neurons behind a mask: gradients, jumps, power, descent between edges (spec 6.4; test 21)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from support.compare import assert_round_off, gap
from support.learning import draw
from support.masked import GIVEN, INPUTS, NEURONS, SAMPLES, START, blackout, run
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import LOGISTIC, TANH
from nlsim.systems.masked.energy import MaskedEnergy
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages, RandomMask, Reliability
from nlsim.systems.signals import Constant


def net(norm: float = 0.8, **changed: object) -> MaskedEnergy:
    matrix = draw(41, NEURONS, NEURONS)
    matrix = (matrix + matrix.mT) / 2
    levels = torch.linalg.eigvalsh(matrix)
    matrix = matrix * (norm * torch.sign(levels.max() + levels.min()) / levels.abs().max())
    return MaskedEnergy(
        draw(42, NEURONS, INPUTS), matrix, **{"activation": TANH, "bias": draw(43, NEURONS), "speed": 1.4, **changed}
    )


MASK = draw(7, SAMPLES, INPUTS, low=0.0)
SEEN = Inputs(GIVEN.input, draw(44, SAMPLES, 2), MASK)


PI = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
NUDGES, SHARES = [0.0, 0.7, -0.6], [None, PI]


def by_definition(system: MaskedEnergy, s: Tensor, u: Tensor, m: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return the energy summed over samples, from its definition, for autograd."""
    rho = system.activation.value(s)
    pi = torch.full((INPUTS,), 1 / INPUTS, dtype=torch.float64) if system.shares is None else system.shares
    c = w * u.unsqueeze(-2) + b.unsqueeze(-1) * pi
    driven = torch.einsum("si,sij,sj->", rho, c, m)
    nudged = 0.5 * system.nudge * (s[:, -2:] - SEEN.target).square().sum()
    return 0.5 * s.square().sum() - 0.5 * torch.einsum("si,ij,sj->", rho, system.recurrent, rho) - driven + nudged


@pytest.mark.parametrize("shares", SHARES, ids=["alike", "shares"])
@pytest.mark.parametrize("nudge", NUDGES)
@pytest.mark.parametrize("activation", [TANH, LOGISTIC], ids=lambda each: each.name)
def test_everything_is_a_derivative_of_one_energy(nudge, activation, shares):
    system = net(nudge=nudge, activation=activation, shares=shares)
    leaves = [each.clone().requires_grad_() for each in (START, GIVEN.input, MASK, system.weight, system.bias)]
    energy = by_definition(system, *leaves)
    by_state, _, by_mask, by_weight, by_bias = torch.autograd.grad(energy, leaves)
    # sums of at most fifty products of numbers below 5
    assert abs(float(system.energy(0.0, START, SEEN).sum() - energy.detach())) <= 1e-13
    assert_round_off(system.vector_field(0.0, START, SEEN), -1.4 * by_state, 100)
    assert_round_off(system.mask_gradient(START, SEEN), by_mask, 100)
    found = system.energy_gradient(START, SEEN)
    assert_round_off(found[0], by_weight, 100)
    assert_round_off(found[1], by_bias, 100)
    # dE/dt along ṡ = −c ∂E/∂s and any ṁ, by the chain rule
    slope = draw(47, SAMPLES, INPUTS)
    power = (-1.4 * by_state.square()).sum(-1) + (by_mask * slope).sum(-1)
    assert_round_off(system.power(START, SEEN, slope), power, 200)


def test_21_a_jump_of_the_mask_is_a_jump_of_the_energy():
    system = net()
    before, after = MASK.clone(), (draw(46, SAMPLES, INPUTS) > 0).double()
    after[:, 0] = before[:, 0] = 0.0
    given = GIVEN.input.clone()
    given[:, 0] = torch.nan  # missing before and after
    shown = Inputs(given, None, before)
    jump = system.energy(0.0, START, replace(shown, mask=after)) - system.energy(0.0, START, shown)
    assert_round_off(system.mask_jump(START, shown, after), jump, 50)
    assert gap(jump, 0 * jump) >= 0.1


def test_21_power_balance_along_a_run_with_a_soft_mask():
    soft = Reliability(
        torch.full((INPUTS,), 0.5, dtype=torch.float64),
        torch.full((INPUTS,), 0.4, dtype=torch.float64),
        torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64),
        draw(45, INPUTS),
    )
    system, signal, h = net(), MaskedSignal(Constant(GIVEN), (soft,)), 1e-3
    loop = run(system, signal, START, RK4, 5e-4, 0.6 + h, [0.6 - h, 0.6])
    early, now, late = (t for t in loop.ticks if t.is_record)
    rate = (system.energy(0, late.state, late.inputs) - system.energy(0, early.state, early.inputs)) / (2 * h)
    # h²/6 of the third derivative of E, below 300
    assert gap(rate, system.power(now.state, now.inputs, soft.slope(0.6))) <= 5e-5
    lost = -system.vector_field(0.6, now.state, now.inputs).square().sum(-1) / 1.4
    assert gap(rate, lost) >= 0.05


def test_21_energy_falls_between_edges_only():
    system = net()
    masks = RandomMask(INPUTS, 0.5, 1.0, SAMPLES, seed=9)
    times = [0.05 * n for n in range(200)]
    ticks = run(system, MaskedSignal(Constant(GIVEN), (masks,)), START, RK4, 0.05, 10.0, times).ticks
    inside, across = [], []
    for before, after in pairwise(ticks):
        begun = system.energy(0.0, before.state, after.inputs)
        inside.append(float((system.energy(0.0, after.state, after.inputs) - begun).max()))
        across.append(float((begun - system.energy(0.0, before.state, before.inputs)).max()))
    assert max(inside) <= 1e-14
    assert sum(rise > 0.05 for rise in across) >= 3


def test_21_rest_states_are_minima():
    system = net(0.5)
    inputs = replace(SEEN, mask=torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=torch.float64))
    found = run(system, Constant(inputs), START, RK4, 0.3, 60.0).state
    for row in range(SAMPLES):
        one = Inputs(inputs.input[row : row + 1], None, inputs.mask)

        def value(s, one=one):
            state = torch.as_tensor(s).unsqueeze(0)
            return float(system.energy(0.0, state, one)), -system.vector_field(0.0, state, one)[0].numpy() / 1.4

        best = minimize(value, np.zeros(NEURONS), jac=True, method="BFGS", options={"gtol": 1e-11})
        assert gap(found[row], torch.as_tensor(best.x)) <= 1e-9


@pytest.mark.parametrize("norm", [0.8, 1.4])
def test_21_neutral_is_a_minimum_of_a_blackout_iff_the_coupling_is_weak(norm):
    system = net(norm)
    levels = torch.linalg.eigvalsh(system.neutral_curvature())
    assert float(levels.min()) == pytest.approx(1 - norm, abs=1e-12)
    end = run(system, blackout(0.0, 1e9), 0.01 * START, RK4, 0.2, 120.0).state
    # e^(−1.4 · 0.2 · 120) = 3e-15
    assert bool((end.norm(dim=-1) <= 1e-12).all()) == (norm < 1)


def test_a_network_without_symmetry_has_no_energy():
    with pytest.raises(NlsimError) as refused:
        MaskedEnergy(draw(1, NEURONS, INPUTS), draw(2, NEURONS, NEURONS), TANH)
    assert refused.value.where == "recurrent"


def test_it_runs_without_bias_and_is_observed():
    system = net(bias=None)
    outages = MaskedSignal(Constant(GIVEN), (Outages((Outage(0, 0.2, 0.5),), INPUTS),))
    tick = run(system, outages, system.initial_state(GIVEN), RK4, 0.1, 1.0).ticks[-1]
    seen = {name: each.evaluate(tick.t, tick.state, tick.inputs) for name, each in system.observables().items()}
    assert {name: value.ndim for name, value in seen.items()} == {"activity": 2, "energy": 1, "observed_fraction": 1}
    assert_round_off(system.energy_gradient(tick.state, tick.inputs)[1], -TANH.value(tick.state).sum(0), 8)
