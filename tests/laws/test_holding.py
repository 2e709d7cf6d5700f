"""What stands still between jumps is not stepped, and what a run does is the same with and without that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from support.compare import assert_round_off, assert_same_bits

from nlsim.core.ending import Ending
from nlsim.core.state import state_class
from nlsim.core.system import Held
from nlsim.integrate.adapter import AdaptiveRungeKutta
from nlsim.integrate.catalogue import STEPPERS
from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop
from nlsim.integrate.members import Memberwise
from nlsim.systems.signals import HeldSamples


@state_class
class Fed:
    """A quantity that grows, and its growth rate."""

    size: torch.Tensor
    rate: torch.Tensor


class Whole:
    """d size/dt = rate · size + u; at an edge the rate jumps by what has been shown, minus what follows."""

    def vector_field(self, t, state, inputs):
        return Fed(state.rate * state.size + inputs.input, torch.zeros_like(state.rate))

    def jump(self, t, state, ended, begun):
        return Fed(state.size, 0.9 * state.rate + 0.1 * ended.input.reshape(-1) - 0.2 * begun.input.reshape(-1))


@dataclass(frozen=True)
class Part:
    rate: torch.Tensor

    def vector_field(self, t, size, inputs):
        return self.rate * size + inputs.input


class Parted(Whole):
    """The same, with its moving part alone stepped."""

    pieces: list

    def __init__(self):
        self.pieces = []

    def moving(self, state, piece):
        self.pieces.append(piece)
        return Part(state.rate), state.size

    def whole(self, state, moved):
        return replace(state, size=moved)


def shown():
    values = torch.sin(torch.arange(40, dtype=torch.float64)).unsqueeze(-1)
    return HeldSamples(values, values, 1, 0.3, 4)


def start():
    return Fed(torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64))


def run(system, control, **options):
    loop = Loop(system, control, shown(), start(), until=2.7, **options)
    return loop, list(loop)


CONTROLS = {
    "euler": FixedStep(STEPPERS["explicit_euler"], 0.05),
    "rk4": FixedStep(STEPPERS["rk4"], 0.1),
    "gauss4": FixedStep(STEPPERS["gauss4"], 0.1),
    "memberwise": Memberwise(rtol=1e-10, atol=1e-10),
    "adaptive": AdaptiveRungeKutta(rtol=1e-10, atol=1e-12),
}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_runs_are_the_same_with_and_without_parts(control):
    (whole, ticks), (parted, again) = (
        run(system, control, record_times=[0.0, 0.5, 2.7]) for system in (Whole(), Parted())
    )
    assert whole.ending is parted.ending is Ending.REACHED_END
    assert [(each.t, each.is_record) for each in ticks] == [(each.t, each.is_record) for each in again]
    if isinstance(control, FixedStep):
        for one, other in zip(ticks, again, strict=True):
            assert_round_off(other.state, one.state, 60)
    else:  # step choices differ by what stands still: each run has an error of its tolerance
        assert float((whole.state.size - parted.state.size).abs().max()) < 1e-7


def test_pieces_of_samples_say_that_they_are_constant():
    system = Parted()
    run(system, CONTROLS["euler"])
    assert all(isinstance(piece, Held) for piece in system.pieces)
    assert len(system.pieces) == 1 + 9  # once to ask what the stepper needs, once a stretch


def test_rest_is_that_of_what_moves():
    # size → −u/rate at rate 0.5; the state as a whole is large because of a rate that has nothing to do with rest
    class Numb(Parted):
        def jump(self, t, state, ended, begun):
            return state

    state = Fed(torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64))
    signal = HeldSamples(torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), 1, 100.0, 0)
    loop = Loop(Numb(), CONTROLS["rk4"], signal, state, until=100.0, steady_tolerance=1e-6, check_every=1)
    list(loop)
    assert loop.ending is Ending.STEADY
    # |f| = 0.5 |size − 2| ≤ 1e-6 · 2 at the end, and was above it a step of 0.1 earlier
    left = abs(float(loop.state.size) - 2.0)
    assert 4e-6 * 0.95 * torch.exp(torch.tensor(-0.05)) <= left <= 4e-6


def test_a_divergence_of_what_moves_leaves_what_stands_still():
    loop = Loop(Parted(), FixedStep(STEPPERS["explicit_euler"], 0.05), shown(),
                Fed(start().size, torch.tensor([1e300], dtype=torch.float64)), until=2.7)  # fmt: skip
    list(loop)
    assert loop.ending is Ending.DIVERGED
    assert "size" in loop.detail
    assert_same_bits(loop.state.size, start().size)
