"""Overrides of a scenario as the one text that a run file keeps, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

ATTRIBUTE: Final = "scenario_overrides"
"""The attribute of a run file that holds them."""


def join_overrides(overrides: Sequence[str]) -> str:
    """Return overrides as one text, one a line.

    An override in which a line would end (a line break, or one of the characters that Unicode counts as such) is
    written in quotes, as a JSON text in ASCII; so is one that begins with a quote.

    Parameters
    ----------
    overrides : sequence of str
        ``table.key=value`` assignments; none is empty.

    Returns
    -------
    str
        From which :func:`read_overrides` makes the same again.
    """
    return "\n".join(each if _is_plain(each) else json.dumps(each) for each in overrides)


def read_overrides(attributes: Mapping[Any, Any]) -> list[str]:
    """Return the overrides that the attributes of a run file hold.

    Parameters
    ----------
    attributes : mapping
        With :data:`ATTRIBUTE`, a text of :func:`join_overrides`; lines that are not in quotes are taken as they are.
        Without it there are none.
    """
    return [_unquoted(line) for line in str(attributes.get(ATTRIBUTE, "")).split("\n") if line]


def _is_plain(override: str) -> bool:
    return override.splitlines() == [override] and not override.startswith('"')


def _unquoted(line: str) -> str:
    if not line.startswith('"'):
        return line
    try:
        found = json.loads(line)
    except ValueError:
        return line  # it will be refused for what it is
    return str(found)
