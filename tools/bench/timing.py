"""Paired timing: what is measured and what it is measured against take turns, and medians are reported."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def timed(work: Callable[[], object], repeats: int) -> float:
    """Return seconds a call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begin) / repeats


def paired(
    floor: Callable[[], object], work: Callable[[], object], *, rounds: int, seconds: float = 0.02, units: int = 1
) -> tuple[float, float, float]:
    """Return the medians of the floor, of the work, and of their ratio in each round.

    ``seconds`` is how long the floor runs in a round; ``units`` how many units of the floor one call of the work does.
    """
    timed(work, 2)
    repeats = max(1, int(seconds / max(timed(floor, 3), 1e-7)))
    calls, pairs = max(1, repeats // units), []
    for turn in range(rounds):
        if turn % 2:
            b, a = timed(work, calls) / units, timed(floor, repeats)
        else:
            a, b = timed(floor, repeats), timed(work, calls) / units
        pairs.append((a, b))
    low, high = (statistics.median(each) for each in zip(*pairs, strict=True))
    return low, high, statistics.median(b / a for a, b in pairs)
