"""NeuMiss as a flow: its iteration, its rest state, and when which converges (spec 6.7)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.compare import assert_round_off, gap
from support.learning import draw
from support.masked import run

from nlsim.core.system import Held, Inputs
from nlsim.integrate.control import beyond_stability
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.relaxation import EXPONENTIAL_SWEEP
from nlsim.systems.masked.neumiss import NeuMissFlow, gaussian_conditioning
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.systems.signals import Constant

P, SAMPLES = 5, 4
MEAN = draw(71, P)
X = 2 * draw(72, SAMPLES, P)
MASK = (draw(73, SAMPLES, P) > -0.2).double()
BLIND = Inputs(torch.where(MASK > 0, X, torch.nan), None, MASK)


def covariance(high: float = 1.7, low: float = 0.3):
    turn, _ = torch.linalg.qr(draw(74, P, P))
    found = (turn * torch.linspace(low, high, P, dtype=torch.float64)) @ turn.mT
    return (found + found.mT) / 2


def conditional(sigma):
    """Return E[x | x_o] by least squares on samples' exact moments: the regression of x_mis on x_o, in numpy."""
    s, mean, guesses = sigma.numpy(), MEAN.numpy(), X.numpy().copy()
    for row, m in zip(guesses, MASK.numpy(), strict=True):
        o, hidden = m > 0, m == 0
        gain = np.linalg.lstsq(s[np.ix_(o, o)], s[np.ix_(o, hidden)], rcond=None)[0].T
        row[hidden] = mean[hidden] + gain @ (row[o] - mean[o])
    return torch.as_tensor(guesses)


def test_the_flow_rests_at_the_conditional_mean():
    flow = gaussian_conditioning(covariance(), MEAN, speed=2.0)
    settled = run(flow, Constant(BLIND), flow.initial_state(BLIND), RK4, 0.2, 60.0).state
    # e^(−2 · 0.3 · 60) = 2e-16; condition of 6
    assert gap(flow.completed(settled, BLIND), conditional(covariance())) <= 1e-12
    assert gap(flow.equilibrium(BLIND), settled) <= 1e-12
    assert bool((settled[MASK == 0] == 0).all())


def test_the_iteration_is_explicit_euler_with_unit_steps():
    flow = NeuMissFlow(draw(75, P, P), MEAN)
    h = seen = torch.where(MASK > 0, X - MEAN, 0.0)
    for depth in range(1, 6):
        h = MASK * (h @ flow.coupling.mT) + seen
        found = EXPLICIT_EULER.advance(flow, Held(BLIND), flow.initial_state(BLIND), 0.0, 1.0, depth)
        assert_round_off(found, h, 100)


@pytest.mark.parametrize(("high", "converges"), [(1.95, True), (2.05, False)])
def test_the_iteration_needs_eigenvalues_below_two_and_the_flow_does_not(high, converges):
    flow = gaussian_conditioning(covariance(high), MEAN)
    full = replace(BLIND, input=X, mask=torch.ones(SAMPLES, P, dtype=torch.float64))
    rest = flow.equilibrium(full)
    after = EXPLICIT_EULER.advance(flow, Held(full), flow.initial_state(full), 0.0, 1.0, 600)
    assert (gap(after, rest) <= 1e-9) == converges  # 0.95⁶⁰⁰ = 4e-14, 1.05⁶⁰⁰ = 5e12
    assert (beyond_stability(EXPLICIT_EULER, flow, 1.0) is None) == converges
    settled = run(flow, Constant(full), flow.initial_state(full), RK4, 0.4, 120.0).state
    assert gap(settled, rest) <= 1e-12
    assert flow.fastest_rate() == pytest.approx(high, rel=1e-12)


def test_a_sensor_that_fails_is_inferred_from_the_others():
    """The loop lands on the outage; the estimate then goes from the measurement to the conditional mean."""
    flow = gaussian_conditioning(covariance(), MEAN)
    full = Inputs(X)
    signal = MaskedSignal(Constant(full), (Outages((Outage(1, 2.0, 1e9),), P),))
    tick = run(flow, signal, flow.initial_state(full), EXPONENTIAL_SWEEP, 0.1, 150.0, [2.0]).ticks[-1]
    s, mean = covariance().numpy(), MEAN.numpy()
    others = [0, 2, 3, 4]
    gain = np.linalg.solve(s[np.ix_(others, others)], s[others, 1])
    expected = mean[1] + (X.numpy()[:, others] - mean[others]) @ gain
    assert gap(flow.completed(tick.state, tick.inputs)[:, 1], torch.as_tensor(expected)) <= 1e-12
    seen = flow.observables()["completed"].evaluate(tick.t, tick.state, tick.inputs)
    assert bool((seen[:, others] == X[:, others]).all())
