"""Rest states of the activities, where their flow vanishes: implicit Euler steps that grow into Newton's.

With f the flow and J = ∂f/∂ĥ a step solves

    (I/τ − J) δ = f,   ĥ ← ĥ + δ,

an implicit Euler step of length τ along the flow; for τ → ∞ it is Newton's. τ grows as f falls, so the search
follows the flow while it is far from rest and squares its error when it is near: it finds the rest state downstream
of the start, not one that the flow would leave. The scaled flow is used, which rests where the other rests.

A layer's rate depends on its own activity and those beside it, so J is block tridiagonal. In narrow nets its blocks are
formed: all of it follows from three layers' worth of pull-backs, whatever the depth, and the step from elimination
layer by layer. From :data:`WIDE` on the step comes from products J v alone (:mod:`nlsim.systems.inference.krylov`), to
an accuracy that grows as f falls; memory is then a few dozen copies of the activities, and no block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor
from torch.func import vjp, vmap

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.flow import ActivityFlow
from nlsim.systems.inference.krylov import jacobian_product, solve_each, two_passes

WIDE = 64
"""Width of the widest layer from which no block is formed."""

LEAST_ACCURATE, MOST_ACCURATE = 0.1, 1e-8
"""Bounds on the relative residual of a step made of products; between them it is that of the flow."""

FIRST_STEP = 1.0
"""τ to begin with; a layer on its own relaxes at rate 1 in the scaled flow."""

LONGEST = 1e16
"""τ beyond which I/τ is round-off."""

SHORTEST = 1e-10
"""τ below which the search is given up."""

GROWTH = 2.0
"""Factor by which τ grows after a step that helped, at least, and f may grow in one that is taken."""


_RowField = Callable[..., Layers]
"""``field(ĥ_1, …) -> dĥ/dt``."""


class RestEnding(StrEnum):
    """Why a search for a rest state stopped."""

    CONVERGED = "converged"
    STALLED = "stalled"
    BUDGET_SPENT = "budget_spent"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True, eq=False)
class RestState:
    """Where a search for rest stopped, and its verdict.

    Attributes
    ----------
    activity : tuple of Tensor
        What moves in the flow: ĥ_1 … ĥ_{L−1}, and ĥ_L when the output is free; shape ``(..., sample, layer)``.
    residual : Tensor
        ‖f‖/max(1, ‖ĥ‖) of each sample in the scaled flow, shape ``(..., sample)``.
    tolerance : float
        What the residual had to fall below.
    iterations : int
        Steps made, over all samples together.
    ending : RestEnding
        ``converged``: all samples are at rest; ``stalled``: for one of them even short steps did not help;
        ``budget_spent``; ``not_finite``: at the start.
    """

    activity: Layers
    residual: Tensor
    tolerance: float
    iterations: int
    ending: RestEnding

    @property
    def is_at_rest(self) -> bool:
        """Whether every sample is."""
        return self.ending is RestEnding.CONVERGED


def find_rest(
    flow: ActivityFlow,
    start: Layers,
    inputs: Inputs,
    *,
    tolerance: float | None = None,
    max_iterations: int = 400,
    forms_blocks: bool | None = None,
) -> RestState:
    """Return where the activities come to rest, each sample on its own.

    Parameters
    ----------
    flow : ActivityFlow
        The flow that runs. Its activations must be differentiable twice; with a kink the search may stall.
    start : tuple of Tensor
        ĥ, shape ``(..., sample, layer)`` each; where the flow would start from.
    inputs : Inputs
        Input and target, which stand still.
    tolerance : float, optional
        Of ‖f‖/max(1, ‖ĥ‖), > 0; by default ε^0.7 of the dtype, 1.1e-11 in float64. Below it the search goes on until
        the residual no longer halves, so the result is as good as round-off lets it be.
    max_iterations : int
        Steps at most, ≥ 1.
    forms_blocks : bool, optional
        Whether J is formed; by default where no layer is as wide as :data:`WIDE`.

    Returns
    -------
    RestState
        Always: that the search failed is part of the outcome.

    Raises
    ------
    NlsimError
        For a tolerance or a budget out of range.

    Notes
    -----
    Cost of a step: 3n pull-backs through the flow, n the width of the widest layer, and three systems of n unknowns a
    layer and sample; or, without blocks, four matrix products a layer for each of 5 to 50 products J v. 10 to 30 steps,
    more where the flow passes a saddle. The rule ``equal`` with a decay couples all layers: there the blocks leave part
    of J out, and converge linearly.

    References
    ----------
    Kelley and Keyes, *Convergence analysis of pseudo-transient continuation*, SIAM J. Numer. Anal. 35(2), 1998.
    """
    like = inputs.input if inputs.input is not None else start[0]
    if tolerance is None:
        tolerance = float(torch.finfo(like.dtype).eps ** 0.7)
    if not (tolerance > 0 and max_iterations >= 1):
        raise NlsimError(
            "A search for rest needs a tolerance and a budget.",
            where="find_rest",
            given=f"tolerance {tolerance:g}, max_iterations {max_iterations}",
            allowed="tolerance > 0, max_iterations ≥ 1",
        )
    if not start:  # one layer whose output is not free: nothing moves
        return RestState(start, torch.zeros_like(like[..., 0]), tolerance, 0, RestEnding.CONVERGED)
    scaled = replace(flow, is_scaled=True)

    def field(*moving: Tensor) -> Layers:
        return scaled.vector_field(0.0, moving, inputs)

    def blocks(shift: Tensor) -> Layers:
        return _step(field, here, rates, shift)

    def products(shift: Tensor) -> Layers:
        jacobian = jacobian_product(field, here)

        def shifted(v: Layers) -> Layers:
            return tuple(shift.unsqueeze(-1) * each - j for each, j in zip(v, jacobian(v), strict=True))

        accuracy = missed.clamp(MOST_ACCURATE, LEAST_ACCURATE)
        return solve_each(shifted, rates, two_passes(scaled, here, inputs, shift), accuracy).solution

    if forms_blocks is None:
        forms_blocks = max(h.shape[-1] for h in start) < WIDE
    here = start
    rates = field(*here)
    missed = _residual(rates, here)
    if not bool(missed.isfinite().all()):
        return RestState(here, missed, tolerance, 0, RestEnding.NOT_FINITE)
    tau = torch.full_like(missed, FIRST_STEP)
    is_done = missed == 0
    iteration = 0
    while iteration < max_iterations and not bool((is_done | (tau < SHORTEST)).all()):
        iteration += 1
        step = blocks(1 / tau) if forms_blocks else products(1 / tau)
        trial = tuple(h + d for h, d in zip(here, step, strict=True))
        after = _residual(field(*trial), trial)
        ratio = missed / after.clamp(min=torch.finfo(after.dtype).tiny)
        # both false for NaN
        is_taken, is_halved = ~is_done & (ratio >= 1 / GROWTH), ratio >= GROWTH
        is_polished = (missed <= tolerance) & ~is_halved  # what no longer halves is round-off
        is_taken = is_taken & ~(is_polished & ~(ratio > 1))
        # along the flow f may rise for a while: τ then falls with it, as it grows when f falls
        longer = torch.where(ratio > 1, ratio.clamp(min=GROWTH), ratio)
        tau = torch.where(is_taken, (tau * longer).clamp(max=LONGEST), torch.where(is_done, tau, tau / GROWTH**2))
        chosen = is_taken.unsqueeze(-1)
        here = tuple(torch.where(chosen, t, h) for t, h in zip(trial, here, strict=True))
        rates, missed = field(*here), torch.where(is_taken, after, missed)
        is_done = is_done | is_polished
    if bool((missed <= tolerance).all()):
        ending = RestEnding.CONVERGED
    else:
        ending = RestEnding.STALLED if bool((tau < SHORTEST).any()) else RestEnding.BUDGET_SPENT
    return RestState(here, missed, tolerance, iteration, ending)


def _residual(rates: Layers, at: Layers) -> Tensor:
    """Return ‖f‖/max(1, ‖ĥ‖) of each sample."""
    speed = sum((f.square().sum(-1) for f in rates), torch.zeros_like(rates[0][..., 0])).sqrt()
    size = sum((h.square().sum(-1) for h in at), torch.zeros_like(at[0][..., 0])).sqrt()
    return speed / size.clamp(min=1)


def jacobian_blocks(field: _RowField, at: Layers) -> dict[tuple[int, int], Tensor]:
    """Return ∂f_l/∂ĥ_k for |l − k| ≤ 1 as (l, k) -> ``(..., sample, layer l, layer k)``.

    Layers three apart share no neighbour, so one pull-back serves all of them, and all samples, at once.
    """
    rates, pull = vjp(field, *at)[:2]
    blocks: dict[tuple[int, int], Tensor] = {}
    for colour in range(min(3, len(at))):
        rows = range(colour, len(at), 3)
        width = max(rates[row].shape[-1] for row in rows)
        seeds = []
        for layer, rate in enumerate(rates):
            lead = (width, *rate.shape)
            if layer in rows:
                one = torch.eye(width, rate.shape[-1], dtype=rate.dtype, device=rate.device)
                seeds.append(one.reshape(width, *(1,) * (rate.ndim - 1), -1).expand(lead))
            else:
                seeds.append(torch.zeros((), dtype=rate.dtype, device=rate.device).expand(lead))
        pulled = vmap(pull)(tuple(seeds))
        for row in rows:
            for column in range(max(0, row - 1), min(len(at), row + 2)):
                blocks[row, column] = pulled[column][: rates[row].shape[-1]].movedim(0, -2)
    return blocks


def _step(field: _RowField, at: Layers, rates: Layers, shift: Tensor) -> Layers:
    """Return δ of (shift · I − J) δ = f, by elimination from the first layer to the last and back."""
    blocks = jacobian_blocks(field, at)
    depth = len(at)
    pivots: list[Tensor] = []
    right = [f.unsqueeze(-1) for f in rates]
    for layer in range(depth):
        one = torch.eye(at[layer].shape[-1], dtype=shift.dtype, device=shift.device)
        pivot = shift[..., None, None] * one - blocks[layer, layer]
        if layer:
            # J_{l,l−1} P_{l−1}⁻¹, by the transposed system
            below = _solve(pivots[-1].mT, blocks[layer, layer - 1].mT).mT
            pivot = pivot - below @ blocks[layer - 1, layer]
            right[layer] = right[layer] + below @ right[layer - 1]
        pivots.append(pivot)
    found = [_solve(pivots[-1], right[-1])]
    for layer in reversed(range(depth - 1)):
        found.append(_solve(pivots[layer], right[layer] + blocks[layer, layer + 1] @ found[-1]))
    return tuple(each.squeeze(-1) for each in reversed(found))


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return matrix⁻¹ right; no number, rather than an exception, where the matrix is singular."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution
