"""Random learning problems for the numerical legs, all in float64 on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.backprop import backpropagate
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.systems.signals import Sinusoid


@dataclass(frozen=True)
class Case:
    """What fixes a random learning problem; printed when a property fails."""

    widths: tuple[int, ...]
    activation: str = "tanh"
    loss: str = "squared_error"
    has_bias: bool = True
    speed: float = 1.0
    dissipation: float = 0.0
    samples: int = 3
    seed: int = 0

    def problem(self, *, mass: float = math.inf) -> LearningProblem[LayeredNetwork]:
        """Return the problem; by default the weights are frozen (m = ∞)."""
        depth = len(self.widths) - 1
        network = LayeredNetwork(self.widths, (ACTIVATIONS[self.activation],) * depth, self.has_bias)
        return LearningProblem(network, LOSSES[self.loss], (self.speed,) * depth, mass, self.dissipation)

    def weights(self) -> tuple[Tensor, ...]:
        """Return random weights, biases included."""
        network = self.problem().network
        draw = generator(self.seed, "case weight")
        shapes = [network.weight_shape(layer) for layer in range(network.depth)]
        return tuple(torch.as_tensor(draw.normal(size=s) / math.sqrt(s[1])) for s in shapes)

    def inputs(self) -> Inputs:
        """Return a random batch: normal inputs, targets on the simplex (good for both losses)."""
        draw = generator(self.seed, "case inputs")
        targets = torch.softmax(torch.as_tensor(draw.normal(size=(self.samples, self.widths[-1]))), -1)
        return Inputs(torch.as_tensor(draw.normal(size=(self.samples, self.widths[0]))), targets)

    def signal(self, frequency: float = 1.0) -> Sinusoid:
        """Return inputs and targets that move at one angular frequency with random phases."""
        draw = generator(self.seed, "case signal")

        def each(low: float, high: float) -> Inputs:
            return Inputs(
                torch.as_tensor(draw.uniform(low, high, (self.samples, self.widths[0]))),
                torch.as_tensor(draw.uniform(low, high, (self.samples, self.widths[-1]))),
            )

        speed = torch.tensor(frequency, dtype=torch.float64)
        return Sinusoid(each(-0.3, 0.3), each(0.3, 0.8), Inputs(speed, speed), each(0.0, 6.3))


def on_manifold(problem: LearningProblem[LayeredNetwork], weights: tuple[Tensor, ...], inputs: Inputs) -> LearningState:
    """Return activities and costates as infinitely fast signals would leave them."""
    passed = backpropagate(problem.network, problem.loss, weights, inputs)
    return LearningState(passed.activity, weights, passed.costate, tuple(torch.zeros_like(w) for w in weights))


@st.composite
def cases(draw: st.DrawFn, *, max_dissipation: float = 0.0, max_depth: int = 4) -> Case:
    """Draw a random case: depth, widths, activation, loss, bias, speed, dissipation."""
    depth = draw(st.integers(1, max_depth))
    return Case(
        widths=tuple(draw(st.lists(st.integers(1, 6), min_size=depth + 1, max_size=depth + 1))),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        has_bias=draw(st.booleans()),
        speed=10 ** draw(st.floats(-0.3, 1.7)),
        dissipation=draw(st.floats(0.0, max_dissipation)) if max_dissipation else 0.0,
        samples=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 10**6)),
    )
