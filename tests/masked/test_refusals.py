"""What no mask, neuron or mechanism can be is refused when it is made or first used, and says where and what."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.learning import draw
from support.masked import GIVEN, INPUTS, NEURONS, neuron

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.activation import TANH
from nlsim.systems.masked.check import check_values
from nlsim.systems.masked.convolution import MaskedConv2d
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.energy import MaskedEnergy, contrastive_gradient
from nlsim.systems.masked.mechanism import (
    MissingAtRandom,
    MissingCompletelyAtRandom,
    MissingNotAtRandom,
    window_of_ranks,
)
from nlsim.systems.masked.module import MaskedLinear
from nlsim.systems.masked.neumiss import gaussian_conditioning
from nlsim.systems.masked.propagation import Carry, MaskedStack
from nlsim.systems.masked.signal import HeldMask, MaskedSignal, Outages, RandomMask, Reliability
from nlsim.systems.signals import Constant

W, V = draw(1, NEURONS, INPUTS), torch.zeros(NEURONS, NEURONS, dtype=torch.float64)
HALF = torch.full((INPUTS,), 0.5, dtype=torch.float64)
WRONG = {
    "above 1": torch.tensor([0.5, 1.0, 1.0 + 1e-9, 0.0], dtype=torch.float64),
    "below 0": torch.tensor([0.5, 1.0, -1e-9, 0.0], dtype=torch.float64),
    "NaN": torch.tensor([0.5, 1.0, math.nan, 0.0], dtype=torch.float64),
    "all NaN": torch.full((INPUTS,), math.nan),
    "infinite": torch.tensor([0.5, 1.0, math.inf, 0.0]),
    "whole": torch.tensor([1, 0, 2, 1]),
}
RIGHT = {
    "boolean": torch.tensor([True, False, True, False]),
    "whole": torch.tensor([1, 0, 1, 1]),
    "soft": torch.tensor([0.0, 1.0, 0.3, 1.0], dtype=torch.float64),
}


class Held:
    """Somebody's own mask, held for ever."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def edge_after(self, t: float) -> float:
        return math.inf

    def piece(self, t: float) -> HeldMask:
        return HeldMask(self.mask)


def energy(**changed: Any) -> MaskedEnergy:
    return MaskedEnergy(W, V, TANH, **changed)


USES: dict[str, Callable[[torch.Tensor], object]] = {
    "layer": lambda mask: MaskedLinear(INPUTS, 2, dtype=torch.float64)(GIVEN.input, mask),
    "layer in a stack": lambda mask: MaskedStack([MaskedLinear(INPUTS, 2, dtype=torch.float64)], torch.tanh)(
        GIVEN.input, mask
    ),
    "with its fraction": lambda mask: MaskedLinear(INPUTS, 2, dtype=torch.float64).with_fraction(GIVEN.input, mask),
    "convolution": lambda mask: MaskedConv2d(1, 1, 2, padding_counts_as="missing", dtype=torch.float64)(
        draw(2, 1, 1, 2, INPUTS), mask.expand(1, 1, 2, INPUTS)
    ),
    "stream": lambda mask: MaskedSignal(Constant(GIVEN), (Held(mask),)),
    "mask of the signal": lambda mask: MaskedSignal(Constant(Inputs(GIVEN.input, mask=mask)), ()),
    "neurons": lambda mask: neuron().initial_state(Inputs(GIVEN.input, mask=mask)),
    "energy": lambda mask: energy().initial_state(Inputs(GIVEN.input, mask=mask)),
    "neumiss": lambda mask: gaussian_conditioning(torch.eye(INPUTS).double(), torch.zeros(INPUTS)).initial_state(
        Inputs(GIVEN.input, mask=mask)
    ),
}


