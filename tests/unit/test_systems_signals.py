"""Signals: every sample once an epoch, no memory, exact edges, and sinusoids that are sinusoids."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import EPS, assert_same_bits
from support.learning import make_inputs, make_network, make_sinusoid

from nlsim.systems.signals import Constant, HeldSamples, PatchedCosine, SineTarget, one_hot

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sine_target_is_one_wave_for_every_output(dtype):
    signal = SineTarget(0.5, 0.05, 3, torch.empty(0, dtype=dtype))
    assert signal.edge_after(0.0) == math.inf
    for t in (0.0, 1.0, 1e4 + 0.3):
        inputs = signal.piece(t)(t)
        assert inputs.input is None
        assert inputs.target.dtype == dtype
        assert inputs.target.shape == (1, 3)
        # the phase is formed in float64 whatever the dtype: one rounding of the result
        expected = torch.full((1, 3), 0.5 * math.sin(0.05 * t), dtype=torch.float64)
        assert torch.allclose(inputs.target.double(), expected, rtol=0, atol=torch.finfo(dtype).eps)


def patched(seed=3, **changes):
    return PatchedCosine(**{"seed": seed, "interval": 0.7, "lowest_frequency": 2.0, "highest_frequency": 5.0,
                            "amplitude": 0.5, "outputs": 2, **changes})  # fmt: skip


def test_patched_cosine_alternates_cosines_and_constants():
    signal, frequencies, constants = patched(), [], []
    for index in range(40):
        t = index * 0.7
        piece = signal.piece(t)
        first, second = (piece(when).target for when in (t + 0.2, t + 0.4))
        if index % 2:
            assert torch.equal(first, second)
            assert float(first.abs().max()) <= 0.5
            constants += first.flatten().tolist()
        else:
            # from 0 to below π/ω ≥ 0.6 the cosine falls, so it gives its frequency away
            frequency = torch.acos(piece(0.1).target / 0.5) / 0.1
            assert float(frequency.min()) >= 2 - 1e-9
            assert float(frequency.max()) <= 5 + 1e-9
            # acos near 1 magnifies a rounding by up to ten, times t ω
            assert torch.allclose(second, 0.5 * torch.cos(frequency * (t + 0.4)), rtol=0, atol=1e-11)
            frequencies += frequency.flatten().tolist()
    # forty uniform draws: a gap of a third at an end has a chance of (2/3)^40, 1e-7
    assert min(frequencies) < 3
    assert max(frequencies) > 4
    assert len(set(frequencies)) == len(set(constants)) == 40
    assert min(constants) < -0.16
    assert max(constants) > 0.16


def test_patched_cosine_is_a_function_of_seed_and_position_alone():
    forward, backward = patched(), patched()
    times = [0.35 + 0.7 * index for index in range(20)]
    seen = {t: forward.piece(t)(t).target.tolist() for t in times}
    assert seen == {t: backward.piece(t)(t).target.tolist() for t in reversed(times)}
    other = patched(seed=4)
    assert all(other.piece(t)(t).target.tolist() != seen[t] for t in times)


def test_edges_of_patched_cosine_are_the_multiples_of_its_interval():
    signal, t = patched(), 0.0
    for index in range(1, 2001):
        t = signal.edge_after(t)
        assert t == index * 0.7
        # the piece that begins at an edge is the new one
        assert torch.equal(signal.piece(t)(t).target, signal.piece(t + 0.1)(t).target)


def test_targets_are_of_the_dtype_asked_for():
    target = patched(like=torch.empty(0, dtype=torch.float32), input=torch.empty(1, 0)).piece(0.0)(0.0)
    assert target.target.dtype == torch.float32
    assert target.input.shape == (1, 0)
