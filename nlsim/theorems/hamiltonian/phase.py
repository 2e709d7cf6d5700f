"""Phase space, symbolic and numerical: positions y = (x, w) first, then their costates π."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from nlsim.core.randomness import generator
from nlsim.core.state import leaves, rebuild
from nlsim.core.system import Inputs, Piece
from nlsim.systems.hamiltonian.problem import LearningProblem, LearningState
from nlsim.systems.network import LayeredNetwork
from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.hamiltonian.nets import Case
from nlsim.theorems.symbols import CHAIN_2, CHAIN_3, CYCLE, DIAMOND, SKIP, Graph, Model, Sigma, every, is_zero, model

GRAPHS: tuple[Graph, ...] = (CHAIN_2, CHAIN_3, DIAMOND, SKIP, CYCLE)

EPSILON = torch.finfo(torch.float64).eps


def phase_model(graph: Graph, *, samples: int = 1, time: Any = None) -> Model:
    """Return the symbolic model with unequal speeds and a loss whose mixed derivatives commute.

    With ``time`` the loss depends on it explicitly.
    """
    extra = () if time is None else (time,)

    def loss(outputs: list[Any], sample: int) -> Any:
        return sp.Function(f"L{sample}", real=True)(*outputs, *extra)

    return model(graph, activation=Sigma, loss=loss, samples=samples, has_equal_speeds=False)


def positions(of: Model) -> list[Any]:
    """Return the symbols of y: activities sample by sample, then weights."""
    return [x for each in of.x for x in each.values()] + list(of.weight.values())


def costates(of: Model) -> list[Any]:
    """Return the symbols of π in the same order."""
    return [pi for each in of.costate for pi in each.values()] + list(of.weight_costate.values())


def field(of: Model, *, sign: int) -> list[Any]:
    """Return dy/dt, then dπ/dt; +1 for the exact equations, −1 for the costate-only reversal."""
    neurons = [(i, b) for b in range(len(of.x)) for i in of.graph.vertices]
    return (
        [of.velocity(i, b) for i, b in neurons]
        + [of.weight_velocity(arc) for arc in of.weight]
        + [of.costate_velocity(i, b, sign=sign) for i, b in neurons]
        + [of.weight_costate_velocity(arc, sign=sign) for arc in of.weight]
    )


def symbolic_jacobian(of: Model, *, sign: int) -> Any:
    """Return A = ∂(field)/∂(y, π)."""
    return sp.Matrix(field(of, sign=sign)).jacobian(sp.Matrix(positions(of) + costates(of)))


def symbolic_form(pairs: int) -> Any:
    """Return J = (0 I; −I 0)."""
    zero, one = sp.zeros(pairs), sp.eye(pairs)
    return sp.Matrix(sp.BlockMatrix([[zero, one], [-one, zero]]))


def vanishes(expression: Any) -> bool | None:
    """Whether an expression is identically zero; tries the cheap way first."""
    return True if sp.expand(expression) == 0 else is_zero(expression)


def proof(name: str, expected: str, answers: list[bool | None]) -> Evidence:
    """Report symbolic identities."""
    measured = f"{answers.count(True)} of {len(answers)} identities simplify to 0"
    return Evidence(Leg.PROOF, name, judge(every(answers)), expected, measured)


def generic_problem(case: Case, *, mass: float = 0.7, regularisation: float = 0.2) -> LearningProblem[LayeredNetwork]:
    """Return a case's problem with unequal speeds, from 1 to 1.9 times its own, and a regulariser."""
    problem = case.problem(mass=mass)
    depth = problem.network.depth
    speeds = tuple(case.speed * (1 + 0.9 * layer / depth) for layer in range(depth))
    return replace(problem, speed=speeds, regularisation=regularisation)


def largest(errors: Iterable[float]) -> float:
    """Return the largest of some errors; NaN when one is, where ``max`` would pass over it."""
    return float(np.max(list(errors)))


def random_state(case: Case, purpose: str = "phase") -> LearningState:
    """Return a generic point of the phase space of a case, costates included."""
    widths, weights, draw = case.widths[1:], case.weights(), generator(case.seed, purpose)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.as_tensor(draw.normal(size=shape))

    return LearningState(
        tuple(normal((case.samples, n)) for n in widths),
        weights,
        tuple(normal((case.samples, n)) for n in widths),
        tuple(normal(tuple(w.shape)) for w in weights),
    )


def flatten(state: Any) -> Tensor:
    """Return all entries of a state as one vector, positions first."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves(state)])


def unflatten(flat: Tensor, like: Any) -> Any:
    """Put a vector back into a state of the shape of another."""
    parts = leaves(like)
    split = torch.split(flat, [leaf.numel() for leaf in parts])
    return rebuild(like, [each.reshape(leaf.shape) for each, leaf in zip(split, parts, strict=True)])


def jacobian(function: Callable[[Any], Any], state: Any) -> Tensor:
    """Return the derivative of a map from states to states, by automatic differentiation."""
    derivative: Tensor = torch.func.jacrev(lambda flat: flatten(function(unflatten(flat, state))))(flatten(state))
    return derivative


def field_jacobian(system: Any, state: Any, inputs: Inputs) -> Tensor:
    """Return A = ∂(vector field)/∂(state)."""
    return jacobian(lambda y: system.vector_field(0.0, y, inputs), state)


def step_jacobian(stepper: Any, system: Any, piece: Piece, state: Any, t: float, dt: float, steps: int) -> Tensor:
    """Return M = ∂(state after the steps)/∂(state)."""
    return jacobian(lambda y: stepper.advance(system, piece, y, t, dt, steps), state)


def form(dimension: int) -> Tensor:
    """Return J = (0 I; −I 0) of a phase space of even dimension."""
    one, zero = torch.eye(dimension // 2, dtype=torch.float64), torch.zeros(2 * (dimension // 2,), dtype=torch.float64)
    return torch.cat((torch.cat((zero, one), 1), torch.cat((-one, zero), 1)))


def form_defect(matrix: Tensor, factor: float) -> float:
    """Return the largest entry of MᵀJM − factor·J, relative to max(1, largest entry of M squared)."""
    j = form(len(matrix))
    scale = max(1.0, float(matrix.abs().max()) ** 2)
    return float((matrix.T @ j @ matrix - factor * j).abs().max()) / scale
