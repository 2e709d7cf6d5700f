"""Masked neurons in time: blackouts, edges, steppers, holding and forgetting (spec 6.1, 6.2; tests 18, 19, 23)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.compare import EPS, assert_round_off, assert_same_bits, gap, snapshot
from support.learning import draw
from support.masked import GIVEN, INPUTS, NEURONS, SAMPLES, START, blackout, naive_field, neuron, run, scipy_run
from support.order import assert_order

from nlsim.core.system import Held, Inputs, Observed, Relaxing, Stiff
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import beyond_stability
from nlsim.integrate.explicit import EXPLICIT_EULER, RK4
from nlsim.integrate.exponential import ETDRK2, ETDRK4
from nlsim.integrate.relaxation import EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages, RandomMask
from nlsim.systems.signals import Constant

each_form = pytest.mark.parametrize("form", ["state", "potential"])
each_outage = pytest.mark.parametrize("outage", ["forget", "hold"])


@each_form
@each_outage
@pytest.mark.parametrize("kind", ["hard", "soft", "none", "all"])
def test_the_field_is_that_of_neutralizers(form, outage, kind):
    mask = {
        "hard": (draw(7, SAMPLES, INPUTS) > 0).double(),
        "soft": draw(7, SAMPLES, INPUTS, low=0.0),
        "none": torch.zeros(SAMPLES, INPUTS, dtype=torch.float64),
        "all": torch.ones(SAMPLES, INPUTS, dtype=torch.float64),
    }[kind]
    system = neuron(norm=0.8, form=form, outage=outage, intrinsic=draw(9, NEURONS))
    found = system.vector_field(0.0, START, replace(GIVEN, mask=mask))
    rows = [
        naive_field(system, x.numpy(), u.numpy(), m.numpy()) for x, u, m in zip(START, GIVEN.input, mask, strict=True)
    ]
    # neutralizers divide by weights of 0.2 and more: some fifty roundings of numbers below 5
    assert_round_off(found, torch.as_tensor(np.array(rows)), 100)


def test_without_a_mask_everything_is_observed():
    system = neuron(norm=0.5)
    ones = replace(GIVEN, mask=torch.ones(INPUTS, dtype=torch.float64))
    assert_same_bits(system.vector_field(0.0, START, GIVEN), system.vector_field(0.0, START, ones))


def test_the_field_is_pure_and_takes_ensembles():
    members = 5
    system = neuron(norm=0.5, outage="hold")
    weight = draw(11, members, NEURONS, INPUTS)
    many = replace(system, weight=weight, speed=torch.rand(members, 1, 1, dtype=torch.float64) + 0.5)
    inputs = replace(GIVEN, mask=draw(7, SAMPLES, INPUTS, low=0.0))
    state = draw(12, members, SAMPLES, NEURONS)
    before = snapshot(state)
    found = many.vector_field(0.0, state, inputs)
    assert_same_bits(state, before)
    for member in range(members):
        one = replace(system, weight=weight[member], speed=float(many.speed[member]))
        assert_round_off(found[member], one.vector_field(0.0, state[member], inputs), 50)


@pytest.mark.parametrize(("activation", "neutral"), [("tanh", 0.0), ("logistic", 0.5), ("softplus", math.log(2))])
def test_18_blackout_decay_law_and_its_limit(activation, neutral):
    system, span = neuron(activation), 2.0
    found = run(system, blackout(0.0, 1e9), START, EXPONENTIAL_SWEEP, 0.1, span).state
    expected = neutral + (START - neutral) * math.exp(-1.5 * span)
    # twenty steps of a few roundings each
    assert_round_off(found, expected, 100)
    late = run(system, blackout(0.0, 1e9), START, EXPONENTIAL_SWEEP, 0.5, 40.0).state
    assert_round_off(late, torch.full_like(late, neutral), 8)


def test_18_contraction_at_the_rate_of_the_linear_network():
    """At identity φ and V = 0.8 I the gap shrinks as e^{−c(1−0.8)t}, exactly, whatever is masked."""
    system = neuron("identity", recurrent=0.8 * torch.eye(NEURONS, dtype=torch.float64))
    signal = MaskedSignal(Constant(GIVEN), (RandomMask(INPUTS, 0.5, 0.3, SAMPLES),))
    ends = [run(system, signal, start, RK4, 0.01, 3.0).state for start in (START, -START)]
    expected = 2 * START * math.exp(-1.5 * 0.2 * 3.0)
    # RK4: (0.015)⁵/120 a step at most, 300 steps, of a gap of 4
    assert gap(ends[0] - ends[1], expected) <= 1e-8


def test_18_persistence_beyond_norm_one():
    matrix = draw(21, NEURONS, NEURONS)
    matrix = (matrix + matrix.mT) / 2
    levels = torch.linalg.eigvalsh(matrix)
    matrix = matrix * torch.sign(levels.max() + levels.min()) / levels.abs().max()
    sizes = {}
    for norm in (0.9, 1.5):
        found = run(neuron(recurrent=norm * matrix), blackout(0.0, 1e9), START, RK4, 0.4, 200.0).state
        sizes[norm] = float(found.norm(dim=-1).min())
        # at rest x = tanh(V x), whatever SciPy or we did to get there; the field's slope there is at least 0.1
        assert float((torch.tanh(norm * found @ matrix) - found).abs().max()) <= 1e-11
    assert sizes[0.9] <= 1e-11  # e^(−1.5 · 0.1 · 200) = 1e-13
    assert sizes[1.5] >= 0.5


def test_19_a_mask_edge_makes_a_kink_and_no_jump():
    system, edge = neuron(norm=0.5), 0.7
    signal = blackout(edge, 2.0)
    loop = run(system, signal, START, RK4, 0.2, 1.5, [edge + 1e-6])
    at, after = next(t for t in loop.ticks if t.t == edge), next(t for t in loop.ticks if t.is_record)
    assert at.inputs.mask.min() == 1  # the inputs that end there
    assert after.inputs.mask.max() == 0
    field = {name: system.vector_field(edge, at.state, signal.piece(t)(t)) for name, t in (("-", 0.0), ("+", edge))}
    # Taylor: τ²/2 · |ẍ|, |ẍ| ≤ c²(2 + 0.5) |gap| < 20
    assert gap(after.state - at.state, 1e-6 * field["+"]) <= 1e-11
    assert gap(field["+"], field["-"]) >= 0.1
    assert gap(after.state, at.state) <= 1e-5


@pytest.mark.parametrize(("form", "outage"), [("state", "forget"), ("potential", "forget"), ("state", "hold")])
def test_19_the_loop_lands_on_every_edge(form, outage):
    """Against SciPy on the naive field, stretch by stretch; steps of 0.11 divide none of them."""
    system = neuron(norm=0.6, form=form, outage=outage)
    outages = Outages((Outage(1, 0.3, 1.0), Outage(None, 0.75, 1.4), Outage(3, 1.2, 5.0)), INPUTS)
    loop = run(system, MaskedSignal(Constant(GIVEN), (outages,)), START, RK4, 0.011, 2.0)
    assert [tick.t for tick in loop.ticks] == [0.3, 0.75, 1.0, 1.2, 1.4, 2.0]
    masks = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    spans = np.diff([0.0, 0.3, 0.75, 1.0, 1.2, 1.4, 2.0])
    expected = scipy_run(system, START, [(s, np.array(m, float)) for s, m in zip(spans, masks, strict=True)])
    # RK4 with c dt(1 + 0.6) = 0.026: 1e-10 a step of a gap of 3, at most a hundred times over
    assert gap(loop.state, expected) <= 1e-9


@each_form
@pytest.mark.parametrize("outage", ["forget", "hold"])
def test_19_the_exponential_sweep_is_exact_under_piecewise_constant_masks(form, outage):
    system = neuron(form=form, outage=outage)
    outages = Outages((Outage(1, 0.3, 1.0), Outage(None, 0.75, 1.4)), INPUTS)
    found = run(system, MaskedSignal(Constant(GIVEN), (outages,)), START, EXPONENTIAL_SWEEP, 0.4, 2.0).state
    masks = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    x = START.numpy()
    for span, mask in zip(np.diff([0.0, 0.3, 0.75, 1.4, 2.0]), masks, strict=True):
        m = np.array(mask, float)
        a = (GIVEN.input.numpy() * m) @ system.weight.numpy().T + m.mean() * system.bias.numpy()
        rest = np.tanh(a) if form == "state" else a
        x = rest + (x - rest) * math.exp(-1.5 * span * (1.0 if outage == "forget" else m.mean()))
    assert_round_off(found, torch.as_tensor(x), 50)


def test_19_exponential_euler_is_exact_where_neurons_forget():
    held = Held(replace(GIVEN, mask=draw(7, SAMPLES, INPUTS, low=0.0)))
    one = EXPONENTIAL_EULER.advance(neuron(), held, START, 0.0, 0.9, 3)
    assert_round_off(one, EXPONENTIAL_SWEEP.advance(neuron(), held, START, 0.0, 2.7, 1), 50)


@pytest.mark.parametrize("z", [1.9, 1.999, 2.001, 2.1])
def test_19_explicit_euler_is_stable_below_c_dt_2(z):
    system, steps = neuron(), 300
    dt = z / 1.5
    found = EXPLICIT_EULER.advance(system, blackout(0.0, 1e9).piece(0.0), START, 0.0, dt, steps)
    assert float(found.norm() / START.norm()) == pytest.approx(abs(1 - z) ** steps, rel=1e-10)
    assert (beyond_stability(EXPLICIT_EULER, system, dt) is None) == (z < 2)


@pytest.mark.parametrize("z", [0.5, 1.0, 1.01, 1.5])
def test_19_explicit_euler_is_monotone_up_to_c_dt_1(z):
    after = EXPLICIT_EULER.advance(neuron(), blackout(0.0, 1e9).piece(0.0), START, 0.0, z / 1.5, 1)
    assert bool((after * START >= 0).all()) == (z <= 1)


@pytest.mark.parametrize("stepper", [EXPLICIT_EULER, RK4, EXPONENTIAL_EULER, EXPONENTIAL_SWEEP, IMPLICIT_SWEEP, ETDRK2])
@each_form
def test_23_holding_freezes_and_forgetting_decays(stepper, form):
    changed = {"norm": 1.8, "form": form, "intrinsic": draw(9, NEURONS)}
    frozen = run(neuron(outage="hold", **changed), blackout(0.0, 1e9), START, stepper, 0.1, 3.0).state
    assert_same_bits(frozen, START)
    forgot = run(neuron(form=form), blackout(0.0, 1e9), START, stepper, 0.1, 6.0).state
    # e^(−9); implicit and explicit Euler have 1.15^(−60) and 0.85^60
    assert forgot.norm() <= 1e-3 * START.norm()


def test_23_a_partly_seen_holding_neuron_goes_on_at_its_observed_fraction():
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    shown = replace(GIVEN, mask=mask)
    forget, hold = neuron(norm=0.5), neuron(norm=0.5, outage="hold")
    assert_round_off(hold.vector_field(0.0, START, shown), 0.25 * forget.vector_field(0.0, START, shown), 4)


@pytest.mark.parametrize("outage", ["forget", "hold"])
@pytest.mark.parametrize(
    ("stepper", "order"), [(EXPONENTIAL_SWEEP, 1), (EXPONENTIAL_EULER, 1), (ETDRK2, 2), (ETDRK4, 4)]
)
def test_sweeps_and_exponential_steppers_keep_their_order_with_recurrence(stepper, order, outage):
    system = neuron(norm=0.9, outage=outage)
    mask = np.array([1.0, 0.0, 1.0, 1.0])
    exact = scipy_run(system, START, [(1.0, mask)])
    held, counts = Held(replace(GIVEN, mask=torch.as_tensor(mask))), (20, 40, 80)
    errors = [gap(stepper.advance(system, held, START, 0.0, 1 / n, n), exact) for n in counts]
    assert_order(order, counts, errors)


def test_capabilities_and_channels():
    for form, name in (("state", "activity"), ("potential", "potential")):
        system = neuron(form=form)
        assert isinstance(system, Relaxing)
        assert isinstance(system, Stiff)
        assert isinstance(system, Observed)
        shown = replace(GIVEN, mask=torch.tensor([1.0, 1.0, 0.0, 0.5], dtype=torch.float64))
        seen = {key: each.evaluate(0.0, START, shown) for key, each in system.observables().items()}
        assert seen["observed_fraction"].tolist() == [0.625, 0.625]
        assert_same_bits(seen[name], START)
        assert_same_bits(seen["output"], START if form == "state" else torch.tanh(START))
        dims = {key: len(each.dims) for key, each in system.observables().items()}
        assert dims == {key: value.ndim for key, value in seen.items()}
        assert seen["distance_to_neutral"].tolist() == pytest.approx(START.norm(dim=-1).tolist(), rel=4 * EPS)
    assert neuron(speed=torch.tensor([1.0, 3.0, 2.0])).fastest_rate() == 3.0


def test_a_run_begins_neutral():
    assert_same_bits(neuron("logistic").initial_state(GIVEN), torch.full((SAMPLES, NEURONS), 0.5).double())
    assert_same_bits(neuron("logistic", form="potential").initial_state(GIVEN), torch.zeros(SAMPLES, NEURONS).double())


def test_unequal_shares_weigh_bias_and_holding_alike():
    shares = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    shown = replace(GIVEN, mask=torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    system = neuron(shares=shares)
    seen = GIVEN.input[:, :1] @ system.weight[:, :1].mT
    assert_round_off(system.drive(shown), seen + 0.7 * system.bias, 8)
    hold = replace(system, outage="hold").vector_field(0.0, START, shown)
    assert_round_off(hold, 0.7 * system.vector_field(0.0, START, shown), 8)


def test_words_that_are_not_known_are_refused():
    for wrong in ({"form": "output"}, {"outage": "freeze"}):
        with pytest.raises(NlsimError) as refused:
            neuron(**wrong)
        assert refused.value.where == next(iter(wrong))
    with pytest.raises(CapabilityError):
        neuron().vector_field(0.0, START, Inputs())
    assert isinstance(neuron(), MaskedNeuron)
