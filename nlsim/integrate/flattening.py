"""Systems as two-point problems: states flattened to rows of numbers, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, named_leaves, rebuild
from nlsim.core.system import Inputs, Signal, System
from nlsim.errors import NlsimError
from nlsim.integrate.boundary import RowField, TwoPointProblem

S = TypeVar("S")


def two_point_problem(system: System[S], signal: Signal, boundary: S) -> TwoPointProblem:
    """Return the two-point problem of a system whose state holds states first and then as many costates.

    For Hamiltonian learning: ``two_point_problem(HamiltonEquations(problem), signal,
    problem.initial_state(weights, samples))``. Normalised costates π = p/φ vanish at T exactly when p does, so
    both forms have the same boundary conditions; a non-zero p(T) must be divided by φ(T).

    Parameters
    ----------
    system : System
        Its vector field is evaluated under ``torch.vmap`` over times, with t as a 0-d tensor.
    signal : Signal
        Inputs and targets over the horizon.
    boundary : state
        The states' leaves hold their values at the start, the costates' leaves their values at the end.

    Raises
    ------
    NlsimError
        When the leaves of the state do not fall into two halves of equal shapes.
    """
    flat = leaves(boundary)
    half = len(flat) // 2
    if [leaf.shape for leaf in flat[:half]] != [leaf.shape for leaf in flat[half:]]:
        raise NlsimError(
            "A two-point problem needs a state made of states and as many costates.",
            where="boundary",
            given=", ".join(f"{name} {tuple(leaf.shape)}" for name, leaf in named_leaves(boundary)),
            allowed="leaves whose second half has the shapes of the first",
        )

    def velocity(t: float, state: S, inputs: Inputs) -> Tensor:
        return flatten(system.vector_field(t, state, inputs))

    return TwoPointProblem(
        row_field(velocity, signal, boundary),
        torch.cat([leaf.reshape(-1) for leaf in flat[:half]]),
        torch.cat([leaf.reshape(-1) for leaf in flat[half:]]),
        edge_after=signal.edge_after,
    )


def row_field(function: Callable[[float, S, Inputs], Tensor], signal: Signal, like: S) -> RowField:
    """Return a function of time, state and inputs as one of times and flat points, row by row.

    For example ``solution.quadrature.integral(row_field(g, signal, boundary))`` is ∫ g(t, state, inputs) dt.

    Parameters
    ----------
    function : callable
        ``function(t, state, inputs) -> Tensor``; evaluated under ``torch.vmap`` over times, with t as a 0-d tensor.
    signal : Signal
        Where the inputs come from.
    like : state
        Shape of the state that a point is made into.
    """

    def one(t: Any, point: Tensor, values: tuple[Tensor | None, ...]) -> Tensor:
        return function(t, unflatten(point, like), Inputs(*values))

    def rows(times: Tensor, points: Tensor) -> Tensor:
        shown = [signal.piece(t)(t) for t in times.tolist()]
        stacked = tuple(_stack([getattr(each, name) for each in shown]) for name in ("input", "target", "mask"))
        axes = tuple(None if each is None else 0 for each in stacked)
        result: Tensor = torch.vmap(one, in_dims=(0, 0, axes))(times, points, stacked)
        return result

    return rows


def _stack(values: list[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.stack(present) if present else None


def flatten(state: Any) -> Tensor:
    """Return all tensors of a state as one vector, in the order of :func:`~nlsim.core.state.leaves`."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves(state)])


def unflatten(points: Tensor, like: S) -> S:
    """Put vectors ``(..., d)`` back into states of the shape of ``like``; leading axes become ensemble axes."""
    shapes = [leaf.shape for leaf in leaves(like)]
    parts = torch.split(points, [shape.numel() for shape in shapes], -1)
    return rebuild(like, [part.reshape(*points.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)])
