"""What a theorem is: a statement with its hypotheses, its source, and the checks that tie it to the code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nlsim.theorems.evidence import Evidence


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes
    ----------
    examples : int
        Random cases of each property.
    is_random : bool
        Whether cases differ from call to call; else they are a fixed, repeatable choice.
    """

    examples: int = 50
    is_random: bool = False


@dataclass(frozen=True)
class Theorem:
    """A proposition of the literature or of our own.

    Attributes
    ----------
    key : str
        ``family.name``.
    title : str
        One line.
    statement : str
        What is claimed.
    hypotheses : tuple of str
        Under which conditions.
    source : str
        Paper and equation.
    about : tuple
        The functions and classes of nlsim that it speaks of.
    checks : tuple of callable
        Each ``check(effort) -> Evidence``.
    """

    key: str
    title: str
    statement: str
    hypotheses: tuple[str, ...]
    source: str
    about: tuple[object, ...]
    checks: tuple[Callable[[Effort], Evidence], ...]

    @property
    def family(self) -> str:
        """Return the part of the key before the point."""
        return self.key.partition(".")[0]
