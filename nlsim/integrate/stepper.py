"""What a stepper is: a one-step method Φ_h, asked for any number of equal steps at a time."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from nlsim.core.system import Piece
from nlsim.errors import CapabilityError

S = TypeVar("S")


@runtime_checkable
class Stepper(Protocol):
    """A one-step method.

    Attributes
    ----------
    name : str
        Its name in scenarios.
    order : int
        Order of the global error, observed on smooth problems by the law tests.
    stability_limit : float
        Largest stable r·h on ẏ = −r y; infinite for the sweeps.
    """

    @property
    def name(self) -> str:
        """Return the name in scenarios."""
        ...

    @property
    def order(self) -> int:
        """Return the order of the global error."""
        ...

    @property
    def stability_limit(self) -> float:
        """Return the largest stable r·h on ẏ = −r y."""
        ...

    def require(self, system: Any, /) -> None:
        """Raise CapabilityError when the system lacks a structure that this method needs."""
        ...

    def advance(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int, /) -> S:
        """Return the state after ``steps`` steps of length dt from time t; the given state is kept intact."""
        ...


@runtime_checkable
class Iterative(Protocol):
    """A stepper whose steps are equations, solved by a fixed number of iterations that may not suffice.

    The iterations are never counted on the host: the steps of one call are taken as they come, and how well
    the worst of them was solved is looked at once, afterwards.
    """

    @property
    def tolerance(self) -> float:
        """Return the largest residual of a step that counts as solved, relative to the state."""
        ...

    def advance_judged(
        self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int, /
    ) -> tuple[S, Tensor]:
        """Return what ``advance`` returns, and the largest residual of any of the steps as a 0-d tensor."""
        ...


def require_structure(system: Any, structure: type, stepper: str, advice: str) -> None:
    """Raise CapabilityError unless the system offers the named structure (a runtime-checkable protocol)."""
    if not isinstance(system, structure):
        raise CapabilityError(
            f"The stepper '{stepper}' needs a system that is {structure.__name__}.",
            given=type(system).__name__,
            advice=advice,
        )
