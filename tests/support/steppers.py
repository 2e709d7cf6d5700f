"""Which steppers of the catalogue a test is about."""

from __future__ import annotations

from typing import Any

from nlsim.errors import CapabilityError
from nlsim.integrate.catalogue import STEPPERS as ALL


def accepts(stepper: Any, system: Any) -> bool:
    """Whether a stepper finds in the system the structure that it needs."""
    try:
        stepper.require(system)
    except CapabilityError:
        return False
    return True


FIRST_NAMES = (
    "explicit_euler",
    "heun",
    "rk4",
    "implicit_sweep",
    "exponential_sweep",
    "exponential_euler",
)
FIRST = {name: ALL[name] for name in FIRST_NAMES}
"""Steppers of plain and of relaxing systems; the others have laws of their own beside their modules."""
