"""Shares of the bias where inputs are not alike.

With π_j = 1/p a variable spread over several columns (a category, one-hot) carries several shares of the bias, so
the meaning of "half is missing" changes with the encoding. Shares that are equal between source variables and
equal within each, π_j = 1/(G C_g) for a column of variable g of G with C_g columns, do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.errors import NlsimError
from nlsim.systems.masked.signal import HeldMask, Mask, MaskPiece


def group_shares(
    columns: Sequence[int], *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """Return π_j = 1/(G C_g), shape ``(Σ_g C_g,)``, with sum 1.

    Parameters
    ----------
    columns : sequence of int
        C_g, how many neighbouring columns each source variable has: 1 for a number, the number of classes for a
        one-hot category. A missing variable is one whose whole block is missing; a block of observed zeros keeps
        its share of the bias and is something else.
    dtype, device : optional
        Of the result.

    Raises
    ------
    NlsimError
        Without variables, or for a variable without columns.

    Examples
    --------
    >>> group_shares([1, 3, 1]).tolist()[:2]
    [0.3333333333333333, 0.1111111111111111]
    """
    if not columns or min(columns) < 1:
        raise NlsimError(
            "Shares need variables with at least one column each.",
            where="columns",
            given=list(columns),
            allowed="one or more whole numbers from 1 up",
        )
    each = [1.0 / (len(columns) * width) for width in columns for _ in range(width)]
    return torch.tensor(each, dtype=dtype, device=device)


def check_shares(shares: Tensor, inputs: int) -> None:
    """Refuse shares that are not ``inputs`` numbers ≥ 0 with sum 1 (to 1e-6).

    Raises
    ------
    NlsimError
        With what was found.
    """
    if shares.shape != (inputs,):
        raise NlsimError(
            "There is one share for each input.", where="shares", given=list(shares.shape), allowed=f"shape ({inputs},)"
        )
    total = float(shares.sum())
    if not (bool((shares >= 0).all()) and abs(total - 1.0) <= 1e-6):
        raise NlsimError(
            "Shares are numbers ≥ 0 that sum up to 1.",
            where="shares",
            given=f"smallest {float(shares.min()):g}, sum {total:g}",
            advice="Divide them by their sum, or build them with group_shares.",
        )


@dataclass(frozen=True, eq=False)
class GroupedMask:
    """A mask of source variables, seen by the columns of each: what is missing is missing with its whole block.

    Parameters
    ----------
    mask : Mask
        m_g(t) of the variables, the last axis.
    columns : sequence of int
        C_g, how many neighbouring columns each has, as for :func:`~nlsim.systems.masked.shares.group_shares`.
    """

    mask: Mask
    columns: Sequence[int]

    def edge_after(self, t: float) -> float:
        """Return the next edge of the mask."""
        return self.mask.edge_after(t)

    def piece(self, t: float) -> MaskPiece:
        """Return the mask's piece, column by column; held where it is held."""
        inner = self.mask.piece(t)
        if isinstance(inner, HeldMask):
            return HeldMask(self._spread(inner.mask))
        return lambda now: self._spread(inner(now))

    def _spread(self, mask: Tensor) -> Tensor:
        counts = torch.tensor(self.columns, device=mask.device)
        return mask.repeat_interleave(counts, -1)
