"""The symbolic model: Hamilton's equations of a digraph, derived from the Hamiltonian by differentiation.

Nothing of the vector field is typed in here. The Hamiltonian is written down once, from the definition
(Betti & Gori, eq. 11, normalised by φ), and everything else is its derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp

Expression = Any
Symbol = Any


class Sigma(sp.Function):  # type: ignore[misc]
    """An abstract activation σ; its derivative is the abstract σ′."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> Expression:
        """Return σ′."""
        return SigmaPrime(self.args[0])


class SigmaPrime(sp.Function):  # type: ignore[misc]
    """The derivative σ′ of the abstract activation."""

    nargs = 1


class LossGradient(sp.Function):  # type: ignore[misc]
    """∂L/∂x_i of the abstract loss: the index i, then the outputs."""


class AbstractLoss(sp.Function):  # type: ignore[misc]
    """An abstract loss L of the outputs."""

    def fdiff(self, argindex: int = 1) -> Expression:
        """Return ∂L/∂(argument)."""
        return LossGradient(sp.Integer(argindex), *self.args)


@dataclass(frozen=True)
class Graph:
    """A directed graph: vertices 1 … inputs are inputs, the others neurons.

    Attributes
    ----------
    name : str
        For a person.
    inputs, neurons : int
        How many of each.
    arcs : tuple of (int, int)
        (j, i) for j → i; cycles and self-loops among neurons are allowed.
    outputs : tuple of int
        Vertices the loss looks at.
    """

    name: str
    inputs: int
    neurons: int
    arcs: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]

    @property
    def vertices(self) -> range:
        """Return the neurons."""
        return range(self.inputs + 1, self.inputs + self.neurons + 1)

    def order(self) -> list[int] | None:
        """Return the neurons with sources first, or None when there is a cycle."""
        left, found = set(self.vertices), list[int]()
        while left:
            free = sorted(i for i in left if not any(j in left for j, k in self.arcs if k == i))
            if not free:
                return None
            found += free
            left -= set(free)
        return found


CHAIN_2 = Graph("chain of depth 2", 1, 2, ((1, 2), (2, 3)), (3,))
CHAIN_3 = Graph("chain of depth 3", 1, 3, ((1, 2), (2, 3), (3, 4)), (4,))
DIAMOND = Graph("two outputs, shared hidden", 1, 3, ((1, 2), (2, 3), (2, 4)), (3, 4))
SKIP = Graph("skip connection", 1, 3, ((1, 2), (2, 3), (3, 4), (2, 4), (1, 4)), (4,))
CYCLE = Graph("cycle with self-loop", 1, 2, ((1, 2), (2, 3), (3, 2), (2, 2)), (3,))


@dataclass(frozen=True)
class Model:
    """Symbols and Hamiltonian of a graph, for one or more samples.

    Attributes
    ----------
    graph : Graph
        The graph.
    u, x, costate : tuple of dict
        One dict a sample: vertex → symbol.
    weight, weight_costate : dict
        (i, j) → symbol of the arc j → i.
    speed : dict
        Neuron → symbol of c_i.
    c, m, theta, k : Symbol
        Mean speed, mass, dissipation, regularisation.
    loss : tuple of Expression
        L, one a sample.
    hamiltonian : Expression
        H/φ, summed over samples.
    """

    graph: Graph
    u: tuple[dict[int, Symbol], ...]
    x: tuple[dict[int, Symbol], ...]
    costate: tuple[dict[int, Symbol], ...]
    weight: dict[tuple[int, int], Symbol]
    weight_costate: dict[tuple[int, int], Symbol]
    speed: dict[int, Symbol]
    c: Symbol
    m: Symbol
    theta: Symbol
    k: Symbol
    loss: tuple[Expression, ...]
    hamiltonian: Expression

    def pre_activation(self, i: int, sample: int = 0) -> Expression:
        """Return a_i = Σ_j w_ij x_j."""
        return _drive(self.graph, self.weight, {**self.u[sample], **self.x[sample]}, i)

    def velocity(self, i: int, sample: int = 0) -> Expression:
        """Return dx_i/dt = ∂H/∂π_i."""
        return sp.diff(self.hamiltonian, self.costate[sample][i])

    def weight_velocity(self, arc: tuple[int, int]) -> Expression:
        """Return dw/dt = ∂H/∂π_w."""
        return sp.diff(self.hamiltonian, self.weight_costate[arc])

    def costate_velocity(self, i: int, sample: int = 0, *, sign: int = -1) -> Expression:
        """Return dπ_i/dt = −s ∂H/∂x_i − θ π_i; s = −1 reverses."""
        pi = self.costate[sample][i]
        return -sign * sp.diff(self.hamiltonian, self.x[sample][i]) - self.theta * pi

    def weight_costate_velocity(self, arc: tuple[int, int], *, sign: int = -1) -> Expression:
        """Return dπ_w/dt = −s ∂H/∂w − θ π_w."""
        return -sign * sp.diff(self.hamiltonian, self.weight[arc]) - self.theta * self.weight_costate[arc]

    def acceleration(self, arc: tuple[int, int]) -> Expression:
        """Return d²w/dt² under the reversed system, with −π_w/(mc) written as the velocity ``v``."""
        v = sp.Symbol("v", real=True)
        rate = -self.weight_costate_velocity(arc) / (self.m * self.c)
        return sp.expand(rate.subs(self.weight_costate[arc], -v * self.m * self.c))


