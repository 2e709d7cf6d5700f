"""Masks m(t) as functions of time, and the signal that carries one.

A mask is 1 where an entry of the input is observed, 0 where it is missing, and in between where it is only partly
relied upon. Where it jumps is an edge: the loop lands there, so that a jump of the mask is a kink of the state and
never happens inside a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs, Piece, Signal, interval_after
from nlsim.errors import NlsimError
from nlsim.systems.masked.check import check_values
from nlsim.systems.signals import interval_index

MaskPiece = Callable[[float], Tensor]
"""A mask as a function of time, smooth between two edges."""

_DOUBLE = torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class HeldMask:
    """A mask that does not move until the next edge.

    Parameters
    ----------
    mask : Tensor
        m, broadcastable to the input.
    """

    mask: Tensor

    def __call__(self, t: float) -> Tensor:
        """Return the mask."""
        return self.mask


class Mask(Protocol):
    """A mask over all time, smooth between edges."""

    def edge_after(self, t: float, /) -> float:
        """Return the first edge later than t, or infinity."""
        ...

    def piece(self, t: float, /) -> MaskPiece:
        """Return the mask on the smooth stretch that begins at (or contains) t; a HeldMask where it is constant."""
        ...


@dataclass(frozen=True)
class Outage:
    """A time during which a sensor says nothing.

    Parameters
    ----------
    sensor : int or None
        Which input, from 0; None: all of them, a blackout.
    start, stop : float
        Missing for start ≤ t < stop.
    """

    sensor: int | None
    start: float
    stop: float


@dataclass(frozen=True, eq=False)
class Outages:
    """Whole sensors that fall silent for a while, for all samples alike; shape ``(sensors,)``.

    Parameters
    ----------
    outages : sequence of Outage
        They may overlap.
    sensors : int
        p, the number of inputs.
    like : Tensor
        Its dtype and device are those of the mask.

    Raises
    ------
    NlsimError
        When an outage ends before it begins, or is of a sensor that is not there.
    """

    outages: Sequence[Outage]
    sensors: int
    like: Tensor = _DOUBLE

    def __post_init__(self) -> None:
        for position, each in enumerate(self.outages):
            where = f"outages[{position}]"
            if not each.start < each.stop:
                raise NlsimError("An outage takes time.", where=where, given=each, allowed="start < stop")
            if each.sensor is not None and not 0 <= each.sensor < self.sensors:
                raise NlsimError(
                    "There is no such sensor.",
                    where=where,
                    given=each.sensor,
                    allowed=f"0 to {self.sensors - 1}, or None for all",
                )

    def edge_after(self, t: float) -> float:
        """Return the next beginning or end of an outage."""
        return min((edge for each in self.outages for edge in (each.start, each.stop) if edge > t), default=math.inf)

    def piece(self, t: float) -> MaskPiece:
        """Return the sensors that work at t."""
        mask = torch.ones(self.sensors, dtype=self.like.dtype, device=self.like.device)
        for each in self.outages:
            if each.start <= t < each.stop:
                mask[slice(None) if each.sensor is None else each.sensor] = 0.0
        return HeldMask(mask)


@dataclass(frozen=True, eq=False)
class RandomMask:
    """Entries missing completely at random, drawn anew at every interval.

    During interval j (t from j·interval to (j+1)·interval, t ≥ 0) each entry is observed with probability ρ,
    independently of the others. What is missing depends on (seed, j) alone, never on what was asked before.

    Parameters
    ----------
    sensors : int
        p, the number of inputs.
    rate : float or Tensor
        ρ in [0, 1]; a tensor of shape ``(sensors,)`` for one rate a sensor.
    interval : float
        How long a draw lasts, > 0, in units of time.
    samples : int or None
        Each sample has draws of its own, shape ``(samples, sensors)``; None: a sensor drops out for all samples at
        once, shape ``(sensors,)``.
    seed : int
        Decides the draws.
    like : Tensor
        Its dtype and device are those of the mask.

    Raises
    ------
    NlsimError
        When ρ is no probability, there are more or fewer rates than sensors, or the interval takes no time.
    """

    sensors: int
    rate: float | Tensor
    interval: float
    samples: int | None = None
    seed: int = 0
    like: Tensor = _DOUBLE

    def __post_init__(self) -> None:
        rates = torch.as_tensor(self.rate, dtype=torch.float64)
        if not bool(((rates >= 0) & (rates <= 1)).all()):
            raise NlsimError("A rate of observation is a probability.", where="rate", given=self.rate, allowed="0 to 1")
        if rates.shape not in ((), (self.sensors,)):
            raise NlsimError(
                "There is one rate for all sensors, or one for each.",
                where="rate",
                given=f"shape {tuple(rates.shape)}",
                allowed=f"a number, or shape ({self.sensors},)",
            )
        if not (self.interval > 0 and math.isfinite(self.interval)):
            raise NlsimError(
                "The interval of a random mask takes time.",
                where="interval",
                given=self.interval,
                allowed="finite, interval > 0",
            )

    def edge_after(self, t: float) -> float:
        """Return the end of the interval that begins at or contains t."""
        return (interval_index(t, self.interval) + 1) * self.interval

    def piece(self, t: float) -> MaskPiece:
        """Return the draw of the interval that begins at or contains t."""
        shape = (self.sensors,) if self.samples is None else (self.samples, self.sensors)
        drawn = generator(self.seed, "mask", interval_index(t, self.interval)).random(shape)
        rate = torch.as_tensor(self.rate, dtype=torch.float64, device="cpu")
        seen = torch.from_numpy(drawn) < rate  # drawn in [0, 1): never at ρ = 0, always at ρ = 1
        return HeldMask(seen.to(dtype=self.like.dtype, device=self.like.device))


@dataclass(frozen=True, eq=False)
class Reliability:
    """A soft mask that moves smoothly, m_j(t) = m₀ + A sin(ω t + φ).

    Parameters
    ----------
    level, amplitude, frequency, phase : Tensor
        m₀, A, ω (angular, in 1/time) and φ, which broadcast against each other to a mask.

    Raises
    ------
    NlsimError
        When they do not broadcast, the mask would leave [0, 1], or ω or φ is not finite.
    """

    level: Tensor
    amplitude: Tensor
    frequency: Tensor
    phase: Tensor

    def __post_init__(self) -> None:
        parts = (self.level, self.amplitude, self.frequency, self.phase)
        try:
            torch.broadcast_shapes(*(each.shape for each in parts))  # type: ignore[no-untyped-call]
        except RuntimeError:
            raise NlsimError(
                "These parts of a reliability make no mask together.",
                where="level, amplitude, frequency, phase",
                given=", ".join(str(tuple(each.shape)) for each in parts),
                allowed="shapes that broadcast against each other",
            ) from None
        if not all(bool(torch.isfinite(each).all()) for each in parts[2:]):
            raise NlsimError(
                "A reliability that moves has a frequency and a phase.",
                where="frequency, phase",
                given=(self.frequency.tolist(), self.phase.tolist()),
                allowed="finite numbers",
            )
        if not bool((self.amplitude.abs() <= torch.minimum(self.level, 1 - self.level)).all()):
            raise NlsimError(
                "This reliability leaves the range of a mask.",
                where="level, amplitude",
                given=(self.level.tolist(), self.amplitude.tolist()),
                allowed="level ± amplitude within [0, 1]",
            )

    def edge_after(self, t: float) -> float:
        """Return infinity: there are no edges."""
        return math.inf

    def piece(self, t: float) -> MaskPiece:
        """Return the sinusoids."""
        return self.at

    def at(self, t: float) -> Tensor:
        """Return m(t)."""
        return self.level + self.amplitude * torch.sin(self.frequency * t + self.phase)

    def slope(self, t: float) -> Tensor:
        """Return dm/dt."""
        return self.amplitude * self.frequency * torch.cos(self.frequency * t + self.phase)


@dataclass(frozen=True, eq=False)
class MissingValues:
    """A signal whose input has NaN where nothing was observed: those entries are masked.

    Parameters
    ----------
    signal : Signal
        u(t) and z(t); a mask that it has already is multiplied in.
    """

    signal: Signal

    def edge_after(self, t: float) -> float:
        """Return the next edge of the signal."""
        return self.signal.edge_after(t)

    def interval_after(self, t: float) -> float:
        """Return the end of the signal's interval."""
        return interval_after(self.signal, t)

    def piece(self, t: float) -> Piece:
        """Return the signal's piece with its mask; held where it is held."""
        inner = self.signal.piece(t)
        if isinstance(inner, Held):
            return Held(without_missing(inner.inputs))
        return lambda now: without_missing(inner(now))


