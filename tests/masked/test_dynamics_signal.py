"""Masks in time: edges, draws without memory, products of masks, and what the signal under them keeps."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import assert_same_bits

from nlsim.core.state import leaves, map_leaves, named_leaves
from nlsim.core.system import Held, Inputs
from nlsim.errors import NlsimError
from nlsim.integrate.flattening import row_field
from nlsim.systems.hamiltonian.sign_flip import PeriodicFlip
from nlsim.systems.masked.signal import HeldMask, MaskedSignal, Outage, Outages, RandomMask, Reliability
from nlsim.systems.signals import Constant, HeldSamples, Sinusoid

ONES = Inputs(torch.ones(2, 3, dtype=torch.float64))
OUTAGES = Outages((Outage(0, 0.25, 1.0), Outage(2, 0.5, 0.75), Outage(None, 2.0, 3.0)), 3)


def edges(signal, until, start=0.0):
    found, t = [], start
    while (t := signal.edge_after(t)) <= until:
        found.append(t)
    return found


def reliability():
    half = torch.full((3,), 0.5, dtype=torch.float64)
    return Reliability(half, 0.4 * half, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), half)


def test_inputs_without_a_mask_have_no_mask_among_their_tensors():
    assert [name for name, _ in named_leaves(ONES)] == ["input"]
    assert map_leaves(lambda leaf: leaf.float(), ONES).mask is None
    seen = Inputs(ONES.input, None, ONES.input)
    assert [name for name, _ in named_leaves(seen)] == ["input", "mask"]
    assert map_leaves(lambda leaf: 2 * leaf, seen).mask.sum() == 12


def test_outages_blank_their_sensor_from_start_to_before_stop():
    def seen(t):
        return OUTAGES.piece(t)(t).tolist()

    assert seen(0.0) == seen(1.0) == seen(3.0) == [1, 1, 1]
    assert seen(0.25) == seen(0.75) == [0, 1, 1]
    assert seen(0.5) == [0, 1, 0]
    assert seen(2.0) == seen(2.9) == [0, 0, 0]
    assert edges(OUTAGES, 10.0) == [0.25, 0.5, 0.75, 1.0, 2.0, 3.0]


def test_a_piece_is_constant_between_the_edges_it_declares():
    for t in (0.0, *edges(OUTAGES, 10.0)):
        until = min(OUTAGES.edge_after(t), 4.0)
        inside = [t + (until - t) * k / 10 for k in range(10)]
        masks = [OUTAGES.piece(each)(each) for each in inside]
        assert all(torch.equal(each, masks[0]) for each in masks)


def test_random_masks_depend_on_seed_and_interval_alone():
    mask, fresh = RandomMask(4, 0.5, 0.1, 6, 3), RandomMask(4, 0.5, 0.1, 6, 3)
    forward = [mask.piece(0.1 * k)(0.0) for k in range(20)]
    backward = [fresh.piece(0.1 * k)(0.0) for k in reversed(range(20))][::-1]
    assert_same_bits(tuple(forward), tuple(backward))
    assert any(not torch.equal(forward[0], each) for each in forward[1:])
    other = RandomMask(4, 0.5, 0.1, 6, 4)
    assert any(not torch.equal(other.piece(0.1 * k)(0.0), forward[k]) for k in range(20))


def test_random_masks_are_drawn_at_their_rate_entry_by_entry():
    rate = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    drawn = RandomMask(4, rate, 1.0, 20_000, 5).piece(0.0)(0.0)
    # five standard errors of 20 000 independent draws
    limit = 5 * (rate * (1 - rate) / 20_000).sqrt()
    assert ((drawn.mean(0) - rate).abs() <= limit).all()
    both = (drawn[:, 1] * drawn[:, 2]).mean() - 0.2 * 0.7
    assert abs(float(both)) <= 5 * math.sqrt(0.14 * 0.86 / 20_000)


def test_a_sensor_that_drops_out_does_so_for_all_samples():
    drop = RandomMask(3, 0.5, 0.1)
    signal = MaskedSignal(Constant(ONES), (drop,))
    masks = torch.stack([signal.piece(0.1 * k)(0.0).mask for k in range(50)])
    assert masks.shape == (50, 3)
    # every sensor is seen at times and missed at times; chance of failing 6 · 2⁻⁵⁰
    assert ((masks.mean(0) > 0) & (masks.mean(0) < 1)).all()


def test_edges_of_a_masked_signal_are_those_of_signal_and_masks():
    samples = HeldSamples(torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), 1, 0.5)
    signal = MaskedSignal(samples, (OUTAGES, RandomMask(3, 0.5, 0.8)))
    assert edges(signal, 2.0) == sorted({0.25, 0.5, 0.75, 0.8, 1.0, 1.5, 1.6, 2.0})


def test_held_pieces_stay_held_and_masks_multiply():
    random = RandomMask(3, 0.5, 0.8, 2)
    signal = MaskedSignal(MaskedSignal(Constant(ONES), (random,)), (OUTAGES,))
    piece = signal.piece(0.3)
    assert isinstance(piece, Held)
    assert_same_bits(piece.inputs.mask, random.piece(0.3)(0.3) * OUTAGES.piece(0.3)(0.3))
    assert_same_bits(piece.inputs.input, ONES.input)


def test_a_soft_mask_moves_with_time_and_within_its_range():
    signal = MaskedSignal(Constant(ONES), (reliability(), OUTAGES))
    piece = signal.piece(0.3)
    assert not isinstance(piece, Held)
    assert_same_bits(piece(0.4).mask, reliability().at(0.4) * OUTAGES.piece(0.3)(0.4))
    values = torch.stack([reliability().at(0.05 * k) for k in range(200)])
    assert values.min() >= 0.3
    assert values.max() <= 0.7
    # central difference: error h²ω³A/6 ≤ 1e-8 · 27 · 0.2/6 < 1e-8
    slope = (reliability().at(0.7 + 1e-4) - reliability().at(0.7 - 1e-4)) / 2e-4
    assert (slope - reliability().slope(0.7)).abs().max() <= 1e-8


def test_a_moving_signal_under_a_held_mask_moves():
    wave = Inputs(torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    piece = MaskedSignal(Sinusoid(wave, wave, wave, wave), (OUTAGES,)).piece(0.3)
    assert not torch.equal(piece(0.3).input, piece(0.4).input)
    assert piece(0.4).mask.tolist() == [0, 1, 1]
    assert len(leaves(piece(0.4))) == 3


def test_masks_take_dtype_from_the_tensor_given():
    like = torch.empty(0, dtype=torch.float32)
    for mask in (Outages((), 3, like), RandomMask(3, 0.5, 1.0, like=like)):
        held = mask.piece(0.0)
        assert isinstance(held, HeldMask)
        assert held.mask.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Outages((Outage(0, 1.0, 1.0),), 3), "outages[0]"),
        (lambda: Outages((Outage(0, 0.0, 1.0), Outage(3, 0.0, 1.0)), 3), "outages[1]"),
        (lambda: RandomMask(3, 1.5, 1.0), "rate"),
        (lambda: RandomMask(3, math.nan, 1.0), "rate"),
        (lambda: RandomMask(3, 0.5, 0.0), "interval"),
        (lambda: Reliability(*(torch.full((2,), each) for each in (0.5, 0.6, 1.0, 0.0))), "level, amplitude"),
    ],
)
def test_impossible_masks_are_refused(make, where):
    with pytest.raises(NlsimError) as refused:
        make()
    assert refused.value.where == where


def test_what_wraps_a_signal_passes_its_mask_on():
    masked = MaskedSignal(Constant(ONES), (OUTAGES,))
    flipped = PeriodicFlip(0.2).drive(masked)
    assert flipped.edge_after(0.2) == 0.25
    assert flipped.piece(0.3)(0.3).mask.tolist() == [0, 1, 1]

    def visible(t, state, inputs):
        return state * inputs.mask.sum()

    rows = row_field(visible, masked, torch.zeros(1, dtype=torch.float64))
    times = torch.tensor([0.0, 0.3, 0.6, 2.5], dtype=torch.float64)
    assert rows(times, torch.ones(4, 1, dtype=torch.float64))[:, 0].tolist() == [3, 2, 1, 0]
