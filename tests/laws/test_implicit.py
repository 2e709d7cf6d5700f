"""SDIRK2: its stability function, its order, its limit of infinite speed, and what happens when it is not solved."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import EPS, assert_round_off, assert_same_bits, gap, snapshot
from support.flow import Decay, Explosion, Silence, Swing, VanDerPol, still
from support.learning import draw
from support.oracle import scipy_flow
from support.order import assert_order, end_errors

from nlsim.core.ending import Ending
from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import RK4
from nlsim.integrate.implicit import SDIRK2, Sdirk2, dense_solver
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import TANH
from nlsim.systems.recurrent import RecurrentNetwork
from nlsim.systems.signals import Constant, Sinusoid

N, SAMPLES = 6, 4


def recurrent(c: float, norm: float = 0.9, n: int = N) -> RecurrentNetwork:
    """Return a net with cycles that contracts in the Euclidean norm when ``norm`` is below 1."""
    weight = draw(5, n, n)
    return RecurrentNetwork(weight * (norm / torch.linalg.matrix_norm(weight, 2)), draw(6, n, 2), TANH, c)


def moving() -> Sinusoid:
    """Return inputs of frequency 1, in another phase for every sample."""
    one = torch.ones((), dtype=torch.float64)
    phase = draw(7, SAMPLES, 2, low=0.0, high=6.0)
    return Sinusoid(Inputs(0 * one, 0 * one), Inputs(one, one), Inputs(one, one), Inputs(phase, phase))


class Counted:
    """A system that counts how often its vector field is asked for."""

    def __init__(self, system):
        self.system, self.count = system, 0

    def vector_field(self, t, state, inputs):
        self.count += 1
        return self.system.vector_field(t, state, inputs)

    def linear_solver(self, *arguments):
        return self.system.linear_solver(*arguments)


def stability_function(z):
    """Return R(z) of the two stages, worked out by hand from the tableau with γ = 1 − 1/√2."""
    gamma = 1 - math.sqrt(0.5)
    return (1 + (1 - 2 * gamma) * z) / (1 - gamma * z) ** 2


@pytest.mark.parametrize("rate", [1e-6, 0.1, 1.0, 10.0, 1e3, 1e8])
def test_a_step_of_decay_is_the_stability_function(rate):
    start = torch.ones(1, dtype=torch.float64)
    # one correction with the exact matrix solves a linear problem; the second removes the rounding of the first
    found = Sdirk2(iterations=2).advance(Decay(rate), still, start, 0.0, 1.0, 1)
    # both stages round at their own size, which is 1 even where the result is 1/rate
    assert abs(float(found) - stability_function(-rate)) <= 16 * EPS


def test_infinitely_fast_decay_is_over_in_one_step():
    end = SDIRK2.advance(Decay(1e12), still, torch.ones(1, dtype=torch.float64), 0.0, 1.0, 1)
    # R(z) → (1 − 2γ)/(γ² z) = 4.83/z
    assert abs(float(end)) <= 5e-12 + 16 * EPS


def test_order_where_time_enters_through_field_and_inputs():
    system, start, counts = Swing(), torch.tensor([0.7], dtype=torch.float64), (40, 80, 160, 320)
    exact = torch.tensor([system.exact(2.0, 0.7)], dtype=torch.float64)
    assert_order(2, counts, end_errors(SDIRK2, system, system.piece, start, 2.0, exact, counts))


@pytest.mark.parametrize("c", [1.0, 5.0])
def test_order_on_a_recurrent_batch_with_moving_inputs(c):
    system, piece, start, counts = recurrent(c), moving().at, draw(8, SAMPLES, N), (80, 160, 320)
    exact = scipy_flow(system, piece, start, 0.0, 2.0)
    assert_order(2, counts, end_errors(SDIRK2, system, piece, start, 2.0, exact, counts))


def test_error_at_a_fixed_step_falls_as_the_speed_rises():
    speeds, errors = [10.0, 1e2, 1e3, 1e4, 1e5, 1e6], []
    for c in speeds:
        system, piece, start = recurrent(c), moving().at, draw(8, SAMPLES, N)
        method = "DOP853" if c < 1e3 else "LSODA"
        exact = scipy_flow(system, piece, start, 0.0, 2.0, method=method, rtol=1e-12)
        errors.append(gap(SDIRK2.advance(system, piece, start, 0.0, 0.05, 40), exact))
    # at c = 10 the problem is not stiff (h c = 1/2) and the error is that of an order-2 method, (h ω)²/8 = 3e-4
    assert errors[0] <= 3e-4
    assert max(errors) == errors[0], f"errors {errors} at c = {speeds}"
    # once h c ≫ 1 the state is the rest state minus (I − DW)⁻¹ ẋ*/c, in which ẋ* has a first-order error: h/c
    for slow, fast in ((errors[3], errors[4]), (errors[4], errors[5])):
        assert slow / fast == pytest.approx(10.0, rel=0.1), f"errors {errors}"


def test_the_limit_is_the_rest_state_at_the_end_of_the_step():
    system, piece, h = recurrent(1e12), moving().at, 0.1
    found = Sdirk2(iterations=40).advance(system, piece, draw(8, SAMPLES, N), 0.0, h, 1)
    rest = torch.zeros(SAMPLES, N, dtype=torch.float64)
    for _ in range(400):  # 0.9⁴⁰⁰ = 5e-19
        rest = torch.tanh(rest @ system.weight.mT + piece(h).input @ system.input_weight.mT)
    # O(1/(h c)) = 1e-11, times |(I − DW)⁻¹| ≤ 10
    assert gap(found, rest) <= 1e-10


def test_cost_does_not_depend_on_the_speed_and_beats_rk4_when_stiff():
    calls = {}
    for c in (1.0, 1e3, 1e6):
        counted = Counted(recurrent(c))
        SDIRK2.advance(counted, moving().at, draw(8, SAMPLES, N), 0.0, 0.05, 40)
        calls[c] = counted.count
    assert set(calls.values()) == {40 * 2 * SDIRK2.iterations}
    # at c = 1000 RK4 has to take h c < 2.79 whatever the accuracy: 1436 calls for each unit of time, against 400 at
    # the error of 4e-5 that the test above bounds by 3e-4
    stable = math.ceil(2.0 * 1e3 / RK4.stability_limit) * len(RK4.nodes)
    assert stable > 3 * calls[1e3]


def test_the_jacobian_by_differentiation_is_the_closed_form():
    system, piece, state = recurrent(3.0), moving().at, draw(8, SAMPLES, N)
    closed = system.linear_solver(0.4, state, piece(0.4), 0.7)
    shared = dense_solver(system, piece, state, 0.4, 0.7, member_axes=1, is_shared=True)
    residual = draw(9, SAMPLES, N)
    # |(I − 0.7 J)⁻¹| ≤ 1: the leak alone makes −J positive at norm 0.9; N terms a sum
    assert_round_off(shared(residual), closed(residual), 8 * N)


@pytest.mark.parametrize("member_axes", [0, 1])
def test_the_exact_jacobian_of_every_sample_solves_its_own_system(member_axes):
    system, piece, state, scale = recurrent(3.0), moving().at, draw(8, SAMPLES, N), 0.7
    residual = draw(9, SAMPLES, N)
    found = dense_solver(system, piece, state, 0.4, scale, member_axes=member_axes)(residual)
    for sample in range(SAMPLES):
        inputs = Inputs(piece(0.4).input[sample : sample + 1])

        def alone(x, inputs=inputs):
            return system.vector_field(0.4, x[None], inputs)[0]

        jacobian = torch.autograd.functional.jacobian(alone, state[sample])
        back = found[sample] - scale * jacobian @ found[sample]
        assert_round_off(back, residual[sample], 8 * N * 3)


@pytest.mark.parametrize(
    "stepper",
    [Sdirk2(), Sdirk2(member_axes=1), Sdirk2(member_axes=1, is_shared=False)],
    ids=["whole state", "shared", "each its own"],
)
def test_what_solves_the_linear_part_does_not_matter(stepper):
    class Bare:
        """The same flow without its own solver."""

        def vector_field(self, t, state, inputs):
            return system.vector_field(t, state, inputs)

    system, piece, start = recurrent(20.0), moving().at, draw(8, SAMPLES, N)
    found, residual = stepper.advance_judged(Bare(), piece, start, 0.0, 0.05, 20)
    expected, other = SDIRK2.advance_judged(system, piece, start, 0.0, 0.05, 20)
    # each is solved to its last correction, and a contracting flow does not let the differences add up
    assert gap(found, expected) <= 20 * float(residual + other) + 100 * EPS
    assert float(residual + other) <= 1e-8


def test_a_tree_is_stepped_like_its_tensors_side_by_side():
    class Tree:
        """Van der Pol with position and velocity apart."""

        def vector_field(self, t, state, inputs):
            x, v = state["x"], state["v"]
            return {"x": v, "v": 5.0 * (1 - x * x) * v - x}

    start = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    together = SDIRK2.advance(VanDerPol(torch.tensor(5.0, dtype=torch.float64)), still, start, 0.0, 0.02, 30)
    apart = SDIRK2.advance(Tree(), still, {"x": start[:, 0], "v": start[:, 1]}, 0.0, 0.02, 30)
    # two stages of ten solves a step round at the size of the state, and a relaxation oscillation hands it on
    assert_round_off(torch.stack((apart["x"], apart["v"]), -1), together, 30 * 20 * 5)


def test_a_slow_block_left_out_of_the_solve_is_second_order_too():
    class FastAndSlow:
        """ẋ = 50 (w cos t − x), ẇ = −x w/2: a fast activity and a slow weight; only x is solved for."""

        def vector_field(self, t, state, inputs):
            x, w = state["x"], state["w"]
            return {"x": 50.0 * (w * math.cos(t) - x), "w": -0.5 * x * w}

        def linear_solver(self, t, state, inputs, scale):
            return lambda r: {"x": r["x"] / (1 + 50.0 * scale), "w": r["w"]}

    start = {name: torch.ones(1, dtype=torch.float64) for name in ("x", "w")}
    exact, counts = scipy_flow(FastAndSlow(), still, start, 0.0, 1.0), (160, 320, 640)
    assert_order(2, counts, end_errors(SDIRK2, FastAndSlow(), still, start, 1.0, exact, counts))
    residual = SDIRK2.advance_judged(FastAndSlow(), still, start, 0.0, 1 / 160, 160)[1]
    assert float(residual) <= 1e-9


def test_a_step_depends_on_nothing_but_time_and_state():
    signal = Constant(moving().at(0.3))
    system, start = recurrent(30.0), draw(8, SAMPLES, N)
    whole = SDIRK2.advance(system, signal.piece(0.0), start, 0.0, 0.0625, 8)
    parts = start
    for n in range(8):
        parts = SDIRK2.advance(system, signal.piece(0.0), parts, n * 0.0625, 0.0625, 1)
    assert_same_bits(parts, whole)


def test_a_sample_moves_in_a_batch_as_it_moves_alone():
    system, start = recurrent(50.0), draw(8, SAMPLES, N)
    inputs = moving().at(0.3)
    batch, residual = SDIRK2.advance_judged(system, lambda t: inputs, start, 0.0, 0.05, 20)
    for sample in range(SAMPLES):
        own = Inputs(inputs.input[sample : sample + 1])
        alone, other = SDIRK2.advance_judged(system, lambda t, own=own: own, start[sample : sample + 1], 0.0, 0.05, 20)
        # the shared matrix decides only how fast the corrections shrink
        assert gap(alone, batch[sample : sample + 1]) <= 20 * float(residual + other) + 100 * EPS
        assert float(residual + other) <= 1e-7


def test_an_ensemble_of_speeds_is_one_run_a_member():
    speeds = torch.tensor([2.0, 30.0, 400.0], dtype=torch.float64)
    net = recurrent(1.0)
    ensemble = RecurrentNetwork(net.weight, net.input_weight, TANH, speeds[:, None, None])
    start, piece = draw(8, SAMPLES, N), moving().at
    together = SDIRK2.advance(ensemble, piece, start.expand(3, SAMPLES, N), 0.0, 0.05, 20)
    for member, c in enumerate(speeds.tolist()):
        alone = SDIRK2.advance(recurrent(c), piece, start, 0.0, 0.05, 20)
        assert_round_off(together[member], alone, 20 * 20 * N)


def test_backward_in_time_comes_back_to_second_order():
    system, start, gaps = Swing(), torch.tensor([0.7], dtype=torch.float64), []
    for steps in (50, 100):
        there = SDIRK2.advance(system, system.piece, start, 0.0, 1.0 / steps, steps)
        gaps.append(gap(SDIRK2.advance(system, system.piece, there, 1.0, -1.0 / steps, steps), start))
    assert gaps[0] / gaps[1] >= 3.5


def fierce() -> RecurrentNetwork:
    """Return a net so strongly coupled that its samples' slopes have nothing in common."""
    return recurrent(1e6, norm=30.0)


