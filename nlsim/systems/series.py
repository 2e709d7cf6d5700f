"""A time series as a signal: one record after another, each held for an interval."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nlsim.core.system import Inputs, Piece
from nlsim.errors import NlsimError
from nlsim.systems.signals import hold, interval_index


@dataclass(frozen=True, eq=False)
class HeldSeries:
    """The records of a time series in their order; the last one is held for ever.

    Record j is the input for j·interval ≤ t < (j+1)·interval, as one sample, without a target.

    Parameters
    ----------
    values : Tensor
        Shape ``(record, channel)``, at least one record; NaN where nothing was recorded, to be masked by
        :class:`~nlsim.systems.masked.signal.MissingValues`.
    interval : float
        How long a record is held, > 0, in units of time.
    before : Tensor or None
        Records that lie before the start, of which a system may know the statistics.

    Raises
    ------
    NlsimError
        Without records, or for an interval that takes no time.
    """

    values: Tensor
    interval: float
    before: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) == 0:
            raise NlsimError(
                "A time series has records.",
                where="values",
                given=f"shape {tuple(self.values.shape)}",
                allowed="shape (record, channel)",
            )
        if not 0 < self.interval < float("inf"):
            raise NlsimError(
                "A record is held for a time.", where="interval", given=self.interval, allowed="finite, interval > 0"
            )

    def edge_after(self, t: float) -> float:
        """Return the end of the interval that begins at or contains t."""
        return (interval_index(t, self.interval) + 1) * self.interval

    def piece(self, t: float) -> Piece:
        """Return the record of the interval that begins at or contains t, shape ``(1, channel)``."""
        position = min(interval_index(t, self.interval), len(self.values) - 1)
        return hold(Inputs(self.values[position : position + 1]))
