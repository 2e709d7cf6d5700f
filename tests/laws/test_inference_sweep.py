"""Settling by sweeps and exponential steps: orders, rest states that stay, descent at any dt, and why r has ‖W‖²."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from support.compare import EPS, assert_round_off, assert_same_bits, gap, size, snapshot
from support.learning import draw
from support.oracle import scipy_flow
from support.order import end_errors
from support.settling import linear_output, make_system, near_target, start

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Held, Relaxing
from nlsim.errors import NlsimError
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.exponential import ETDRK2, ETDRK4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.inference import sweep
from nlsim.systems.inference.flow import Gains
from nlsim.systems.inference.linear import hard_clamp
from nlsim.systems.inference.precision import ConstantPrecision, StepPrecision
from nlsim.systems.inference.rest import find_rest
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR

SWEEPS = (IMPLICIT_SWEEP, EXPONENTIAL_SWEEP)
STEPPERS = (*SWEEPS, EXPONENTIAL_EULER, ETDRK2, ETDRK4)
FLOWS = {
    "one a layer, clamped": {"precision": ConstantPrecision((0.5, 2.0, 0.8)), "output": "clamped"},
    "one a layer, free": {"precision": ConstantPrecision((0.5, 2.0, 0.8)), "output": "free", "decay": (0.3, 0.1)},
    "exact, free": {"precision": StepPrecision(0.7), "output": "free"},
    "exact, softmax": {"precision": StepPrecision(0.7), "output": "free", "loss": CROSS_ENTROPY, "is_scaled": True},
    "self-consistent, settled": {"precision": StepPrecision(0.7, "self_consistent"), "output": "settled"},
    "feedforward, scaled": {"precision": StepPrecision(0.7, "feedforward"), "output": "settled", "is_scaled": True},
    "gains": {"gains": Gains(0.9, 0.7, 0.1)},
}
each_sweep = pytest.mark.parametrize("stepper", SWEEPS, ids=lambda each: each.name)
each_stepper = pytest.mark.parametrize("stepper", STEPPERS, ids=lambda each: each.name)
each_flow = pytest.mark.parametrize("name", FLOWS)


def begin(samples=2, network=None, **options):
    """Return the flow that a run steps, the activities of the forward pass, and inputs held."""
    system = make_system(network, **options)
    state, inputs = start(system, samples=samples)
    return *system.moving(state, Held(inputs)), Held(inputs)


def deep(activation="identity", precision=None, scale=1.0, **options):
    """Return the same for a net of four hidden layers whose weights have norms of about two times the scale."""
    network = linear_output((8, 16, 16, 16, 16, 4), activation)
    weights = tuple(scale * w for w in network.initial_weights(4, dtype=torch.float64, device="cpu"))
    system = make_system(network, precision=precision or ConstantPrecision(), **options)
    inputs = near_target(network, weights, 3)
    return *system.moving(system.initial_state(weights, inputs), Held(inputs)), Held(inputs)


@each_stepper
@each_flow
def test_order(stepper, name):
    flow, moving, held = begin(**FLOWS[name])
    moving = tuple(h + draw(60 + layer, *h.shape) for layer, h in enumerate(moving))
    counts = {1: (400, 800), 2: (400, 800), 4: (80, 160)}[stepper.order]
    span = 1.5
    exact = scipy_flow(flow, held, moving, 0.0, span)
    assert gap(exact, moving) > 0.3
    errors = end_errors(stepper, flow, held, moving, span, exact, counts)
    # the next term of the error is a share r dt < 0.03 of the first, and a few times that at order 4, where r dt < 0.2
    assert observed_order([1 / n for n in counts], errors) == pytest.approx(stepper.order, abs=0.1)


@each_stepper
@each_flow
def test_what_rests_under_the_flow_rests_under_a_step(stepper, name):
    flow, moving, held = begin(**FLOWS[name])
    rest = find_rest(flow, moving, held.inputs)
    assert rest.is_at_rest
    after = stepper.advance(flow, held, rest.activity, 0.0, 1e4, 1)
    # f at rest is some thirty roundings of numbers below 4; a step moves by at most f/r in one stage, r > 0.2, and the
    # stages of a Runge–Kutta step, whose N differ by r times that, by a few times as much
    assert gap(after, rest.activity) <= 30 * 4 / 0.2 * 4 * EPS
    assert gap(rest.activity, moving) > 1e-2


@each_sweep
@pytest.mark.parametrize("activation", ["identity", "tanh", "softplus"])
@pytest.mark.parametrize("gamma", [1.0, (1.0, 0.3, 3.0, 0.5, 0.1)])
@pytest.mark.parametrize("dt", [0.3, 100.0, 1e6])
@pytest.mark.parametrize("output", ["clamped", "free", "settled"])
def test_every_sweep_lowers_the_energy(stepper, activation, gamma, dt, output):
    flow, moving, held = deep(activation, ConstantPrecision(gamma), output=output)
    energies = [flow.energy(0.0, moving, held.inputs)]
    for _ in range(25):
        moving = stepper.advance(flow, held, moving, 0.0, dt, 1)
        energies.append(flow.energy(0.0, moving, held.inputs))
    assert all(bool((later <= before * (1 + 20 * EPS)).all()) for before, later in pairwise(energies))
    assert bool((energies[-1] < 0.97 * energies[0]).all())


@each_sweep
def test_a_strong_decay_is_part_of_the_rate(stepper):
    flow, moving, held = deep(decay=(50.0, 1.0, 20.0, 5.0))
    energies = [flow.energy(0.0, moving, held.inputs)]
    for _ in range(25):
        moving = stepper.advance(flow, held, moving, 0.0, 100.0, 1)
        energies.append(flow.energy(0.0, moving, held.inputs))
    # it settles within some digits of round-off, which is where an energy stops falling
    assert all(bool((later <= before * (1 + 20 * EPS)).all()) for before, later in pairwise(energies))
    assert bool((energies[-1] < 0.5 * energies[0]).all())


@each_stepper
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_step_of_a_hundred_times_the_precision_settles(stepper, scale):
    """Linear net, γ dt = 100 in two ways: the closed form, where explicit Euler is lost."""
    network = linear_output((8, 16, 16, 16, 4), "identity")
    weights = tuple(0.7 * w for w in network.initial_weights(4, dtype=torch.float64, device="cpu"))
    system, inputs = make_system(network, precision=ConstantPrecision(scale)), near_target(network, weights, 3)
    flow, moving = system.moving(system.initial_state(weights, inputs), Held(inputs))
    expected = hard_clamp(network, weights, inputs.input, inputs.target, (scale,) * 4).activity[:-1]
    dt = 100.0 / scale
    settled = stepper.advance(flow, Held(inputs), moving, 0.0, dt, 800)
    # sums of some sixteen numbers of size 1, each error magnified by 1/λ_min < 10
    assert gap(settled, expected) <= 500 * EPS * max(1.0, size(expected))
    lost = EXPLICIT_EULER.advance(flow, Held(inputs), moving, 0.0, dt, 20)
    assert size(lost) > 1e20


@each_sweep
def test_without_the_feedback_in_the_rate_sweeps_diverge(stepper, monkeypatch):
    """The control: r = a + d, which leaves the layer's own share of the error above explicit."""
    flow, moving, held = deep(scale=2.0)
    settled = stepper.advance(flow, held, moving, 0.0, 100.0, 100)
    assert size(settled) < 100
    monkeypatch.setattr(sweep, "_rate", lambda flow, layer, *given: torch.ones((1, 1), dtype=torch.float64))
    assert size(stepper.advance(flow, held, moving, 0.0, 100.0, 100)) > 1e20


