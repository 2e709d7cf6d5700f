"""A discount φ(t) of any form: time weighted as one likes, not only by e^{θt}.

With normalised costates π = p/φ the discount enters the equations through θ(t) = φ̇(t)/φ(t) alone:
dπ/dt = (what it is without a discount) − θ(t) π. The standard case of a constant θ is a constant of the systems
themselves; this wraps one whose θ is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import map_leaves
from nlsim.core.system import Inputs
from nlsim.errors import CapabilityError

COSTATES = ("costate", "weight_costate")
"""Names under which states keep their normalised costates."""


@dataclass(frozen=True)
class Discounted:
    """A system of states and normalised costates under a discount φ(t) > 0 (Betti & Gori, eq. 8).

    Parameters
    ----------
    system : Any
        Hamilton's equations or a reversal of them, with a dissipation of 0.
    rate : callable
        ``rate(t) -> θ(t) = φ̇/φ``, in 1/time; any sign, smooth between the edges of the inputs.

    Raises
    ------
    CapabilityError
        When the system has a dissipation of its own.
    """

    system: Any
    rate: Callable[[float], float | Tensor]

    def __post_init__(self) -> None:
        own = getattr(getattr(self.system, "problem", None), "dissipation", 0.0)
        if bool(torch.as_tensor(own).any()):
            raise CapabilityError(
                "The system has a discount already.",
                where="dissipation",
                given=own,
                allowed="0",
                advice="Give its θ as a part of rate(t): the two add up.",
            )

    def vector_field(self, t: float, state: Any, inputs: Inputs) -> Any:
        """Return the system's field, with −θ(t) π added for every costate."""
        free, theta = self.system.vector_field(t, state, inputs), self.rate(t)
        changed = {
            each.name: map_leaves(lambda f, pi: f - theta * pi, getattr(free, each.name), getattr(state, each.name))
            for each in fields(state)
            if each.name in COSTATES
        }
        return replace(free, **changed)

    def hamiltonian(self, t: float, state: Any, inputs: Inputs) -> Tensor:
        """Return H/φ."""
        value: Tensor = self.system.hamiltonian(t, state, inputs)
        return value

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of the system."""
        channels: Mapping[str, Observable] = self.system.observables()
        return channels
