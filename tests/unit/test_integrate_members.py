"""Members: every way to end, refusals, and the control that the loop uses."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_same_bits, gap, snapshot
from support.flow import Decay, Silence, VanDerPol, still
from support.learning import draw, make_inputs, make_network, make_problem
from support.oracle import scipy_flow

from nlsim.core.ending import Ending
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.loop import Loop
from nlsim.integrate.members import Memberwise, solve_members
from nlsim.systems.activation import TANH
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.recurrent import RecurrentNetwork
from nlsim.systems.signals import Constant, HeldSamples, Sinusoid

SAMPLES, N = 3, 4


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


def zoo(t, y):
    """Return slopes of five members: decay, a singularity, overflow, late stiffness, and NaN below 0."""
    late = torch.where(t[3] < 1.0, 0.0, -1e20) * y[3]
    return torch.stack((-y[0], y[1].square(), 800.0 * y[2], late, -1 - torch.log(y[4])))


ZOO_START = torch.tensor([[1.0], [1.0], [1.0], [1.0], [-1.0]], dtype=torch.float64)


def test_every_member_ends_by_its_own_name():
    found = solve_members(zoo, ZOO_START, 0.0, 2.0, Memberwise(rtol=1e-4, atol=1e-6))
    assert found.endings == (
        Ending.REACHED_END,
        Ending.DIVERGED,
        Ending.DIVERGED,
        Ending.STEP_TOO_SMALL,
        Ending.DIVERGED,
    )
    assert float(found.t[0]) == 2.0
    # ẏ = y² is infinite at 1, and the stiffness begins at 1; e^{800 t} overflows at ln(1.8e308)/800 = 0.887, and the
    # terms of a stage, up to 11.6 · 800 y, a hundredth before
    for member, expected, early in ((1, 1.0, 1e-6), (2, 0.887, 0.015), (3, 1.0, 1e-6)):
        assert expected - early <= float(found.t[member]) <= expected + 1e-3
    # what has failed stays at its last good state
    assert bool(found.state.isfinite().all())
    assert (float(found.t[4]), float(found.state[4])) == (0.0, -1.0)


def test_who_fails_does_not_touch_who_does_not():
    method = Memberwise(rtol=1e-4, atol=1e-6)
    found = solve_members(zoo, ZOO_START, 0.0, 2.0, method)
    alone = solve_members(lambda t, y: -y, ones(1, 1), 0.0, 2.0, method)
    assert_same_bits(found.state[:1], alone.state)
    assert_same_bits(found.accepted[:1], alone.accepted)


def test_a_state_that_is_not_finite_from_the_start_diverges():
    start = torch.tensor([[1.0], [math.nan], [math.inf]], dtype=torch.float64)
    found = solve_members(lambda t, y: -y, start, 0.0, 1.0)
    assert found.endings == (Ending.REACHED_END, Ending.DIVERGED, Ending.DIVERGED)


def test_an_overflow_that_the_slopes_do_not_show_is_divergence():
    # ẏ = 1e308 takes y past the largest number while every slope, and their difference, stays finite
    found = solve_members(lambda t, y: torch.full_like(y, 1e308), ones(1, 1), 0.0, 1e3, first=100.0)
    assert found.endings == (Ending.DIVERGED,)


@pytest.mark.parametrize("budget", [1, 7, 20])
def test_a_budget_is_each_member_s_own(budget):
    rates = torch.tensor([[1e-3], [30.0]], dtype=torch.float64)
    found = solve_members(lambda t, y: -rates * y, ones(2, 1), 0.0, 10.0, max_steps=budget)
    assert found.endings[1] == Ending.BUDGET_SPENT
    assert int(found.accepted[1]) == budget
    assert 0.0 < float(found.t[1]) < 10.0
    # what was reached within the budget is a solution
    assert float(found.state[1]) == pytest.approx(math.exp(-30.0 * float(found.t[1])), rel=1e-4)
    enough = solve_members(lambda t, y: -rates * y, ones(2, 1), 0.0, 10.0, max_steps=1000)
    calm = int(enough.accepted[0])
    assert found.endings[0] == (Ending.REACHED_END if calm <= budget else Ending.BUDGET_SPENT)


def test_a_budget_that_is_just_enough_reaches_the_end():
    needed = int(solve_members(lambda t, y: -y, ones(1, 1), 0.0, 5.0).accepted)
    assert solve_members(lambda t, y: -y, ones(1, 1), 0.0, 5.0, max_steps=needed).endings == (Ending.REACHED_END,)
    assert solve_members(lambda t, y: -y, ones(1, 1), 0.0, 5.0, max_steps=needed - 1).endings == (Ending.BUDGET_SPENT,)


def test_a_rejected_step_of_min_step_is_too_small():
    def late(t, y):
        return torch.where(t < 1.0, 0.0, -1e3).unsqueeze(-1) * y

    found = solve_members(late, ones(1, 1), 0.0, 2.0, Memberwise(rtol=1e-10, min_step=0.1))
    assert found.endings == (Ending.STEP_TOO_SMALL,)
    # it was followed as far as steps of min_step go
    assert 0.8 <= float(found.t) <= 1.0
    assert float(found.state) == 1.0
    assert solve_members(late, ones(1, 1), 0.0, 2.0, Memberwise(rtol=1e-10)).endings == (Ending.REACHED_END,)


def test_tensors_without_common_leading_axes_are_refused():
    state = {"activity": ones(3, 2), "weight": ones(2, 2)}
    with pytest.raises(NlsimError, match="leading axes") as refusal:
        solve_members(lambda t, y: y, state, 0.0, 1.0)
    assert "weight" in str(refusal.value)
    assert "axes" in refusal.value.advice


@pytest.mark.parametrize(("t0", "t1"), [(math.nan, 1.0), (0.0, math.inf)])
def test_times_that_are_not_finite_are_refused(t0, t1):
    with pytest.raises(NlsimError, match="finite times"):
        solve_members(lambda t, y: -y, ones(1, 1), t0, t1)


# ---- the control


def waves(samples, inputs, *lead):
    """Return a sinusoid with a different frequency and phase in every entry."""
    shape = (*lead, samples, inputs)
    return Sinusoid(
        Inputs(draw(1, *shape), draw(2, *shape)),
        Inputs(draw(3, *shape), draw(4, *shape)),
        Inputs(draw(5, *shape, low=1.0, high=9.0), draw(6, *shape, low=1.0, high=9.0)),
        Inputs(draw(7, *shape), draw(8, *shape)),
    )


def recurrent(speed=5.0):
    return RecurrentNetwork(draw(9, N, N), draw(10, N, 2), TANH, speed)


def test_samples_meet_their_own_inputs_at_their_own_times():
    signal, start = waves(SAMPLES, 2), draw(11, SAMPLES, N)
    outcome = Memberwise(rtol=1e-11, atol=1e-12).reach(recurrent(), signal.at, start, 0.5, 3.0, 10**6)
    assert (outcome.ending, outcome.t) == (None, 3.0)
    exact = scipy_flow(recurrent(), signal.at, start, 0.5, 3.0)
    # some hundred steps with local errors of 1e-11
    assert gap(outcome.state, exact) <= 1e-8


def test_members_of_an_ensemble_learn_at_their_own_steps():
    network, members = make_network(), 3
    speeds = torch.tensor([1.0, 5.0, 25.0], dtype=torch.float64)
    problem = make_problem(network, speed=(speeds,) * network.depth)
    weights = tuple(draw(20 + k, members, *network.weight_shape(k)) for k in range(network.depth))
    state, signal = problem.initial_state(weights, 2), waves(2, network.widths[0])
    signal = Sinusoid(*(Inputs(each.input, draw(30, 2, network.widths[-1])) for each in vars(signal).values()))
    control = Memberwise(rtol=1e-9, atol=1e-10)
    outcome = control.reach(CostateReversal(problem), signal.at, state, 0.0, 0.5, 10**6)
    exact = scipy_flow(CostateReversal(problem), signal.at, state, 0.0, 0.5, rtol=1e-10)
    assert outcome.ending is None
    assert gap(outcome.state, exact) <= 1e-7
    # and each member is the run of that member alone, whose matrix products have another shape
    for member in range(members):
        own = make_problem(network, speed=(float(speeds[member]),) * network.depth)
        start = own.initial_state(tuple(w[member] for w in weights), 2)
        alone = Memberwise(rtol=1e-9, atol=1e-10, axes=0).reach(CostateReversal(own), signal.at, start, 0.0, 0.5, 10**6)
        for found, expected in zip(outcome.state.weight, alone.state.weight, strict=True):
            assert gap(found[member], expected) <= 1e-9


def test_held_inputs_edges_and_record_times_in_the_loop():
    stream = HeldSamples(draw(1, 30, 2), draw(2, 30, 1), SAMPLES, 0.1)
    times = [0.1 * n for n in range(11)]
    loop = Loop(recurrent(), Memberwise(), stream, draw(11, SAMPLES, N), until=1.0, record_times=times)
    assert [tick.t for tick in loop if tick.is_record] == times
    assert (loop.ending, loop.t) == (Ending.REACHED_END, 1.0)
    state = draw(11, SAMPLES, N)
    for n in range(10):
        state = scipy_flow(recurrent(), stream.piece(0.1 * n), state, 0.1 * n, 0.1 * (n + 1))
    assert gap(loop.state, state) <= 1e-4


def test_a_failed_stretch_gives_back_its_beginning_and_names_the_member():
    class Singular:
        def vector_field(self, t, y, inputs):
            return y.square()

    start = torch.tensor([[0.1], [1.0], [0.2]], dtype=torch.float64)
    before = snapshot(start)
    loop = Loop(Singular(), Memberwise(), Silence(), start, until=3.0, record_times=[0.5, 2.0])
    shown = [tick.t for tick in loop]
    assert shown == [0.5]
    assert (loop.ending, loop.t) == (Ending.DIVERGED, 0.5)
    assert loop.detail.startswith("member 1 at t = 1")
    assert "between t = 0.5 and 2" in loop.detail
    # 1/(1/y₀ − t) at 0.5, to the default tolerance
    assert gap(loop.state, 1 / (1 / start - 0.5)) <= 1e-4
    assert_same_bits(start, before)


@pytest.mark.parametrize("max_steps", [0, 3])
def test_a_budget_is_spent_by_name(max_steps):
    outcome = Memberwise().reach(Decay(30.0), still, ones(2, 1), 0.0, 5.0, max_steps)
    assert (outcome.ending, outcome.t, outcome.steps) == (Ending.BUDGET_SPENT, 0.0, max_steps)
    assert float(outcome.state.max()) == 1.0


def test_the_loop_keeps_to_its_budget_over_many_stretches():
    loop = Loop(
        VanDerPol(torch.tensor([1.0, 2.0], dtype=torch.float64)),
        Memberwise(),
        Silence(),
        ones(2, 2),
        until=5.0,
        record_times=[0.05 * n for n in range(1, 100)],
        max_steps=12,
    )
    list(loop)
    assert loop.ending == Ending.BUDGET_SPENT
    assert loop.steps <= 12


def test_a_piece_that_wants_a_float_is_refused():
    def piece(t):
        return Inputs(torch.tensor(math.cos(t)))

    with pytest.raises(CapabilityError, match="different time for every member") as refusal:
        Memberwise().reach(recurrent(), piece, draw(11, SAMPLES, N), 0.0, 1.0, 100)
    assert "adaptive" in refusal.value.advice


def test_an_error_in_the_vector_field_is_not_swallowed():
    class Broken:
        def vector_field(self, t, y, inputs):
            raise RuntimeError("a fault of the system's own")

    with pytest.raises(RuntimeError, match="of the system's own"):
        Memberwise().reach(Broken(), still, ones(2, 1), 0.0, 1.0, 100)


def test_horizon_is_not_cut_by_looks():
    assert Memberwise().horizon(3.0, 50.0, 10) == 50.0


def test_constant_inputs_and_a_rest_state_end_steady():
    signal = Constant(make_inputs(make_network((2, 1)), SAMPLES))
    loop = Loop(
        RecurrentNetwork(0.1 * draw(9, N, N), draw(10, N, 2), TANH, 5.0),
        Memberwise(rtol=1e-10, atol=1e-12),
        signal,
        draw(11, SAMPLES, N),
        until=100.0,
        record_times=[float(n) for n in range(100)],
        steady_tolerance=1e-6,
    )
    list(loop)
    assert loop.ending == Ending.STEADY
