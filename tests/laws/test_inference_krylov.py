"""Rest states without a matrix: products are the Jacobian's, two passes leave the rank of the output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.compare import EPS, assert_round_off, gap, size
from support.learning import draw
from support.settling import linear_output, make_system, near_target, start

from nlsim.core.system import Held, Inputs
from nlsim.systems.inference import krylov, rest
from nlsim.systems.inference.flow import Gains
from nlsim.systems.inference.krylov import jacobian_product, solve_each, two_passes
from nlsim.systems.inference.linear import hard_clamp, soft_clamp
from nlsim.systems.inference.precision import KINDS, ConstantPrecision, StepPrecision
from nlsim.systems.inference.rest import RestEnding, find_rest
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR

RULES = {"one": {}, "one a layer": {"precision": ConstantPrecision((0.5, 2.0, 0.8))}}
RULES |= {kind: {"precision": StepPrecision(0.7, kind)} for kind in KINDS}
RULES |= {
    "decay": {"precision": StepPrecision(0.7), "decay": (0.3, 0.1)},
    "equal, decay": {"precision": StepPrecision(0.7, "equal"), "decay": (0.3, 0.1)},
    "constant, decay": {"precision": ConstantPrecision((0.5, 2.0, 0.8)), "decay": (0.3, 0.1)},
    "gains": {"gains": Gains(0.9, 0.7, 0.1)},
}
CLAMPS = {
    "clamped": ("clamped", SQUARED_ERROR),
    "free": ("free", SQUARED_ERROR),
    "free, softmax": ("free", CROSS_ENTROPY),
    "settled": ("settled", SQUARED_ERROR),
    "settled, softmax": ("settled", CROSS_ENTROPY),
}
each_rule = pytest.mark.parametrize("rule", RULES)
each_clamp = pytest.mark.parametrize("clamp", CLAMPS)


def begin(rule, clamp, samples=3, network=None, **options):
    """Return the scaled flow (or that of the gains), activities away from the forward pass, and inputs."""
    output, loss = CLAMPS[clamp]
    system = make_system(network, output=output, loss=loss, **RULES[rule], **options)
    state, inputs = start(system, samples=samples)
    flow, moving = system.moving(state, Held(inputs))
    return replace(flow, is_scaled=True), tuple(h + 0.3 * draw(7 + k, *h.shape) for k, h in enumerate(moving)), inputs


@each_rule
@each_clamp
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_products_are_those_of_the_jacobian(rule, clamp, activation):
    """Against dense automatic differentiation, with samples beside each other."""
    flow, moving, inputs = begin(rule, clamp, network=linear_output(activation=activation))

    def field(*at):
        return flow.vector_field(0.0, at, inputs)

    vector = tuple(draw(40 + k, *h.shape) for k, h in enumerate(moving))
    dense = torch.autograd.functional.jacobian(field, moving)
    expected = tuple(
        sum(torch.einsum("slmk,mk->sl", block, v) for block, v in zip(row, vector, strict=True)) for row in dense
    )
    with torch.no_grad():  # as in a run
        found = jacobian_product(field, moving)(vector)
    # sums of some twenty terms below 2; the Newton steps of a settled softmax round a few hundred times
    assert_round_off(found, expected, 1000 if clamp == "settled, softmax" else 100)


def matrix(operator, like):
    """Return the matrix of a linear map of one sample."""
    widths = [h.shape[-1] for h in like]
    eye = torch.eye(sum(widths), dtype=torch.float64)
    columns = [torch.cat(operator(torch.split(row.unsqueeze(0), widths, -1)), -1)[0] for row in eye]
    return torch.stack(columns, -1)


@pytest.mark.parametrize("rule", ["one", "one a layer", "feedforward", "gains"])
@pytest.mark.parametrize("clamp", ["clamped", "free", "settled"])
def test_two_passes_leave_the_rank_of_the_output(rule, clamp):
    """Linear net of equal precisions of a sample: −J M differs from 1 by the curvature of four outputs alone."""
    network = linear_output((5, 7, 6, 4), "identity")
    flow, moving, inputs = begin(rule, clamp, 1, network)
    flow = replace(flow, gains=Gains(0.9, 0.7)) if rule == "gains" else flow
    still = torch.zeros(1, dtype=torch.float64)
    product = jacobian_product(lambda *at: flow.vector_field(0.0, at, inputs), moving)
    jacobian, passes = matrix(product, moving), matrix(two_passes(flow, moving, inputs, still), moving)
    left = torch.linalg.svdvals(-jacobian @ passes - torch.eye(len(jacobian), dtype=torch.float64))
    # a gain of 0.9 leaves E and U as they are: their diagonals are those of −J
    assert float(left[3]) > 1e-3
    assert float(left[4]) <= 100 * EPS * max(1.0, float(left[0]))


@pytest.mark.parametrize("rule", ["one", "one a layer", "feedforward", "constant, decay", "gains"])
@pytest.mark.parametrize("clamp", ["clamped", "free", "settled"])
@pytest.mark.parametrize("s", [0.0, 0.8])
def test_two_passes_have_the_couplings_of_the_flow(rule, clamp, s):
    """tanh: M⁻¹ has the blocks of s − J beside the diagonal, and s + a + d on that of the last layer."""
    flow, moving, inputs = begin(rule, clamp, 1)
    shift = torch.full((1,), s, dtype=torch.float64)
    product = jacobian_product(lambda *at: flow.vector_field(0.0, at, inputs), moving)
    expected, found = (
        -matrix(product, moving),
        torch.linalg.inv(matrix(two_passes(flow, moving, inputs, shift), moving)),
    )
    widths = [h.shape[-1] for h in moving]
    for row, pair in enumerate(zip(found.split(widths), expected.split(widths), strict=True)):
        for column, (one, other) in enumerate(zip(*(each.split(widths, -1) for each in pair), strict=True)):
            if row != column:
                assert_round_off(one, other, 200)
    last = len(widths) - 1
    own = 1.0 if rule != "gains" or clamp == "free" else 0.9
    decay = {"constant, decay": 0.1 / 2.0, "gains": 0.1}.get(rule, 0.0) if clamp != "free" else 0.0
    corner = found[-widths[last] :, -widths[last] :]
    assert_round_off(corner, (own + decay + s) * torch.eye(widths[last], dtype=torch.float64), 200)


def dense_problem(seed, samples=4, unknowns=12, shift=0.0):
    a = draw(seed, samples, unknowns, unknowns) + shift * torch.eye(unknowns, dtype=torch.float64)
    right = draw(seed + 1, samples, unknowns)

    def product(v):
        return tuple(torch.split((a @ torch.cat(v, -1).unsqueeze(-1)).squeeze(-1), [5, unknowns - 5], -1))

    return a, right, tuple(torch.split(right, [5, unknowns - 5], -1)), product


def bare(v):
    return v


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_solution_is_that_of_elimination(shift):
    a, right, parts, product = dense_problem(1, shift=shift)
    found = solve_each(product, parts, bare, torch.full((4,), 1e-12, dtype=torch.float64))
    expected = torch.linalg.solve(a, right.unsqueeze(-1)).squeeze(-1)
    assert bool(found.is_solved.all())
    assert found.products <= 14  # twelve unknowns, and roundings
    # ‖δ − x‖ ≤ ‖A⁻¹‖ · 1e-12 ‖right‖, sample by sample
    bound = torch.linalg.matrix_norm(torch.linalg.inv(a), 2) * 2e-12 * torch.linalg.vector_norm(right, dim=-1)
    assert bool((torch.linalg.vector_norm(torch.cat(found.solution, -1) - expected, dim=-1) <= bound).all())


def test_where_a_product_turns_the_residual_aside_the_search_goes_on():
    # A r ⟂ r in each of two planes: a direction made of the residual alone would be the same for ever
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    a = torch.block_diag(turn, 3.0 * turn)
    right = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    tolerance = torch.full((1,), 1e-12, dtype=torch.float64)
    found = solve_each(lambda v: (v[0] @ a.T,), (right,), bare, tolerance)
    assert bool(found.is_solved.all())
    assert found.products == 4
    assert_round_off(found.solution[0] @ a.T, right, 50)


def test_each_sample_stops_on_its_own():
    a, right, parts, product = dense_problem(3, shift=3.0)
    tolerances = torch.tensor([0.5, 1e-3, 1e-12, 0.0], dtype=torch.float64)
    found = solve_each(product, parts, bare, tolerances, max_products=20)
    assert found.is_solved.tolist() == [True, True, True, False]
    left = right - (a @ torch.cat(found.solution, -1).unsqueeze(-1)).squeeze(-1)
    share = torch.linalg.vector_norm(left, dim=-1) / torch.linalg.vector_norm(right, dim=-1)
    assert bool((share <= tolerances + 1e-14).all())
    # what is solved does not move on: the first sample is where it would be had nobody else been there
    assert float(share[0]) > 1e-3
    assert_round_off(share, found.residual, 100)
    alone = solve_each(
        lambda v: ((a[0] @ v[0].unsqueeze(-1)).squeeze(-1),), (right[:1],), bare, tolerances[:1], max_products=20
    )
    assert alone.products < found.products
    assert_round_off(alone.solution[0], torch.cat(found.solution, -1)[:1], 10)


def test_nothing_on_the_right_is_solved_by_nothing():
    *_, parts, product = dense_problem(5, shift=3.0)
    still = tuple(torch.zeros_like(part) for part in parts)
    found = solve_each(product, still, bare, torch.full((4,), 1e-3, dtype=torch.float64))
    assert found.products == 0
    assert bool(found.is_solved.all())
    assert size(found.solution) == 0.0
    assert size(found.residual) == 0.0


def test_a_short_memory_starts_afresh(monkeypatch):
    monkeypatch.setattr(krylov, "WINDOW", 5)
    a, right, parts, product = dense_problem(7, shift=6.0)
    found = solve_each(product, parts, bare, torch.full((4,), 1e-12, dtype=torch.float64))
    assert bool(found.is_solved.all())
    assert found.products > 12
    expected = torch.linalg.solve(a, right.unsqueeze(-1)).squeeze(-1)
    assert gap(torch.cat(found.solution, -1), expected) <= 1e-11


@each_rule
@each_clamp
def test_rest_without_blocks_is_rest_with_them(rule, clamp):
    flow, moving, inputs = begin(rule, clamp)
    found, expected = (find_rest(flow, moving, inputs, forms_blocks=blocks) for blocks in (False, True))
    assert found.ending is expected.ending is RestEnding.CONVERGED
    jacobian = torch.autograd.functional.jacobian(
        lambda *at: flow.vector_field(0.0, at, inputs), expected.activity, vectorize=True
    )
    wide = [sum(h.numel() for h in moving), -1]
    flat = torch.cat(
        [torch.cat([b.reshape(f.numel(), -1) for b in row], -1) for f, row in zip(moving, jacobian, strict=True)]
    )
    least = float(torch.linalg.svdvals(flat.reshape(wide))[-1])
    # f = J (ĥ − ĥ*) near rest, so each is within ‖f‖/σ_min of it, f being below residual · max(1, ‖ĥ‖); the
    # residual itself is good to some fifty roundings
    norm = max(1.0, float(torch.sqrt(sum(h.square().sum(-1) for h in expected.activity)).max()))
    missed = float(found.residual.max() + expected.residual.max()) + 50 * EPS
    assert missed <= 1e-13
    assert gap(found.activity, expected.activity) <= missed * norm * 3**0.5 / least
    assert gap(found.activity, moving) > 1e-2


@pytest.mark.parametrize("output", ["clamped", "settled"])
def test_a_wide_linear_net_has_its_closed_form(output, monkeypatch):
    """30-512-512-512-10, eight samples: no block is formed, and there are products for the outputs only."""
    counts = []

    def counted(*given, **options):
        counts.append(solve_each(*given, **options))
        return counts[-1]

    def formed(*given):
        raise AssertionError("a block was formed")

    monkeypatch.setattr(rest, "_step", formed)
    monkeypatch.setattr(rest, "solve_each", counted)
    network, gammas = linear_output((30, 512, 512, 512, 10), "identity"), (1.0, 0.5, 2.0, 0.7)
    weights = network.initial_weights(4, dtype=torch.float64, device="cpu")
    system, inputs = make_system(network, precision=ConstantPrecision(gammas), output=output), None
    inputs = near_target(network, weights, 8)
    flow, moving = system.moving(system.initial_state(weights, inputs), Held(inputs))
    found = find_rest(flow, moving, inputs)
    assert found.is_at_rest
    closed = hard_clamp if output == "clamped" else soft_clamp
    expected = closed(network, weights, inputs.input, inputs.target, gammas).activity[:3]
    # sums of 512 terms of size 1/√512 round by √512/2 units; λ_min of the scaled Hessian is above 0.05
    assert gap(found.activity, expected) <= 50 * 512**0.5 * EPS * max(1.0, size(expected))
    # a rank of ten and the identity, and a few more where roundings decide
    assert max(each.products for each in counts) <= 10 + 4
    assert all(bool(each.is_solved.all()) for each in counts)


def test_without_the_two_passes_it_takes_many_products(monkeypatch):
    """The control: the same net, the diagonal alone."""
    network = linear_output((30, 128, 128, 128, 10), "identity")
    weights = tuple(1.5 * w for w in network.initial_weights(4, dtype=torch.float64, device="cpu"))
    system, inputs = make_system(network), near_target(network, weights, 2)
    flow, moving = system.moving(system.initial_state(weights, inputs), Held(inputs))
    flow, still = replace(flow, is_scaled=True), torch.zeros(2, dtype=torch.float64)

    def field(*at):
        return flow.vector_field(0.0, at, inputs)

    def negative(v):
        return tuple(-each for each in jacobian_product(field, moving)(v))

    tight = torch.full((2,), 1e-8, dtype=torch.float64)
    right = field(*moving)
    passes = solve_each(negative, right, two_passes(flow, moving, inputs, still), tight)
    alone = solve_each(negative, right, bare, tight)
    assert passes.products <= 12
    assert alone.products > 100


@pytest.mark.parametrize(("width", "is_formed"), [(rest.WIDE - 1, True), (rest.WIDE, False)])
def test_the_widest_layer_decides(width, is_formed, monkeypatch):
    steps = []
    original = rest._step
    monkeypatch.setattr(rest, "_step", lambda *given: steps.append(1) or original(*given))
    network = linear_output((3, width, 5, 2))
    system = make_system(network)
    state, inputs = start(system, samples=1)
    assert find_rest(system.flow(state.weight), state.activity, inputs).is_at_rest
    assert bool(steps) == is_formed


def test_no_sample_sees_its_batch_and_an_ensemble_is_its_members():
    system = make_system(precision=StepPrecision(0.7), output="settled")
    state, inputs = start(system, samples=4)
    flow, moving = system.moving(state, Held(inputs))
    together = find_rest(flow, moving, inputs, forms_blocks=False)
    for k in range(4):
        own = Inputs(inputs.input[k : k + 1], inputs.target[k : k + 1])
        alone = find_rest(system.flow(flow.weights), tuple(h[k : k + 1] for h in moving), own, forms_blocks=False)
        assert_round_off(tuple(h[k : k + 1] for h in together.activity), alone.activity, 300)
    both = tuple(torch.stack((w, 0.9 * w)) for w in flow.weights)
    pair = find_rest(system.flow(both), tuple(torch.stack((h, h)) for h in moving), inputs, forms_blocks=False)
    assert pair.residual.shape == (2, 4)
    assert_round_off(tuple(h[0] for h in pair.activity), together.activity, 300)


def test_a_budget_that_is_spent_is_said():
    flow, moving, inputs = begin("one", "clamped")
    assert find_rest(flow, moving, inputs, max_iterations=1, forms_blocks=False).ending is RestEnding.BUDGET_SPENT
    broken = tuple(h * float("nan") for h in moving)
    assert find_rest(flow, broken, inputs, forms_blocks=False).ending is RestEnding.NOT_FINITE
