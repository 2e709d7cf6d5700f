"""A curve in a line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = " "


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return numbers as a row of blocks, the lowest ▁ and the highest █; gaps where they are not finite.

    Parameters
    ----------
    values : sequence of float
        One number a time; of more than ``width`` those at equal distances are shown, the last one always.
    width : int
        At most so many blocks, ≥ 1.
    """
    count = len(values)
    if count > width:
        values = [values[count - 1 - round(k * (count - 1) / max(width - 1, 1))] for k in reversed(range(width))]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _GAP * len(values)
    low, high = min(finite), max(finite)
    span = high - low
    steps = len(_LEVELS) - 1

    def block(value: float) -> str:
        if not math.isfinite(value):
            return _GAP
        share = (value - low) / span if 0 < span < math.inf else 0.5
        return _LEVELS[round(share * steps)]

    return "".join(map(block, values))
