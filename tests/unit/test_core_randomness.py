"""Randomness without memory: a draw depends on seed, purpose and index, and on nothing drawn before."""

from __future__ import annotations

import itertools

import numpy as np

from nlsim.core.randomness import generator


def numbers(seed, purpose, index=0):
    return generator(seed, purpose, index).random(8)


def test_equal_arguments_give_equal_numbers_whatever_was_drawn_before():
    first = numbers(3, "weight", 1)
    generator(3, "weight", 0).random(1000)
    np.random.default_rng(0).random(10)
    assert (numbers(3, "weight", 1) == first).all()


def test_every_argument_matters():
    keys = list(itertools.product((0, 1, 2), ("weight", "order", "mask"), (0, 1, 2)))
    streams = {tuple(numbers(*key)) for key in keys}
    assert len(streams) == len(keys)


def test_streams_are_uncorrelated():
    count = 4000
    streams = np.array([generator(0, "order", index).standard_normal(count) for index in range(6)])
    correlation = np.corrcoef(streams) - np.eye(6)
    # 15 coefficients of standard deviation 1/√count; five of them are never reached by chance
    assert np.abs(correlation).max() <= 5 / count**0.5


def test_draws_stay_what_they_are():
    # golden: changing these changes every run ever made
    assert generator(0, "weight").integers(0, 1000, 4).tolist() == [683, 371, 306, 267]
    assert generator(7, "order", 3).permutation(6).tolist() == [4, 5, 0, 3, 1, 2]
