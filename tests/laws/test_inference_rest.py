"""Rest states: where the running flow relaxes to, closed forms of linear nets, and the golden digits of one neuron."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, gap, snapshot
from support.settling import linear_output, make_system, near_target, start

from nlsim.core.ending import Ending
from nlsim.core.state import map_leaves
from nlsim.core.system import Held, Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import IDENTITY, Activation
from nlsim.systems.inference.linear import hard_clamp, inference_hessian
from nlsim.systems.inference.precision import KINDS, ConstantPrecision, StepPrecision
from nlsim.systems.inference.rest import RestEnding, find_rest, jacobian_blocks
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Constant

RULES = {"one": ConstantPrecision(), "one a layer": ConstantPrecision((0.5, 2.0, 0.8))}
RULES |= {kind: StepPrecision(0.7, kind) for kind in KINDS}
CLAMPS = {
    "clamped": ("clamped", SQUARED_ERROR),
    "free": ("free", SQUARED_ERROR),
    "free, softmax": ("free", CROSS_ENTROPY),
    "settled": ("settled", SQUARED_ERROR),
}


def begin(samples=3, network=None, **options):
    """Return a system, its state, inputs, and the flow and activities that a run would step."""
    system = make_system(network, **options)
    state, inputs = start(system, samples=samples)
    return system, state, inputs, *system.moving(state, Held(inputs))


def relax(system, state, inputs, tolerance, dt=0.2):
    loop = Loop(
        system,
        FixedStep(EXPLICIT_EULER, dt),
        Constant(inputs),
        state,
        until=1e5,
        steady_tolerance=tolerance,
        max_steps=20000,
        check_every=50,
    )
    list(loop)
    return loop


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clamp", CLAMPS)
def test_rest_is_where_the_flow_relaxes_to(rule, clamp):
    output, loss = CLAMPS[clamp]
    system, state, inputs, flow, moving = begin(precision=RULES[rule], output=output, loss=loss, is_scaled=True)
    before = snapshot(moving)
    rest = find_rest(flow, moving, inputs)
    assert rest.ending is RestEnding.CONVERGED
    assert rest.residual.shape == (3,)
    assert float(rest.residual.max()) <= 1e-14
    assert_same_bits(moving, before)
    loop = relax(system, state, inputs, 1e-9, dt=0.05)
    assert loop.ending is Ending.STEADY
    # the gap is at most 1e-9 ‖ĥ‖/λ with ‖ĥ‖ < 10; the slowest rate λ of these flows is above 0.02
    assert gap(loop.state.activity, rest.activity) <= 5e-7
    assert gap(rest.activity, moving) > 1e-2


@pytest.mark.parametrize("clamp", CLAMPS)
def test_rest_of_the_plain_flow_is_that_of_the_scaled_one(clamp):
    output, loss = CLAMPS[clamp]
    _, _, inputs, flow, moving = begin(precision=StepPrecision(0.7), output=output, loss=loss)
    rest = find_rest(flow, moving, inputs)
    assert not flow.is_scaled
    # γ ≤ 1/(0.7 n), n ≥ 1 for the bias: the flow is the scaled one times 1.5 at most, of some ten roundings
    assert gap(flow.vector_field(0.0, rest.activity, inputs), map_leaves(torch.zeros_like, moving)) <= 1e-14


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("output", ["free", "settled"])
def test_blocks_are_the_jacobian(rule, output):
    """Against dense automatic differentiation; layers that do not touch have no block."""
    network = linear_output((3, 4, 2, 5, 3, 2))
    precision = ConstantPrecision((0.5, 2.0, 0.8, 1.0, 0.7)) if rule == "one a layer" else RULES[rule]
    _, _, inputs, flow, moving = begin(1, network, precision=precision, output=output, is_scaled=True)
    moving = tuple(h + 0.1 * torch.sin(torch.arange(h.numel(), dtype=h.dtype)) for h in moving)

    def field(*at):
        return flow.vector_field(0.0, at, inputs)

    blocks = jacobian_blocks(field, moving)
    dense = torch.autograd.functional.jacobian(field, moving)
    for layer in range(len(moving)):
        for column in range(len(moving)):
            expected = dense[layer][column][0, :, 0, :]
            found = blocks[layer, column][0] if (layer, column) in blocks else torch.zeros_like(expected)
            assert_round_off(found, expected, 50)


def test_no_sample_sees_its_batch_and_an_ensemble_is_its_members():
    system, _, inputs, flow, moving = begin(4, precision=StepPrecision(0.7), output="settled")
    together = find_rest(flow, moving, inputs)
    alone = [
        find_rest(
            system.flow(flow.weights),
            tuple(h[k : k + 1] for h in moving),
            Inputs(inputs.input[k : k + 1], inputs.target[k : k + 1]),
        )
        for k in range(4)
    ]
    for k, rest in enumerate(alone):
        assert_round_off(tuple(h[k : k + 1] for h in together.activity), rest.activity, 300)
    other = tuple(0.9 * w for w in flow.weights)
    both = tuple(torch.stack(pair) for pair in zip(flow.weights, other, strict=True))
    stacked = tuple(torch.stack((h, h)) for h in moving)
    pair = find_rest(system.flow(both), stacked, inputs)
    second = find_rest(system.flow(other), moving, inputs)
    assert pair.residual.shape == (2, 4)
    assert_round_off(tuple(h[0] for h in pair.activity), together.activity, 300)
    assert_round_off(tuple(h[1] for h in pair.activity), second.activity, 300)


def test_the_search_goes_downstream():
    # one tanh neuron; from wherever it starts, the rest state found is the one that the flow comes to
    network = linear_output((1, 1, 1), has_bias=False)
    system = make_system(network, precision=ConstantPrecision((0.02, 1.0)))
    one = torch.ones((1, 1), dtype=torch.float64)
    weights, inputs = (2.0 * one, -3.0 * one), Inputs(one, 2.0 * one)
    for h in (4.0, 2.0, 0.5, -2.0):
        begun = replace(system.initial_state(weights, inputs), activity=(h * one,))
        rest = find_rest(system.flow(weights), begun.activity, inputs)
        loop = relax(system, begun, inputs, 1e-13, dt=0.05)
        assert rest.is_at_rest
        assert gap(loop.state.activity, rest.activity) <= 1e-9


def test_no_rest_state_is_said():
    # φ jumps by 2 at 0, so f = 0.3 − 2h − sign h changes its sign there without vanishing
    jumping = Activation("jump", lambda a: a + torch.sign(a), lambda a, y: torch.ones_like(a), None)
    network = LayeredNetwork((1, 1, 1), (jumping, IDENTITY), has_bias=False)
    one = torch.ones((1, 1), dtype=torch.float64)
    system, weights, inputs = make_system(network), (0 * one, one), Inputs(one, 0.3 * one)
    rest = find_rest(system.flow(weights), (0 * one,), inputs)
    assert rest.ending is RestEnding.STALLED
    assert not rest.is_at_rest
    assert float(rest.residual) == pytest.approx(0.3)


def test_what_cannot_be_searched_is_said():
    _, _, inputs, flow, moving = begin()
    assert find_rest(flow, moving, inputs, max_iterations=1).ending is RestEnding.BUDGET_SPENT
    broken = tuple(h * float("nan") for h in moving)
    assert find_rest(flow, broken, inputs).ending is RestEnding.NOT_FINITE
    for wrong in ({"tolerance": 0.0}, {"max_iterations": 0}):
        with pytest.raises(NlsimError, match="tolerance and a budget"):
            find_rest(flow, moving, inputs, **wrong)


def test_nothing_to_settle_is_at_rest():
    _, _, inputs, flow, moving = begin(network=linear_output((5, 4)))
    rest = find_rest(flow, moving, inputs)
    assert rest.activity == ()
    assert rest.is_at_rest


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_steadiness_is_that_of_the_field(tolerance):
    """N14: linear 16-32-32-32-8; a run that ends as steady is within tolerance/λ_min of the closed form."""
    network = linear_output((16, 32, 32, 32, 8), "identity")
    weights = network.initial_weights(4, dtype=torch.float64, device="cpu")
    system, inputs = make_system(network), near_target(network, weights, 3)
    state = system.initial_state(weights, inputs)
    loop = relax(system, state, inputs, tolerance, dt=0.1)
    assert loop.ending is Ending.STEADY
    expected = hard_clamp(network, weights, inputs.input, inputs.target, (1.0,) * 4).activity[:-1]
    least = float(torch.linalg.eigvalsh(inference_hessian(network, weights, (1.0,) * 4))[0])
    flow, moving = system.moving(loop.state, Held(inputs))

    def size(layers):
        return float(torch.sqrt(sum(h.square().sum() for h in layers)))

    speed = size(flow.vector_field(0.0, moving, inputs))
    assert speed <= tolerance * max(1.0, size(moving))
    # f = −H (ĥ − ĥ*), so ‖ĥ − ĥ*‖ ≤ ‖f‖/λ_min; 1e-12 for roundings of some hundred numbers of size 1, over λ_min
    distance = size(tuple(h - e for h, e in zip(moving, expected, strict=True)))
    assert distance <= speed / least + 1e-12
    assert distance > 0.1 * speed / float(torch.linalg.eigvalsh(inference_hessian(network, weights, (1.0,) * 4))[-1])
    # the norm of the state is nowhere near the tolerance, however long one waits: an event on it never reports
    assert size(moving) > 1.0
    # and where the field is large nothing is steady
    assert relax(system, state, inputs, 1e-12, dt=0.1).steps > loop.steps
    rest = find_rest(flow, state.activity, inputs)
    assert_round_off(rest.activity, expected, 2000)


NET = linear_output((1, 1, 1), "identity", has_bias=False)
FIRST, SECOND = (1.0, 0.5, 0.8, 1.0, 1.0), (2.0, 0.5, 0.8, 1.0, 0.5)
GOLDEN = {  # (x, w₁, w₂, y, α) -> rule -> (w₁', w₂'), as printed in the specification
    FIRST: {
        "exact": (0.7521594236562096, 0.9913240116608969),
        "self_consistent": (0.7220785468758581, 1.000447693025527),
        "feedforward": (0.753968253968254, 0.9052631578947368),
        "equal, frozen": (0.5851063829787234, 0.9818181818181818),
    },
    SECOND: {
        "exact": (0.5565994704235683, 0.8376108262646304),
        "self_consistent": (0.5552376019858897, 0.8383374920826205),
        "feedforward": (0.5575539568345324, 0.832258064516129),
        "equal, frozen": (0.521978021978022, 0.8526315789473684),
    },
}


def settled_step(case, precision, output="settled"):
    """Return w₁', w₂' after the running system has settled and jumped."""
    x, w1, w2, y = (torch.full((1, 1), each, dtype=torch.float64) for each in case[:4])
    system, inputs = make_system(NET, precision=precision, output=output), Inputs(x, y)
    state = system.initial_state((w1, w2), inputs)
    flow, moving = system.moving(state, Held(inputs))
    rest = find_rest(flow, moving, inputs)
    assert rest.is_at_rest
    return tuple(float(w) for w in system.jump(0.0, system.whole(state, rest.activity), inputs, inputs).weight)


@pytest.mark.parametrize("output", ["settled", "free"])
@pytest.mark.parametrize("rule", ["exact", "self_consistent", "feedforward", "equal, frozen"])
@pytest.mark.parametrize("case", [FIRST, SECOND])
def test_the_running_system_has_the_golden_digits(case, rule, output):
    """T24: some twenty roundings of numbers below 2, magnified by curvatures above 0.2."""
    x, w1, _, _, alpha = case
    # the row of equal gains holds n₂ at the feedforward activity
    frozen = ConstantPrecision(1 / (alpha * (w1 * x) ** 2))
    precision = frozen if rule == "equal, frozen" else StepPrecision(alpha, rule)
    for found, printed in zip(settled_step(case, precision, output), GOLDEN[case][rule], strict=True):
        assert abs(found - printed) <= 1e-13


@pytest.mark.parametrize("output", ["settled", "free"])
@pytest.mark.parametrize("case", [FIRST, SECOND])
def test_equal_gains_at_the_settled_activity(case, output):
    """T24 for the released rule, n₂ of ĥ: its own equations in 40 digits."""
    with mpmath.workdps(40):
        x, w1, w2, y, alpha = (mpmath.mpf(each) for each in case)
        # γ e₁ = γ w₂ e₂ and e₂ = α ĥ² (y − ĥ_L), so w₁'x = h + w₂ e₂ = ĥ
        hidden, output_ = mpmath.findroot(
            lambda h, o: [h - w1 * x - w2 * (o - w2 * h), o - w2 * h - alpha * h**2 * (y - o)],
            [w1 * x, w2 * w1 * x],
        )
        expected = float(hidden / x), float(output_ / hidden)
    found = settled_step(case, StepPrecision(float(alpha), "equal"), output)
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= 1e-13
