"""Random nets, samples and rest states for the theorems on variants of inference learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.analysis.orders import observed_order
from nlsim.core.randomness import generator
from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Held, Inputs
from nlsim.integrate.explicit import RK4
from nlsim.systems.activation import ACTIVATIONS, IDENTITY
from nlsim.systems.backprop import backpropagate
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.inference.learning import InferenceLearning
from nlsim.systems.inference.precision import ConstantPrecision, Precision
from nlsim.systems.inference.update import LeastMeanSquares, NormalisedLeastMeanSquares, Update
from nlsim.systems.loss import LOSSES, Loss
from nlsim.systems.network import LayeredNetwork

SMOOTH = ("identity", "logistic", "softplus", "tanh")
"""Activations with a derivative everywhere."""


@dataclass(frozen=True)
class Case:
    """What fixes a network, weights and samples; printed when a property fails.

    Attributes
    ----------
    distance : float
        Of the targets from the network's output, for the squared error; classes are drawn for the cross-entropy.
    """

    widths: tuple[int, ...] = (5, 7, 6, 4)
    activation: str = "tanh"
    loss: str = "squared_error"
    has_bias: bool = True
    samples: int = 1
    distance: float = 1.0
    seed: int = 0

    def network(self) -> LayeredNetwork:
        """Return the network; its output is linear."""
        hidden = (ACTIVATIONS[self.activation],) * (len(self.widths) - 2)
        return LayeredNetwork(self.widths, (*hidden, IDENTITY), self.has_bias)

    def loss_of_output(self) -> Loss:
        """Return ℓ."""
        return LOSSES[self.loss]

    def weights(self) -> Layers:
        """Return normal weights of variance 1/fan-in, biases included."""
        network, draw = self.network(), generator(self.seed, "variant weight")
        shapes = [network.weight_shape(layer) for layer in range(network.depth)]
        return tuple(torch.as_tensor(draw.normal(size=s) / math.sqrt(s[1])) for s in shapes)

    def inputs(self) -> Inputs:
        """Return normal inputs and the targets."""
        draw = generator(self.seed, "variant inputs")
        given = torch.as_tensor(draw.normal(size=(self.samples, self.widths[0])))
        away = torch.as_tensor(draw.normal(size=(self.samples, self.widths[-1])))
        if self.loss == "cross_entropy":
            return Inputs(given, torch.nn.functional.one_hot(away.argmax(-1), self.widths[-1]).to(given.dtype))
        away = self.distance * away / torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        return Inputs(given, feedforward(self.network(), self.weights(), given)[-1] + away)

    def system(self, precision: Precision, output: str = "clamped", update: Update | None = None) -> InferenceLearning:
        """Return inference learning on the case."""
        rule = update or NormalisedLeastMeanSquares()
        return InferenceLearning(self.network(), self.loss_of_output(), precision, output, rule)

    def gradients(self) -> Layers:
        """Return ∂ℓ/∂W averaged over samples."""
        passed = backpropagate(self.network(), self.loss_of_output(), self.weights(), self.inputs())
        return tuple(g / self.samples for g in passed.gradient)


@st.composite
def cases(
    draw: st.DrawFn, *, activations: tuple[str, ...] = SMOOTH, min_depth: int = 1, max_depth: int = 4, samples: int = 3
) -> Case:
    """Draw a random case."""
    depth = draw(st.integers(min_depth, max_depth))
    return Case(
        widths=tuple(draw(st.lists(st.integers(1, 6), min_size=depth + 1, max_size=depth + 1))),
        activation=draw(st.sampled_from(activations)),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        has_bias=draw(st.booleans()),
        samples=draw(st.integers(1, samples)),
        distance=10 ** draw(st.floats(-2, 0.5)),
        seed=draw(st.integers(0, 10**6)),
    )


def flat(tree: Any) -> Tensor:
    """Return all entries as one vector."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves(tree)])


def unflat(vector: Tensor, like: Any) -> Any:
    """Put a vector back into a tree of the shape of another."""
    parts = leaves(like)
    split = torch.split(vector, [leaf.numel() for leaf in parts])
    return rebuild(like, [each.reshape(leaf.shape) for each, leaf in zip(split, parts, strict=True)])


def relative(found: Any, expected: Any) -> float:
    """Return ‖found − expected‖/‖expected‖ over all entries."""
    reference = flat(expected)
    return float((flat(found) - reference).norm() / reference.norm())


def slope(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Return the observed order; NaN, which fails every comparison, where an error is 0 or no number."""
    is_usable = len(errors) == len(steps) and all(0 < error < math.inf for error in errors)
    return observed_order(steps, errors) if is_usable else math.nan


def rest(flow: Any, start: Layers, inputs: Inputs, *, time: float = 0.0, step: float = 0.05) -> Layers:
    """Return a rest state of a flow: follow it for a while by RK4, then take Newton steps on its field.

    Newton's method stops when a step no longer shortens the field: at round-off. Cost: a dense Jacobian each.
    """
    if not start:
        return start  # a network of one layer has nothing to settle
    moving: Layers = RK4.advance(flow, Held(inputs), start, 0.0, step, round(time / step)) if time else start

    def field(point: Tensor) -> Tensor:
        return flat(flow.vector_field(0.0, unflat(point, start), inputs))

    point = flat(moving)
    size = float(field(point).norm())
    for _ in range(60):
        change = torch.linalg.solve(torch.func.jacrev(field)(point), field(point))
        trial = point - change
        smaller = float(field(trial).norm())
        if not smaller < size:
            break
        point, size = trial, smaller
    rested: Layers = unflat(point, start)
    return rested


def settled_gradient(case: Case, gammas: tuple[float, ...], scale: float, inputs: Inputs | None = None) -> Layers:
    """Return scale · ∂F/∂W (a mean over samples) at rest; the update of the running system makes it.

    The weights' jump is divided out of W − η ∂F/∂W at a rate η = scale that keeps it from drowning in W.
    """
    system = case.system(ConstantPrecision(gammas), "clamped", LeastMeanSquares(scale))
    weights, inputs = case.weights(), inputs or case.inputs()
    state = system.initial_state(weights, inputs)
    flow, moving = system.moving(state, Held(inputs))
    state = replace(state, activity=rest(flow, moving, inputs))
    jumped = system.jump(0.0, state, inputs, inputs).weight
    return tuple(w - v for w, v in zip(weights, jumped, strict=True))
