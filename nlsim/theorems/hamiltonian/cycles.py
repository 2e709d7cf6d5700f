"""Random learning problems on digraphs with cycles and self-loops, for the numerical legs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.digraph import Digraph
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.loss import SQUARED_ERROR
from nlsim.theorems.hamiltonian.recurrent_backprop import random_graph, random_inputs


@dataclass(frozen=True)
class CyclicCase:
    """What fixes a random problem of 5 tanh neurons with unequal speeds; printed when a property fails."""

    seed: int
    speed: float = 1.0
    dissipation: float = 0.0

    def problem(self) -> LearningProblem[Digraph]:
        """Return the problem, with a finite mass and a regulariser."""
        network, _ = random_graph(self.seed, 1.0)
        relative = torch.from_numpy(generator(self.seed, "cyclic speed").uniform(0.5, 1.5, network.neurons))
        unequal = replace(network, speeds=relative / relative.mean())
        return LearningProblem(unequal, SQUARED_ERROR, (self.speed,), 0.7, self.dissipation, 0.2)

    def state(self) -> LearningState:
        """Return a generic point of the phase space; two samples."""
        network, weight = random_graph(self.seed, 1.0)
        draw = generator(self.seed, "cyclic phase")

        def normal(*shape: int) -> Tensor:
            return torch.from_numpy(draw.normal(size=shape))

        neurons = network.neurons
        return LearningState(
            (normal(2, neurons),), weight, (normal(2, neurons),), (normal(*network.mask.shape) * network.mask,)
        )

    def inputs(self) -> Inputs:
        """Return a batch of two."""
        return random_inputs(self.seed)


def cyclic_cases(max_dissipation: float) -> st.SearchStrategy[CyclicCase]:
    """Draw random digraphs, speeds and dissipations."""
    return st.builds(
        CyclicCase,
        st.integers(0, 10**6),
        st.floats(-0.3, 1.3).map(lambda p: 10**p),
        st.floats(0.0, max_dissipation),
    )
