"""The Dormand–Prince pair 5(4), stepped by many members at once: each has its own time, step and error history.

A member is one index of the state's leading axes: a sample, or a member of an ensemble, that moves independently of
the others. One attempt advances every member that is still running by its own step; those whose error was too large,
and those that have arrived, keep what they had. There is no branch on data and nothing is read by the host, so
attempts can be chained, captured or compiled.

**Error.** The difference of the two formulas, relative to atol + rtol max(|y|, |y⁺|), in the largest entry of the
member: a member's step depends on no other member, and on its own worst entry rather than on a mean.

**Step.** Proportional–integral control (Gustafsson): h⁺ = 0.9 h e^{−α} ē^{β}, with e the error of this step, ē that of
the accepted step before, β = 0.04, α = 1/5 − 3β/4; the factor lies between 1/5 and 10, and is not above 1 after a
rejection. A rejected step is repeated with 0.9 h e^{−α}.

**Same bits alone and in a batch.** All that couples the entries of a member is a maximum, which does not round, and
powers are taken as e^{α ln x}, whose kernels give the same bits in the vectorised body of a loop and in its tail
(``torch.pow`` does not). So if the vector field gives a member the same bits in any batch, as sums and products of
entries do, then so does the whole solution. Matrix products do not (they are blocked by the batch), nor do some
functions: then solutions agree to the round-off that their own dynamics hand on.

References
----------
Dormand and Prince, *A family of embedded Runge–Kutta formulae*, J. Comput. Appl. Math. 6 (1980), table 2: RK5(4)7M.
Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*, sections II.4 (control, first step) and II.5.
Gustafsson, *Control theoretic techniques for stepsize selection*, ACM Trans. Math. Softw. 17 (1991).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nlsim.integrate.explicit import ExplicitRungeKutta

Flat = list[Tensor]
Field = Callable[[Tensor, Flat], Flat]
"""``field(t, tensors)``: slopes of all tensors of a state, given each member's time."""

