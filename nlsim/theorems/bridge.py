"""The bridge: the symbolic field, turned into numbers, equals the field that runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch

from nlsim.core.randomness import generator
from nlsim.core.system import Inputs
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.symbols import Graph, Model, model

SYMBOLIC_ACTIVATIONS: dict[str, Any] = {
    "tanh": sp.tanh,
    "logistic": lambda a: 1 / (1 + sp.exp(-a)),
    "softplus": lambda a: sp.log(1 + sp.exp(a)),
    "relu": lambda a: sp.Max(a, 0),
    "identity": lambda a: a,
}
"""The activations as definitions; their derivatives are left to sympy."""


def symbolic_loss(name: str) -> Any:
    """Return L(outputs, sample) with target symbols ``z<output>_<sample>``."""

    def loss(outputs: list[Any], sample: int) -> Any:
        targets = [sp.Symbol(f"z{k}_{sample}", real=True) for k in range(len(outputs))]
        if name == "squared_error":
            return sum((x - z) ** 2 for x, z in zip(outputs, targets, strict=True)) / 2
        partition = sp.log(sum(sp.exp(x) for x in outputs))
        return sum(targets) * partition - sum(z * x for x, z in zip(outputs, targets, strict=True))

    return loss


@dataclass(frozen=True)
class Bridge:
    """A layered network as running code and as a symbolic graph, with one random point of both.

    The bias is a further input vertex that is always 1, with an arc to every neuron.
    """

    problem: LearningProblem[LayeredNetwork]
    symbolic: Model
    state: LearningState
    inputs: Inputs
    values: dict[Any, float]

    def number(self, expression: Any) -> float:
        """Return the value of an expression at the point, through numpy."""
        symbols = sorted(expression.free_symbols, key=str)
        function = sp.lambdify(symbols, expression, "numpy")
        return float(function(*(self.values[each] for each in symbols)))

    def source(self, layer: int, column: int) -> int:
        """Return the vertex behind a column of W of a layer (counted from 0)."""
        widths = self.problem.network.widths
        if column == widths[layer]:
            return widths[0] + 1  # the constant input
        return column + 1 if layer == 0 else self.vertex(layer - 1, column)

    def vertex(self, layer: int, neuron: int) -> int:
        """Return the vertex of a neuron (layer counted from 0)."""
        widths = self.problem.network.widths
        return widths[0] + int(self.problem.network.has_bias) + sum(widths[1 : layer + 1]) + neuron + 1

    def gaps(self, running: LearningState, *, sign: int) -> float:
        """Return the largest |symbolic − running| over the whole field, relative to 1 + |symbolic|."""
        worst = 0.0
        for layer in range(self.problem.network.depth):
            for b, n in np.ndindex(*running.activity[layer].shape):
                i = self.vertex(layer, n)
                worst = max(
                    worst,
                    self._gap(self.symbolic.velocity(i, b), running.activity[layer][b, n]),
                    self._gap(self.symbolic.costate_velocity(i, b, sign=sign), running.costate[layer][b, n]),
                )
            for n, column in np.ndindex(*running.weight[layer].shape):
                arc = (self.vertex(layer, n), self.source(layer, column))
                field = self.symbolic.weight_costate_velocity(arc, sign=sign)
                worst = max(
                    worst,
                    self._gap(self.symbolic.weight_velocity(arc), running.weight[layer][n, column]),
                    self._gap(field, running.weight_costate[layer][n, column]),
                )
        return worst

    def _gap(self, expression: Any, running: torch.Tensor) -> float:
        expected = self.number(expression)
        gap = abs(expected - float(running)) / (1 + abs(expected))
        return math.inf if math.isnan(gap) else gap  # max(0, NaN) is 0: a NaN must not hide


def build_bridge(widths: tuple[int, ...], activation: str, loss: str, *, samples: int = 2, seed: int = 0) -> Bridge:
    """Return both forms of a layered net with biases and unequal speeds at one random point."""
    network = LayeredNetwork(widths, (ACTIVATIONS[activation],) * (len(widths) - 1))
    draw = generator(seed, f"bridge {activation} {loss}")

    def tensor(*shape: int) -> torch.Tensor:
        return torch.as_tensor(draw.normal(size=shape))

    speeds = tuple(float(c) for c in draw.uniform(0.5, 3.0, network.depth))
    problem = LearningProblem(network, LOSSES[loss], speeds, mass=0.7, dissipation=0.3, regularisation=0.2)
    state = LearningState(
        tuple(tensor(samples, n) for n in widths[1:]),
        tuple(tensor(*network.weight_shape(layer)) for layer in range(network.depth)),
        tuple(tensor(samples, n) for n in widths[1:]),
        tuple(tensor(*network.weight_shape(layer)) for layer in range(network.depth)),
    )
    inputs = Inputs(tensor(samples, widths[0]), tensor(samples, widths[-1]))
    symbolic = model(
        _graph(widths),
        activation=SYMBOLIC_ACTIVATIONS[activation],
        loss=symbolic_loss(loss),
        samples=samples,
        has_equal_speeds=False,
    )
    bridge = Bridge(problem, symbolic, state, inputs, {})
    _fill(bridge)
    return bridge


def _graph(widths: tuple[int, ...]) -> Graph:
    constant = widths[0] + 1
    first = [1, constant + 1]
    for width in widths[1:-1]:
        first.append(first[-1] + width)
    arcs = []
    for layer, width in enumerate(widths[1:]):
        for i in range(first[layer + 1], first[layer + 1] + width):
            arcs += [(j, i) for j in range(first[layer], first[layer] + widths[layer])] + [(constant, i)]
    outputs = tuple(range(first[-1], first[-1] + widths[-1]))
    return Graph(f"layers {widths}", constant, sum(widths[1:]), tuple(arcs), outputs)


def _fill(bridge: Bridge) -> None:
    """Give every symbol its number."""
    of, values, problem = bridge.symbolic, bridge.values, bridge.problem
    state, inputs = bridge.state, bridge.inputs
    assert inputs.input is not None
    assert inputs.target is not None
    widths = problem.network.widths
    values |= {of.m: 0.7, of.theta: 0.3, of.k: 0.2, of.c: float(problem.mean_speed)}
    for b, n in np.ndindex(*inputs.input.shape):
        values[of.u[b][n + 1]] = float(inputs.input[b, n])
        values[of.u[b][widths[0] + 1]] = 1.0
    for b, n in np.ndindex(*inputs.target.shape):
        values[sp.Symbol(f"z{n}_{b}", real=True)] = float(inputs.target[b, n])
    for layer in range(problem.network.depth):
        for b, n in np.ndindex(*state.activity[layer].shape):
            i = bridge.vertex(layer, n)
            values[of.x[b][i]] = float(state.activity[layer][b, n])
            values[of.costate[b][i]] = float(state.costate[layer][b, n])
            values[of.speed[i]] = float(problem.speed[layer])
        for n, column in np.ndindex(*state.weight[layer].shape):
            arc = (bridge.vertex(layer, n), bridge.source(layer, column))
            values[of.weight[arc]] = float(state.weight[layer][n, column])
            values[of.weight_costate[arc]] = float(state.weight_costate[layer][n, column])