def model(
    graph: Graph,
    *,
    activation: Callable[[Expression], Expression] = Sigma,
    loss: Callable[[list[Symbol], int], Expression] | None = None,
    samples: int = 1,
    has_equal_speeds: bool = True,
) -> Model:
    """Write down H/φ = −|π_w|²/(2mc) + c (Σ L + k|w|²/2) + Σ π_i c_i (σ(a_i) − x_i).

    ``loss(outputs, b)`` gets the output symbols of sample b and may bring symbols of its own.
    """
    loss = loss or abstract_loss
    c, m = sp.symbols("c m", positive=True)
    theta, k = sp.symbols("theta k", nonnegative=True)

    def family(letter: str, over: Any, b: int) -> dict[int, Symbol]:
        return {i: sp.Symbol(f"{letter}{i}_{b}", real=True) for i in over}

    u = tuple(family("u", range(1, graph.inputs + 1), b) for b in range(samples))
    x = tuple(family("x", graph.vertices, b) for b in range(samples))
    pi = tuple(family("p", graph.vertices, b) for b in range(samples))
    arcs = [(i, j) for j, i in graph.arcs]
    weight = {(i, j): sp.Symbol(f"w{i}_{j}", real=True) for i, j in arcs}
    weight_costate = {(i, j): sp.Symbol(f"q{i}_{j}", real=True) for i, j in arcs}
    speed = {i: c if has_equal_speeds else sp.Symbol(f"c{i}", positive=True) for i in graph.vertices}
    losses = tuple(loss([x[b][i] for i in graph.outputs], b) for b in range(samples))
    h = c * k * sum(w**2 for w in weight.values()) / 2 - sum(q**2 for q in weight_costate.values()) / (2 * m * c)
    for b in range(samples):
        h += c * losses[b]
        for i in graph.vertices:
            drive = _drive(graph, weight, {**u[b], **x[b]}, i)
            h += pi[b][i] * speed[i] * (activation(drive) - x[b][i])
    return Model(graph, u, x, pi, weight, weight_costate, speed, c, m, theta, k, losses, h)


def abstract_loss(outputs: list[Symbol], sample: int) -> Expression:
    """Return the abstract L of the outputs."""
    return AbstractLoss(*outputs)


def _drive(graph: Graph, weight: dict[tuple[int, int], Symbol], values: dict[int, Symbol], i: int) -> Expression:
    return sum(weight[i, j] * values[j] for j, k in graph.arcs if k == i)


def every(answers: list[bool | None]) -> bool | None:
    """Return yes when all are, no when one is not, else None."""
    if False in answers:
        return False
    return None if None in answers else True


def is_zero(expression: Expression) -> bool | None:
    """Whether an expression vanishes identically; None when simplification cannot tell."""
    simplified = sp.simplify(sp.together(sp.expand(expression)))
    return True if simplified == 0 else (False if simplified.is_zero is False else None)