def test_a_run_that_cannot_be_solved_ends_by_name_with_the_state_it_had():
    start = draw(8, SAMPLES, N)
    before = snapshot(start)
    loop = Loop(fierce(), FixedStep(SDIRK2, 0.1), moving(), start, until=1.0, record_times=[0.5], check_every=3)
    shown = list(loop)
    assert loop.ending == Ending.NOT_CONVERGED
    assert (loop.t, loop.steps) == (0.0, 0)
    assert "residual" in loop.detail
    assert "between t = 0 and 0.3" in loop.detail
    assert [(tick.t, tick.is_record) for tick in shown] == [(0.0, True)]  # the last state belongs into the record
    assert_same_bits(loop.state, before)
    assert_same_bits(start, before)


def test_what_one_iteration_leaves_unsolved_ten_solve():
    start, piece = draw(8, SAMPLES, N), moving().at
    hasty = FixedStep(Sdirk2(iterations=1), 0.1).reach(recurrent(1e3), piece, start, 0.0, 1.0, 100)
    patient = FixedStep(SDIRK2, 0.1).reach(recurrent(1e3), piece, start, 0.0, 1.0, 100)
    assert (hasty.ending, hasty.t, hasty.steps) == (Ending.NOT_CONVERGED, 0.0, 0)
    assert (patient.ending, patient.t, patient.steps) == (None, 1.0, 10)


