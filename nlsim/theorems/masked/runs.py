"""Random masked neurons, and the loop that runs them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.randomness import generator
from nlsim.core.system import Held, Inputs, Piece, Signal
from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop, Tick
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages, RandomMask
from nlsim.systems.signals import Constant

EPSILON = 2.0**-52

LIPSCHITZ = {"identity": 1.0, "logistic": 0.25, "relu": 1.0, "softplus": 1.0, "tanh": 1.0}
"""L of every activation: sup |φ'|."""


@dataclass(frozen=True)
class Draw:
    """Neurons, their inputs and a state, all decided by a seed.

    Attributes
    ----------
    seed, neurons, inputs, samples : int
        What decides, and how many.
    activation : str
        φ.
    norm : float
        ‖V‖₂; 0 for no recurrence.
    speed : float
        c.
    form : str
        ``"state"`` or ``"potential"``.
    """

    seed: int = 0
    neurons: int = 4
    inputs: int = 3
    samples: int = 2
    activation: str = "tanh"
    norm: float = 0.0
    speed: float = 1.0
    form: Any = "state"

    def tensor(self, purpose: str, *shape: int) -> Tensor:
        """Return normal numbers."""
        return torch.as_tensor(generator(self.seed, purpose).normal(size=shape))

    def given(self) -> Inputs:
        """Return u, one row a sample."""
        return Inputs(self.tensor("input", self.samples, self.inputs))

    def state(self, purpose: str = "state") -> Tensor:
        """Return a random state."""
        return self.tensor(purpose, self.samples, self.neurons)

    def recurrent(self, *, is_symmetric: bool = False) -> Tensor:
        """Return V with the norm asked for."""
        matrix = self.tensor("recurrent", self.neurons, self.neurons)
        if is_symmetric:
            matrix = (matrix + matrix.mT) / 2
            # eigenvalues of a symmetric matrix are its singular values up to sign; a division keeps it symmetric
        return matrix * (self.norm / float(torch.linalg.matrix_norm(matrix, 2)))

    def neuron(self, **changed: Any) -> MaskedNeuron:
        """Return the neurons; fields may be changed by name."""
        built = MaskedNeuron(
            self.tensor("weight", self.neurons, self.inputs),
            ACTIVATIONS[self.activation],
            self.tensor("bias", self.neurons),
            self.recurrent() if self.norm else None,
            speed=self.speed,
            form=self.form,
        )
        return replace(built, **changed)

    def contributions(self) -> Tensor:
        """Return C_ij = W_ij u_j + b_i/p of every sample, from the definition."""
        neuron, u = self.neuron(), self.given().input
        assert neuron.bias is not None
        assert u is not None
        return neuron.weight * u.unsqueeze(-2) + neuron.bias.unsqueeze(-1) / self.inputs

    def random_mask(self, rate: float, interval: float, seed: int = 0) -> RandomMask:
        """Return masks drawn anew at every interval, sample by sample."""
        return RandomMask(self.inputs, rate, interval, self.samples, self.seed + seed)

    def blackout(self, start: float, stop: float) -> MaskedSignal:
        """Return the constant input with a time in which nothing is seen."""
        return MaskedSignal(Constant(self.given()), (Outages((Outage(None, start, stop),), self.inputs),))


def draws(
    activations: Sequence[str] = tuple(LIPSCHITZ),
    norms: st.SearchStrategy[float] | None = None,
    forms: Sequence[str] = ("state", "potential"),
) -> st.SearchStrategy[Draw]:
    """Draw neurons of all sizes."""
    return st.builds(
        Draw,
        st.integers(0, 10**6),
        st.integers(1, 5),
        st.integers(1, 5),
        st.integers(1, 3),
        st.sampled_from(sorted(activations)),
        st.just(0.0) if norms is None else norms,
        st.floats(0.3, 4.0),
        st.sampled_from(sorted(forms)),
    )


def run(
    system: Any, signal: Signal, state: Any, stepper: Any, dt: float, until: float, records: Sequence[float] = ()
) -> list[Tick[Any]]:
    """Run the loop, and return its ticks, the last being at the end.

    Raises
    ------
    ArithmeticError
        When the run ends in any other way.
    """
    loop = Loop(system, FixedStep(stepper, dt), signal, state, until=until, record_times=[*records, until])
    ticks = list(loop)
    if loop.ending is not Ending.REACHED_END:
        raise ArithmeticError(f"the run ended as {loop.ending}: {loop.detail}")
    return ticks


def rows(values: Tensor) -> Tensor:
    """Return the Euclidean norm of every sample."""
    return values.square().sum(-1).sqrt()


@dataclass(frozen=True)
class Garbage:
    """A masked signal whose missing slots hold NaN or infinity, whatever was there."""

    signal: Signal
    value: float = math.nan

    def edge_after(self, t: float) -> float:
        """Return the signal's edge."""
        return self.signal.edge_after(t)

    def piece(self, t: float) -> Piece:
        """Return the held piece with its missing slots overwritten."""
        shown = self.signal.piece(t)(t)
        assert shown.input is not None
        assert shown.mask is not None
        return Held(replace(shown, input=torch.where(shown.mask > 0, shown.input, self.value)))


@dataclass(frozen=True)
class HiddenEdges:
    """A signal that says nothing of its edges, so that steps cross them: a control."""

    signal: Signal

    def edge_after(self, t: float) -> float:
        """Return infinity."""
        return math.inf

    def piece(self, t: float) -> Piece:
        """Return the inputs as they are at every time."""
        return lambda now: self.signal.piece(now)(now)
