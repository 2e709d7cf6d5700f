"""Signals: every sample once an epoch, no memory, exact edges, and sinusoids that are sinusoids."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import EPS, assert_same_bits
from support.learning import make_inputs, make_network, make_sinusoid

from nlsim.systems.signals import Constant, HeldSamples, one_hot

COUNT = 7


def held(batch=2, interval=0.1, seed=4, count=COUNT):
    values = torch.arange(count, dtype=torch.float64).unsqueeze(-1)
    return HeldSamples(values, -values, batch, interval, seed)


def shown(signal, index):
    """Return the sample numbers that are shown in an interval."""
    inputs = signal.piece(index * signal.interval)(index * signal.interval)
    assert torch.equal(inputs.target, -inputs.input), "a target does not belong to its input"
    return inputs.input[:, 0].long().tolist()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
def test_every_sample_is_shown_once_an_epoch(batch):
    signal = held(batch)
    stream = [number for index in range(5 * COUNT) for number in shown(signal, index)]
    epochs = [stream[start : start + COUNT] for start in range(0, 5 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "every epoch has the same order"


def test_the_order_is_a_function_of_seed_and_position_alone():
    forward, backward = held(), held()
    indices = list(range(40))
    in_order = {index: shown(forward, index) for index in indices}
    reversed_ = {index: shown(backward, index) for index in reversed(indices)}
    assert in_order == reversed_
    assert [shown(held(seed=5), index) for index in indices] != [in_order[index] for index in indices]


def test_the_cache_does_not_grow():
    signal = held()
    for index in range(400):
        shown(signal, index)
    assert len(signal._orders) <= 3


@pytest.mark.parametrize("interval", [0.1, 0.05, 1 / 3, 0.07, 0.01, 1.0, 2.5, math.pi, 1e-3, 1e3])
def test_the_interval_that_begins_at_an_edge_is_its_own(interval):
    signal = held(interval=interval)
    wrong = [index for index in range(100_001) if signal.index(index * interval) != index]
    assert wrong == []


@pytest.mark.parametrize("interval", [0.1, 0.05, 1 / 3, 0.07])
def test_edges_met_by_walking_are_the_multiples_of_the_interval(interval):
    signal, t = held(interval=interval), 0.0
    for index in range(1, 5001):
        t = signal.edge_after(t)
        assert t == index * interval


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.999])
def test_inputs_are_held_between_edges(fraction):
    signal = held()
    for index in range(20):
        t = (index + fraction) * signal.interval
        piece = signal.piece(t)
        assert_same_bits(piece(t), signal.piece(index * signal.interval)(0.0))
        assert signal.edge_after(t) == (index + 1) * signal.interval


def test_constant_never_changes_and_has_no_edges():
    inputs = make_inputs(make_network(), 3)
    signal = Constant(inputs)
    assert signal.edge_after(1e9) == math.inf
    assert signal.piece(3.0)(17.0) is inputs


@pytest.mark.parametrize("name", ["input", "target"])
def test_sinusoid_solves_its_own_equation(name):
    signal = make_sinusoid(make_network(), 2)
    offset, amplitude, frequency, phase = (
        getattr(each, name) for each in (signal.offset, signal.amplitude, signal.frequency, signal.phase)
    )
    assert signal.edge_after(0.0) == math.inf
    for t in (0.0, 0.3, 4.0, 100.0):
        expected = offset + amplitude * (
            torch.sin(frequency * t) * torch.cos(phase) + torch.cos(frequency * t) * torch.sin(phase)
        )
        # the argument ω t rounds at the size of 200
        assert torch.allclose(getattr(signal.piece(1.0)(t), name), expected, rtol=0, atol=400 * EPS)


def test_one_hot_rows():
    rows = one_hot(torch.tensor([2, 0]), 3, torch.float32)
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert rows.dtype == torch.float32
