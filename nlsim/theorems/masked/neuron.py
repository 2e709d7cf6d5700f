"""The symbolic neuron with neutralizers, and the random layers its propositions are tried on.

The symbolic neuron is the definition alone: an ordinary neuron, in which a missing input is replaced by the
neutralizer. The closed form that runs is never typed in where it is to be proved.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.systems.masked.layer import masked_affine
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.symbols import Expression, Symbol, every, is_zero

SIZES = (1, 2, 3, 4)
"""Numbers of inputs that proofs go through."""


@dataclass(frozen=True)
class Neuron:
    """Symbols of a neuron with p inputs: w_j ≠ 0, x_j, m_j, b, w_c and shares π_j with sum 1.

    Attributes
    ----------
    p : int
        Number of inputs.
    """

    p: int

    def _family(self, letter: str, **assumed: bool) -> list[Symbol]:
        return [sp.Symbol(f"{letter}{j + 1}", real=True, **assumed) for j in range(self.p)]

    @cached_property
    def w(self) -> list[Symbol]:
        """Weights, not zero."""
        return self._family("w", nonzero=True)

    @cached_property
    def x(self) -> list[Symbol]:
        """Inputs."""
        return self._family("x")

    @cached_property
    def m(self) -> list[Symbol]:
        """Mask, any real number."""
        return self._family("m")

    @cached_property
    def b(self) -> Symbol:
        """Bias."""
        return sp.Symbol("b", real=True)

    @cached_property
    def level(self) -> Symbol:
        """Compensatory weight w_c."""
        return sp.Symbol("w_c", real=True)

    @property
    def shares(self) -> list[Expression]:
        """Shares π_j of which the last is what the others leave."""
        free = self._family("pi")[:-1]
        return [*free, 1 - sum(free)]

    @property
    def fraction(self) -> Expression:
        """The observed fraction μ."""
        return sp.Add(*self.m) / self.p

    def defined(self, *, level: Expression = 0, shares: list[Expression] | None = None) -> Expression:
        """Return Σ w_j (m_j x_j + (1 − m_j) u_j) + b with u_j = π_j (w_c − b)/w_j: the definition."""
        shares = shares or [sp.Rational(1, self.p)] * self.p
        fill = [pi * (level - self.b) / w for pi, w in zip(shares, self.w, strict=True)]
        pieces = [w * (m * x + (1 - m) * u) for w, m, x, u in zip(self.w, self.m, self.x, fill, strict=True)]
        return sp.Add(*pieces) + self.b

    def contributions(self) -> list[Expression]:
        """Return c_j = w_j x_j + b/p."""
        return [w * x + self.b / self.p for w, x in zip(self.w, self.x, strict=True)]

    def at(self, expression: Expression, mask: tuple[int, ...]) -> Expression:
        """Return an expression with numbers for the mask."""
        return expression.subs(dict(zip(self.m, mask, strict=True)))

    def masks(self) -> list[tuple[int, ...]]:
        """Return all 2^p masks."""
        return list(itertools.product((0, 1), repeat=self.p))


def vanishes(expression: Expression) -> bool | None:
    """Whether an expression vanishes identically; one that does not at a single point does not."""
    answer = is_zero(expression)
    if answer is None:
        point = {s: sp.Rational(sp.prime(k + 5), sp.prime(k + 9)) for k, s in enumerate(ordered(expression))}
        return False if expression.subs(point).is_zero is False else None
    return answer


def ordered(expression: Expression) -> list[Symbol]:
    """Return the symbols of an expression by name."""
    return sorted(expression.free_symbols, key=str)


def prove(name: str, expected: str, differences: list[Expression]) -> Evidence:
    """Return whether all of the differences vanish identically."""
    answers = [vanishes(sp.sympify(each)) for each in differences]
    held = f"{answers.count(True)} of {len(answers)} identities hold"
    return Evidence(Leg.PROOF, name, judge(every(answers) if answers else None), expected, held)


@dataclass(frozen=True)
class Layer:
    """A random layer and batch; everything is a function of the seed.

    Attributes
    ----------
    inputs, neurons, rows : int
        p, H and the number of samples.
    density : float
        Probability that an input is observed.
    seed : int
        Of everything.
    """

    inputs: int = 4
    neurons: int = 3
    rows: int = 5
    density: float = 0.5
    seed: int = 0

    def draw(self, purpose: str, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.as_tensor(generator(self.seed, purpose).normal(size=shape))

    @property
    def weight(self) -> Tensor:
        """W with |w| ≥ 0.1."""
        free = self.draw("weight", self.neurons, self.inputs)
        return free + 0.1 * torch.where(free < 0, -1.0, 1.0).to(free.dtype)

    @property
    def bias(self) -> Tensor:
        """The bias, at least 0.5 in size."""
        free = self.draw("bias", self.neurons)
        return free + 0.5 * torch.where(free < 0, -1.0, 1.0).to(free.dtype)

    @property
    def level(self) -> Tensor:
        """The compensatory weights w_c."""
        return self.draw("level", self.neurons)

    @property
    def values(self) -> Tensor:
        """The complete inputs."""
        return self.draw("values", self.rows, self.inputs)

    @property
    def mask(self) -> Tensor:
        """The boolean mask."""
        chance = generator(self.seed, "mask").random((self.rows, self.inputs))
        return torch.as_tensor(chance < self.density)

    @property
    def soft_mask(self) -> Tensor:
        """Numbers in (0, 1]."""
        return torch.as_tensor(1.0 - generator(self.seed, "soft").random((self.rows, self.inputs)))

    @property
    def cotangent(self) -> Tensor:
        """δ = ∂L/∂a."""
        return self.draw("cotangent", self.rows, self.neurons)

    @property
    def size(self) -> Tensor:
        """Σ_j |w_j x_j| + 2|b| + |w_c|, what round-off is measured by; shape ``(rows, neurons)``."""
        return self.values.abs() @ self.weight.abs().T + 2 * self.bias.abs() + self.level.abs()

    def error(self, one: Tensor, other: Tensor) -> float:
        """Return the largest difference in units of ``size``; NaN stays NaN."""
        return float(((one - other).abs() / self.size).max())


ROUND_OFF = 6e-15
"""Bound of the error of two ways to sum p + 2 ≤ 13 numbers: 2 · 2 · 13 · 1.1e-16 times the sum of their sizes."""


def layers(most: int = 11, least: int = 1) -> st.SearchStrategy[Layer]:
    """Return random layers of ``least`` to ``most`` inputs, from nothing to everything observed."""
    return st.builds(
        Layer,
        inputs=st.integers(least, most),
        neurons=st.integers(1, 4),
        rows=st.integers(1, 6),
        density=st.sampled_from([0.5, 0.2, 0.8, 0.0, 1.0]),
        seed=st.integers(0, 10_000),
    )


def with_neutralizers(values: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what an ordinary layer makes of neutralizers u_hj = −b_h/(p w_hj), formed one by one."""
    fill = -bias[:, None] / (weight.shape[-1] * weight)
    filled = torch.where(mask[:, None, :].bool(), values[:, None, :], fill)
    return (filled * weight).sum(-1) + bias


