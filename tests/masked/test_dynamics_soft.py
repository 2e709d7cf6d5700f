"""Soft and fast masks: continuity, tracking, and the two limits of a flickering mask (spec 6.3; test 20)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from support.compare import gap
from support.learning import draw
from support.masked import GIVEN, INPUTS, NEURONS, SAMPLES, START, naive_field, neuron, run

from nlsim.core.system import Inputs
from nlsim.integrate.explicit import RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.masked.signal import MaskedSignal, RandomMask, Reliability
from nlsim.systems.signals import Constant

SOFT = Reliability(
    torch.full((SAMPLES, INPUTS), 0.5, dtype=torch.float64),
    draw(31, SAMPLES, INPUTS, low=0.1, high=0.5),
    draw(32, SAMPLES, INPUTS, low=1.0, high=3.0),
    3 * draw(33, SAMPLES, INPUTS),
)


def contributions(system):
    """Return C of every sample."""
    return system.weight * GIVEN.input.unsqueeze(-2) + system.bias.unsqueeze(-1) / INPUTS


def test_a_run_under_a_soft_mask_is_that_of_mixtures_with_neutralizers():
    system = neuron(norm=0.7)
    found = run(system, MaskedSignal(Constant(GIVEN), (SOFT,)), START, RK4, 0.01, 2.0).state
    for row in range(SAMPLES):
        solved = solve_ivp(
            lambda t, x, row=row: naive_field(system, x, GIVEN.input[row].numpy(), SOFT.at(t)[row].numpy()),
            (0, 2.0),
            START[row].numpy(),
            "DOP853",
            rtol=1e-12,
            atol=1e-13,
        )
        # RK4 with steps of 0.015 time constants
        assert gap(found[row], torch.as_tensor(solved.y[:, -1])) <= 1e-8


@pytest.mark.parametrize("form", ["state", "potential"])
def test_20_two_masks_keep_two_states_within_the_lipschitz_bound(form):
    system = neuron(norm=0.6, form=form)
    size = torch.linalg.matrix_norm(contributions(system), 2)
    masks = [RandomMask(INPUTS, rate, 0.25, SAMPLES, seed) for rate, seed in ((0.5, 1), (0.7, 2))]
    times = [0.05 * n for n in range(1, 100)]
    here, there = (
        run(system, MaskedSignal(Constant(GIVEN), (m,)), START, EXPONENTIAL_SWEEP, 0.05, 5.0, times).ticks
        for m in masks
    )
    apart = max(float((a.inputs.mask - b.inputs.mask).norm(dim=-1).max()) for a, b in zip(here, there, strict=True))
    found = torch.stack([(a.state - b.state).norm(dim=-1) for a, b in zip(here, there, strict=True)]).amax(0)
    bound = size / (1 - 0.6) * apart
    assert (found <= bound).all()
    assert (found >= 0.02 * bound).all()  # a bound that says something


def test_20_a_slow_mask_is_tracked_and_the_lag_is_of_first_order():
    c = contributions(neuron())
    lags = {}
    for speed in (50.0, 100.0, 200.0):
        system = neuron(speed=speed)
        state = run(system, MaskedSignal(Constant(GIVEN), (SOFT,)), START, RK4, 0.4 / speed, 1.0).state
        a = (c @ SOFT.at(1.0).unsqueeze(-1)).squeeze(-1)
        drift = (1 - torch.tanh(a).square()) * (c @ SOFT.slope(1.0).unsqueeze(-1)).squeeze(-1)
        lags[speed] = speed * (torch.tanh(a) - state)
        # the next term is −(d/dt drift)/c², |d/dt drift| < 40
        assert gap(lags[speed], drift) <= 40 / speed
        grid = torch.linspace(0, 1, 400, dtype=torch.float64).tolist()
        fields = [c @ SOFT.at(t).unsqueeze(-1) for t in grid]
        speeds = [
            ((1 - torch.tanh(a).square()) * (c @ SOFT.slope(t).unsqueeze(-1))).squeeze(-1).norm(dim=-1)
            for t, a in zip(grid, fields, strict=True)
        ]
        bound = 1.01 * torch.stack(speeds).amax(0) / speed  # e^(−50) is nothing
        assert ((torch.tanh(a) - state).norm(dim=-1) <= bound).all()
    assert gap(lags[200.0], lags[100.0]) < gap(lags[100.0], lags[50.0])


def enumerated(system, rate):
    """Return E_m φ(C m) and φ(ρ C 1), over all masks."""
    c, mean = contributions(system)[0], torch.zeros(NEURONS, dtype=torch.float64)
    for mask in itertools.product((0.0, 1.0), repeat=INPUTS):
        chance = rate ** sum(mask) * (1 - rate) ** (INPUTS - sum(mask))
        mean = mean + chance * system.activation.value(c @ torch.tensor(mask, dtype=torch.float64))
    return mean, system.activation.value(rate * c.sum(-1))


def flickering(system, rate, interval, count=4000, span=5.0):
    """Return the outputs of many members of the first sample, each with masks of its own."""
    inputs = Constant(Inputs(GIVEN.input[:1].expand(count, INPUTS)))
    masks = RandomMask(INPUTS, rate, interval, count, seed=3)
    start = torch.zeros(count, NEURONS, dtype=torch.float64)
    return system.output(run(system, MaskedSignal(inputs, (masks,)), start, EXPONENTIAL_SWEEP, interval, span).state)


def test_20_fast_masks_have_two_limits():
    rate, interval = 0.5, 0.02
    system = replace(neuron(), weight=2 * neuron().weight, bias=3 * neuron().bias)
    outputs = {form: flickering(replace(system, form=form), rate, interval).mean(0) for form in ("state", "potential")}
    mean_output, output_of_mean = enumerated(system, rate)
    assert gap(mean_output, output_of_mean) >= 0.05, "no Jensen gap to tell the forms apart"
    # five standard errors √(0.015/4000)·|φ(Cm)| = 0.01, and e^(−7.5) of the way to go
    assert gap(outputs["state"], mean_output) <= 0.012
    # φ'' Var v/2 = 0.4 · 0.015 Var(Cm) besides
    assert gap(outputs["potential"], output_of_mean) <= 0.04
    assert gap(outputs["state"], outputs["potential"]) >= 0.5 * gap(mean_output, output_of_mean)


def test_20_linear_neurons_have_one_limit_the_rate_times_the_complete_drive():
    rate, interval = 0.3, 0.05
    ends = [flickering(neuron("identity", form=form), rate, interval) for form in ("state", "potential")]
    assert gap(*ends) <= 1e-14
    complete = rate * contributions(neuron())[0].sum(-1)
    spread = ends[0].std(0, correction=1) / np.sqrt(4000)
    assert ((ends[0].mean(0) - complete).abs() <= 5 * spread + 1e-3).all()  # e^(−7.5) = 5.5e-4 of what is below 2
