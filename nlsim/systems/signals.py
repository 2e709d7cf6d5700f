"""Inputs u(t) and targets z(t) as functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs, Piece


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
        u₀, A, ω (angular, in 1/time) and φ for input and target, each broadcastable to its value.
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

        def wave(name: str) -> Tensor:
            offset, amplitude = getattr(self.offset, name), getattr(self.amplitude, name)
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
        # an edge is the float j·interval; the quotient may fall short of j by a rounding error
        return math.floor(t / self.interval * (1 + 4e-16) + 1e-12)

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


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return one-hot rows for integer labels 0 … classes − 1."""
    return torch.nn.functional.one_hot(labels.long(), classes).to(dtype)
