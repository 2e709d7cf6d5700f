"""Text from a file, made fit for a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Without effect but on the letters beside them; some languages cannot be written without."""


def showable(text: str, *, lines: bool = False) -> str:
    r"""Return text in which nothing is left that a terminal would act upon.

    Control characters (an escape sequence begins with one), marks that turn the direction of writing, line and
    paragraph separators and lone surrogates become what Python writes for them, such as ``\x1b``.

    Parameters
    ----------
    text : str
        Of a run file, a scenario, a message.
    lines : bool
        Whether line breaks and tabs are meant and stay; ``\r\n`` is then a line break.

    Returns
    -------
    str
        Text without such characters as it is.
    """
    kept = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(each if each in kept or _is_harmless(each) else _written(each) for each in text)


def plain_markup(text: object, *, lines: bool = False) -> str:
    """Return what a file holds as :func:`showable` text in which rich finds no markup either."""
    from rich.markup import escape

    return escape(showable(str(text), lines=lines))


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _JOINERS


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