DORMAND_PRINCE = ExplicitRungeKutta(
    "dormand_prince",
    5,
    # the positive root of R(−z) = 1 − z + z²/2 − z³/6 + z⁴/24 − z⁵/120 + z⁶/600 = 1
    3.306567892634947,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""The fifth-order formula as a stepper of fixed step."""

ERROR_WEIGHTS = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Fifth- minus fourth-order weights; the seventh slope is the first of the next step."""

BETA = 0.04
ALPHA = 1 / 5 - 3 / 4 * BETA
SAFETY, LARGEST_CUT, LARGEST_GROWTH, SMALLEST_MEMORY = 0.9, 5.0, 10.0, 1e-4
STRETCH = 1.01
"""A step that would leave less than a hundredth of itself is lengthened to end where it should."""

RUNNING, ARRIVED, TOO_SMALL, SPENT = 0, 1, 2, 3
"""What a member is at: the codes of :attr:`Progress.status`."""


@dataclass(frozen=True)
class Rules:
    """What decides steps.

    Parameters
    ----------
    rtol, atol : float
        Relative and absolute tolerance of the local error of every entry, > 0.
    min_step : float
        A rejected step of this length or less ends its member; ≥ 0.
    max_step : float
        No step is longer (the last by 1 %, if that makes it the last); > 0.
    max_steps : int
        Accepted steps that a member may take.
    axes : int
        How many leading axes of every tensor index members.
    """

    rtol: float
    atol: float
    min_step: float
    max_step: float
    max_steps: int
    axes: int


class Progress(NamedTuple):
    """How far every member has come; tensors without trailing axes have the members' shape.

    Attributes
    ----------
    t, end : Tensor
        Time now and at the end, float64 whatever the state is.
    y, slopes : list of Tensor
        State and its time derivative.
    step : Tensor
        Length of the next attempt, > 0.
    memory : Tensor
        Error of the last accepted step.
    error : Tensor
        Error of the last attempt; infinite when it was not finite.
    is_retry : Tensor
        Whether the last attempt was rejected.
    accepted, rejected : Tensor
        Attempts so far.
    status : Tensor
        :data:`RUNNING`, :data:`ARRIVED`, :data:`TOO_SMALL` or :data:`SPENT`.
    """

    t: Tensor
    end: Tensor
    y: Flat
    slopes: Flat
    step: Tensor
    memory: Tensor
    error: Tensor
    is_retry: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor


def attempt(field: Field, rules: Rules, now: Progress) -> Progress:
    """Try one step of every running member. Cost: six vector fields and about 90 small operations."""
    is_running = now.status == RUNNING
    remaining = (now.end - now.t).abs()
    is_last = now.step * STRETCH >= remaining
    length = torch.where(is_last, remaining, now.step)
    h = torch.where(is_running, torch.copysign(length, now.end - now.t), 0.0)
    t_new = torch.where(is_last & is_running, now.end, now.t + h)
    y_new, slopes_new, error = _explicit_step(field, rules, now, h, t_new)

    is_good = error <= 1.0
    is_accepted, is_rejected = is_running & is_good, is_running & ~is_good
    cut = torch.exp(ALPHA * torch.log(error)) / SAFETY
    damped = (cut * torch.exp(-BETA * torch.log(now.memory))).clamp(1 / LARGEST_GROWTH, LARGEST_CUT)
    damped = torch.where(now.is_retry, damped.clamp(min=1.0), damped)
    proposed = (length / torch.where(is_good, damped, cut.clamp(max=LARGEST_CUT))).clamp(max=rules.max_step)
    # a last step may have been cut short by the end: the step that had been proposed is as good
    proposed = torch.where(is_accepted & is_last, torch.maximum(proposed, now.step), proposed)

    accepted = now.accepted + is_accepted
    resolution = 16 * torch.finfo(torch.float64).eps * torch.maximum(now.t.abs(), now.end.abs())
    is_too_small = is_rejected & (length <= resolution.clamp(min=rules.min_step))
    status = torch.where(is_accepted & (accepted >= rules.max_steps), SPENT, now.status)
    status = torch.where(is_accepted & is_last, ARRIVED, torch.where(is_too_small, TOO_SMALL, status))
    return Progress(
        torch.where(is_accepted, t_new, now.t),
        now.end,
        [torch.where(spread(is_accepted, new), new, old) for new, old in zip(y_new, now.y, strict=True)],
        [torch.where(spread(is_accepted, new), new, old) for new, old in zip(slopes_new, now.slopes, strict=True)],
        torch.where(is_running, proposed.clamp(min=rules.min_step), now.step),
        torch.where(is_accepted, error.clamp(min=SMALLEST_MEMORY), now.memory),
        torch.where(is_running, error, now.error),
        torch.where(is_running, is_rejected, now.is_retry),
        accepted,
        now.rejected + is_rejected,
        status,
    )


def _explicit_step(field: Field, rules: Rules, now: Progress, h: Tensor, t_new: Tensor) -> tuple[Flat, Flat, Tensor]:
    """Return y⁺, its slopes and the error of a step of length h (its sign included) of every member."""
    lengths = [spread(h, y).to(y.dtype) for y in now.y]
    stages = [now.slopes]
    for node, row in zip(DORMAND_PRINCE.nodes[1:], DORMAND_PRINCE.stages[1:], strict=True):
        time = t_new if node == 1.0 else now.t + node * h
        stages.append(field(time, _moved(now.y, row, stages, lengths)))
    y_new = _moved(now.y, DORMAND_PRINCE.weights, stages, lengths)
    stages.append(field(t_new, y_new))
    worst = None
    for y, new, length, *slopes in zip(now.y, y_new, lengths, *stages, strict=True):
        scale = torch.maximum(y.abs(), new.abs()).mul_(rules.rtol).add_(rules.atol)
        gap = _sum(ERROR_WEIGHTS, slopes).mul_(length).div_(scale)
        largest = largest_entry(gap, rules.axes)
        worst = largest if worst is None else torch.maximum(worst, largest)
    assert worst is not None
    error = worst.to(torch.float64)
    return y_new, stages[-1], torch.where(error.isfinite(), error, math.inf)


def first_step(field: Field, rules: Rules, t: Tensor, end: Tensor, y: Flat, slopes: Flat) -> Tensor:
    """Guess a first step for every member from the size of y, of its slope and of the slope's change.

    Hairer, Nørsett and Wanner, section II.4; one more vector field. Where anything is not finite: the whole stretch,
    which the attempts then cut down.
    """
    span = (end - t).abs()

    def size(flat: Flat) -> Tensor:
        scaled = [
            largest_entry(each / (rules.atol + rules.rtol * leaf.abs()), rules.axes)
            for each, leaf in zip(flat, y, strict=True)
        ]
        return torch.stack(scaled).amax(0).to(torch.float64)

    of_state, of_slope = size(y), size(slopes)
    is_tiny = (of_state < 1e-5) | (of_slope < 1e-5)
    trial = torch.minimum(torch.where(is_tiny, 1e-6, 0.01 * of_state / of_slope), span)
    trial = torch.where(trial.isfinite() & (trial > 0), trial, span)
    signed = torch.copysign(trial, end - t)
    moved = [leaf + spread(signed, leaf).to(leaf.dtype) * slope for leaf, slope in zip(y, slopes, strict=True)]
    after = field(t + signed, moved)
    of_change = size([b - a for a, b in zip(slopes, after, strict=True)]) / trial
    largest = torch.maximum(of_slope, of_change)
    second = torch.where(
        largest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), torch.exp(torch.log(0.01 / largest) / DORMAND_PRINCE.order)
    )
    guess = torch.minimum(torch.minimum(100 * trial, second), span)
    guess = torch.where(guess.isfinite() & (guess > 0), guess, span)
    return guess.clamp(max=rules.max_step)


def spread(values: Tensor, leaf: Tensor) -> Tensor:
    """Give one value a member the trailing axes of a tensor of the state."""
    return values.reshape(values.shape + (1,) * (leaf.ndim - values.ndim))


def largest_entry(leaf: Tensor, axes: int) -> Tensor:
    """Return the largest absolute entry of every member; NaN where there is one."""
    return leaf.abs() if leaf.ndim == axes else leaf.abs().flatten(axes).amax(-1)


def _moved(y: Flat, row: tuple[float, ...], stages: list[Flat], lengths: Flat) -> Flat:
    """Return y + h Σ a_j k_j."""
    return [
        _sum(row, slopes).mul_(length).add_(leaf)
        for leaf, length, *slopes in zip(y, lengths, *stages[: len(row)], strict=True)
    ]


def _sum(coefficients: tuple[float, ...], slopes: Flat) -> Tensor:
    """Return a new tensor Σ a_j k_j, skipping zeros (the first coefficient is never one)."""
    total = coefficients[0] * slopes[0]
    for a, k in zip(coefficients[1:], slopes[1:], strict=True):
        if a != 0.0:
            total.add_(k, alpha=a)
    return total
