"""Schema, catalogues and theorems speak of the same things."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_args

import pytest

from nlsim.integrate import adapter
from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.scenario import model
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.catalogue import FLIPS, FOLLOWERS, LEARNERS, RESPONDERS, SYSTEMS
from nlsim.systems.inference.entries import DESCENTS, PRECISIONS, UPDATES
from nlsim.systems.loss import LOSSES
from nlsim.systems.masked.dynamics import Form, Outage
from nlsim.theorems.catalogue import THEOREMS


def names_of(annotation: object) -> set[str]:
    """Return every string choice within an annotation."""
    if isinstance(annotation, str):
        return {annotation}
    return {name for part in get_args(annotation) for name in names_of(part)}


def tags(union: object) -> set[str]:
    """Return the names by which the members of a discriminated union are told apart."""
    members = get_args(get_args(union)[0])
    return {tag for each in members for tag in names_of(each.model_fields["name"].annotation)}


def test_systems_of_schema_and_catalogue_agree() -> None:
    assert tags(model.System) == set(SYSTEMS)


def test_flips_of_schema_and_catalogue_agree() -> None:
    assert tags(model.Flip) == set(FLIPS)
    for each in get_args(get_args(model.Flip)[0]):
        (name,) = names_of(each.model_fields["name"].annotation)
        assert set(each.model_fields) - {"name"} == set(inspect.signature(FLIPS[name]).parameters)


@pytest.mark.parametrize(
    ("union", "kinds"),
    [
        (model.Precision, PRECISIONS),
        (model.Update, UPDATES),
        (model.BackpropagationSteps.model_fields["descent"].annotation, DESCENTS),
    ],
)
def test_parts_of_inference_learning_agree(union: object, kinds: dict[str, Callable[..., object]]) -> None:
    members = [each for each in get_args(union) if inspect.isclass(each)] or get_args(get_args(union)[0])
    assert {tag for each in members for tag in names_of(each.model_fields["name"].annotation)} == set(kinds)
    for each in members:
        (name,) = names_of(each.model_fields["name"].annotation)
        assert set(each.model_fields) - {"name"} <= set(inspect.signature(kinds[name]).parameters)


@pytest.mark.parametrize(
    ("union", "entries"),
    [(model.Learner, LEARNERS), (model.Follower, FOLLOWERS), (model.Responder, RESPONDERS)],
)
def test_kinds_of_systems_agree(union: object, entries: dict[str, object]) -> None:
    members = get_args(union)
    assert {tag for each in members for tag in names_of(each.model_fields["name"].annotation)} == set(entries)


def test_steppers_of_schema_and_catalogue_agree() -> None:
    assert tags(model.Stepper) == {*STEPPERS, ADAPTIVE}


def test_choices_of_schema_and_code_agree() -> None:
    layers, graph, adaptive = model.Layers.model_fields, model.Graph.model_fields, model.Adaptive.model_fields
    for system in (model.Tracking, model.MaskedNeuron, model.MaskedEnergy):
        assert names_of(system.model_fields["activation"].annotation) == set(ACTIVATIONS)
    assert names_of(model.MaskedNeuron.model_fields["form"].annotation) == set(get_args(Form))
    assert names_of(model.MaskedNeuron.model_fields["outage"].annotation) == set(get_args(Outage))
    for network in (layers, graph):
        assert names_of(network["activation"].annotation) == set(ACTIVATIONS)
        assert names_of(network["loss"].annotation) == set(LOSSES)
    assert names_of(layers["output_activation"].annotation) == set(ACTIVATIONS)
    assert names_of(adaptive["method"].annotation) == set(adapter.METHODS)


def test_adaptive_parameters_agree() -> None:
    known = set(inspect.signature(adapter.AdaptiveRungeKutta).parameters)
    assert set(model.Adaptive.model_fields) - {"name"} == known


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_named_by_a_theorem(name: str) -> None:
    assert any(SYSTEMS[name].system in theorem.about for theorem in THEOREMS.values())


@pytest.mark.parametrize("key", THEOREMS)
def test_key_is_family_and_name(key: str) -> None:
    assert THEOREMS[key].key == key
    assert THEOREMS[key].family in {"hamiltonian", "inference", "masked"}


def every_model() -> list[type[model.Model]]:
    return [each for each in vars(model).values() if inspect.isclass(each) and issubclass(each, model.Model)]


@pytest.mark.parametrize("described", [each for each in every_model() if each is not model.Model])
def test_every_field_is_described(described: type[model.Model]) -> None:
    assert all(field.description for field in described.model_fields.values())
