"""Observed orders and summaries, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nlsim.analysis.orders import observed_order, pairwise_orders, richardson
from nlsim.analysis.summary import summarise_channel


@pytest.mark.parametrize("order", [-1, 1, 2, 4])
def test_a_power_law_has_its_exponent(order: int) -> None:
    h = np.array([0.1, 0.05, 0.025, 0.0125])
    assert observed_order(h, 3.0 * h**order) == pytest.approx(order, abs=1e-12)
    assert pairwise_orders(list(h), list(3.0 * h**order)) == pytest.approx([order] * 3, abs=1e-11)


@pytest.mark.parametrize(
    ("steps", "errors"),
    [([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1, 0.2], [0.1, 0.0]), ([0.1, 0.2], [0.1, np.nan]), ([-1, 1], [1, 1])],
)
def test_orders_of_nonsense_are_refused(steps: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match="observed_order needs"):
        observed_order(steps, errors)


def test_richardson_cancels_the_leading_term() -> None:
    def value(h: float) -> float:
        return 7.0 + 3.0 * h + 5.0 * h**2

    assert richardson(value(0.2), value(0.1)) == pytest.approx(7.0 - 5.0 * 0.02, abs=1e-14)
    assert richardson(7 + 0.2**2, 7 + 0.1**2, order=2) == pytest.approx(7.0, abs=1e-14)


def test_summary_is_a_number_or_a_norm() -> None:
    assert summarise_channel(xr.DataArray([1.5, 2.25], dims="time")) == ("1.5", "2.25")
    assert summarise_channel(xr.DataArray([[3.0, 4.0], [0.0, 1.0]], dims=("time", "n"))) == ("|5|", "|1|")
    assert summarise_channel(xr.DataArray(np.empty((0, 2)), dims=("time", "n"))) == ("", "")
