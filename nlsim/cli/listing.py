"""``nlsim list``: what there is by name."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    SYSTEMS = "systems"
    STEPPERS = "steppers"
    SCENARIOS = "scenarios"
    DATASETS = "datasets"
    THEOREMS = "theorems"


def listing(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List systems, steppers, scenarios, datasets or theorems."""
    from rich.markup import escape
    from rich.table import Table

    from nlsim.cli.screen import screen

    rows = {
        Kind.SYSTEMS: _systems,
        Kind.STEPPERS: _steppers,
        Kind.SCENARIOS: _scenarios,
        Kind.DATASETS: _datasets,
        Kind.THEOREMS: _theorems,
    }[kind]()
    table = Table(box=None, show_header=False)
    for name, text in rows:
        table.add_row(f"[bold]{name}[/bold]", escape(text))
    screen().print(table)


def _systems() -> Iterator[tuple[str, str]]:
    from nlsim.systems.catalogue import SYSTEMS

    for name, entry in SYSTEMS.items():
        yield name, entry.summary


def _steppers() -> Iterator[tuple[str, str]]:
    from nlsim.integrate.adapter import METHODS
    from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS

    for name, stepper in STEPPERS.items():
        limit = stepper.stability_limit
        bound = "stable at every c·dt" if limit == float("inf") else f"stable for rate·dt < {limit:.4g}"
        yield name, f"order {stepper.order}, {bound}"
    orders = ", ".join(f"{name} ({order})" for name, order in METHODS.items())
    yield ADAPTIVE, f"explicit Runge–Kutta of torchdiffeq with error control; method (order): {orders}"


def _scenarios() -> Iterator[tuple[str, str]]:
    from nlsim.scenario.load import load_scenario, shipped_scenarios

    for name, path in shipped_scenarios().items():
        yield name, load_scenario(path).values.title


def _datasets() -> Iterator[tuple[str, str]]:
    from nlsim.data.catalogue import DATASETS
    from nlsim.data.series import SERIES, TimeSeries
    from nlsim.data.source import DataSource, LabelledData

    known: list[DataSource[LabelledData] | DataSource[TimeSeries]] = [*DATASETS.values(), *SERIES.values()]
    for each in known:
        yield each.name, each.summary + ("" if each.is_installed else f" (needs {each.package})")


def _theorems() -> Iterator[tuple[str, str]]:
    from nlsim.theorems.catalogue import THEOREMS

    for key, theorem in THEOREMS.items():
        yield key, theorem.title