def test_the_last_correction_bounds_what_is_left_unsolved():
    system, piece, start = recurrent(1e3), moving().at, draw(8, SAMPLES, N)
    solved = Sdirk2(iterations=60).advance(system, piece, start, 0.0, 0.1, 1)
    for iterations in (3, 5, 8):
        found, residual = Sdirk2(iterations=iterations).advance_judged(system, piece, start, 0.0, 0.1, 1)
        # relative to 1 + |y| ≤ 3; corrections that at least halve leave no more than the last one behind, and the
        # first stage's share reaches the result times (1 − γ)/γ = 2.4
        assert gap(found, solved) <= 3 * (1 + 2.5) * float(residual)
        assert gap(found, solved) > 0.0


def test_a_solution_that_does_not_exist_ends_by_name():
    # ẏ = y² from 1 is infinite at t = 1; past it the equations of a step have no real solution
    start = torch.ones(1, dtype=torch.float64)
    loop = Loop(Explosion(), FixedStep(SDIRK2, 0.05), Silence(), start, until=3.0, check_every=1)
    list(loop)
    assert loop.ending == Ending.NOT_CONVERGED
    assert 0.8 <= loop.t <= 1.05


def test_a_spent_budget_is_told_from_an_unsolved_step():
    outcome = FixedStep(SDIRK2, 0.25).reach(Decay(), still, torch.ones(1, dtype=torch.float64), 0.0, 2.0, 3)
    assert (outcome.ending, outcome.t, outcome.steps) == (Ending.BUDGET_SPENT, 0.75, 3)
    assert float(outcome.state) == pytest.approx(stability_function(-0.25) ** 3, rel=100 * EPS)


