"""What can be seen of a state: a named quantity with dimensions and a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nlsim.core.system import Inputs


@dataclass(frozen=True)
class Observable:
    """A quantity computed from time, state and inputs.

    Parameters
    ----------
    name : str
        Channel name, such as ``"loss"`` or ``"activity/2"``.
    dims : tuple of str
        Names of the trailing axes of the value; leading ensemble axes come before them.
    long_name : str
        For a person: what it is, with its symbol.
    evaluate : callable
        ``evaluate(t, state, inputs) -> Tensor``; pure.
    units : str
        ``"1"`` for a pure number; times are in units of the scenario's time.
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    evaluate: Callable[[float, Any, Inputs], torch.Tensor]
    units: str = "1"
