"""Adaptive steps: exact landing, errors that follow the tolerance, and no member hidden in a mean."""

from __future__ import annotations

import pytest
import torch
from support.compare import gap
from support.flow import Oscillator, Silence, Swing, VanDerPol, still
from support.oracle import scipy_flow
from torchdiffeq import odeint

from nlsim.analysis.orders import observed_order
from nlsim.integrate.adapter import METHODS, AdaptiveRungeKutta
from nlsim.integrate.loop import Loop

START = torch.tensor([1.0, 0.0], dtype=torch.float64)


def test_end_values_are_steps_and_not_interpolations():
    system, control = Oscillator(), AdaptiveRungeKutta("dopri8", rtol=1e-12, atol=1e-12)
    found = control.reach(system, still, START, 0.0, 1.0, 1000)
    # about 7 steps at 1e-12 or less each, times what an estimate leaves over; measured 2e-14
    assert gap(found.state, system.exact(1.0)) <= 1e-13


def test_the_library_itself_interpolates():
    # the control of the law above: if this fails the workaround is no longer needed
    system = Oscillator()
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    raw = odeint(lambda t, y: system.vector_field(t, y, None), START, times, method="dopri8", rtol=1e-12, atol=1e-12)
    assert gap(raw[-1], system.exact(1.0)) >= 1e-10


def test_every_record_is_as_good_as_the_end():
    system = Oscillator()
    times = [0.1 * n for n in range(1, 31)]
    control = AdaptiveRungeKutta("dopri8", rtol=1e-12, atol=1e-12)
    loop = Loop(system, control, Silence(), START, until=3.0, record_times=times[:-1])
    ticks = list(loop)
    assert [tick.t for tick in ticks] == [*times[:-1], 3.0]
    assert max(gap(tick.state, system.exact(tick.t)) for tick in ticks) <= 1e-13


# methods of order 2 take 10⁵ steps at tolerances that are nothing to dopri8
RANGES = {
    "dopri5": (1e-5, 1e-7, 1e-9),
    "dopri8": (1e-6, 1e-8, 1e-10),
    "bosh3": (1e-4, 1e-5, 1e-6),
    "adaptive_heun": (1e-3, 1e-4, 1e-5),
}


@pytest.mark.parametrize("method", METHODS)
def test_error_follows_the_tolerance(method):
    system, start = Swing(), torch.tensor([0.5], dtype=torch.float64)
    exact = torch.tensor([system.exact(6.0, 0.5)], dtype=torch.float64)
    errors = []
    for tolerance in RANGES[method]:
        control = AdaptiveRungeKutta(method, rtol=tolerance, atol=tolerance)
        outcome = control.reach(system, system.piece, start, 0.0, 6.0, 10**6)
        assert outcome.ending is None
        errors.append(gap(outcome.state, exact))
    # local error held at the tolerance makes the global one its power p/(p+1) or 1, from 2/3 up
    assert 0.6 <= observed_order(RANGES[method], errors) <= 1.4
    assert all(error <= 100 * tolerance for error, tolerance in zip(errors, RANGES[method], strict=True))


class TestWorstOfMany:
    """One sharp oscillator among many calm ones: with the largest entry deciding, it is as good as alone."""

    MEMBERS, UNTIL = 100, 6.0

    def stack(self):
        """Return the calm ones, at rest at the origin's side, and last the sharp one."""
        stiffness = torch.full((self.MEMBERS,), 0.01, dtype=torch.float64)
        stiffness[-1] = 8.0
        start = torch.zeros(self.MEMBERS, 2, dtype=torch.float64)
        start[:, 0] = torch.linspace(0.01, 0.02, self.MEMBERS, dtype=torch.float64)
        start[-1, 0] = 2.0
        return VanDerPol(stiffness), start

    def error(self, norm, members):
        system, start = self.stack()
        system, start = VanDerPol(system.stiffness[members]), start[members]
        control = AdaptiveRungeKutta("dopri5", rtol=1e-6, atol=1e-9, norm=norm)
        ended = control.reach(system, still, start, 0.0, self.UNTIL, 10**6).state
        sharp = VanDerPol(system.stiffness[-1:])
        return gap(ended[-1:], scipy_flow(sharp, still, start[-1:], 0.0, self.UNTIL))

    def test_the_largest_entry_decides(self):
        alone, among = self.error("max", slice(-1, None)), self.error("max", slice(None))
        assert among <= 2 * alone

    def test_a_mean_hides_it(self):
        # the root mean square over 200 entries is 14 times smaller than its largest, and so is the care taken
        alone, among = self.error("rms", slice(-1, None)), self.error("rms", slice(None))
        assert among >= 4 * alone
