"""Inference learning from sample to sample: the run is the algorithm written out, image after image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits
from support.learning import draw, make_weights
from support.oracle import PLAIN_ACTIVATION
from support.settling import linear_output, make_system, start

from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import FixedStep
from nlsim.integrate.explicit import EXPLICIT_EULER
from nlsim.integrate.loop import Loop
from nlsim.integrate.members import Memberwise
from nlsim.systems.inference.baselines import BackpropagationSteps, GradientDescent
from nlsim.systems.inference.flow import Gains
from nlsim.systems.inference.precision import ConstantPrecision, StepPrecision
from nlsim.systems.inference.update import Adam, LeastMeanSquares, NormalisedLeastMeanSquares
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.systems.signals import HeldSamples


def accepts_anything(stepper):
    try:
        stepper.require(object())
    except CapabilityError:
        return False
    return True


NET = linear_output((5, 7, 6, 4))
SAMPLES = HeldSamples(draw(1, 9, 5), draw(2, 9, 4), 1, 2.0, 3)
STEPS, DT = 20, 0.1


def by_hand(weights, kind, rate, count):
    """Return the weights after each of the first samples: forward pass, Euler steps, normalised update; plain torch."""
    act = PLAIN_ACTIVATION["tanh"]
    weights, trajectory = [w.clone() for w in weights], []

    def extended(x):
        return torch.cat((x, torch.ones(1, dtype=x.dtype)))

    for index in range(count):
        shown = SAMPLES.piece(index * 2.0)(0.0)
        x, y = shown.input[0], shown.target[0]
        h, source = [], x
        for w in weights:
            h.append(w @ extended(source))
            source = act(h[-1])
        h = h[:-1]

        def look(h, x=x, y=y):
            sources = [x, *(act(each) for each in h)]
            p = [w @ extended(s) for w, s in zip(weights, sources, strict=True)]
            n = [float(extended(s) @ extended(s)) for s in sources]
            top = y if kind == "clamped" else (p[-1] + rate * n[-1] * y) / (1 + rate * n[-1])
            return sources, [a - b for a, b in zip([*h, top], p, strict=True)], n

        for _ in range(STEPS):
            sources, e, n = look(h)
            moved = []
            for layer, own in enumerate(h):
                w, a = weights[layer + 1], sources[layer + 1]
                back = w[:, :-1].T @ e[layer + 1]
                ratio = 1.0
                if kind != "clamped":
                    ratio = n[layer] / n[layer + 1]
                if kind == "exact":
                    back = back + float(e[layer + 1] @ e[layer + 1]) / n[layer + 1] * a
                moved.append(own + DT * ((1 - a * a) * ratio * back - e[layer]))
            h = moved
        sources, e, n = look(h)
        for w, s, error, size in zip(weights, sources, e, n, strict=True):
            w += torch.outer(error, extended(s)) / size
        trajectory.append([w.clone() for w in weights])
    return trajectory


def system_of(kind, rate):
    if kind == "clamped":
        return make_system(NET, precision=ConstantPrecision(), output="clamped", update=NormalisedLeastMeanSquares())
    return make_system(NET, precision=StepPrecision(rate, kind), output="settled", is_scaled=True)


@pytest.mark.parametrize("no_grad", [True, False])
@pytest.mark.parametrize("kind", ["clamped", "self_consistent", "exact"])
def test_a_run_is_the_algorithm_written_out(kind, no_grad):
    weights = tuple(0.5 * w for w in make_weights(NET, 3))
    system = system_of(kind, 0.7)
    expected = by_hand(weights, kind, 0.7, 6)
    with torch.set_grad_enabled(not no_grad):
        state = system.initial_state(weights, SAMPLES.piece(0.0)(0.0))
        loop = Loop(system, FixedStep(EXPLICIT_EULER, DT), SAMPLES, state, until=12.0)
        ticks = list(loop)
    found = [tick.state.weight for tick in ticks[1:]] + [loop.state.weight]
    for one, other in zip(found, expected, strict=True):
        # six updates of twenty steps, each a few sums of ten products of size 1
        assert_round_off(one, tuple(other), 20000)
    moves = [float((a[0] - b[0]).abs().max()) for a, b in zip(expected[1:], expected[:-1], strict=True)]
    assert min(moves) > 1e-3


def test_activities_begin_at_the_forward_pass_of_the_new_weights_and_the_new_sample():
    system = system_of("exact", 0.7)
    weights = make_weights(NET, 3)
    one, other = (Inputs(draw(seed, 1, 5), draw(seed + 1, 1, 4)) for seed in (5, 7))
    with torch.no_grad():
        state = system.initial_state(weights, one)
        state = replace(state, activity=tuple(h + 0.1 for h in state.activity))
        jumped = system.jump(1.0, state, one, other)
        fresh = system_of("exact", 0.7).initial_state(jumped.weight, other)
        assert_same_bits(jumped.activity, fresh.activity)
        assert float((jumped.activity[0] - state.activity[0]).abs().max()) > 0.1
        assert float((jumped.activity[0] - system.begin(weights, other)[0]).abs().max()) > 1e-6
        once, then = system.begin(weights, one), system.begin(weights, other)
        assert_same_bits(then, system_of("exact", 0.7).begin(weights, other))
        assert float((once[0] - then[0]).abs().max()) > 0.1
        # what is kept of one mini-batch is not taken for that of another, nor for that of changed weights
        assert_same_bits(system.begin(jumped.weight, one), system_of("exact", 0.7).begin(jumped.weight, one))
        jumped.weight[0].mul_(2.0)
        assert_same_bits(system.begin(jumped.weight, one), system_of("exact", 0.7).begin(jumped.weight, one))


def test_a_derivative_goes_through_the_first_prediction_too():
    system = system_of("exact", 0.7)
    weights, inputs = make_weights(NET, 3), Inputs(draw(5, 1, 5), draw(6, 1, 4))
    with torch.no_grad():
        system.begin(weights, inputs)
        slope = torch.func.jacrev(lambda w: system.begin((w, *weights[1:]), inputs)[0].sum())(weights[0])
    assert_round_off(slope, torch.cat((inputs.input, torch.ones(1, 1, dtype=torch.float64)), -1).expand(7, 6), 10)


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_normalised_adam_takes_the_normalised_direction(epsilon):
    # its first step is rate · sign(g): the second moment tells sizes, and those of the direction are what differ
    system = make_system(NET, update=Adam(1e-3, is_normalised=True, normaliser_epsilon=epsilon))
    state, inputs = start(system, samples=3)
    moved = system.jump(0.0, state, inputs, inputs)
    plain = make_system(NET, update=NormalisedLeastMeanSquares(epsilon=epsilon)).jump(0.0, state, inputs, inputs)
    for first, w, v in zip(moved.moment[:3], plain.weight, state.weight, strict=True):
        assert_round_off(first, -0.1 * (w - v), 100)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"decay": (0.1,)}, "decay"),
        ({"decay": (0.1, 0.1, 0.1)}, "decay"),
        ({"gains": Gains(1.0, 1.0), "decay": (0.1, 0.1)}, "gains"),
        ({"gains": Gains(1.0, 1.0), "is_scaled": True}, "gains"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, where):
    with pytest.raises(NlsimError) as caught:
        make_system(NET, **options)
    assert caught.value.where == where


NO_STRUCTURE = {name: FixedStep(each, 2.0) for name, each in STEPPERS.items() if accepts_anything(each)}
CONTROLS = {**NO_STRUCTURE, "adaptive": AdaptiveRungeKutta(rtol=1e-6), "memberwise": Memberwise()}


def only_jumps(control, **options):
    system = BackpropagationSteps(NET, SQUARED_ERROR, GradientDescent(0.1))
    state = system.initial_state(make_weights(NET, 3), SAMPLES.piece(0.0)(0.0))
    loop = Loop(system, control, SAMPLES, state, until=12.0, **options)
    list(loop)
    return loop


@pytest.mark.parametrize("name", CONTROLS)
def test_jumps_without_a_flow_run_under_every_control(name):
    loop = only_jumps(CONTROLS[name], steady_tolerance=1e-3, check_every=1)
    assert (loop.ending, loop.t, loop.steps) == ("reached_end", 12.0, 6)
    assert_same_bits(loop.state.weight, only_jumps(FixedStep(EXPLICIT_EULER, 2.0)).state.weight)


@pytest.mark.parametrize("name", ["explicit_euler", "adaptive"])
def test_stretches_that_only_pass_count_against_the_budget(name):
    loop = only_jumps(CONTROLS[name], max_steps=4)
    assert (loop.ending, loop.t, loop.steps) == ("budget_spent", 8.0, 4)


def test_least_mean_squares_on_several_samples_is_their_mean():
    system = make_system(NET, precision=ConstantPrecision((0.5, 2.0, 0.8)), update=LeastMeanSquares(0.3))
    state, inputs = start(system, samples=3)
    whole = system.jump(0.0, state, inputs, inputs).weight
    parts = []
    for k in range(3):
        own = Inputs(inputs.input[k : k + 1], inputs.target[k : k + 1])
        alone = type(state)(tuple(h[k : k + 1] for h in state.activity), state.weight, ())
        parts.append(system.jump(0.0, alone, own, own).weight)
    for layer, w in enumerate(whole):
        assert_round_off(w, sum(part[layer] for part in parts) / 3, 50)
