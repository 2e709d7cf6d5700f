"""The order law: error against step on logarithmic axes has the slope that the stepper declares."""

from __future__ import annotations

from typing import Any

from nlsim.analysis.orders import observed_order
from nlsim.core.system import Piece
from support.compare import gap

ALLOWANCE = 0.05


def end_errors(
    stepper: Any, system: Any, piece: Piece, state: Any, span: float, exact: Any, counts: tuple[int, ...]
) -> list[float]:
    """Return the largest error of any entry at the end of the span, for each number of steps."""
    return [gap(stepper.advance(system, piece, state, 0.0, span / n, n), exact) for n in counts]


def assert_order(expected: float, counts: tuple[int, ...], errors: list[float]) -> None:
    seen = observed_order([1.0 / n for n in counts], errors)
    assert abs(seen - expected) <= ALLOWANCE, f"order {seen:.3f}, declared {expected}; errors {errors}"
