"""SDIRK2: an implicit Runge–Kutta method for stiff coupled systems, such as fast networks with cycles.

With γ = 1 − 1/√2 the two stages

    Y₁ = y + γ h f(t + γ h, Y₁),
    Y₂ = y + (1 − γ) h f(t + γ h, Y₁) + γ h f(t + h, Y₂),    y⁺ = Y₂,

are equations, each solved by a fixed number of Newton-like corrections with one linear map for both stages and
(by default) for the whole batch. The method is L-stable and stiffly accurate: as the rates grow at fixed h it lands on
the rest state at t + h, and the number of operations in a step does not depend on the rates.

**Who solves the linear part.** A :class:`~nlsim.core.system.Linearised` system does, as it knows best (one
factorisation for a batch, nothing for a slow block). For any other system the Jacobian is formed by differentiating
the vector field, which suits small states.

**When the corrections converge.** With D = J_exact − J the error of a stage shrinks each time by about
|(I − γhJ)⁻¹ γh D|: of order h when h is small, at most |J⁻¹ D| when h is large. What D is, the spread of the
samples' Jacobians around their mean and the change of J over the step, decides; J is formed anew at the start of
every step, so a step depends on nothing but t and y. Where the corrections have not become small by the last
iteration, the run ends as ``not_converged``; that is looked at once a call, not in a step.

References
----------
Alexander, *Diagonally implicit Runge–Kutta methods for stiff O.D.E.'s*, SIAM J. Numer. Anal. 14 (1977), theorem 5.
Hairer and Wanner, *Solving Ordinary Differential Equations II*, section IV.8, on the Newton iteration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import leaves, map_leaves, rebuild
from nlsim.core.system import Linearised, Piece
from nlsim.errors import NlsimError

S = TypeVar("S")

GAMMA = 1 - 1 / math.sqrt(2)
"""γ, the smaller root of γ² − 2γ + 1/2 = 0: order 2, and R(∞) = 0."""

LARGEST_DENSE = 4096
"""Largest number of entries for which a dense Jacobian is formed: 128 MiB in float64."""


@dataclass(frozen=True)
class Sdirk2:
    """The two-stage, second-order, L-stable, stiffly accurate SDIRK method of Alexander.

    Needs a :class:`~nlsim.core.system.Linearised` system for large states; takes any system with a small one. Inputs
    are taken at t + γh and t + h. Cost of a step: 2 · iterations vector fields and linear solves, and one
    factorisation; independent of the stiffness.

    Parameters
    ----------
    iterations : int
        Corrections of each stage, ≥ 1. The default brings a recurrent net of gain 0.9 at c = 10⁶ from rest
        at 0 onto its moving rest state; 4 suffice at h c ≤ 10, and wherever the state follows closely.
    tolerance : float
        Largest last correction that counts as solved: max |correction| ≤ tolerance · (1 + max |y|) in every tensor.
    member_axes : int
        For systems that are not Linearised: how many leading axes of every tensor index parts that move
        independently. 0: everything is coupled, and the Jacobian has (number of entries)² entries. 1, for a state
        ``(sample, n)``: n × n a sample.
    is_shared : bool
        For systems that are not Linearised: whether the Jacobians of those parts are averaged into one.
    """

    iterations: int = 10
    tolerance: float = 1e-3
    member_axes: int = 0
    is_shared: bool = True
    name: str = "sdirk2"
    order: int = 2
    stability_limit: float = math.inf

    def require(self, system: Any) -> None:
        """Need nothing but a vector field; a Linearised system is cheaper."""

    def advance(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> S:
        """Return the state after ``steps`` steps, however well they were solved; dt may be negative."""
        return self.advance_judged(system, piece, state, t, dt, steps)[0]

    def advance_judged(self, system: Any, piece: Piece, state: S, t: float, dt: float, steps: int) -> tuple[S, Tensor]:
        """Return the state after ``steps`` steps and the largest last correction of any stage, relative to 1 + |y|."""
        worst = leaves(state)[0].new_zeros(())
        scale = GAMMA * dt
        for n in range(steps):
            now = t + n * dt
            solver = self._solver(system, piece, state, now, scale)
            first, after_first = self._stage(system, piece, solver, state, _zeros(state), now + scale, scale)
            # the second stage begins at y + (1 − γ) h k₁ with h k₁ = D₁/γ, and D₁ is also the guess for γ h k₂
            base = map_leaves(lambda y, d: y.add(d, alpha=(1 - GAMMA) / GAMMA), state, first)
            second, after_second = self._stage(system, piece, solver, base, first, now + dt, scale)
            state = map_leaves(torch.add, base, second)
            # fmax passes over NaN: a state that is lost altogether is the loop's to name
            worst = torch.fmax(worst, torch.fmax(after_first, after_second))
        return state, worst

    def _stage(
        self, system: Any, piece: Piece, solver: Callable[[S], S], base: S, guess: S, time: float, scale: float
    ) -> tuple[S, Tensor]:
        """Solve D = γ h f(time, base + D); return D and the size of the last correction."""
        inputs = piece(time)
        increment = correction = guess
        for _ in range(self.iterations):
            stage = map_leaves(torch.add, base, increment)
            slope = system.vector_field(time, stage, inputs)
            residual = map_leaves(lambda d, f: d.sub(f, alpha=scale), increment, slope)
            correction = solver(residual)
            increment = map_leaves(torch.sub, increment, correction)
        return increment, _relative_size(correction, base)

    def _solver(self, system: Any, piece: Piece, state: S, now: float, scale: float) -> Callable[[S], S]:
        if isinstance(system, Linearised):
            solver: Callable[[S], S] = system.linear_solver(now, state, piece(now), scale)
            return solver
        return dense_solver(system, piece, state, now, scale, self.member_axes, self.is_shared)


def dense_solver(
    system: Any, piece: Piece, state: S, t: float, scale: float, member_axes: int = 0, is_shared: bool = False
) -> Callable[[S], S]:
    """Return r → (I − scale J)⁻¹ r with the Jacobian of any vector field, by reverse-mode differentiation.

    Parameters
    ----------
    system, piece, state, t
        Where the Jacobian is taken.
    scale : float
        Factor of J.
    member_axes : int
        How many leading axes of every tensor index parts that move independently, ≥ 0.
    is_shared : bool
        Whether the parts' Jacobians are averaged.

    Raises
    ------
    NlsimError
        When a part has more than :data:`LARGEST_DENSE` entries.

    Notes
    -----
    Cost for N entries a part: N pull-backs in one batched call, and an LU factorisation of 2N³/3.
    """
    inputs, columns = piece(t), _Columns(state, member_axes)
    if columns.size > LARGEST_DENSE:
        raise NlsimError(
            "The state is too large for a dense Jacobian.",
            given=f"{columns.size} coupled entries",
            allowed=f"up to {LARGEST_DENSE}",
            advice="Give the system a linear_solver (protocol Linearised), set member_axes, or use a sweep stepper.",
        )
    flat = columns.join(state)

    def field(each: Tensor) -> Tensor:
        return columns.join(system.vector_field(t, columns.split(each), inputs))

    pull_back: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(field, flat)[1]

    def row(direction: Tensor) -> Tensor:
        """Return a direction, the same in every part, times J: one row of every part's J."""
        pulled: Tensor = pull_back(direction.expand_as(flat))[0]
        return pulled

    basis = torch.eye(columns.size, dtype=flat.dtype, device=flat.device)
    jacobian = torch.func.vmap(row)(basis).movedim(0, -2)
    if is_shared:
        jacobian = jacobian.flatten(0, -3).mean(0) if member_axes else jacobian
    factors, pivots, _ = torch.linalg.lu_factor_ex(basis - scale * jacobian)

    def solve(residual: S) -> S:
        right = columns.join(residual).unsqueeze(-1)
        split: S = columns.split(torch.linalg.lu_solve(factors, pivots, right).squeeze(-1))
        return split

    return solve


class _Columns:
    """Puts the tensors of a state side by side as one of shape (members..., N), and takes them apart again."""

    def __init__(self, state: Any, member_axes: int) -> None:
        flat = leaves(state)
        self.like, self.axes = state, member_axes
        self.shapes = [leaf.shape for leaf in flat]
        self.sizes = [leaf.shape[member_axes:].numel() for leaf in flat]
        self.size = sum(self.sizes)

    def join(self, state: Any) -> Tensor:
        return torch.cat([leaf.reshape(*leaf.shape[: self.axes], -1) for leaf in leaves(state)], -1)

    def split(self, joined: Tensor) -> Any:
        parts = torch.split(joined, self.sizes, -1)
        return rebuild(self.like, [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)])


def _zeros(state: S) -> S:
    return map_leaves(torch.zeros_like, state)


def _relative_size(correction: Any, state: Any) -> Tensor:
    """Return the largest max |correction|/(1 + max |y|) of any tensor."""
    pairs = zip(leaves(correction), leaves(state), strict=True)
    return torch.stack([c.abs().max() / (1 + y.abs().max()) for c, y in pairs]).max()


SDIRK2 = Sdirk2()
"""With the defaults: ten corrections a stage."""
