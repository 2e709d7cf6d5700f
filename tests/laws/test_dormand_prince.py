"""Masked Dormand–Prince: its order, its accuracy, and that no member knows who else is in the batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import RK45
from support.compare import EPS, assert_same_bits, gap, snapshot
from support.flow import Decay, VanDerPol, still
from support.learning import draw
from support.oracle import scipy_flow
from support.order import assert_order, end_errors

from nlsim.core.state import map_leaves
from nlsim.core.system import Inputs
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.dormand_prince import ALPHA, BETA, DORMAND_PRINCE, ERROR_WEIGHTS
from nlsim.integrate.members import Memberwise, solve_members

REACHED = "reached_end"


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def swing(t, y):
    """ẏ = −y² cos t, each member at its own time."""
    return -y.square() * torch.cos(t).unsqueeze(-1)


def swung(t, t0, y0):
    """Return the solution of ``swing`` from (t0, y0): 1/y − 1/y₀ = sin t − sin t₀."""
    return 1 / (1 / y0 + (torch.sin(t) - torch.sin(t0)).unsqueeze(-1))


def van_der_pol(members: int) -> tuple[VanDerPol, torch.Tensor]:
    stiffness = torch.linspace(1.0, 10.0, members, dtype=torch.float64)
    return VanDerPol(stiffness), draw(11, members, 2, low=-2.0, high=2.0)


def test_the_coefficients_are_those_of_scipy():
    assert DORMAND_PRINCE.nodes == tuple(RK45.C.tolist())
    for row, expected in zip(DORMAND_PRINCE.stages, RK45.A.tolist(), strict=True):
        assert row == tuple(expected[: len(row)])
    assert DORMAND_PRINCE.weights == tuple(RK45.B.tolist())
    # SciPy subtracts the other way round
    assert tuple((-RK45.E).tolist()) == ERROR_WEIGHTS


class Wave:
    """ẏ = −y (cos t + u), with u = cos t: y₀ e^{−2 sin t}; half of the time dependence comes through the inputs."""

    def vector_field(self, t, state, inputs):
        return -state * (math.cos(t) + inputs.input)

    def piece(self, t):
        return Inputs(torch.tensor(math.cos(t), dtype=torch.float64))


def test_order_of_the_fixed_step_with_time_in_field_and_inputs():
    system, start, counts = Wave(), torch.ones(1, dtype=torch.float64), (80, 160, 320)
    exact = torch.tensor([math.exp(-2 * math.sin(6.0))], dtype=torch.float64)
    assert_order(5, counts, end_errors(DORMAND_PRINCE, system, system.piece, start, 6.0, exact, counts))


def test_the_fixed_step_is_stable_up_to_its_limit_and_not_beyond():
    limit, start = DORMAND_PRINCE.stability_limit, torch.ones(1, dtype=torch.float64)
    ends = [
        float(DORMAND_PRINCE.advance(Decay(), still, start, 0.0, factor * limit, 2000).abs())
        for factor in (0.999, 1.001)
    ]
    # |R| changes by about 0.003 of 1 over a thousandth of the limit: e^{∓4} and more after 2000 steps
    assert ends[0] < 0.05
    assert ends[1] > 20.0


def fixed(h: float) -> Memberwise:
    """Return a method that has no reason to take any step but h."""
    return Memberwise(rtol=1e9, atol=1e9, max_step=h)


def test_order_of_the_masked_step_where_every_member_is_at_another_time():
    t0 = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
    t1, start, counts, errors = t0 + 6.0, column(0.7, 0.9, 0.4), (80, 160, 320), []
    for n in counts:
        found = solve_members(
            lambda t, y: -2 * y * torch.cos(t).unsqueeze(-1), start, t0, t1, fixed(6 / n), first=6 / n
        )
        assert found.accepted.tolist() == [n] * 3
        errors.append(gap(found.state, start * torch.exp(2 * (torch.sin(t0) - torch.sin(t1))).unsqueeze(-1)))
    assert_order(5, counts, errors)


def test_end_values_at_a_tight_tolerance():
    t0, t1 = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 0.5, 7.0], dtype=torch.float64)
    start = column(0.7, 0.9, 0.4)
    found = solve_members(swing, start, t0, t1, Memberwise(rtol=1e-14, atol=1e-14))
    # up to 1000 steps that round at 1 ulp of y < 1.5 at random: √1000 · 2e-16 = 7e-15, stretched by up to (y/y₀)² = 5
    assert gap(found.state, swung(t1, t0, start)) <= 1e-13


def test_steps_grow_like_the_fifth_root_of_the_tolerance():
    counts = []
    for rtol in (1e-6, 1e-11):
        found = solve_members(swing, column(0.7), 0.0, 20.0, Memberwise(rtol=rtol, atol=rtol))
        counts.append(int(found.accepted))
    # 10⁵ in tolerance is 10 in step; the first and last steps count for a few of each
    assert counts[1] / counts[0] == pytest.approx(10.0, rel=0.15)


def test_the_error_follows_the_tolerance():
    start, t1 = column(0.7, 0.9), torch.tensor([6.0, 7.0], dtype=torch.float64)
    zero = torch.zeros_like(t1)
    for rtol in (1e-4, 1e-7, 1e-10):
        found = solve_members(swing, start, 0.0, t1, Memberwise(rtol=rtol, atol=rtol))
        # local errors of at most rtol (1 + y) add up over the steps, and the flow stretches by (y/y₀)² ≤ 25 at most
        assert gap(found.state, swung(t1, zero, start)) <= 50 * rtol * int(found.accepted.max())


def test_van_der_pol_members_keep_their_accuracy_where_a_joint_step_loses_it():
    system, start = van_der_pol(256)
    method = Memberwise(rtol=1e-6, atol=1e-6)
    joint = AdaptiveRungeKutta(rtol=1e-6, atol=1e-6, norm="rms")
    own, shared, exact = start, start, start
    worst_own = worst_shared = 0.0
    for stretch in range(4):
        t, until = 5.0 * stretch, 5.0 * (stretch + 1)
        own = method.reach(system, still, own, t, until, 10**6).state
        shared = joint.reach(system, still, shared, t, until, 10**6).state
        exact = scipy_flow(system, still, exact, t, until, rtol=1e-11)
        worst_own, worst_shared = max(worst_own, gap(own, exact)), max(worst_shared, gap(shared, exact))
    # a jump of the relaxation oscillation stretches errors by about 10³ in v: rtol 1e-6 cannot promise less
    assert worst_own <= 2e-3
    assert worst_shared >= 3 * worst_own
    assert worst_shared >= 4e-3


@pytest.mark.parametrize("chosen", [[0], [17], [3, 60], list(range(5, 42))], ids=["first", "one", "two", "odd many"])
def test_a_member_takes_the_same_steps_alone_and_in_any_batch(chosen):
    system, start = van_der_pol(64)
    t0 = draw(12, 64, low=-1.0, high=0.0)
    t1 = draw(13, 64, low=5.0, high=9.0)

    def solve(index):
        own = VanDerPol(system.stiffness[index])
        return solve_members(
            lambda t, y: own.vector_field(0.0, y, None) + torch.cos(t).unsqueeze(-1), start[index], t0[index], t1[index]
        )

    together, alone = solve(slice(None)), solve(chosen)
    assert len(set(together.accepted.tolist())) > 10, "the members do not differ enough for this to show anything"
    for name in ("state", "t", "accepted", "rejected", "step"):
        assert_same_bits(getattr(alone, name), getattr(together, name)[chosen])


def test_a_member_of_a_network_agrees_alone_and_in_a_batch_to_round_off():
    # a matrix product is blocked by the size of the batch, so the bits of its rows depend on it
    weight, start = draw(14, 24, 24), draw(15, 40, 24)

    def field(t, y):
        return torch.tanh(y @ weight.mT) - y

    together = solve_members(field, start, 0.0, 5.0)
    for member in (0, 23, 39):
        alone = solve_members(field, start[member : member + 1], 0.0, 5.0)
        assert int(alone.accepted) == int(together.accepted[member])
        # a product rounds 24 times; over 5 units of time the net (|W| ≤ 10) stretches by less than 10⁴
        assert gap(alone.state, together.state[member : member + 1]) <= 24 * 1e4 * EPS


@pytest.mark.parametrize("every", [2, 7, 100])
def test_how_often_the_host_looks_changes_no_bit(every):
    system, start = van_der_pol(16)

    def solve(check_every):
        return solve_members(
            lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 5.0, Memberwise(check_every=check_every)
        )

    often, seldom = solve(1), solve(every)
    for name in ("state", "t", "accepted", "rejected", "step"):
        assert_same_bits(getattr(often, name), getattr(seldom, name))
    assert often.endings == seldom.endings
    assert seldom.evaluations == 2 + 6 * math.ceil((often.evaluations - 2) / 6 / every) * every


def test_every_member_lands_exactly_on_its_own_end():
    t0 = torch.tensor([0.0, 0.3, 2.0, -1.0, 0.1], dtype=torch.float64)
    t1 = torch.tensor([0.1 * 3, 0.7, 1 / 3, -1.0, 0.1 + 1e-15], dtype=torch.float64)
    start = column(0.7, 0.8, 0.9, 1.0, 1.1)
    found = solve_members(swing, start, t0, t1)
    assert found.endings == (REACHED,) * 5
    assert_same_bits(found.t, t1)
    assert gap(found.state, swung(t1, t0, start)) <= 1e-5
    # no way to go, no step
    assert (int(found.accepted[3]), float(found.state[3])) == (0, 1.0)


def test_ends_far_away_are_met_exactly_too():
    # a step from a large time to a small one is rounded at the large one: t + (end − t) is not the end
    t0, t1 = 1e3 * draw(16, 200), draw(17, 200)
    assert int((t0 + (t1 - t0) != t1).sum()) > 10
    found = solve_members(lambda t, y: torch.ones_like(y), torch.zeros(200, 1, dtype=torch.float64), t0, t1)
    assert_same_bits(found.t, t1)
    straight = solve_members(
        lambda t, y: torch.ones_like(y), torch.zeros(200, 1, dtype=torch.float64), t0, t1, first=1e6
    )
    assert_same_bits(straight.t, t1)
    assert straight.accepted.tolist() == [1] * 200


def test_a_last_step_cut_short_does_not_shorten_the_next():
    natural = solve_members(swing, column(0.7), 0.0, 50.0, max_steps=9)
    end = float(natural.t) + 0.01 * float(natural.step)
    found = solve_members(swing, column(0.7), 0.0, end)
    assert int(found.accepted) == 10
    # the cut step alone would propose at most ten times its own hundredth
    assert float(found.step) >= float(natural.step)


def test_there_and_back_again():
    start, t1 = column(0.7, 0.9), torch.tensor([3.0, 4.0], dtype=torch.float64)
    there = solve_members(swing, start, 0.0, t1, Memberwise(rtol=1e-12, atol=1e-12))
    back = solve_members(swing, there.state, t1, 0.0, Memberwise(rtol=1e-12, atol=1e-12))
    # some hundred local errors of 1e-12 each way, stretched by at most (y/y₀)² ≤ 25
    assert gap(back.state, start) <= 2 * 500 * 25 * 1e-12


def test_nothing_is_asked_outside_the_stretch():
    asked = []

    def field(t, y):
        asked.append(t.clone())
        return swing(t, y)

    t0, t1 = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 0.3], dtype=torch.float64)
    solve_members(field, column(0.7, 0.8), t0, t1)
    times = torch.stack(asked)
    assert float(times[:, 0].min()) == 0.0
    assert float(times[:, 0].max()) == 1.0
    assert float(times[:, 1].min()) == 0.3
    assert float(times[:, 1].max()) == 2.0


def test_the_longest_step_allowed_is_kept_to():
    found = solve_members(swing, column(0.7), 0.0, 1.0, Memberwise(rtol=1e-2, atol=1e-2, max_step=0.05))
    assert int(found.accepted) == 20
    assert float(found.step) <= 0.05


def test_a_solution_that_goes_on_needs_no_new_guess():
    first = solve_members(swing, column(0.7, 0.9), 0.0, 2.0)
    second = solve_members(swing, first.state, 2.0, 4.0, first=first.step)
    anew = solve_members(swing, first.state, 2.0, 4.0)
    attempts = (second.accepted + second.rejected).max()
    assert second.evaluations == 1 + 6 * int(attempts)
    assert anew.evaluations == 2 + 6 * int((anew.accepted + anew.rejected).max())
    assert second.evaluations <= anew.evaluations
    # the end may cut a last step short, but not the step that is proposed after it
    assert float(second.step.min()) >= 0.2 * float(first.step.min())


def test_a_constant_field_is_not_crept_along():
    found = solve_members(lambda t, y: torch.ones_like(y), column(0.0, 5.0), 0.0, 1e6)
    # a tenfold longer step each time, from 1e-2 of the state or 1e-6 at least: 13 and the last
    assert int(found.accepted.max()) <= 15
    assert gap(found.state, column(1e6, 5.0 + 1e6)) <= 1e6 * 20 * EPS


@pytest.mark.parametrize("axes", [1, 2])
def test_members_may_lie_along_several_axes(axes):
    system, start = van_der_pol(12)
    stacked = VanDerPol(system.stiffness.reshape(3, 4))
    flat = solve_members(lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 3.0)
    found = solve_members(
        lambda t, y: stacked.vector_field(0.0, y, None), start.reshape(3, 4, 2), 0.0, 3.0, Memberwise(axes=axes)
    )
    assert found.t.shape == (3, 4)[:axes]
    assert len(found.endings) == (3, 12)[axes - 1]
    if axes == 2:
        assert_same_bits(found.state.reshape(12, 2), flat.state)
    else:
        # four to a member: each goes by the one that needs the shortest steps
        assert (found.accepted >= flat.accepted.reshape(3, 4).amax(1) - 2).all()
        assert gap(found.state.reshape(12, 2), flat.state) <= 1e-3


def test_one_member_of_everything_is_the_joint_step():
    system, start = van_der_pol(5)
    found = solve_members(lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 3.0, Memberwise(axes=0))
    own = solve_members(lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 3.0)
    assert (found.t.ndim, found.endings) == (0, (REACHED,))
    assert int(found.accepted) >= int(own.accepted.max())


def test_a_tree_is_solved_like_its_tensors_side_by_side():
    system, start = van_der_pol(6)
    together = solve_members(lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 4.0)

    def apart(t, y):
        slope = system.vector_field(0.0, torch.stack((y["x"], y["v"][:, 0]), -1), None)
        return {"x": slope[:, 0], "v": slope[:, 1:]}

    found = solve_members(apart, {"x": start[:, 0], "v": start[:, 1:]}, 0.0, 4.0)
    assert_same_bits(found.state["x"], together.state[:, 0])
    assert_same_bits(found.state["v"], together.state[:, 1:])
    assert_same_bits(found.accepted, together.accepted)


def test_the_state_given_is_never_written_to():
    start = {"a": column(0.7, 0.9), "b": draw(1, 2, 3)}
    before = snapshot(start)
    solve_members(lambda t, y: map_leaves(lambda leaf: -leaf, y), start, 0.0, 3.0)
    assert_same_bits(start, before)


def test_float32_states_keep_their_type_and_float64_times():
    t1 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    seen = []

    def field(t, y):
        seen.append((t.dtype, y.dtype))
        return swing(t, y)

    start = column(0.7, 0.9)
    found = solve_members(field, start.float(), 1e-3, t1, Memberwise(rtol=1e-4, atol=1e-4))
    assert set(seen) == {(torch.float32, torch.float32)}
    assert (found.state.dtype, found.t.dtype) == (torch.float32, torch.float64)
    assert_same_bits(found.t, t1)
    expected = swung(t1, torch.full_like(t1, 1e-3), start)
    assert gap(found.state, expected) <= 1e-4 * 10 * int(found.accepted.max())


def test_the_controller_is_the_one_described():
    """Follow one member's errors by hand: what it proposes after each accepted step."""
    method = Memberwise(rtol=1e-7, atol=1e-7)
    steps, states = [], column(0.7)
    t, proposed, memory = 0.0, 0.01, 1e-4
    for _ in range(12):
        found = solve_members(swing, states, t, 50.0, method, first=proposed, max_steps=1)
        if int(found.rejected) or float(found.t) >= 50.0:
            break
        # the error of that step, from SciPy's weights and slopes written out again
        stages = [swing(torch.tensor([t], dtype=torch.float64), states)]
        for node, row in zip(RK45.C[1:], RK45.A[1:], strict=True):
            moved = states + proposed * sum(float(a) * k for a, k in zip(row, stages, strict=False))
            stages.append(swing(torch.tensor([t + node * proposed], dtype=torch.float64), moved))
        stages.append(swing(torch.tensor([t + proposed], dtype=torch.float64), found.state))
        gap_ = proposed * sum(float(e) * k for e, k in zip(RK45.E, stages, strict=True))
        error = float((gap_.abs() / (1e-7 + 1e-7 * torch.maximum(states.abs(), found.state.abs()))).max())
        # a solution of one step has no error before it: its memory is the smallest
        factor = 0.9 * error**-ALPHA * memory**BETA
        steps.append(float(found.step) / proposed)
        assert steps[-1] == pytest.approx(min(10.0, max(0.2, factor)), rel=1e-6)
        states, t, proposed = found.state, float(found.t), float(found.step)
    assert len(steps) >= 6
    assert (ALPHA, BETA) == (0.17, 0.04)


def test_tolerances_of_one_do_not_reach_another():
    # the same members beside a wild one: not a bit of theirs changes
    system, start = van_der_pol(8)

    def field(t, y):
        return torch.cat((system.vector_field(0.0, y[:8], None), 500 * (torch.cos(300 * t[8:]).unsqueeze(-1) - y[8:])))

    beside = solve_members(field, torch.cat((start, torch.ones(1, 2, dtype=torch.float64))), 0.0, 1.0)
    calm = solve_members(lambda t, y: system.vector_field(0.0, y, None), start, 0.0, 1.0)
    assert int(beside.accepted[8]) > 5 * int(calm.accepted.max())
    assert_same_bits(beside.state[:8], calm.state)
    assert_same_bits(beside.accepted[:8], calm.accepted)


def test_a_method_is_changed_by_replacing_it():
    loose, tight = Memberwise(), replace(Memberwise(), rtol=1e-10, atol=1e-12)
    few, many = (solve_members(swing, column(0.7), 0.0, 5.0, each).accepted for each in (loose, tight))
    assert int(many) > 3 * int(few)
