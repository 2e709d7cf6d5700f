"""Public names are documented; sections of docstrings speak of parameters that are there."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from nlsim_docs.names import public_objects, undocumented
from numpydoc.docscrape import NumpyDocString

import nlsim
from nlsim.core import state
from nlsim.core.observable import Observable
from nlsim.integrate.loop import Loop

OBJECTS = dict(public_objects())
FRONT = [name for name in nlsim.__all__ if not name.startswith("_")]


def test_nothing_public_is_undocumented() -> None:
    assert undocumented() == []


def test_a_missing_docstring_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.leaves, "__doc__", None)
    monkeypatch.setattr(Loop.interrupt, "__doc__", None)
    monkeypatch.setattr(Observable, "__doc__", "Observable(name: str)")  # what a dataclass writes by itself
    assert undocumented() == [
        "nlsim.core.observable.Observable",
        "nlsim.core.state.leaves",
        "nlsim.integrate.loop.Loop.interrupt",
    ]


def test_public_names_are_found() -> None:
    assert {"nlsim.core.state", "nlsim.core.state.leaves", "nlsim.integrate.loop.Loop.interrupt"} <= set(OBJECTS)


def sections(thing: Any) -> NumpyDocString:
    return NumpyDocString(inspect.cleandoc(thing.__doc__ or ""))


def documented_parameters(thing: Any) -> list[str]:
    """Return the names under Parameters, one by one, without stars."""
    return [name.strip().lstrip("*") for each in sections(thing)["Parameters"] for name in each.name.split(",")]


def parameters(thing: Any) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("name", FRONT)
def test_front_door_documents_every_parameter(name: str) -> None:
    thing = getattr(nlsim, name)
    assert sorted(documented_parameters(thing)) == sorted(parameters(thing))


def with_parameters() -> list[str]:
    callables = [name for name, thing in OBJECTS.items() if inspect.isclass(thing) or inspect.isfunction(thing)]
    return [name for name in callables if documented_parameters(OBJECTS[name])]


@pytest.mark.parametrize("name", with_parameters())
def test_a_section_of_parameters_names_no_others_and_none_twice(name: str) -> None:
    documented = documented_parameters(OBJECTS[name])
    assert len(documented) == len(set(documented))
    assert set(documented) <= set(parameters(OBJECTS[name]))


@pytest.mark.parametrize("name", with_parameters())
def test_a_section_of_parameters_names_all_that_must_be_given(name: str) -> None:
    required = inspect.signature(OBJECTS[name]).parameters.values()
    assert {each.name for each in required if each.default is each.empty} - {"self", "cls"} <= {
        *documented_parameters(OBJECTS[name])
    }
