"""Gather the evidence for theorems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nlsim.errors import unknown_name
from nlsim.theorems.catalogue import THEOREMS
from nlsim.theorems.evidence import Evidence, Finding, Leg, Verdict, verdict
from nlsim.theorems.statement import Effort, Theorem


@dataclass(frozen=True)
class Report:
    """A theorem with the evidence that was found.

    Attributes
    ----------
    theorem : Theorem
        What was looked at.
    evidence : tuple of Evidence
        One entry a check.
    seconds : float
        How long it took.
    """

    theorem: Theorem
    evidence: tuple[Evidence, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """Return what the evidence says together."""
        return verdict(self.evidence)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        theorem = self.theorem
        return {
            "key": theorem.key,
            "title": theorem.title,
            "statement": theorem.statement,
            "hypotheses": list(theorem.hypotheses),
            "source": theorem.source,
            "about": [f"{each.__module__}.{each.__qualname__}" for each in theorem.about],  # type: ignore[attr-defined]
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 3),
            "evidence": [asdict(each) for each in self.evidence],
        }


def verify(keys: Sequence[str] = (), *, family: str | None = None, effort: Effort | None = None) -> list[Report]:
    """Return a report on each theorem.

    Parameters
    ----------
    keys : sequence of str
        Which; all when empty.
    family : str, optional
        Only those whose key begins with it.
    effort : Effort, optional
        How hard to look.

    Raises
    ------
    UnknownNameError
        For a key or family that no theorem has.
    """
    return list(reports(keys, family=family, effort=effort))


def reports(keys: Sequence[str] = (), *, family: str | None = None, effort: Effort | None = None) -> Iterator[Report]:
    """Yield the reports of :func:`verify` one by one."""
    for theorem in choose(keys, family):
        begin = time.perf_counter()
        with torch.no_grad():
            evidence = tuple(look(check, effort or Effort()) for check in theorem.checks)
        yield Report(theorem, evidence, time.perf_counter() - begin)


def look(check: Callable[[Effort], Evidence], effort: Effort) -> Evidence:
    """Return what a check finds; one that cannot be carried out has failed, and the others still speak."""
    try:
        return check(effort)
    except ArithmeticError as error:
        name = str(getattr(check, "__name__", "check"))
        leg = Leg.PROOF if name.startswith("prove") else Leg.PROPERTY  # which it is, only a check that ends can tell
        what = f"{type(error).__name__}: {error}"
        return Evidence(leg, name.replace("_", " "), Finding.FAILED, "that it comes to an end", what)


def choose(keys: Sequence[str], family: str | None) -> list[Theorem]:
    """Return the theorems asked for."""
    for key in keys:
        if key not in THEOREMS:
            raise unknown_name("theorem", key, THEOREMS)
    families = {each.family for each in THEOREMS.values()}
    if family is not None and family not in families:
        raise unknown_name("family of theorems", family, families)
    chosen = [THEOREMS[key] for key in keys] or list(THEOREMS.values())
    return [each for each in chosen if family is None or each.family == family]
