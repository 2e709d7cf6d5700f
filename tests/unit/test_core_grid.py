"""Time grids land on every edge exactly and divide what lies between evenly."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from support.flow import Silence

from nlsim.core.grid import check_grid, time_grid
from nlsim.errors import NlsimError
from nlsim.systems.signals import HeldSamples


def held(interval):
    samples = torch.zeros(5, 1, dtype=torch.float64)
    return HeldSamples(samples, samples, 1, interval)


def test_without_edges_the_steps_are_even():
    assert time_grid(Silence(), 0.0, 1.0, 0.25) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert time_grid(Silence(), 1.0, 2.0, 0.3) == (1.0, 1.25, 1.5, 1.75, 2.0)
    assert time_grid(Silence(), 0.0, 1.0, 7.0) == (0.0, 1.0)


@pytest.mark.parametrize("interval", [0.1, 0.07, 1 / 3])
def test_edges_are_nodes_exactly_and_steps_are_not_longer_than_asked(interval):
    grid = time_grid(held(interval), 0.0, 1.0, 0.04)
    edges = {n * interval for n in range(1, 100) if n * interval < 1.0}
    assert edges <= set(grid)
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert max(b - a for a, b in pairwise(grid)) <= 0.04 * (1 + 1e-9)
    check_grid(grid, held(interval).edge_after)


def test_a_multiple_of_the_step_to_rounding_is_that_multiple():
    # 0.3/0.1 is 2.9999999999999996 or 3.0000000000000004, never four steps
    assert len(time_grid(Silence(), 0.0, 0.1 * 3, 0.1)) == 4
    assert len(time_grid(Silence(), 0.1, 0.4, 0.1)) == 4


@pytest.mark.parametrize(("start", "stop"), [(1.0, 1.0), (1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)])
def test_an_empty_horizon_is_refused(start, stop):
    with pytest.raises(NlsimError, match="horizon"):
        time_grid(Silence(), start, stop, 0.1)


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan])
def test_a_step_that_is_not_positive_is_refused(step):
    with pytest.raises(NlsimError, match="positive"):
        time_grid(Silence(), 0.0, 1.0, step)


def test_a_step_across_an_edge_is_refused_and_one_that_ends_there_is_not():
    check_grid([0.0, 0.25, 0.5], held(0.25).edge_after)
    with pytest.raises(NlsimError, match="jump at 0\\.25"):
        check_grid([0.0, 0.2, 0.5], held(0.25).edge_after)
