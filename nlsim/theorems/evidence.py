"""What speaks for a theorem: legs, findings, verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Leg(StrEnum):
    """Kinds of evidence."""

    PROOF = "proof"
    BRIDGE = "bridge"
    PROPERTY = "property"
    ORDER = "order"
    CONTROL = "control"
    COUNTEREXAMPLE = "counterexample"


class Finding(StrEnum):
    """Outcome of one check. Undecided is never a pass."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


class Verdict(StrEnum):
    """What all the evidence together says.

    ``proved``: the algebra is proved on the graphs that the proof leg names and bridged to the running code,
    and nothing speaks against it; rates and orders in the statement rest on their numerical legs. ``holds``: numerical
    evidence only. ``refuted``: false as published, with an explicit counterexample that was verified.
    ``undecided``: some check came to no end. ``failed``: a check failed, so the code or the theorem is
    broken.
    """

    PROVED = "proved"
    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    FAILED = "failed"

    @property
    def is_good(self) -> bool:
        """Whether the theorem's entry stands as written."""
        return self in (Verdict.PROVED, Verdict.HOLDS, Verdict.REFUTED)


@dataclass(frozen=True)
class Table:
    """Numbers that belong together.

    Attributes
    ----------
    title : str
        What it shows.
    columns : tuple of str
        Headings.
    rows : tuple of tuple of str
        Cells as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Evidence:
    """What one check found.

    Attributes
    ----------
    leg : Leg
        Its kind.
    name : str
        What was checked.
    finding : Finding
        Whether it passed.
    expected, measured : str
        What had to come out, and what did; numbers included.
    tables : tuple of Table
        More numbers.
    """

    leg: Leg
    name: str
    finding: Finding
    expected: str
    measured: str
    tables: tuple[Table, ...] = field(default=())


def judge(is_true: bool | None) -> Finding:
    """Turn yes, no and don't know into a finding."""
    if is_true is None:
        return Finding.UNDECIDED
    return Finding.PASSED if is_true else Finding.FAILED


def verdict(evidence: Iterable[Evidence]) -> Verdict:
    """Return what the evidence says together."""
    found = list(evidence)
    findings = {each.finding for each in found}
    legs = {each.leg for each in found}
    if Finding.FAILED in findings:
        return Verdict.FAILED
    if Finding.UNDECIDED in findings or not found:
        return Verdict.UNDECIDED
    if Leg.COUNTEREXAMPLE in legs:
        return Verdict.REFUTED
    return Verdict.PROVED if {Leg.PROOF, Leg.BRIDGE} <= legs else Verdict.HOLDS
