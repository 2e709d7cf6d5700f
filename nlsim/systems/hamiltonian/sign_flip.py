"""Hamiltonian sign flip: all of a vector field multiplied by s ∈ {−1, +1} (Betti & Gori, section 4.2, eq. 23).

The sign multiplies the field in un-normalised variables. With φ ≡ 1 there is no difference; a system in
normalised costates π = p/φ says with ``discount`` which part −θπ of its field came from the normalisation,
and that part keeps its sign.

**Where the sign comes from.** A sign that flips at given times is an input, not a property of an instant:
at a flip the stage that ends one step and the stage that begins the next are evaluated at the same t and
need different signs. So the sign travels with the inputs. :class:`PeriodicFlip` drives a signal, the
driven signal has an edge at every flip and each of its pieces carries one sign; the loop lands on edges
exactly, whatever dt is, and a stretch of constant sign is as long as any other. To flip at every step,
give dt as the half-period. A sign that depends on the state (:class:`TrackBall`) needs no such thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from nlsim.core.observable import Observable
from nlsim.core.state import leaves, map_leaves, state_class
from nlsim.core.system import Inputs, Observed, Piece, Signal, System
from nlsim.errors import CapabilityError, NlsimError
from nlsim.systems.hamiltonian.problem import align
from nlsim.systems.network import Constant

S = TypeVar("S")


class Discounted(Protocol[S]):
    """A system in normalised costates."""

    def discount(self, state: S, /) -> S | None:
        """Return the part −θπ of the field (0 for everything but costates), or None when θ = 0."""
        ...


class FlipPolicy(Protocol):
    """Says which way the field runs."""

    def sign(self, t: float, state: Any, inputs: Inputs, /) -> Constant:
        """Return +1 or −1, broadcastable to every tensor of the state."""
        ...


@state_class
class SignedInputs(Inputs):
    """Inputs on a stretch of constant sign.

    Attributes
    ----------
    sign : Tensor
        s = +1 or −1, without axes.
    """

    sign: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class ConstantSign:
    """The same sign for ever: −1 runs an autonomous system backward in time (Proposition 3).

    Parameters
    ----------
    value : int
        +1 or −1.
    """

    value: int

    def sign(self, t: float, state: Any, inputs: Inputs) -> Constant:
        """Return the sign."""
        return float(self.value)


@dataclass(frozen=True)
class PeriodicFlip:
    """s(t) = (−1)^⌊(t + offset)/half_period⌋.

    Parameters
    ----------
    half_period : float
        Length of a stretch of one sign, > 0. n·dt flips every n steps; the published sign(cos ω̄t) is
        half_period = π/ω̄ with an offset of half of it.
    offset : float
        How far into the first stretch the run begins, in [0, half_period).

    Raises
    ------
    NlsimError
        When a parameter is out of range.
    """

    half_period: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.half_period > 0 and math.isfinite(self.half_period)):
            raise NlsimError(
                "A flip needs a stretch of positive length.",
                where="half_period",
                given=self.half_period,
                allowed="> 0 and finite",
                advice="Give n·dt to flip every n steps, or ConstantSign(1) not to flip at all.",
            )
        if not 0 <= self.offset < self.half_period:
            raise NlsimError(
                "The offset must lie within the first stretch.",
                where="offset",
                given=self.offset,
                allowed=f"from 0 to below half_period = {self.half_period}",
            )

    def stretch(self, t: float) -> int:
        """Return the number of the stretch that begins at or contains t.

        A time within a billionth of a half-period before a flip counts as the flip itself, as for the loop,
        so a rounded time never gets the old sign for the whole of a new stretch.
        """
        passed = (t + self.offset) / self.half_period
        return math.floor(passed + 1e-9 + 1e-15 * abs(passed))

    def edge_after(self, t: float) -> float:
        """Return the first flip later than t."""
        return (self.stretch(t) + 1) * self.half_period - self.offset

    def drive(self, signal: Signal) -> FlippedSignal:
        """Return the signal whose pieces carry the sign and whose edges include the flips."""
        return FlippedSignal(signal, self)

    def sign(self, t: float, state: Any, inputs: Inputs) -> Constant:
        """Return the sign that the inputs carry.

        Raises
        ------
        CapabilityError
            When the inputs come from a signal that was not driven.
        """
        if not isinstance(inputs, SignedInputs):
            raise CapabilityError(
                "A periodic flip needs inputs that carry its sign.",
                given=type(inputs).__name__,
                allowed="SignedInputs",
                advice="Run the system on policy.drive(signal) instead of the bare signal.",
            )
        return inputs.sign


_FORWARD = torch.tensor(1.0, dtype=torch.float64)
_BACKWARD = torch.tensor(-1.0, dtype=torch.float64)
# without axes: multiplying by them changes neither dtype nor device of a tensor that has axes


@dataclass(frozen=True)
class FlippedSignal:
    """A signal with the flips as further edges.

    Parameters
    ----------
    signal : Signal
        What drives the system.
    flip : PeriodicFlip
        When the sign changes.
    """

    signal: Signal
    flip: PeriodicFlip

    def edge_after(self, t: float) -> float:
        """Return the next flip or edge of the signal."""
        return min(self.signal.edge_after(t), self.flip.edge_after(t))

    def piece(self, t: float) -> Piece:
        """Return the signal's piece with the sign of the stretch that begins at or contains t."""
        inner = self.signal.piece(t)
        sign = _BACKWARD if self.flip.stretch(t) % 2 else _FORWARD

        def signed(now: float) -> SignedInputs:
            inputs = inner(now)
            return SignedInputs(inputs.input, inputs.target, inputs.mask, sign=sign)

        return signed


