"""Adaptive Runge–Kutta by torchdiffeq, behind the seam of :mod:`nlsim.integrate.control`.

Three habits of the library are turned into ours. It interpolates its save points (dopri8 then loses up to
six digits), so every stretch ends on a step of its own. It asserts, where we end by name. Its step size is
joint for the whole state, so what shares the state shares the steps; the largest entry decides by default,
which keeps a single bad sample from hiding in a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.state import first_bad_leaf, leaves, named_leaves, rebuild
from nlsim.core.system import Piece
from nlsim.integrate.control import Reached

S = TypeVar("S")

METHODS = {"dopri5": 5, "dopri8": 8, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 2}
"""Methods offered, with their orders."""

BLOW_UP = 1e8
"""A state that grew by this factor while the step fell below the resolution of time diverges; it is not stiff."""


@dataclass(frozen=True)
class AdaptiveRungeKutta:
    """Adaptive explicit Runge–Kutta of torchdiffeq.

    Every stretch (to the next record time or edge of the inputs) starts afresh from a step that the
    library chooses, so nothing but the state is carried from one to the next.

    Parameters
    ----------
    method : str
        One of :data:`METHODS`.
    rtol, atol : float
        Relative and absolute tolerance of the local error, > 0.
    min_step : float
        A rejected step of this length or less ends the run with ``step_too_small``; ≥ 0. (The library's
        own option of this name accepts such steps whatever their error, so it is not used.)
    norm : str
        ``"max"``: the worst entry decides the step; ``"rms"``: the root mean square does.
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-9
    min_step: float = 0.0
    norm: str = "max"

    def require(self, system: Any) -> None:
        """Need nothing but a vector field."""

    def horizon(self, t: float, until: float, steps: int) -> float:
        """Return ``until``: only record times and edges cut a stretch."""
        return until

    def reach(self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int) -> Reached[S]:
        """Advance from t exactly to ``until``; a failed stretch gives back the state it began with."""
        # imported here: torchdiffeq costs a second, and only this method needs it
        from torchdiffeq import odeint

        flow = _Flow(system, piece, state, self.min_step)
        start = tuple(leaves(state))
        times = torch.tensor([t, until], dtype=torch.float64, device=start[0].device)
        options: dict[str, Any] = {
            "step_t": times[1:],
            "max_num_steps": min(max_steps, 2**31 - 1),  # which the library keeps in 32 bits
            "norm": _NORMS[self.norm],
        }
        try:
            with torch.no_grad():
                solution = odeint(
                    flow, start, times, rtol=self.rtol, atol=self.atol, method=self.method, options=options
                )
        except (AssertionError, _StepTooSmallError) as failure:
            ending, detail = _ending(failure, flow)
            return Reached(state, t, flow.accepted, ending, f"{detail} between t = {t:.9g} and {until:.9g}")
        return Reached(rebuild(state, [each[-1] for each in solution]), until, flow.accepted)


class _StepTooSmallError(Exception):
    """A rejected step was not longer than min_step."""


class _Flow:
    """The vector field as torchdiffeq wants it, counting accepted steps by the library's hook."""

    def __init__(self, system: Any, piece: Piece, state: Any, min_step: float) -> None:
        self.system, self.piece, self.min_step = system, piece, min_step
        self.latest = state
        self.accepted_from = state
        self.initial_size = _largest(state)[1]
        self.accepted = 0

    def __call__(self, t: Tensor, flat: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        now = float(t)
        self.latest = rebuild(self.latest, list(flat))
        return tuple(leaves(self.system.vector_field(now, self.latest, self.piece(now))))

    def callback_accept_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Count an accepted step, and keep the state from which it was taken."""
        self.accepted += 1
        self.accepted_from = rebuild(self.accepted_from, list(y))

    def callback_reject_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Stop where the tolerances ask for less than min_step."""
        if self.min_step > 0 and float(dt) <= self.min_step:
            raise _StepTooSmallError


def _ending(failure: Exception, flow: _Flow) -> tuple[Ending, str]:
    """Translate an assertion of the library into a named ending."""
    text = str(failure)
    if "max_num_steps" in text:
        return Ending.BUDGET_SPENT, "max_steps reached"
    bad = first_bad_leaf(flow.latest)
    if "non-finite" in text or bad is not None:
        return Ending.DIVERGED, f"{bad or 'the state'} is not finite"
    if isinstance(failure, _StepTooSmallError):
        return Ending.STEP_TOO_SMALL, f"a step of min_step = {flow.min_step:g} has too large an error"
    if "underflow" in text:
        name, size = _largest(flow.accepted_from)
        if size > BLOW_UP * max(1.0, flow.initial_size):
            return Ending.DIVERGED, f"{name} blows up, past {size:.3g},"
        return Ending.STEP_TOO_SMALL, "the step fell below the resolution of time"
    raise failure


def _largest(state: Any) -> tuple[str, float]:
    """Return the name of the tensor with the largest entry, and that entry's size."""
    return max(((name, float(leaf.abs().max())) for name, leaf in named_leaves(state)), key=lambda each: each[1])


def _max(flat: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([each.abs().max() for each in flat]).max()


def _rms(flat: tuple[Tensor, ...]) -> Tensor:
    total = torch.stack([each.abs().square().sum() for each in flat]).sum()
    return (total / sum(each.numel() for each in flat)).sqrt()


_NORMS: dict[str, Callable[[tuple[Tensor, ...]], Tensor]] = {"max": _max, "rms": _rms}
