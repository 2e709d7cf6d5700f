"""The page on theorems, made from their catalogue; no check is run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from nlsim.theorems.catalogue import THEOREMS
from nlsim.theorems.evidence import Leg
from nlsim.theorems.statement import Theorem
from nlsim_docs.markdown import python_object, table, text

_INTRODUCTION = """\
# Theorems

What nlsim claims, and what each check of `nlsim verify` looks at. This page is made from the catalogue without running
anything; for findings and numbers run `nlsim verify`, or `nlsim verify KEY` for one theorem.

The legs:

proof
: computer algebra on symbolic small networks; undecided is never a pass

bridge
: the symbolic equations, as numbers, equal what the running code computes, to round-off

property
: the claim on many random networks, constants and inputs

order
: an observed rate of convergence with the rate that is expected

control
: with a hypothesis broken, the claim must fail, and does

counterexample
: where a published statement is false as printed, a case that shows it

and the verdicts: `proved` (a proof and its bridge, and nothing against it), `holds` (numerical evidence only),
`refuted` (false as published, with a counterexample that was verified), `undecided`, `failed` (a check failed, so the
code or the theorem is broken).
"""


def theorem_page() -> str:
    """Return the page in MyST Markdown."""
    return "\n".join([_INTRODUCTION, *map(_section, THEOREMS.values())])


def _section(theorem: Theorem) -> str:
    checks = [(_leg(each), text(_first_paragraph(each))) for each in theorem.checks]
    return "\n".join(
        [
            f"## {text(theorem.title)}\n",
            f"Key: `{theorem.key}`\n",
            f"{text(theorem.statement)}\n",
            "If:\n",
            *(f"- {text(each)}" for each in theorem.hypotheses),
            f"\nSource: {text(theorem.source)}.\n",
            f"About: {', '.join(map(python_object, theorem.about))}.\n",
            table(("leg", "what the check does"), checks),
        ]
    )


def _first_paragraph(check: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(check) or "").partition("\n\n")[0].split())


def _leg(check: Callable[..., Any]) -> str:
    """Return the leg that a check, or a helper beside it, names; it is known for sure only after the check has run."""
    helpers = [inspect.getmodule(check).__dict__.get(name) for name in check.__code__.co_names]
    beside = [each for each in helpers if inspect.isfunction(each) and each.__module__ == check.__module__]
    for source in map(inspect.getsource, [check, *beside]):
        named = re.findall(r"\bLeg\.([A-Z]+)", source) or ["PROPERTY"] * ("check_property(" in source)
        if named:
            return ", ".join(dict.fromkeys(Leg[each].value for each in named))
    return "check"
