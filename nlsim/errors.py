"""Every error that nlsim raises on purpose.

An error says where the fault is, what was given, what is allowed, and what to do. It is for
mistakes of the caller only: physics that goes wrong is a named
:class:`~nlsim.core.ending.Ending`, not an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name closest to a misspelt one, or None when nothing is close."""
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return close[0] if close else None


class NlsimError(Exception):
    """A mistake of the caller: where, what was given, what is allowed, what to do.

    Parameters
    ----------
    problem : str
        One sentence that says what is wrong.
    where : str, optional
        File, table and key, or the argument's name.
    given : object, optional
        The offending value.
    allowed : str, optional
        What would have been accepted.
    advice : str, optional
        What to do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        given: object = None,
        allowed: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = where
        self.given = given
        self.allowed = allowed
        self.advice = advice
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.problem]
        for label, value in (("where", self.where), ("given", self.given), ("allowed", self.allowed)):
            if value is not None:
                text = value if isinstance(value, str) else repr(value)
                lines.append(f"  {label + ':':<9}{text}")
        if self.advice is not None:
            lines.append(f"  {'do:':<9}{self.advice}")
        return "\n".join(lines)


class ScenarioError(NlsimError):
    """A scenario that cannot be read, is not valid, or asks for the impossible."""


class UnknownNameError(NlsimError):
    """A name that no catalogue has."""


class CapabilityError(NlsimError):
    """A stepper needs a structure that the system does not have."""


class DataError(NlsimError):
    """A data set that is unknown or not installed."""


class DeviceError(NlsimError):
    """A device that is not there."""


class RunFileError(NlsimError):
    """A run file that cannot be written, or is not one of ours."""


def unknown_name(kind: str, given: str, allowed: Iterable[str], where: str | None = None) -> UnknownNameError:
    """Build the error for a name that is in no catalogue, with a suggestion when one is close."""
    names = sorted(allowed)
    guess = did_you_mean(given, names)
    return UnknownNameError(
        f"There is no {kind} of this name.",
        where=where,
        given=given,
        allowed=", ".join(names),
        advice=f"Did you mean '{guess}'?" if guess else None,
    )
