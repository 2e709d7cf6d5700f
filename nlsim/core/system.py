"""The seams: what a system, a signal and their optional structures must offer.

A system says how its state moves, ``dy/dt = f(t, y; u(t))``. Extra structure is a further protocol; a
stepper that needs it names it, and a system without it is refused when a run is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch

from nlsim.core.state import state_class

if TYPE_CHECKING:
    from nlsim.core.observable import Observable

S = TypeVar("S")
S_in = TypeVar("S_in", contravariant=True)
Fraction = Callable[[Any], Any]


@state_class
class Inputs:
    """What drives a system at one instant.

    Parameters
    ----------
    input : Tensor or None
        u(t), shape ``(..., sample, input)``.
    target : Tensor or None
        z(t), shape ``(..., sample, output)``; one-hot rows for classes.
    mask : Tensor or None
        m(t), of the shape of the input or one that broadcasts to it: 1 where an entry of the input is observed, 0 where
        it is missing, in between for a reliability. None: everything is observed. Only systems with masked inputs
        look at it.
    """

    input: torch.Tensor | None = None
    target: torch.Tensor | None = None
    mask: torch.Tensor | None = None


Piece = Callable[[float], Inputs]
"""Inputs as a function of time, smooth between two edges of a signal."""


@dataclass(frozen=True)
class Held:
    """A piece on which nothing moves, so that what depends on the inputs alone can be computed once.

    Parameters
    ----------
    inputs : Inputs
        What is shown all the time.
    """

    inputs: Inputs

    def __call__(self, t: float) -> Inputs:
        """Return the inputs."""
        return self.inputs


class System(Protocol[S]):
    """A flow dy/dt = f(t, y; u)."""

    def vector_field(self, t: float, state: S, inputs: Inputs, /) -> S:
        """Return dy/dt as a state of the same shape of tree; pure."""
        ...


@runtime_checkable
class Relaxing(Protocol[S]):
    """A system with a fast block dy/dt = r(−y + g) whose parts can be visited in an order.

    In the order of a sweep each part relaxes towards a target made of parts already updated, so on an
    acyclic network one sweep solves the implicit step exactly.
    """

    def vector_field(self, t: float, state: S, inputs: Inputs, /) -> S:
        """Return dy/dt."""
        ...

    def rates(self, state: S, /) -> S:
        """Return the decay rate r of every tensor of the state, broadcastable to it; 0 for the slow block."""
        ...

    def sweep_(self, t: float, state: S, inputs: Inputs, dt: float, fraction: Fraction, /) -> None:
        """Advance the state in place by dt: fast parts in order, then the slow block.

        ``fraction(r * dt)`` is the fraction of its gap to the target that a part closes in the step:
        ``z / (1 + z)`` for implicit Euler, ``1 - exp(-z)`` for exponential Euler.
        """
        ...

    def slow_rate(self) -> float:
        """Return the decay rate of the slow block, which a sweep steps explicitly, in 1/time."""
        ...


@runtime_checkable
class Coupled(Protocol):
    """A relaxing system with a linear fast block whose parts all act on each other: no order of visits solves it.

    What others do to a part is then as fast as its own decay, and a step that is exact for that decay alone is not
    stable at every length.
    """

    def fastest_rate(self) -> float:
        """Return the largest decay rate, in 1/time."""
        ...

    def hardest_mode(self) -> tuple[Any, torch.Tensor, Inputs]:
        """Return the fastest mode alone: a system of one number, a state of size 1, inputs under which 0 is its rest.

        A step is stable on the system iff it makes this state smaller.
        """
        ...


@runtime_checkable
class Splittable(Protocol[S]):
    """A flow in two parts that are each solved exactly, as those of H = T(p, t) + V(q, t) are at a frozen time.

    Where the parts are canonical, any sequence of kicks and drifts is a symplectic map.
    """

    def vector_field(self, t: float, state: S, inputs: Inputs, /) -> S:
        """Return dy/dt: the sum of both parts."""
        ...

    def kick_(self, t: float, state: S, inputs: Inputs, dt: float, /) -> None:
        """Move the momenta in place by dt with positions and time held: p ← p − dt ∂V/∂q(q, t)."""
        ...

    def drift_(self, t: float, state: S, inputs: Inputs, dt: float, /) -> None:
        """Move the positions in place by dt with momenta and time held: q ← q + dt ∂T/∂p(p, t)."""
        ...


@runtime_checkable
class Conformal(Protocol[S]):
    """A system of states and normalised costates π = p/φ: Hamiltonian but for −θπ in the costate equation.

    Its flow is conformally symplectic, MᵀJM = e^{−θt} J. Which tensors are costates, and θ, is what
    ``dissipate_`` knows.
    """

    def vector_field(self, t: float, state: S, inputs: Inputs, /) -> S:
        """Return dy/dt: the conservative part, and −θπ for the costates."""
        ...

    def conservative(self) -> System[S]:
        """Return the same system with θ = 0."""
        ...

    def dissipate_(self, state: S, dt: float, /) -> None:
        """Multiply the costates by e^{−θ dt} in place: the exact flow of dπ/dt = −θπ; dt may be negative."""
        ...


@runtime_checkable
class Linearised(Protocol[S]):
    """A stiff system that can solve its own linearisation, as an implicit step needs.

    The solve may be approximate (one matrix for a whole batch, nothing for a slow block): it decides how
    fast the iteration of an implicit step converges, never what it converges to.
    """

    def vector_field(self, t: float, state: S, inputs: Inputs, /) -> S:
        """Return dy/dt."""
        ...

    def linear_solver(self, t: float, state: S, inputs: Inputs, scale: float, /) -> Callable[[S], S]:
        """Return a function that maps a residual r to d with (I − scale · J) d ≈ r, J = ∂f/∂y at the state.

        It is called several times, so what is costly (a factorisation) is done here once, without a read
        by the host. Parts that move slowly may be returned as they are: d = r.
        """
        ...


@runtime_checkable
class Stiff(Protocol):
    """A system that knows its fastest rate, so that explicit steps beyond it can be refused."""

    def fastest_rate(self) -> float:
        """Return the largest decay rate of the linear part, in 1/time."""
        ...


@runtime_checkable
class Hamiltonian(Protocol[S_in]):
    """A system with a Hamiltonian."""

    def hamiltonian(self, t: float, state: S_in, inputs: Inputs, /) -> torch.Tensor:
        """Return H, summed over samples; shape: the ensemble axes."""
        ...


@runtime_checkable
class Jumping(Protocol[S]):
    """A system whose state also jumps, y⁺ = g(t, y; u), at the end of every interval of the inputs.

    A run applies the jump at each end of an interval it comes to, never at its start, before anything of
    the next interval is done. What is shown or recorded at an edge is the state before the jump; the
    state that a run goes on from, a checkpoint's included, is the one after it.
    """

    def jump(self, t: float, state: S, ended: Inputs, begun: Inputs, /) -> S:
        """Return the state after the edge at t, from the state and the inputs before it and after it; pure."""
        ...


@runtime_checkable
class Holding(Protocol[S]):
    """A system part of whose state stands still between two jumps: weights, while activities settle.

    A run steps the moving part alone, so a stepper never adds zeros to what stands still.
    """

    def moving(self, state: S, piece: Piece, /) -> tuple[System[Any], Any]:
        """Return the system of the moving part and its state, on a stretch of inputs.

        What does not change on the stretch may be computed here, once.
        """
        ...

    def whole(self, state: S, moved: Any, /) -> S:
        """Return the state with its moving part replaced."""
        ...


@runtime_checkable
class FusedEuler(Protocol[S]):
    """A system that takes explicit Euler steps itself, with buffers reused, to the same result up to round-off."""

    def euler(self, piece: Piece, state: S, t: float, dt: float, steps: int, /) -> S:
        """Return y after ``steps`` steps y ← y + dt f(t, y); the given state is kept intact."""
        ...


@runtime_checkable
class Observed(Protocol):
    """A system that names what can be seen of its state."""

    def observables(self) -> Mapping[str, Observable]:
        """Return channel name -> observable."""
        ...


class Signal(Protocol):
    """Inputs over all time, smooth between edges."""

    def edge_after(self, t: float, /) -> float:
        """Return the first edge later than t, or infinity."""
        ...

    def piece(self, t: float, /) -> Piece:
        """Return the inputs on the smooth stretch that begins at (or contains) t."""
        ...


@runtime_checkable
class Intervals(Protocol):
    """A signal some of whose edges end no interval: a mask changes while the sample stays."""

    def interval_after(self, t: float, /) -> float:
        """Return the first end of an interval later than t, or infinity; one of the edges."""
        ...


def interval_after(signal: Signal, t: float) -> float:
    """Return the first end of an interval later than t: an edge, where the signal says no more than that."""
    return signal.interval_after(t) if isinstance(signal, Intervals) else signal.edge_after(t)
