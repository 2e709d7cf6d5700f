"""Property legs: hypothesis outside of a test run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nlsim.theorems.evidence import Evidence, Leg, judge
from nlsim.theorems.statement import Effort


def check_property(
    name: str,
    expected: str,
    effort: Effort,
    strategy: st.SearchStrategy[Any],
    error_of: Callable[[Any], float],
    tolerance: float,
) -> Evidence:
    """Draw cases, measure an error on each, and report the largest; shrink a case that exceeds the tolerance.

    Parameters
    ----------
    name, expected : str
        For the report.
    effort : Effort
        How many cases, and whether they are a fixed choice.
    strategy : SearchStrategy
        The cases.
    error_of : callable
        ``error_of(case) -> float``.
    tolerance : float
        Largest error allowed.
    """
    worst, count = 0.0, 0
    smallest: Any = None

    @settings(
        max_examples=effort.examples,
        derandomize=not effort.is_random,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def examine(case: Any) -> None:
        nonlocal worst, count, smallest
        error = error_of(case)
        count += 1
        if not error <= tolerance:  # a NaN is a failure too
            smallest = (case, error)
            raise AssertionError
        worst = max(worst, error)

    try:
        examine()
    except AssertionError:
        case, error = smallest
        return Evidence(Leg.PROPERTY, name, judge(False), expected, f"error {error:.3g} at {case}")
    return Evidence(
        Leg.PROPERTY, name, judge(count > 0), expected, f"largest error {worst:.2g} over {count} random cases"
    )