@pytest.mark.parametrize("output", ["clamped", "free"])
def test_a_sweep_from_the_forward_pass_is_damped_backpropagation(output):
    """e_l = κ_l b_l φ' ⊙ Wᵀ e_{l+1} with κ = s(r dt)/r: the direction is that of backpropagation in every layer."""
    flow, moving, held = deep("tanh", ConstantPrecision((1.0, 0.3, 3.0, 0.5, 2.0)), output=output)
    dt = 0.7
    after = IMPLICIT_SWEEP.advance(flow, held, moving, 0.0, dt, 1)
    given = held.inputs.input
    passed = [torch.zeros_like(h).requires_grad_() for h in moving[:4]]
    with torch.enable_grad():  # the loss as a function of a push on every layer, by autograd
        source = given
        for push, w in zip(passed, flow.weights, strict=False):
            source = torch.tanh(source @ w[:, :-1].T + w[:, -1] + push)
        made = source @ flow.weights[-1][:, :-1].T + flow.weights[-1][:, -1]
        deltas = torch.autograd.grad(0.5 * (made - held.inputs.target).square().sum(), passed)
    # κ_L of an output that is pulled, whose rate is γ_L + 1; one that is held has its error from the start
    strength = dt / (1 + (2.0 + 1.0) * dt) if output == "free" else 1.0
    gammas = flow.precision.gamma
    for layer in reversed(range(4)):
        norm = float(flow.squared_norms[layer])
        rate = gammas[layer] + gammas[layer + 1] * norm
        strength *= gammas[layer + 1] * dt / (1 + rate * dt)
        assert_round_off((after[layer] - moving[layer]) / strength, -deltas[layer], 200 / strength)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (50, 3), (40, 40), (2, 5, 20, 10)])
