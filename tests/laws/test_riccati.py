"""Riccati flows and the feedback they give: against SciPy, and against the equations whose costate they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_are
from support.compare import assert_round_off, gap
from support.control import make_quadratic, sinusoid
from support.learning import draw, member
from support.oracle import scipy_flow

from nlsim.core.state import leaves
from nlsim.core.system import Inputs
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.explicit import RK4
from nlsim.systems.hamiltonian.closed_form import ScalarLinearQuadratic
from nlsim.systems.hamiltonian.linear_quadratic import (
    LinearQuadratic,
    LinearQuadraticEquations,
    LinearQuadraticReversal,
    LinearQuadraticState,
)
from nlsim.systems.hamiltonian.riccati import Convention, FeedbackState, RiccatiFeedback, RiccatiFlow, zero_gain
from nlsim.systems.signals import hold

ACCURATE = AdaptiveRungeKutta("dopri8", rtol=1e-11, atol=1e-12)
NOTHING = hold(Inputs())


def run(system, state, horizon):
    return ACCURATE.reach(system, NOTHING, state, 0.0, horizon, 10_000)


def hamilton_matrix(problem):
    a, n = problem.drift.numpy(), problem.drift.shape[-1]
    eta = float(problem.dissipation) * np.eye(n)
    return np.block([[a, -problem.actuation.numpy()], [-problem.tracking_weight.numpy(), -a.T - eta]])


def algebraic(problem, shift):
    n = problem.drift.shape[-1]
    root = np.linalg.cholesky(problem.actuation.numpy())
    shifted = problem.drift.numpy() + shift * np.eye(n)
    return torch.as_tensor(solve_continuous_are(shifted, root, problem.tracking_weight.numpy(), np.eye(n)))


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("dissipation", [0.0, 0.8, -0.6])
def test_reversed_gain_is_that_of_the_boundary_problem(n, dissipation):
    problem, horizon = make_quadratic(n, seed=n, dissipation=dissipation), 1.3
    gain = run(RiccatiFlow(problem), zero_gain(problem), horizon).state
    # (x, π) that ends at (1, 0), followed back over the horizon
    flow = expm(-horizon * hamilton_matrix(problem))
    expected = torch.as_tensor(flow[n:, :n] @ np.linalg.inv(flow[:n, :n]))
    assert gap(gain, expected) < 1e-9  # local errors of 1e-11, some tens of steps
    assert gap(gain, gain.T) < 1e-12


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dissipation", [0.0, 0.8, -0.6])
def test_where_the_reversed_gains_settle(n, dissipation):
    problem = make_quadratic(n, seed=20 + n, dissipation=dissipation)
    for convention, shift in ((Convention.ALL_TERMS, 1), (Convention.NON_DISSIPATIVE, -1)):
        expected = algebraic(problem, shift * dissipation / 2)
        # rates of the three problems are above 0.7: e^{−2·0.7·20} is 1e-12
        found = run(RiccatiFlow(problem, convention), zero_gain(problem), 20.0).state
        assert gap(found, expected) < 1e-9
        closed = problem.drift + shift * dissipation / 2 * torch.eye(n) - problem.actuation @ found
        assert float(torch.linalg.eigvals(closed).real.max()) < -0.7


@pytest.mark.parametrize("convention", Convention)
@pytest.mark.parametrize("dissipation", [0.0, 0.7])
def test_feedback_is_the_costate_it_stands_for(convention, dissipation):
    """Under two conventions π = P x + g is an exact costate; under the others P and g run as told."""
    n, horizon = 2, 0.5
    problem, signal = make_quadratic(n, seed=6, dissipation=dissipation), sinusoid(2.0, 0.8, outputs=n)
    law = RiccatiFeedback(problem, convention)
    gain = draw(8, n, n)
    start = FeedbackState(draw(7, 1, n), gain + gain.T, draw(9, 1, n))
    piece = signal.piece(0.0)
    end = ACCURATE.reach(law, piece, start, 0.0, horizon, 10_000).state
    exact = {
        Convention.UNREVERSED: LinearQuadraticEquations(problem),
        Convention.COSTATE_ONLY: LinearQuadraticReversal(problem),
    }
    if convention in exact:
        begin = LinearQuadraticState(start.activity, law.costate(start))
        expected = scipy_flow(exact[convention], piece, begin, 0.0, horizon)
        found = LinearQuadraticState(end.activity, law.costate(end))
        assert gap(found, expected) < 1e-9
    else:
        # the mirror image: run the result back under the exact equations with the target mirrored
        shown = make_quadratic(n, seed=6, dissipation=_mirror(convention) * dissipation)
        exact_law = RiccatiFeedback(shown, Convention.UNREVERSED)
        back = ACCURATE.reach(exact_law, lambda t: piece(horizon - t), end, 0.0, horizon, 10_000).state
        assert gap(back.gain, start.gain) < 1e-8
        assert gap(back.offset, start.offset) < 1e-8


def _mirror(convention):
    return 1 if convention is Convention.ALL_TERMS else -1


def test_exact_equations_end_at_costate_zero_when_started_on_the_gain():
    problem, horizon = make_quadratic(3, seed=11), 1.5
    gain = run(RiccatiFlow(problem), zero_gain(problem), horizon).state
    x = draw(12, 1, 3)
    end = run(LinearQuadraticEquations(problem), LinearQuadraticState(x, x @ gain), horizon).state
    # errors of 1e-11 grow by e^{μT}, at most some hundred
    assert float(end.costate.abs().max()) < 1e-8
    off = run(LinearQuadraticEquations(problem), LinearQuadraticState(x, 0.9 * x @ gain), horizon).state
    assert float(off.costate.abs().max()) > 0.05


def test_reversed_gain_approaches_at_twice_the_rate():
    problem = ScalarLinearQuadratic(0.4, 1.0, 2.0, 0.5)
    gaps = []
    for scaled in (3.0, 5.0):
        found = run(RiccatiFlow(problem.matrices()), zero_gain(problem.matrices()), scaled / problem.rate).state
        gaps.append(problem.stationary_gain - float(found))
    # the gap is C e^{−2μt}(1 + O(e^{−2μt})), and e^{−6} is 0.0025
    assert math.log(gaps[0] / gaps[1]) / 2 == pytest.approx(2.0, abs=0.003)


def test_unreversed_gain_ends_at_the_other_root_or_escapes():
    problem = ScalarLinearQuadratic(0.4, 1.0, 2.0, 0.5)
    flow = RiccatiFlow(problem.matrices(), Convention.UNREVERSED)
    end = run(flow, zero_gain(problem.matrices()), 12 / problem.rate).state
    assert float(end) == pytest.approx(problem.other_gain, rel=1e-9)
    start = torch.full((1, 1), problem.stationary_gain + 0.2, dtype=torch.float64)
    escape = problem.escape_time(float(start))
    before = run(flow, start, 0.99 * escape)
    assert before.ending is None
    # next to its pole Θ ≈ 1/(s (t* − t))
    assert float(before.state) == pytest.approx(1 / (problem.actuation * 0.01 * escape), rel=0.05)
    coarse = AdaptiveRungeKutta("dopri5", rtol=1e-4)
    assert coarse.reach(flow, NOTHING, start, 0.0, 1.01 * escape, 10_000).ending is not None


def test_reversed_feedback_brings_an_unstable_state_to_rest_and_unreversed_does_not():
    one = torch.eye(3, dtype=torch.float64)
    drift = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.2, 0.3], [0.0, -0.3, 1.5]], dtype=torch.float64)
    problem = LinearQuadratic(drift, one, one)
    start = torch.ones(1, 3, dtype=torch.float64)
    sizes = {}
    for convention in (Convention.ALL_TERMS, Convention.UNREVERSED):
        law = RiccatiFeedback(problem, convention)
        sizes[convention] = float(run(law, law.initial_state(start), 6.0).state.activity.norm())
    assert sizes[Convention.ALL_TERMS] < 1e-2
    assert sizes[Convention.UNREVERSED] > 1e3


def test_reversed_feedback_tracks_with_the_response_of_its_closed_loop():
    problem, omega = ScalarLinearQuadratic(-0.5, 1.0, 50.0, 0.1), 2.0
    matrices, signal = problem.matrices(), sinusoid(2.0)
    law, mu = RiccatiFeedback(matrices), problem.rate
    settled = FeedbackState(
        torch.zeros(1, 1, dtype=torch.float64),
        torch.full((1, 1), problem.stationary_gain, dtype=torch.float64),
        torch.zeros(1, 1, dtype=torch.float64),
    )
    # g′ = −μ g − q z and x′ = −μ x − s g: x = s q z/(μ + iω)²
    response = problem.actuation * problem.tracking_weight / (mu + 1j * omega) ** 2
    t = 1.2  # e^{−μt} is 2e-12
    end = RK4.advance(law, signal.piece(0.0), settled, 0.0, t / 600, 600)
    expected = abs(response) * math.sin(omega * t + np.angle(response))
    assert float(end.activity) == pytest.approx(expected, abs=1e-7)  # RK4: (μ dt)⁴/120 is 3e-8


def test_ensemble_of_flows_is_its_members():
    eta = torch.tensor([0.4, -0.3, 0.0], dtype=torch.float64)
    problem = make_quadratic(2, dissipation=eta, ensemble=(3,))
    assert zero_gain(problem).shape == (3, 2, 2)
    state = FeedbackState(draw(1, 3, 2, 2), draw(2, 3, 2, 2), draw(3, 3, 2, 2))
    inputs = Inputs(None, draw(4, 2, 2))
    for convention in Convention:
        field = RiccatiFeedback(problem, convention).vector_field(0.0, state, inputs)
        flow = RiccatiFlow(problem, convention).vector_field(0.0, state.gain, inputs)
        assert torch.equal(flow, field.gain)
        for i in range(3):
            one = LinearQuadratic(problem.drift[i], problem.actuation[i], problem.tracking_weight[i], float(eta[i]))
            alone = RiccatiFeedback(one, convention).vector_field(0.0, member(state, i), inputs)
            assert_round_off(member(field, i), alone, 50)


def test_zero_gain_takes_the_ensemble_of_the_dissipation():
    eta = torch.tensor([0.1, 0.2], dtype=torch.float64)
    problem = make_quadratic(3, dissipation=eta)
    assert zero_gain(problem).shape == (2, 3, 3)
    law = RiccatiFeedback(problem)
    state = law.initial_state(draw(1, 2, 1, 3))
    moved = law.vector_field(0.0, state, Inputs())
    assert [leaf.shape for leaf in leaves(moved)] == [leaf.shape for leaf in leaves(state)]


def test_observables_of_the_feedback():
    problem = make_quadratic(2)
    law = RiccatiFeedback(problem)
    state = FeedbackState(draw(1, 1, 2), draw(2, 2, 2), draw(3, 1, 2))
    seen = law.observables()
    found = seen["costate"].evaluate(0.0, state, Inputs())
    assert_round_off(found[0], state.gain @ state.activity[0] + state.offset[0], 10)
    for name in ("activity", "gain", "offset"):
        assert torch.equal(seen[name].evaluate(0.0, state, Inputs()), getattr(state, name))
    flow = RiccatiFlow(problem)
    assert torch.equal(flow.observables()["gain"].evaluate(0.0, state.gain, Inputs()), state.gain)
