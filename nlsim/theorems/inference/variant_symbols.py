"""Small symbolic networks for the variants of inference learning, with all derivatives of an abstract activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from nlsim.theorems.bridge import SYMBOLIC_ACTIVATIONS
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.symbols import AbstractLoss, LossGradient, every, is_zero

WIDTHS = ((1, 1, 1), (1, 1, 1, 1), (2, 1, 2), (1, 2, 1, 1))
"""Nets of the proofs: two or three layers; one or two neurons each."""


class Phi(sp.Function):  # type: ignore[misc]
    """Derivative number ``args[0]`` of an abstract activation at ``args[1]``."""

    nargs = 2

    def fdiff(self, argindex: int = 2) -> Any:
        """Return the next derivative."""
        return Phi(self.args[0] + 1, self.args[1])


def abstract(a: Any) -> Any:
    """Return φ(a) of an activation of which nothing is known but that it is smooth."""
    return Phi(sp.Integer(0), a)


@dataclass(frozen=True)
class SymbolicNet:
    """A layered net without biases, its input, and a loss of its linear output.

    Attributes
    ----------
    widths : tuple of int
        Inputs, then neurons of each layer.
    activation : callable
        φ; :func:`abstract` for proofs, a concrete one for bridges.
    has_concrete_loss : bool
        Whether the loss is ½‖y − h‖² with symbols y, else abstract.
    """

    widths: tuple[int, ...]
    activation: Callable[[Any], Any] = abstract
    has_concrete_loss: bool = False

    @property
    def depth(self) -> int:
        """Return L."""
        return len(self.widths) - 1

    @property
    def given(self) -> Any:
        """Return the input x."""
        return sp.Matrix(self.widths[0], 1, lambda i, _: sp.Symbol(f"x_{i}", real=True))

    @property
    def target(self) -> Any:
        """Return y."""
        return sp.Matrix(self.widths[-1], 1, lambda i, _: sp.Symbol(f"y_{i}", real=True))

    def weight(self, layer: int) -> Any:
        """Return W of a layer, counted from 0."""
        return sp.Matrix(
            self.widths[layer + 1], self.widths[layer], lambda i, j: sp.Symbol(f"w{layer}_{i}_{j}", real=True)
        )

    def free(self, layer: int) -> Any:
        """Return ĥ of a layer, counted from 0, as symbols."""
        return sp.Matrix(self.widths[layer + 1], 1, lambda i, _: sp.Symbol(f"h{layer}_{i}", real=True))

    def predictions(self, hidden: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return sources and predictions of all layers made by hidden activities."""
        sources = [self.given, *(h.applyfunc(self.activation) for h in hidden)]
        return sources, [self.weight(layer) * a for layer, a in enumerate(sources)]

    def forward(self) -> list[Any]:
        """Return h_1 … h_L."""
        made: list[Any] = []
        source = self.given
        for layer in range(self.depth):
            made.append(self.weight(layer) * source)
            source = made[-1].applyfunc(self.activation)
        return made

    def slope(self, h: Any) -> Any:
        """Return φ'(h)."""
        dummy = sp.Dummy(real=True)
        derivative = sp.diff(self.activation(dummy), dummy)
        return h.applyfunc(lambda a: derivative.subs(dummy, a))

    def loss(self, output: Any) -> Any:
        """Return ℓ(y, output)."""
        if self.has_concrete_loss:
            return sum((y - h) ** 2 for y, h in zip(self.target, output, strict=True)) / 2
        return AbstractLoss(*output)

    def loss_gradient(self, output: Any) -> Any:
        """Return ∂ℓ/∂output."""
        if self.has_concrete_loss:
            return output - self.target
        return sp.Matrix([LossGradient(sp.Integer(k + 1), *output) for k in range(len(output))])

    def gradient(self, layer: int) -> Any:
        """Return dℓ/dW of a layer by differentiating the composed network."""
        total = self.loss(self.forward()[-1])
        return self.weight(layer).applyfunc(lambda w: sp.diff(total, w))

    def deltas(self) -> list[Any]:
        """Return δ_l = dℓ/dh_l, l = 1..L, by the chain rule: checked against :meth:`gradient` where it is used."""
        made = self.forward()
        found = [self.loss_gradient(made[-1])]
        for layer in reversed(range(self.depth - 1)):
            pulled = self.weight(layer + 1).T * found[0]
            found.insert(0, self.slope(made[layer]).multiply_elementwise(pulled))
        return found


def concrete(widths: tuple[int, ...], activation: str) -> SymbolicNet:
    """Return a net with a named activation and the squared error, for bridges."""
    return SymbolicNet(widths, SYMBOLIC_ACTIVATIONS[activation], True)


def values_of(net: SymbolicNet, weights: Any, inputs: Any, hidden: Any = ()) -> dict[Any, float]:
    """Return the number of every symbol, from tensors of one sample."""
    values: dict[Any, float] = {}
    pairs = [(net.given, inputs.input), (net.target, inputs.target)]
    pairs += [(net.weight(layer), w) for layer, w in enumerate(weights)]
    pairs += [(net.free(layer), h) for layer, h in enumerate(hidden)]
    for symbols, tensor in pairs:
        values |= dict(zip(symbols, tensor.flatten().tolist(), strict=True))
    return values


def largest_gap(expressions: Any, numbers: Any, values: Mapping[Any, float]) -> float:
    """Return max |expression − number|/(1 + |expression|) over entries; NaN when one is."""
    gaps = []
    for expression, value in zip(expressions, numbers.flatten().tolist(), strict=True):
        symbols = sorted(expression.free_symbols, key=str)
        expected = float(sp.lambdify(symbols, expression, "numpy")(*(values[each] for each in symbols)))
        gaps.append(abs(expected - value) / (1 + abs(expected)))
    return float(np.max(gaps))


def identities(name: str, expected: str, differences: list[Any]) -> Evidence:
    """Report symbolic expressions that must vanish identically."""
    answers = [True if sp.expand(each) == 0 else is_zero(each) for each in differences]
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)
