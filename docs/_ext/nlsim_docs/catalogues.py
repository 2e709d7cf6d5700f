"""The page that lists systems, steppers, data sets and scenarios, made from their catalogues."""

from __future__ import annotations

import math

from nlsim.data.catalogue import DATASETS
from nlsim.data.series import SERIES
from nlsim.integrate.adapter import METHODS, AdaptiveRungeKutta
from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.scenario.load import load_scenario, shipped_scenarios
from nlsim.systems.catalogue import SYSTEMS
from nlsim_docs.markdown import code, python_object, table, text

_INTRODUCTION = """\
# Systems, steppers, data sets, scenarios

Everything that has a name in a scenario, generated from the catalogues; `nlsim list KIND` prints the same.
"""


def catalogue_page() -> str:
    """Return the page in MyST Markdown."""
    sections = {"Systems": _systems(), "Steppers": _steppers(), "Data sets": _datasets(), "Scenarios": _scenarios()}
    return "\n".join([_INTRODUCTION, *(f"## {title}\n\n{body}" for title, body in sections.items())])


def _systems() -> str:
    rows = [(code(name), text(each.summary), python_object(each.system)) for name, each in SYSTEMS.items()]
    return table(("name", "what it is", "class"), rows)


def _steppers() -> str:
    rows = [
        (
            code(name),
            str(each.order),
            "every step" if math.isinf(each.stability_limit) else f"rate·dt \\< {each.stability_limit:.4g}",
            python_object(type(each)),
        )
        for name, each in STEPPERS.items()
    ]
    orders = ", ".join(f"{order} ({code(name)})" for name, order in METHODS.items())
    rows.append((code(ADAPTIVE), orders, "chooses its steps", python_object(AdaptiveRungeKutta)))
    return (
        table(("name", "order", "stable for", "class"), rows)
        + "\nWhich one to take: {doc}`/how-to/choose-a-stepper`.\n"
    )


def _datasets() -> str:
    rows = [(code(name), text(each.summary), code(each.package)) for name, each in (*DATASETS.items(), *SERIES.items())]
    return table(("name", "what it is", "shipped by"), rows) + "\nNothing is ever downloaded.\n"


def _scenarios() -> str:
    rows = [(code(name), text(load_scenario(path).values.title)) for name, path in shipped_scenarios().items()]
    return table(("name", "title"), rows)
