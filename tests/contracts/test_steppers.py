"""The entrance exam of every stepper of the catalogue."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, snapshot
from support.flow import Decay, Oscillator, RelaxingDecay, still
from support.learning import make_inputs, make_network, make_problem, make_state, make_weights
from support.steppers import FIRST as STEPPERS
from support.steppers import accepts

from nlsim.core.state import leaves, map_leaves
from nlsim.errors import CapabilityError
from nlsim.integrate.catalogue import ADAPTIVE
from nlsim.integrate.catalogue import STEPPERS as ALL
from nlsim.integrate.stepper import Stepper
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.hamiltonian.learning import CostateReversal
from nlsim.systems.loss import LOSSES

NEED_RELAXING = {"implicit_sweep", "exponential_sweep", "exponential_euler"}
NETWORK = make_network()
DTYPES = [torch.float32, torch.float64]

each_stepper = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_case = pytest.mark.parametrize("case", ["reversal", "heavy ball", "tensor"])


def setting(case, dtype=torch.float64):
    """Return a relaxing system, what drives it, and a state."""

    def cast(tree):
        return map_leaves(lambda leaf: leaf.to(dtype), tree)

    inputs = cast(make_inputs(NETWORK, 3))
    if case == "reversal":
        return CostateReversal(make_problem(NETWORK)), lambda t: inputs, cast(make_state(NETWORK, 3))
    if case == "heavy ball":
        ball = HeavyBall(NETWORK, LOSSES["squared_error"], 1.5, 0.3, 0.1)
        state = HeavyBallState(make_weights(NETWORK), make_weights(NETWORK, 9))
        return ball, lambda t: inputs, cast(state)
    return RelaxingDecay(2.0), still, torch.linspace(-1, 1, 5, dtype=dtype)


@pytest.mark.parametrize("name", ALL)
def test_catalogue_is_keyed_by_name(name):
    assert ALL[name].name == name
    assert name != ADAPTIVE


@pytest.mark.parametrize("name", ALL)
def test_accepts_or_refuses_by_capability(name):
    """Each is run on the layered reversal, or says with advice what that system lacks."""
    system, piece, state = setting("reversal")
    if accepts(ALL[name], system):
        after = ALL[name].advance(system, piece, state, 0.0, 0.01, 2)
        assert any(not torch.equal(a, b) for a, b in zip(leaves(after), leaves(state), strict=True))
    else:
        with pytest.raises(CapabilityError) as caught:
            ALL[name].require(system)
        assert caught.value.advice


@pytest.mark.parametrize("stepper", ALL.values(), ids=ALL)
def test_offers_what_the_protocol_asks(stepper):
    assert isinstance(stepper, Stepper)
    assert isinstance(stepper.order, int)
    assert stepper.order >= 1
    assert stepper.stability_limit > 0


@each_stepper
def test_is_immutable_and_hashable(stepper):
    with pytest.raises(AttributeError):
        stepper.name = "another"
    assert hash(stepper) == hash(STEPPERS[stepper.name])


@each_stepper
@each_dtype
@each_case
def test_the_state_given_is_kept_intact(stepper, dtype, case):
    system, piece, state = setting(case, dtype)
    before = snapshot(state)
    after = stepper.advance(system, piece, state, 0.0, 0.05, 3)
    assert_same_bits(state, before)
    assert any(not torch.equal(a, b) for a, b in zip(leaves(after), leaves(before), strict=True)), "nothing moved"


@each_stepper
@each_dtype
@each_case
def test_the_state_keeps_its_tree_shapes_types_and_device(stepper, dtype, case):
    system, piece, state = setting(case, dtype)
    after = stepper.advance(system, piece, state, 0.0, 0.05, 2)
    assert type(after) is type(state)
    kinds = [[(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves(each)] for each in (after, state)]
    assert kinds[0] == kinds[1]


@each_stepper
@each_case
def test_no_steps_is_the_identity(stepper, case):
    system, piece, state = setting(case)
    assert_same_bits(stepper.advance(system, piece, state, 0.0, 0.05, 0), state)


@each_stepper
@each_case
@pytest.mark.parametrize("count", [2, 7])
def test_many_steps_are_one_step_many_times(stepper, case, count):
    system, piece, state = setting(case)
    together, one_by_one = stepper.advance(system, piece, state, 0.0, 0.05, count), state
    for _ in range(count):
        one_by_one = stepper.advance(system, piece, one_by_one, 0.0, 0.05, 1)
    assert_same_bits(together, one_by_one)


@each_stepper
def test_single_precision_is_double_precision_rounded(stepper):
    (_, _, double), (system, piece, single) = setting("reversal"), setting("reversal", torch.float32)
    exact = stepper.advance(*setting("reversal")[:2], double, 0.0, 0.05, 5)
    # five steps of some hundred roundings of 32-bit numbers
    assert_round_off(stepper.advance(system, piece, single, 0.0, 0.05, 5), exact, 100, eps=2.0**-23)


@each_stepper
@each_case
def test_inputs_are_asked_within_the_step_and_each_step_its_own(stepper, case):
    system, piece, state = setting(case)
    asked = []

    def listening(t):
        asked.append(t)
        return piece(t)

    stepper.advance(system, listening, state, 3.0, 0.25, 4)
    assert min(asked) >= 3.0
    assert max(asked) <= 4.0
    assert len({int((t - 3.0) / 0.25 + 1e-9) for t in asked}) >= 4


@pytest.mark.parametrize("name", sorted(set(STEPPERS) - NEED_RELAXING))
@pytest.mark.parametrize("system", [Decay(), Oscillator(), RelaxingDecay()], ids=lambda each: type(each).__name__)
def test_explicit_steppers_accept_any_system(name, system):
    stepper = STEPPERS[name]
    assert stepper.require(system) is None
    ended = stepper.advance(system, still, torch.ones(2, dtype=torch.float64), 0.0, 0.1, 2)
    assert bool(torch.isfinite(ended).all())


@pytest.mark.parametrize("name", sorted(NEED_RELAXING))
@pytest.mark.parametrize("system", [Decay(), Oscillator()], ids=lambda each: type(each).__name__)
def test_relaxation_steppers_refuse_a_bare_system_with_advice(name, system):
    with pytest.raises(CapabilityError) as refusal:
        STEPPERS[name].require(system)
    assert name in refusal.value.problem
    assert "Relaxing" in refusal.value.problem
    assert refusal.value.given == type(system).__name__
    assert refusal.value.advice


@pytest.mark.parametrize("name", sorted(NEED_RELAXING))
@each_case
def test_relaxation_steppers_accept_a_relaxing_system(name, case):
    assert STEPPERS[name].require(setting(case)[0]) is None
