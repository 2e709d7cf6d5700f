"""Random networks and samples for the theorems on implicit steps, and the same in symbols."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.inference.energy import Layers, feedforward
from nlsim.systems.inference.implicit_step import flatten
from nlsim.systems.inference.proximal import ProximalProblem
from nlsim.systems.loss import LOSSES
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS, symbolic_loss

SMOOTH = ("tanh", "identity", "softplus")


@dataclass(frozen=True)
class Draw:
    """A random network with samples.

    Attributes
    ----------
    widths : tuple of int
        Inputs, then layers.
    activation, loss : str
        By name.
    has_bias : bool
        Whether there are biases.
    seed : int
        Of everything.
    samples : int
        How many.
    """

    widths: tuple[int, ...] = (5, 7, 6, 4)
    activation: str = "tanh"
    loss: str = "squared_error"
    has_bias: bool = True
    seed: int = 0
    samples: int = 1

    @property
    def network(self) -> LayeredNetwork:
        """Return the network."""
        return LayeredNetwork(self.widths, (ACTIVATIONS[self.activation],) * (len(self.widths) - 1), self.has_bias)

    def problem(self, rate: float, penalty: float = 0.0) -> ProximalProblem:
        """Return the proximal problem of a learning rate."""
        return ProximalProblem(self.network, LOSSES[self.loss], rate, penalty)

    def weights(self) -> Layers:
        """Return weights of standard deviation about 1/√fan-in, biases of 0.1."""
        draw = generator(self.seed, "proximal weights")
        first = self.network.initial_weights(self.seed, dtype=torch.float64, device="cpu")
        return tuple(w + torch.as_tensor(0.1 * draw.normal(size=w.shape)) for w in first)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of unit normal entries; distributions for cross-entropy."""
        draw = generator(self.seed, "proximal sample")
        given = torch.as_tensor(draw.normal(size=(self.samples, self.widths[0])))
        target = torch.as_tensor(draw.normal(size=(self.samples, self.widths[-1])))
        return given, torch.softmax(2 * target, -1) if self.loss == "cross_entropy" else target

    def activity(self) -> Layers:
        """Return unit normal activities that minimise nothing."""
        draw = generator(self.seed, "proximal activity")
        return tuple(torch.as_tensor(draw.normal(size=(self.samples, n))) for n in self.widths[1:])

    def near_target(self, distance: float) -> Tensor:
        """Return a target at a distance from the output before learning."""
        given, target = self.sample()
        output = feedforward(self.network, self.weights(), given)[-1]
        away = target - output
        near: Tensor = output + distance * away / away.norm(dim=-1, keepdim=True)
        return near


def relative(found: Layers, expected: Layers, start: Layers) -> float:
    """Return ‖found − expected‖/‖expected − start‖ over all weights."""
    return float((flatten(found) - flatten(expected)).norm() / (flatten(expected) - flatten(start)).norm())


def largest_gap(found: Layers, expected: Layers) -> float:
    """Return the largest |found − expected|, NaN if there is one."""
    return float((flatten(found) - flatten(expected)).abs().max())


@dataclass(frozen=True)
class SymbolicNet:
    """A layered network of one sample in symbols.

    Attributes
    ----------
    x, y : Matrix
        Input and target, columns.
    weight : tuple of Matrix
        W_l, with their bias columns.
    h : tuple of Matrix
        ĥ_l, columns.
    has_bias : bool
        Whether sources end in a 1.
    activation : callable
        φ.
    """

    x: Any
    y: Any
    weight: tuple[Any, ...]
    h: tuple[Any, ...]
    has_bias: bool
    activation: Any

    def source(self, layer: int) -> Any:
        """Return ã_{l−1} of a layer counted from 0."""
        plain = self.x if layer == 0 else self.h[layer - 1].applyfunc(self.activation)
        return plain.col_join(sp.ones(1, 1)) if self.has_bias else plain

    def normaliser(self, layer: int) -> Any:
        """Return n of a layer counted from 0."""
        return sum(a**2 for a in self.source(layer))

    def error(self, layer: int) -> Any:
        """Return e of a layer counted from 0."""
        return self.h[layer] - self.weight[layer] * self.source(layer)

    def closest(self, layer: int) -> Any:
        """Return W + e ãᵀ/n of a layer counted from 0."""
        return self.weight[layer] + self.error(layer) * self.source(layer).T / self.normaliser(layer)

    def energy(self, loss: Any, alpha: Any) -> Any:
        """Return ℓ + Σ ‖e_l‖²/(2α n_l), the loss being a function of the output symbols."""
        total = loss(list(self.h[-1]), 0)
        for layer in range(len(self.weight)):
            total += sum(e**2 for e in self.error(layer)) / (2 * alpha * self.normaliser(layer))
        return total


def symbolic_net(widths: tuple[int, ...], *, has_bias: bool, activation: Any) -> SymbolicNet:
    """Return a network of these widths in symbols; targets are named as ``symbolic_loss`` wants them."""

    def matrix(letter: str, rows: int, columns: int) -> Any:
        return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{letter}_{i}_{j}", real=True))

    weight = tuple(matrix(f"w{k}", b, a + int(has_bias)) for k, (a, b) in enumerate(itertools.pairwise(widths)))
    h = tuple(matrix(f"h{k}", n, 1) for k, n in enumerate(widths[1:]))
    y = sp.Matrix([sp.Symbol(f"z{k}_0", real=True) for k in range(widths[-1])])
    return SymbolicNet(matrix("x", widths[0], 1), y, weight, h, has_bias, activation)


def symbolic_twin(draw: Draw) -> tuple[SymbolicNet, dict[Any, float], Any]:
    """Return a drawn network in symbols, the number of each symbol, and its loss; one sample."""
    net = symbolic_net(draw.widths, has_bias=draw.has_bias, activation=SYMBOLIC_ACTIVATIONS[draw.activation])
    given, target = draw.sample()
    values: dict[Any, float] = {}
    pairs = [(net.x, given), (net.y, target), *zip(net.weight, draw.weights(), strict=True)]
    for symbols, numbers in (*pairs, *zip(net.h, draw.activity(), strict=True)):
        values |= dict(zip(symbols, numbers.flatten().tolist(), strict=True))
    return net, values, symbolic_loss(draw.loss)


def number(expression: Any, values: dict[Any, float]) -> float:
    """Return the value of an expression, through numpy."""
    symbols = sorted(expression.free_symbols, key=str)
    return float(sp.lambdify(symbols, expression, "numpy")(*(values[each] for each in symbols)))
