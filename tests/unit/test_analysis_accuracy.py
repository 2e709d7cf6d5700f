"""Time to accuracy, on curves whose crossing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray

from nlsim.analysis.accuracy import time_to_accuracy

TIME = np.arange(6) * 10.0
NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected", "crossing"),
    [
        ([0.1, 0.3, 0.6, 0.8, 0.9, 0.9], 30.0, 25.0),  # 0.7 is half way from 0.6 to 0.8
        ([0.1, 0.3, 0.7, 0.8, 0.9, 0.9], 20.0, 20.0),  # at the level is reached
        ([0.8, 0.9, 0.9, 0.9, 0.9, 0.9], 0.0, 0.0),  # from the start
        ([0.1, 0.9, 0.9, 0.5, 0.75, 0.9], 40.0, 38.0),  # it falls back: the last rise counts
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.6], math.inf, math.inf),  # it does not stay
        ([0.1, 0.2, 0.3, 0.3, 0.4, 0.5], math.inf, math.inf),  # never
        ([0.1, 0.2, 0.3, 0.3, 0.4, 0.7], 50.0, 50.0),  # only the last frame
        ([0.1, NAN, 0.5, NAN, 0.9, NAN], 40.0, 30.0),  # gaps say nothing; the line is drawn across
        ([NAN, NAN, 0.9, 0.9, NAN, NAN], 20.0, 20.0),  # first value known is high enough
        ([0.9, NAN, 0.9, 0.6, NAN, NAN], math.inf, math.inf),  # the last value known is low
        ([NAN] * 6, math.inf, math.inf),
    ],
)
def test_the_level_is_reached_when_it_is_kept(values: list[float], expected: float, crossing: float) -> None:
    assert float(time_to_accuracy(values, 0.7, time=TIME)) == expected
    found = float(time_to_accuracy(values, 0.7, time=TIME, interpolates=True))
    assert found == crossing or found == pytest.approx(crossing, rel=1e-14)


def test_none_is_a_gap() -> None:
    values = np.array([0.1, None, 0.5, None, 0.9, None], dtype=object)
    assert float(time_to_accuracy(values, 0.7, time=TIME)) == 40.0


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_the_crossing_of_an_exponential_is_found(level: float) -> None:
    """1 − e^{−t} crosses at −log(1 − level); the frame is late by at most h, the line by h²/8 |f''/f'|."""
    h = 0.01
    time = np.arange(0, 5, h)
    values = 1 - np.exp(-time)
    exact = -math.log(1 - level)
    assert 0 <= float(time_to_accuracy(values, level, time=time)) - exact <= h
    # f''/f' = −1; the chord lies below the curve, so the line is late
    late = float(time_to_accuracy(values, level, time=time, interpolates=True)) - exact
    assert -1e-14 <= late <= 1.02 * h * h / 8


def test_members_are_looked_at_one_by_one_along_the_axis_of_time() -> None:
    values = np.array([[0.1, 0.6, 0.8, 0.8, 0.8, 0.8], [0.8] * 6, [0.1] * 6])
    channel = xarray.DataArray(values, dims=("ensemble", "time"), coords={"time": TIME})
    assert time_to_accuracy(channel, 0.7).tolist() == [20.0, 0.0, math.inf]
    assert time_to_accuracy(values.T, 0.7, time=TIME).tolist() == [20.0, 0.0, math.inf]
    assert time_to_accuracy(channel, 0.7, interpolates=True)[0] == pytest.approx(15.0)
    # other times may be given to a channel, epochs say
    assert time_to_accuracy(channel, 0.7, time=TIME / 10).tolist() == [2.0, 0.0, math.inf]


@pytest.mark.parametrize(
    ("values", "time", "problem"),
    [
        ([0.1, 0.9], None, "times of the frames"),
        ([0.1, 0.9], [0.0], "a time a frame"),
        (0.5, [0.0], "a time a frame"),
        ([0.1, 0.9], [1.0, 1.0], "increase"),
        ([0.1, 0.9], [0.0, NAN], "finite times"),
        (xarray.DataArray([0.1, 0.9], dims="time"), None, "times of the frames"),
    ],
)
def test_frames_without_times_are_refused(values: object, time: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        time_to_accuracy(values, 0.7, time=time)  # type: ignore[arg-type]


def test_a_level_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a level"):
        time_to_accuracy([0.1, 0.9], NAN, time=[0.0, 1.0])
