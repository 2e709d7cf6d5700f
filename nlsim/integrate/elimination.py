"""Linear equations of two-point problems: a chain of blocks with separated boundary conditions."""

from __future__ import annotations

import torch
from torch import Tensor


def eliminate(block: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eliminate the first unknowns from rows ``block · a + rest · b`` by LU with row pivoting.

    Parameters
    ----------
    block : Tensor
        Shape ``(..., rows, k)``, rows ≥ k, of full column rank.
    rest : Tensor
        Shape ``(..., rows, m)``: everything that goes along, right-hand sides included.

    Returns
    -------
    upper : Tensor
        ``(..., k, k)`` upper triangular U, and
    solved : Tensor
        ``(..., k, m)`` with U a + solved · b = 0: how a follows once b is known;
    left : Tensor
        ``(..., rows − k, m)``: the remaining rows, in which a no longer occurs.
    """
    columns = block.shape[-1]
    permutation, lower, upper = torch.linalg.lu(block)
    order = permutation.argmax(-2).unsqueeze(-1).expand_as(rest)
    sorted_ = rest.gather(-2, order)
    solved = torch.linalg.solve_triangular(
        lower[..., :columns, :], sorted_[..., :columns, :], upper=False, unitriangular=True
    )
    return upper, solved, sorted_[..., columns:, :] - lower[..., columns:, :] @ solved


def solve_separated(left: Tensor, right: Tensor, missed: Tensor, states: int) -> Tensor:
    """Solve left_k δ_k + right_k δ_{k+1} + missed_k = 0, the first entries of δ_0 and the last of δ_N being 0.

    A sweep from the start carries, at node k, as many rows on δ_k alone as there are states: what the start says
    about δ_k. They and the rows of step k eliminate δ_k (LU with row pivoting over both, so neither growing nor
    decaying directions are ever inverted), which leaves as many rows on δ_{k+1}. With rows of the form
    δy − P δp = g that sweep is the Riccati recursion; with pivoting it exists also where P does not.

    Parameters
    ----------
    left, right : Tensor
        Shape ``(N, d, d)``.
    missed : Tensor
        Shape ``(N, d)``.
    states : int
        n: the first n entries of δ_0 and the last d − n entries of δ_N vanish.

    Returns
    -------
    Tensor
        δ, shape ``(N + 1, d)``; not finite when the equations are singular.

    Notes
    -----
    Cost: N · (roughly 3 d³) multiplications, one step after the other; memory N d² beside the blocks.
    """
    steps, size = missed.shape
    start = torch.eye(size, dtype=left.dtype, device=left.device)[:states]
    pending = torch.cat((start, start.new_zeros(states, 1)), -1)  # rows (R | r): R δ_k + r = 0
    uppers, tails = [], []
    for k in range(steps):
        block = torch.cat((pending[:, :size], left[k]))
        along = torch.cat((right[k], missed[k].unsqueeze(-1)), -1)
        carried = torch.cat((torch.zeros_like(pending[:, :size]), pending[:, size:]), -1)
        upper, solved, pending = eliminate(block, torch.cat((carried, along)))
        uppers.append(upper)
        tails.append(solved)
    # at the end only the state is unknown
    delta = pending.new_zeros(size)
    last, info = torch.linalg.solve_ex(pending[:, :states], -pending[:, size:])
    delta[:states] = torch.where(info == 0, last.squeeze(-1), torch.nan)
    found = [delta]
    for upper, solved in zip(reversed(uppers), reversed(tails), strict=True):
        right_hand = -(solved[:, :size] @ delta.unsqueeze(-1) + solved[:, size:])
        delta = torch.linalg.solve_triangular(upper, right_hand, upper=True).squeeze(-1)
        found.append(delta)
    found[-1][:states] = 0  # which it is but for rounding
    return torch.stack(found[::-1])
