"""Inputs u(t) and targets z(t) as functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs, Piece

_DOUBLE = torch.empty(0, dtype=torch.float64)


def hold(inputs: Inputs) -> Piece:
    """Return a piece on which nothing moves."""
    return Held(inputs)


@dataclass(frozen=True)
class Constant:
    """An input and a target that never change."""

    inputs: Inputs

    def edge_after(self, t: float) -> float:
        """Return infinity: there are no edges."""
        return math.inf

    def piece(self, t: float) -> Piece:
        """Return the constant inputs."""
        return hold(self.inputs)


@dataclass(frozen=True)
class Sinusoid:
    """Smooth inputs and targets u(t) = u₀ + A sin(ω t + φ), entry by entry.

    Parameters
    ----------
    offset, amplitude, frequency, phase : Inputs
        u₀, A, ω (angular, in 1/time) and φ for input and target, each broadcastable to its value. All four without
        a target: there is none.
    """

    offset: Inputs
    amplitude: Inputs
    frequency: Inputs
    phase: Inputs

    def edge_after(self, t: float) -> float:
        """Return infinity: there are no edges."""
        return math.inf

    def piece(self, t: float) -> Piece:
        """Return the sinusoids."""
        return self.at

    def at(self, t: float) -> Inputs:
        """Return the inputs at time t."""

        def wave(name: str) -> Tensor | None:
            offset, amplitude = getattr(self.offset, name), getattr(self.amplitude, name)
            if offset is None:
                return None
            value: Tensor = offset + amplitude * torch.sin(
                getattr(self.frequency, name) * t + getattr(self.phase, name)
            )
            return value

        return Inputs(wave("input"), wave("target"))


@dataclass(frozen=True)
class HeldSamples:
    """A stream of mini-batches, each held for an interval.

    During interval j (t from j·interval to (j+1)·interval) the inputs are the samples at positions
    j·batch … (j+1)·batch − 1 of the concatenated epochs; every epoch is a permutation of all samples that
    depends on (seed, epoch) alone. A batch may straddle two epochs, so all batches have the same size.

    Parameters
    ----------
    inputs : Tensor
        All samples, shape ``(count, input)``.
    targets : Tensor
        Their targets, shape ``(count, output)``; one-hot rows for classes.
    batch : int
        Samples shown together, from 1 to any number.
    interval : float
        How long a batch is held, > 0, in units of time.
    seed : int
        Decides the order.
    """

    inputs: Tensor
    targets: Tensor
    batch: int
    interval: float
    seed: int = 0
    _orders: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def index(self, t: float) -> int:
        """Return the number of the interval that begins at or contains t."""
        return interval_index(t, self.interval)

    def edge_after(self, t: float) -> float:
        """Return the end of the interval that begins at or contains t."""
        return (self.index(t) + 1) * self.interval

    def piece(self, t: float) -> Piece:
        """Return the mini-batch of the interval that begins at or contains t, constant in time."""
        first = self.index(t) * self.batch
        chosen = self._positions(first, first + self.batch)
        return hold(Inputs(self.inputs[chosen], self.targets[chosen]))

    def _positions(self, start: int, stop: int) -> Tensor:
        count = len(self.inputs)
        parts = []
        while start < stop:
            epoch, offset = divmod(start, count)
            taken = self._order(epoch)[offset : offset + stop - start]
            parts.append(taken)
            start += len(taken)
        return torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.clear()  # a cache, never a memory: any epoch can be drawn again
            drawn = generator(self.seed, "order", epoch).permutation(len(self.inputs))
            self._orders[epoch] = torch.as_tensor(drawn, device=self.inputs.device)
        return self._orders[epoch]


def interval_index(t: float, interval: float) -> int:
    """Return ⌊t/interval⌋, the number of the interval that begins at or contains t."""
    # an edge is the float j·interval; the quotient may fall short of j by a rounding error
    return math.floor(t / interval * (1 + 4e-16) + 1e-12)


@dataclass(frozen=True, eq=False)
class SineTarget:
    """A target to follow, z(t) = A sin ωt, the same for every output of one sample.

    Parameters
    ----------
    amplitude : float
        A ≥ 0.
    frequency : float
        ω > 0, angular, in 1/time.
    outputs : int
        How many outputs follow it.
    like : Tensor
        Its dtype and device are those of the target.
    input : Tensor or None
        An input that never changes; a network without inputs wants one of shape ``(1, 0)``.
    """

    amplitude: float
    frequency: float
    outputs: int = 1
    like: Tensor = _DOUBLE
    input: Tensor | None = None

    def edge_after(self, t: float) -> float:
        """Return infinity: there are no edges."""
        return math.inf

    def piece(self, t: float) -> Piece:
        """Return the sinusoid; it may be differentiated by time."""
        return self.at

    def at(self, t: float | Tensor) -> Inputs:
        """Return the target at time t, shape ``(1, outputs)``; the phase is formed in float64."""
        phase = self.frequency * torch.as_tensor(t, dtype=torch.float64, device=self.like.device)
        wave = self.amplitude * torch.sin(phase)
        return Inputs(self.input, wave.to(self.like.dtype).expand(1, self.outputs))


@dataclass(frozen=True, eq=False)
class PatchedCosine:
    """A target that is hard to predict: pieces of cosines patched with constants, and no input.

    In interval j, from j·interval to (j+1)·interval, output i shows z_i = A cos ω_ij t for even j and a constant
    for odd j. ω_ij and the constants depend on (seed, j, i) alone. The target jumps at the edges.

    Parameters
    ----------
    seed : int
        Decides frequencies and constants.
    interval : float
        How long each piece lasts, > 0, in units of time.
    lowest_frequency, highest_frequency : float
        ω is uniform in between; angular, in 1/time.
    amplitude : float
        A ≥ 0; constants are uniform in ±A.
    outputs : int
        How many outputs follow it.
    like : Tensor
        Its dtype and device are those of the target.
    input : Tensor or None
        As in :class:`SineTarget`.
    """

    seed: int
    interval: float
    lowest_frequency: float
    highest_frequency: float
    amplitude: float = 1.0
    outputs: int = 1
    like: Tensor = _DOUBLE
    input: Tensor | None = None

    def edge_after(self, t: float) -> float:
        """Return the end of the interval that begins at or contains t."""
        return (interval_index(t, self.interval) + 1) * self.interval

    def piece(self, t: float) -> Piece:
        """Return the cosines or constants of the interval that begins at or contains t."""
        index = interval_index(t, self.interval)
        draw = generator(self.seed, "patched cosine", index)
        if index % 2:
            held = self._target(torch.from_numpy(draw.uniform(-self.amplitude, self.amplitude, self.outputs)))
            return hold(held)
        frequency = torch.from_numpy(draw.uniform(self.lowest_frequency, self.highest_frequency, self.outputs))

        def cosine(now: float) -> Inputs:
            return self._target(self.amplitude * torch.cos(frequency * now))

        return cosine

    def _target(self, values: Tensor) -> Inputs:
        return Inputs(self.input, values.unsqueeze(0).to(dtype=self.like.dtype, device=self.like.device))


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return one-hot rows for integer labels 0 … classes − 1."""
    return torch.nn.functional.one_hot(labels.long(), classes).to(dtype)