def test_a_large_state_without_a_solver_is_refused_with_advice():
    with pytest.raises(NlsimError, match="too large") as refusal:
        SDIRK2.advance(Decay(), still, torch.ones(5000), 0.0, 0.1, 1)
    assert "linear_solver" in str(refusal.value)
    # the same state is no obstacle when its parts move independently
    end = Sdirk2(member_axes=1).advance(Decay(), still, torch.ones(5000, 1), 0.0, 0.1, 1)
    assert float(end.max()) == pytest.approx(stability_function(-0.1), rel=8 * 2.0**-24)


def test_float32_is_solved_within_its_own_round_off():
    system = recurrent(1e3)
    single = RecurrentNetwork(system.weight.float(), system.input_weight.float(), TANH, 1e3)
    inputs, start = moving().at(0.3), draw(8, SAMPLES, N)
    found, residual = SDIRK2.advance_judged(single, lambda t: Inputs(inputs.input.float()), start.float(), 0.0, 0.1, 30)
    expected = SDIRK2.advance(system, lambda t: inputs, start, 0.0, 0.1, 30)
    assert found.dtype == residual.dtype == torch.float32
    assert float(residual) <= SDIRK2.tolerance
    # h c = 100: what a step adds is rounded at 2⁻²⁴, and the map contracts by 0.9 at worst: ten of them remain
    assert gap(found, expected) <= 10 * N * 2.0**-24
