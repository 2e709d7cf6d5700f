"""Bits of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(``?)(.+?)\1")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$^])")


def text(plain: str) -> str:
    """Return prose with every sign that Markdown would read escaped, but for ``code``."""
    parts, end = [], 0
    for found in _CODE.finditer(plain):
        parts += [_escaped(plain[end : found.start()]), code(found.group(2))]
        end = found.end()
    return "".join([*parts, _escaped(plain[end:])])


def code(plain: str) -> str:
    """Return text in the fixed-width fount, fit for a cell of a table."""
    return "`" + plain.replace("|", "\\|") + "`"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def python_object(thing: object) -> str:
    """Return a cross-reference to a class or function."""
    return f"{{py:obj}}`~{thing.__module__}.{thing.__qualname__}`"  # type: ignore[attr-defined]


def _escaped(plain: str) -> str:
    return _SPECIAL.sub(r"\\\1", plain)
