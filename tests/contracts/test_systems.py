"""The entrance exam of every system: trees, types, torch.func, and what can be seen."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits, snapshot
from support.learning import make_inputs, make_network, make_problem, make_state, make_weights, member

from nlsim.core.state import leaves, map_leaves, named_leaves
from nlsim.core.system import Observed, Relaxing, Stiff
from nlsim.systems.backprop import HeavyBall, HeavyBallState
from nlsim.systems.hamiltonian.learning import CostateReversal, HamiltonEquations
from nlsim.systems.loss import LOSSES

NETWORK, SAMPLES, MEMBERS = make_network(), 3, 4
PROBLEM = make_problem(NETWORK)
SYSTEMS = {
    "costate_reversal": CostateReversal(PROBLEM),
    "hamilton_equations": HamiltonEquations(PROBLEM),
    "heavy_ball": HeavyBall(NETWORK, LOSSES["squared_error"], 1.5, 0.3, 0.2),
}
DTYPES = [torch.float32, torch.float64]
OBSERVABLES = [(name, channel) for name, system in SYSTEMS.items() for channel in system.observables()]
# two ways to form sums of fewer than fifty products
ROUNDINGS = 200

each_system = pytest.mark.parametrize("name", SYSTEMS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_observable = pytest.mark.parametrize(("name", "channel"), OBSERVABLES)


def setting(name, dtype=torch.float64, ensemble=()):
    def cast(tree):
        return map_leaves(lambda leaf: leaf.to(dtype), tree)

    if name == "heavy_ball":
        state = HeavyBallState(make_weights(NETWORK, 2, ensemble), make_weights(NETWORK, 9, ensemble))
    else:
        state = make_state(NETWORK, SAMPLES, ensemble=ensemble)
    return SYSTEMS[name], cast(state), cast(make_inputs(NETWORK, SAMPLES))


@each_system
@each_dtype
@pytest.mark.parametrize("ensemble", [(), (MEMBERS,)], ids=["single", "ensemble"])
def test_the_field_has_the_tree_shapes_and_types_of_the_state(name, dtype, ensemble):
    system, state, inputs = setting(name, dtype, ensemble)
    field = system.vector_field(0.0, state, inputs)
    assert type(field) is type(state)
    kinds = [[(each, leaf.shape, leaf.dtype) for each, leaf in named_leaves(tree)] for tree in (field, state)]
    assert kinds[0] == kinds[1]


@each_system
def test_the_field_is_pure(name):
    system, state, inputs = setting(name)
    before, given = snapshot(state), snapshot(inputs)
    first = system.vector_field(0.0, state, inputs)
    assert_same_bits(state, before)
    assert_same_bits(inputs, given)
    assert_same_bits(system.vector_field(5.0, state, inputs), first)


@each_system
def test_single_precision_is_double_precision_rounded(name):
    system, state, inputs = setting(name)
    _, single, single_inputs = setting(name, torch.float32)
    found = system.vector_field(0.0, single, single_inputs)
    assert_round_off(found, system.vector_field(0.0, state, inputs), 50, eps=2.0**-23)


@each_system
def test_forward_derivatives_are_those_of_small_differences(name):
    system, state, inputs = setting(name)
    tangent = map_leaves(lambda leaf: leaf.flip(-1), state)

    def field(y):
        return system.vector_field(0.0, y, inputs)

    value, derivative = torch.func.jvp(field, (state,), (tangent,))
    assert_round_off(value, field(state), ROUNDINGS)
    h = 1e-5

    def moved(by):
        return field(map_leaves(lambda y, v: y + by * v, state, tangent))

    central = map_leaves(lambda plus, minus: (plus - minus) / (2 * h), moved(h), moved(-h))
    # central differences: h² times a third derivative of at most a thousand, plus eps/h; both below 1e-6
    for found, expected in zip(leaves(derivative), leaves(central), strict=True):
        assert float((found - expected).abs().max()) <= 1e-6


@each_system
def test_vmap_is_the_ensemble_axis(name):
    system, state, inputs = setting(name, ensemble=(MEMBERS,))
    mapped = torch.vmap(lambda y: system.vector_field(0.0, y, inputs))(state)
    assert_round_off(mapped, system.vector_field(0.0, state, inputs), ROUNDINGS)
    for index in range(MEMBERS):
        assert_round_off(member(mapped, index), system.vector_field(0.0, member(state, index), inputs), ROUNDINGS)


@each_system
def test_reverse_derivatives_work_too(name):
    system, state, inputs = setting(name)
    field, pull = torch.func.vjp(lambda y: system.vector_field(0.0, y, inputs), state)
    _, push = torch.func.jvp(lambda y: system.vector_field(0.0, y, inputs), (state,), (state,))
    (pulled,) = pull(field)
    # ⟨f, J y⟩ = ⟨Jᵀ f, y⟩

    def inner(a, b):
        return sum(float((x * y).sum()) for x, y in zip(leaves(a), leaves(b), strict=True))

    assert inner(field, push) == pytest.approx(inner(pulled, state), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("costate_reversal", Relaxing),
        ("costate_reversal", Stiff),
        ("hamilton_equations", Stiff),
        ("heavy_ball", Relaxing),
        ("heavy_ball", Stiff),
        *((name, Observed) for name in SYSTEMS),
    ],
)
def test_offers_the_structure_it_promises(name, protocol):
    assert isinstance(SYSTEMS[name], protocol)


def test_the_exact_equations_do_not_relax():
    # their costates run away, so no sweep may be offered
    assert not isinstance(SYSTEMS["hamilton_equations"], Relaxing)


def axis_sizes():
    sizes = {"sample": SAMPLES}
    for layer in range(1, NETWORK.depth + 1):
        sizes[f"layer_{layer}"], sizes[f"source_{layer}"] = NETWORK.weight_shape(layer - 1)
    return sizes


@each_observable
@each_dtype
@pytest.mark.parametrize("ensemble", [(), (MEMBERS,)], ids=["single", "ensemble"])
def test_observables_have_the_declared_dimensions(name, channel, dtype, ensemble):
    system, state, inputs = setting(name, dtype, ensemble)
    seen = system.observables()[channel]
    value = seen.evaluate(0.0, state, inputs)
    assert value.shape == (*ensemble, *(axis_sizes()[dim] for dim in seen.dims))
    assert value.dtype == dtype
    assert bool(torch.isfinite(value).all())


@each_observable
def test_observables_say_what_they_are(name, channel):
    seen = SYSTEMS[name].observables()[channel]
    assert seen.name == channel
    assert len(seen.long_name) > 5
    assert seen.units


@each_observable
def test_observables_are_pure(name, channel):
    system, state, inputs = setting(name)
    before = snapshot(state)
    system.observables()[channel].evaluate(0.0, state, inputs)
    assert_same_bits(state, before)


@pytest.mark.parametrize("field", ["activity", "weight", "costate", "weight_costate"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_channels_of_the_state_are_the_state(field, layer):
    system, state, inputs = setting("costate_reversal")
    value = system.observables()[f"{field}/{layer}"].evaluate(0.0, state, inputs)
    assert_same_bits(value, getattr(state, field)[layer - 1])