@dataclass(frozen=True)
class TrackBall:
    """Hamiltonian track (eq. 24) with a ball: s = +1 where |y|² + |p|² ≤ R², −1 outside.

    The norm runs over the whole state, member by member of an ensemble (every tensor has two axes
    behind those of the ensemble). The sign is discontinuous in the state: near the sphere a run chatters.

    Parameters
    ----------
    radius : float or Tensor
        R > 0; a tensor has the ensemble axes.
    """

    radius: Constant

    def sign(self, t: float, state: Any, inputs: Inputs) -> Constant:
        """Return the sign, with two trailing axes."""
        square = sum(leaf.square().sum((-2, -1)) for leaf in leaves(state))
        inside = torch.as_tensor(square) <= self.radius**2
        return align(torch.where(inside, 1.0, -1.0).to(leaves(state)[0].dtype))


@dataclass(frozen=True)
class SignFlip(Generic[S]):
    """A system whose vector field is s times that of another.

    Whatever s does, the Hamiltonian of the wrapped system changes only by its explicit dependence on time.
    Under an accurate integrator a flip undoes what was done before it; see
    :mod:`nlsim.systems.hamiltonian.averaged_flip` for what explicit Euler makes of it.

    Parameters
    ----------
    system : System
        The system to flip, in un-normalised variables or :class:`Discounted`.
    policy : FlipPolicy
        Which way it runs; :class:`PeriodicFlip` wants its driven signal.
    """

    system: System[S]
    policy: FlipPolicy

    def vector_field(self, t: float, state: S, inputs: Inputs) -> S:
        """Return s F, or s (F − D) + D with the discount part D of a discounted system."""
        sign = self.policy.sign(t, state, inputs)
        velocity = self.system.vector_field(t, state, inputs)
        # asked by name: isinstance with a protocol costs as much as a small vector field
        discount_of = getattr(self.system, "discount", None)
        discount = None if discount_of is None else discount_of(state)
        if discount is None:
            return map_leaves(lambda f: sign * f, velocity)
        return map_leaves(lambda f, d: sign * (f - d) + d, velocity, discount)

    def observables(self) -> Mapping[str, Observable]:
        """Return the channels of the wrapped system, and ``sign``."""

        def sign(t: float, state: S, inputs: Inputs) -> Tensor:
            like = leaves(state)[0]
            return (self.policy.sign(t, state, inputs) * torch.ones_like(like[..., :1, :1]))[..., 0, 0]

        inner = self.system.observables() if isinstance(self.system, Observed) else {}
        return {**inner, "sign": Observable("sign", (), "sign s of the flipped field", sign)}