@pytest.mark.parametrize("kind", ["random", "rank one", "orthogonal"])
def test_the_norms_are_those_of_the_singular_values(shape, kind):
    matrix = draw(5, *shape)
    if kind == "rank one":
        matrix = matrix[..., :1] * draw(6, *shape[:-2], 1, shape[-1])
    if kind == "orthogonal":
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        matrix = 3.0 * left @ right
    found = sweep.squared_norms(linear_output((1, 1), has_bias=False), (matrix,))[0][..., 0, 0]
    ratio = found / torch.linalg.matrix_norm(matrix, 2).square()
    # the power method finds no more than there is, and in twenty steps nine tenths of it
    assert float(ratio.max()) <= sweep.SAFETY * (1 + 100 * EPS)
    assert float(ratio.min()) >= 0.9 * sweep.SAFETY
    biased = torch.cat((matrix, torch.full_like(matrix[..., :1], 7.0)), -1)
    same = sweep.squared_norms(linear_output((1, 1)), (biased,))[0][..., 0, 0]
    assert_round_off(same, found, 100)


def test_weights_of_zero_and_gains_of_zero_have_a_limit():
    flow, moving, held = begin(gains=Gains(0.0, 0.0))
    assert_same_bits(IMPLICIT_SWEEP.advance(flow, held, moving, 0.0, 0.5, 2), moving)
    flow, moving, held = begin(gains=Gains(0.0, 0.5))
    after = IMPLICIT_SWEEP.advance(flow, held, moving, 0.0, 1e-9, 1)
    speed = flow.vector_field(0.0, moving, held.inputs)
    assert gap(tuple((a - m) / 1e-9 for a, m in zip(after[-1:], moving[-1:], strict=True)), speed[-1:]) <= 1e-6


@each_stepper
@each_flow
def test_no_sample_sees_its_batch_and_many_steps_are_one_many_times(stepper, name):
    system = make_system(**FLOWS[name])
    state, inputs = start(system, samples=4)
    flow, moving = system.moving(state, Held(inputs))
    before = snapshot(moving)
    together = stepper.advance(flow, Held(inputs), moving, 0.0, 0.4, 5)
    assert_same_bits(moving, before)
    one_by_one = moving
    for _ in range(5):
        one_by_one = stepper.advance(flow, Held(inputs), one_by_one, 0.0, 0.4, 1)
    assert_same_bits(together, one_by_one)
    assert gap(together, moving) > 1e-3
    for sample in range(4):
        own = type(inputs)(inputs.input[sample : sample + 1], inputs.target[sample : sample + 1])
        alone, begun = system.moving(system.initial_state(state.weight, own), Held(own))
        found = stepper.advance(alone, Held(own), begun, 0.0, 0.4, 5)
        assert_round_off(found, tuple(h[sample : sample + 1] for h in together), 300)


@each_stepper
@pytest.mark.parametrize("name", ["one a layer, free", "exact, softmax", "gains"])
def test_an_ensemble_is_its_members(stepper, name):
    system = make_system(**FLOWS[name])
    first, inputs = start(system, seed=3)
    second, _ = start(system, seed=5)
    both = tuple(torch.stack(pair) for pair in zip(first.weight, second.weight, strict=True))
    flow, moving = system.moving(system.initial_state(both, inputs), Held(inputs))
    together = stepper.advance(flow, Held(inputs), moving, 0.0, 0.4, 5)
    for member, weights in enumerate((first.weight, second.weight)):
        alone, begun = system.moving(system.initial_state(weights, inputs), Held(inputs))
        found = stepper.advance(alone, Held(inputs), begun, 0.0, 0.4, 5)
        assert_round_off(tuple(h[member] for h in together), found, 300)


def test_rates_of_moving_precisions_need_a_held_input():
    system = make_system(precision=StepPrecision(0.7), output="settled", loss=SQUARED_ERROR)
    state, inputs = start(system)
    held = system.flow(state.weight, inputs.input)
    assert isinstance(held, Relaxing)
    bare = system.flow(state.weight)
    with pytest.raises(NlsimError, match="stands still"):
        bare.rates(state.activity)
    # sweeps need none: they are those of the held flow
    moved = [IMPLICIT_SWEEP.advance(flow, Held(inputs), state.activity, 0.0, 0.5, 3) for flow in (bare, held)]
    assert_round_off(*moved, 50)
    # what the rates are: 1/(α n_l) + ‖W_{l+1}‖²/(α n_{l+1}) at the forward pass
    h1, h2 = state.activity
    sizes = [(a * a).sum(-1, keepdim=True) + 1 for a in (inputs.input, torch.tanh(h1), torch.tanh(h2))]
    norms = sweep.squared_norms(system.network, state.weight)
    expected = [1 / (0.7 * sizes[k]) + norms[k + 1] / (0.7 * sizes[k + 1]) for k in range(2)]
    assert_round_off(held.rates(state.activity), tuple(expected), 50)