def gradients(run: Callable[..., Tensor], cotangent: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """Return the value of ``run(*leaves)`` and its derivatives, contracted with the cotangent."""
    with torch.enable_grad():
        fresh = [each.detach().clone().requires_grad_() for each in leaves]
        value = run(*fresh)
        return (value.detach(), *torch.autograd.grad(value, fresh, cotangent))


def bridge(
    name: str,
    expression_of: Callable[[Neuron], Expression],
    run: Callable[[Layer, Tensor], Tensor] | None = None,
    *,
    is_compensated: bool = False,
) -> Evidence:
    """Compare a symbolic pre-activation, turned into numbers, with what the running layer gives.

    Every mask of 1 to 4 inputs and soft ones, three neurons. ``run(layer, mask) -> Tensor`` defaults to
    :func:`~nlsim.systems.masked.layer.masked_affine`.
    """
    worst, count = 0.0, 0
    for p in SIZES:
        neuron = Neuron(p)
        layer = Layer(p, 3, 2**p, seed=p)
        symbols = [*neuron.w, *neuron.x, *neuron.m, neuron.b, neuron.level]
        formula = sp.lambdify(symbols, expression_of(neuron), "math")
        hard = torch.tensor(neuron.masks(), dtype=torch.float64)
        for mask in (hard, layer.soft_mask):
            running = masked(layer, mask, is_compensated=is_compensated) if run is None else run(layer, mask)
            symbolic = torch.empty_like(running)
            for r, h in np.ndindex(layer.rows, layer.neurons):
                rows: list[Any] = [*layer.weight[h], *layer.values[r], *mask[r], layer.bias[h], layer.level[h]]
                symbolic[r, h] = formula(*(float(each) for each in rows))
            worst, count = float(np.maximum(worst, layer.error(symbolic, running))), count + running.numel()
    return Evidence(
        Leg.BRIDGE,
        name,
        judge(worst <= ROUND_OFF and count > 100),
        f"≤ {ROUND_OFF:g} of Σ|wx| + 2|b| + |w_c|, all masks of 1 to 4 inputs and soft masks",
        f"{worst:.2g} over {count} neurons",
    )


def masked(layer: Layer, mask: Tensor, *, is_compensated: bool = False) -> Tensor:
    """Return what the running layer gives."""
    level = layer.level if is_compensated else None
    return masked_affine(layer.values, mask, layer.weight, layer.bias, compensation=level)


def control(name: str, is_seen: bool, expected: str, measured: str) -> Evidence:
    """Return a negative control: ``is_seen`` says that the broken version was caught."""
    return Evidence(Leg.CONTROL, name, judge(is_seen), expected, measured)
