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

METHODS = {"dopri5": 5, "dopri8": 8, "bosh3": 3, "adaptive_heun": 2}
"""Methods offered, with their orders. The library's fehlberg2 is left out: it misses tolerances a hundredfold."""

BLOW_UP = 1e6
"""Where steps fall below the resolution of time, a state that doubles within so many units of that resolution
blows up; else the field is too rough or too stiff for the tolerances."""


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

        flow = _Flow(system, piece, state, t, self.min_step)
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
            return Reached(state, t, 0, ending, f"{detail} between t = {t:.9g} and {until:.9g}")
        # copies: what follows must not depend on where in the memory of the library a tensor lies
        return Reached(rebuild(state, [each[-1].clone() for each in solution]), until, flow.accepted)


class _StepTooSmallError(Exception):
    """A rejected step was not longer than min_step."""


class _Flow:
    """The vector field as torchdiffeq wants it, counting accepted steps by the library's hook."""

    def __init__(self, system: Any, piece: Piece, state: Any, t: float, min_step: float) -> None:
        self.system, self.piece, self.min_step = system, piece, min_step
        self.latest = state
        self.accepted_from = state
        self.accepted_at = t
        self.accepted = 0

    def __call__(self, t: Tensor, flat: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        now = float(t)
        self.latest = rebuild(self.latest, list(flat))
        return tuple(leaves(self.system.vector_field(now, self.latest, self.piece(now))))

    def callback_accept_step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Count an accepted step, and keep the state from which it was taken."""
        self.accepted += 1
        self.accepted_from, self.accepted_at = rebuild(self.accepted_from, list(y)), float(t)

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
        blown = _blown_leaf(flow)
        if blown is not None:
            return Ending.DIVERGED, blown
        return Ending.STEP_TOO_SMALL, "the step fell below the resolution of time"
    raise failure


def _blown_leaf(flow: _Flow) -> str | None:
    """Say which tensor doubles within the resolution of time at the last accepted state, if one does."""
    t = flow.accepted_at
    named = named_leaves(flow.accepted_from)
    slopes = leaves(flow.system.vector_field(t, flow.accepted_from, flow.piece(t)))
    resolution = torch.finfo(torch.float64).eps * max(1.0, abs(t))
    for (name, leaf), slope in zip(named, slopes, strict=True):
        worst = int(leaf.abs().argmax())
        y, f = float(leaf.flatten()[worst]), float(slope.flatten()[worst])
        is_quick = abs(y) <= BLOW_UP * resolution * abs(f)
        is_huge = abs(y) > torch.finfo(leaf.dtype).max ** 0.5  # products of such numbers overflow
        if y * f > 0 and (is_quick or is_huge):
            return f"{name} blows up, past {abs(y):.3g},"
    return None


def _max(flat: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([each.abs().max() for each in flat]).max()


def _rms(flat: tuple[Tensor, ...]) -> Tensor:
    total = torch.stack([each.abs().square().sum() for each in flat]).sum()
    return (total / sum(each.numel() for each in flat)).sqrt()


_NORMS: dict[str, Callable[[tuple[Tensor, ...]], Tensor]] = {"max": _max, "rms": _rms}