@pytest.mark.parametrize("mask", WRONG)
@pytest.mark.parametrize("use", USES)
def test_numbers_that_are_no_mask_are_refused_where_they_come_in(use: str, mask: str) -> None:
    with pytest.raises(NlsimError, match="how far an entry is relied upon") as refused:
        USES[use](WRONG[mask])
    assert "mask" in str(refused.value.where)
    assert ("NaN" in refused.value.given) is ("NaN" in mask)
    assert ("numbers from" in refused.value.given) is ("NaN" not in mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_width_of_number_is_looked_at(dtype: torch.dtype) -> None:
    fair = torch.tensor([0.0, 0.25, 1.0, -0.0, torch.finfo(dtype).tiny], dtype=dtype)
    check_values(fair)
    check_values(fair[::2])  # with gaps in memory
    eps = torch.finfo(dtype).eps
    for wrong in (1.0 + eps, -torch.finfo(dtype).tiny, math.nan, -math.nan, math.inf, -math.inf):
        for place in range(5):
            mask = fair.clone()
            mask[place] = wrong
            with pytest.raises(NlsimError, match="how far an entry is relied upon"):
                check_values(mask)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_whole_numbers_beside_0_and_1_are_no_mask(dtype: torch.dtype) -> None:
    check_values(torch.tensor([0, 1, 1], dtype=dtype))
    for wrong in (2, -1 if dtype.is_signed else 255):
        with pytest.raises(NlsimError, match="how far an entry is relied upon"):
            check_values(torch.tensor([0, 1, wrong], dtype=dtype))


@pytest.mark.parametrize("carry", ["soft", "hard", "none"])
def test_a_stack_makes_no_samples_out_of_a_mask(carry: Carry) -> None:
    stack = MaskedStack([MaskedLinear(4, 3), MaskedLinear(3, 2)], torch.tanh, carry=carry)
    with pytest.raises(NlsimError, match="does not fit the values"):
        stack(torch.ones(1, 4), torch.ones(5, 4))
    assert stack(torch.ones(5, 4), torch.ones(1, 4)).shape == (5, 2)


@pytest.mark.parametrize("mask", RIGHT)
@pytest.mark.parametrize("use", USES)
def test_masks_of_all_kinds_are_taken(use: str, mask: str) -> None:
    USES[use](RIGHT[mask])


def test_a_mask_that_learns_is_looked_at_and_stays_in_the_graph() -> None:
    soft = RIGHT["soft"].clone().requires_grad_()
    MaskedLinear(INPUTS, 2, dtype=torch.float64)(GIVEN.input, soft).sum().backward()
    assert soft.grad is not None


SPEED, SHARES = r"Neurons move at a speed", r"[Ss]hare"
REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "no speed": (lambda: neuron(speed=0.0), "speed", SPEED),
    "backwards": (lambda: neuron(speed=-1.0), "speed", SPEED),
    "a speed of NaN": (lambda: neuron(speed=math.nan), "speed", SPEED),
    "one of many": (lambda: neuron(speed=torch.tensor([1.0, 0.0, 2.0])), "speed", SPEED),
    "no speeds": (lambda: neuron(speed=torch.empty(0)), "speed", SPEED),
    "energy without speed": (lambda: energy(speed=0.0), "speed", SPEED),
    "infinite": (lambda: gaussian_conditioning(torch.eye(2), torch.zeros(2), math.inf), "speed", SPEED),
    "shares too few": (lambda: neuron(shares=torch.full((3,), 1 / 3)), "shares", SHARES),
    "shares of more than all": (lambda: neuron(shares=HALF), "shares", SHARES),
    "a negative share": (lambda: neuron(shares=torch.tensor([0.5, 0.5, 0.5, -0.5])), "shares", SHARES),
    "energy, shares too few": (lambda: energy(shares=torch.full((3,), 1 / 3)), "shares", SHARES),
    "a nudge beyond the minimum": (lambda: energy(nudge=-1.5), "nudge", "without a minimum"),
    "a nudge at its border": (lambda: energy(nudge=-1.0), "nudge", "without a minimum"),
    "a nudge of NaN": (lambda: energy(nudge=math.nan), "nudge", "without a minimum"),
    "an endless nudge": (lambda: energy(nudge=math.inf), "nudge", "without a minimum"),
    "one nudge twice": (
        lambda: contrastive_gradient(energy(nudge=0.5), W, energy(nudge=0.5), W, GIVEN), "free, nudged", "needs two",
    ),
    "rates too few": (lambda: RandomMask(3, torch.full((2,), 0.5), 1.0), "rate", "one for each"),
    "a table of rates": (lambda: RandomMask(3, torch.full((1, 3), 0.5), 1.0), "rate", "one for each"),
    "parts that do not fit": (
        lambda: Reliability(HALF, 0.1 * HALF[:3], HALF, HALF), "level, amplitude, frequency, phase", "no mask together",
    ),
    "a phase of NaN": (lambda: Reliability(HALF, 0.1 * HALF, HALF, math.nan * HALF), "frequency, phase", "phase"),
    "a mask for others": (lambda: MaskedSignal(Constant(GIVEN), (Outages((), INPUTS + 1),)), "masks", "one entry for"),
    "ranks of a table": (lambda: window_of_ranks(np.zeros((4, 2)), 0.5, 0, 0), "values", "one column"),
    "a column of columns": (
        lambda: MissingNotAtRandom(0.5, ((0, 1),)).observed(np.zeros((4, 2)), 0), "columns", "whole numbers",  # type: ignore[arg-type]
    ),
    "half a column": (
        lambda: MissingNotAtRandom(0.5, (0.5,)).observed(np.zeros((4, 2)), 0), "columns", "whole numbers",  # type: ignore[arg-type]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_values_out_of_range_are_refused_at_once(case: str) -> None:
    make, where, problem = REFUSED[case]
    with pytest.raises(NlsimError, match=problem) as refused:
        make()
    assert refused.value.where == where


@pytest.mark.parametrize("mechanism", [MissingNotAtRandom, MissingAtRandom, MissingCompletelyAtRandom])
@pytest.mark.parametrize("shape", [(6,), (6, 2, 2)])
def test_columns_are_those_of_a_table(mechanism: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(NlsimError, match="Columns are those of a table") as refused:
        mechanism(0.5).observed(np.zeros(shape), 0)
    assert str(shape) in refused.value.given


def test_one_rate_a_sensor_is_taken() -> None:
    drawn = RandomMask(3, torch.tensor([0.0, 1.0, 1.0]), 1.0, 5).piece(0.0)(0.0)
    assert drawn.tolist() == [[0.0, 1.0, 1.0]] * 5


def test_nothing_is_looked_at_in_a_step() -> None:
    # honest about the limit: what leaves the range later is not seen, and the step asks nothing of the mask
    system = neuron()
    field = system.vector_field(0.0, torch.zeros(2, NEURONS).double(), Inputs(GIVEN.input, mask=2 * torch.ones(INPUTS)))
    assert bool(torch.isfinite(field).all())
    assert isinstance(system, MaskedNeuron)