def without_missing(inputs: Inputs) -> Inputs:
    """Return the inputs with a mask that is 0 where the input is NaN."""
    if inputs.input is None:
        return inputs
    seen = (inputs.input == inputs.input).to(inputs.input.dtype)
    return replace(inputs, mask=seen if inputs.mask is None else inputs.mask * seen)


@dataclass(frozen=True, eq=False)
class MaskedSignal:
    """A signal seen through masks: an entry is relied upon as far as all of them do, m = Π_k m_k.

    A mask that the signal has already is one of them. Edges are those of the signal and of the masks together; where
    nothing moves the piece is held.

    Parameters
    ----------
    signal : Signal
        u(t) and z(t).
    masks : sequence of Mask
        m_k(t).

    Raises
    ------
    NlsimError
        When a mask, or that of the signal, leaves [0, 1] or is NaN at the start, or the input and the masks do not fit
        each other. What they are later is not looked at: of the masks of this module it follows.
    """

    signal: Signal
    masks: Sequence[Mask]

    def __post_init__(self) -> None:
        shown = self.signal.piece(0.0)(0.0)
        named = [(f"masks[{position}]", each.piece(0.0)(0.0)) for position, each in enumerate(self.masks)]
        if shown.mask is not None:
            named.append(("signal, mask", shown.mask))
        for where, mask in named:
            check_values(mask, where)
        if shown.input is None:
            return
        shapes = [tuple(shown.input.shape), *(tuple(mask.shape) for _, mask in named)]
        if any(shape[-1:] not in ((), (1,), shapes[0][-1:]) for shape in shapes):
            raise NlsimError(
                "A mask has one entry for each input, or one for all.",
                where="masks",
                given=", ".join(f"{where}: shape {shape}" for (where, _), shape in zip(named, shapes[1:], strict=True)),
                allowed=f"{shapes[0][-1]} in the last place, or 1: the input has shape {shapes[0]}",
            )

    def edge_after(self, t: float) -> float:
        """Return the next edge of the signal or of a mask."""
        return min(self.signal.edge_after(t), *(each.edge_after(t) for each in self.masks), math.inf)

    def interval_after(self, t: float) -> float:
        """Return the end of the signal's interval: what a mask does ends none."""
        return interval_after(self.signal, t)

    def piece(self, t: float) -> Piece:
        """Return the signal's piece with the product of the masks."""
        inner, parts = self.signal.piece(t), [each.piece(t) for each in self.masks]

        def masked(now: float) -> Inputs:
            shown = inner(now)
            mask = shown.mask
            for part in parts:
                mask = part(now) if mask is None else mask * part(now)
            return replace(shown, mask=mask)

        if isinstance(inner, Held) and all(isinstance(part, HeldMask) for part in parts):
            return Held(masked(t))
        return masked
