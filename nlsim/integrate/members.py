"""Adaptive solution of many independent members: each with its own times, steps, end and ending.

:func:`solve_members` solves; :class:`Memberwise` is the same behind the seam of :mod:`nlsim.integrate.control`, where
all members go to the same instant.

**How times and inputs meet.** Inside a stretch every member is at a time of its own. The vector field is therefore
given a *tensor* of times, and so is the piece of the signal: shaped (members..., 1, ...) with as many axes as the
tensors of the state with the most axes, so that it broadcasts against activities ``(..., sample, neuron)``, and in the
state's dtype. Held inputs do not look at it. A :class:`~nlsim.systems.signals.Sinusoid` gives every member its own
value, provided that its axes are the members' axes: for members along ``sample`` one row of inputs a sample, for
ensemble members inputs that broadcast against ``(member, sample, input)``. A piece that needs a float is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nlsim.core.ending import Ending
from nlsim.core.state import leaves, named_leaves, rebuild
from nlsim.core.system import Piece
from nlsim.errors import CapabilityError, NlsimError
from nlsim.integrate.control import Reached
from nlsim.integrate.dormand_prince import (
    ARRIVED,
    RUNNING,
    SMALLEST_MEMORY,
    SPENT,
    Flat,
    Progress,
    Rules,
    attempt,
    first_step,
    largest_entry,
)

S = TypeVar("S")

BLOW_UP = 1e8
"""A member that grew by this factor while its step fell below the resolution of time diverges; it is not stiff."""


@dataclass(frozen=True)
class Members(Generic[S]):
    """What became of every member; tensors have the members' shape.

    Attributes
    ----------
    state : S
        The state of every member at its own time ``t``.
    t : Tensor
        The end asked for, exactly, or how far the member came; float64.
    endings : tuple of Ending
        ``reached_end``, ``step_too_small``, ``budget_spent`` or ``diverged``, members in row-major order.
    accepted, rejected : Tensor
        Steps taken and thrown away.
    step : Tensor
        The step that each would try next; good as ``first_step`` of a solution that goes on.
    evaluations : int
        Calls of the vector field, which are for all members together.
    """

    state: S
    t: Tensor
    endings: tuple[Ending, ...]
    accepted: Tensor
    rejected: Tensor
    step: Tensor
    evaluations: int


@dataclass(frozen=True)
class Memberwise:
    """Masked Dormand–Prince 5(4) as a control: every member chooses its own steps between two common instants.

    Nothing but the state is carried from one stretch to the next. Every stretch ends on a step of its own: end
    values are never interpolated. Members must move independently; that cannot be checked, and weights that
    samples share make the samples *not* independent (use ``axes`` to name the ensemble axes instead).

    Parameters
    ----------
    rtol, atol : float
        Relative and absolute tolerance of the local error of every entry, > 0.
    min_step : float
        A rejected step of this length or less ends its member with ``step_too_small``; ≥ 0.
    max_step : float
        No step is longer; > 0.
    axes : int
        How many leading axes of every tensor index members, ≥ 0. 1: ``(sample, n)`` or ``(member, ...)``;
        2: ``(member, sample, n)``; 0: the whole state is one member.
    check_every : int or None
        Attempts between two reads by the host of whether all have arrived. None: 1 on a CPU, where a read is free,
        8 elsewhere. The result does not depend on it.
    """

    rtol: float = 1e-6
    atol: float = 1e-9
    min_step: float = 0.0
    max_step: float = torch.inf
    axes: int = 1
    check_every: int | None = None

    def require(self, system: Any) -> None:
        """Need nothing but a vector field (which here is given a tensor of times)."""

    def horizon(self, t: float, until: float, steps: int) -> float:
        """Return ``until``: only record times and edges cut a stretch."""
        return until

    def reach(self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int) -> Reached[S]:
        """Advance every member from t exactly to ``until``; a stretch with a failed member gives back its beginning.

        ``steps`` of the outcome are those of the member that took the most.
        """
        if max_steps < 1:
            return Reached(state, t, 0, Ending.BUDGET_SPENT, f"max_steps reached at t = {t:.9g}")
        like = max(leaves(state), key=lambda leaf: leaf.ndim)
        ask: Callable[[Tensor], Any] = piece  # type: ignore[assignment]  # a piece of tensors, see the module

        def column(times: Tensor) -> Tensor:
            return times.reshape(times.shape + (1,) * (like.ndim - self.axes)).to(like.dtype)

        def field(times: Tensor, here: S) -> S:
            now = column(times)
            slope: S = system.vector_field(now, here, ask(now))
            return slope

        try:
            ask(column(torch.full(like.shape[: self.axes], t, dtype=torch.float64, device=like.device)))
        except (TypeError, ValueError, RuntimeError) as failure:
            raise CapabilityError(
                "The inputs cannot be asked at a different time for every member.",
                given=str(failure),
                advice="Use held samples or sinusoids, or a control with one step for all members such as 'adaptive'.",
            ) from failure
        found = solve_members(field, state, t, until, self, max_steps=max_steps)
        steps = int(found.accepted.max())
        for member, ending in enumerate(found.endings):
            if ending is not Ending.REACHED_END:
                where = f"member {member} at t = {float(found.t.flatten()[member]):.9g}"
                return Reached(state, t, steps, ending, f"{where}, between t = {t:.9g} and {until:.9g}")
        return Reached(found.state, until, steps)


def solve_members(
    field: Callable[[Tensor, S], S],
    state: S,
    t0: float | Tensor,
    t1: float | Tensor,
    method: Memberwise | None = None,
    *,
    first: float | Tensor | None = None,
    max_steps: int = 100_000,
) -> Members[S]:
    """Solve dy/dt = f(t, y) for every member from its own t0 to its own t1.

    Parameters
    ----------
    field : callable
        ``field(t, state) -> state``, t having the members' shape and the state's dtype; pure. Called for all members
        as long as one is running.
    state : S
        A tree of tensors whose leading ``method.axes`` axes are the members; kept intact.
    t0, t1 : float or Tensor
        Start and end of every member, broadcastable to the members' shape; t1 may lie before t0 or be equal to it.
    method : Memberwise, optional
        Tolerances; the defaults when not given.
    first : float or Tensor, optional
        Length of the first attempts, > 0; guessed when not given, for one more vector field.
    max_steps : int
        Accepted steps after which a member ends as ``budget_spent``; ≥ 1.

    Returns
    -------
    Members
        Which never raises for what members do: look at ``endings``.

    Raises
    ------
    NlsimError
        When the tensors do not share their leading axes, or a time is not finite.

    Notes
    -----
    Cost: six vector fields an attempt, as many attempts as the slowest member needs. No gradients.
    """
    method = method or Memberwise()
    flat = leaves(state)
    shape = _member_shape(state, method.axes)

    def per_member(values: float | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64, device=flat[0].device).expand(shape).clone()

    start, end = per_member(t0), per_member(t1)
    if not bool((start.isfinite() & end.isfinite()).all()):
        raise NlsimError("Members need finite times.", where="t0, t1", given=f"t0 = {t0}, t1 = {t1}")
    rules = Rules(method.rtol, method.atol, method.min_step, method.max_step, max_steps, method.axes)
    evaluations = 0

    def flat_field(times: Tensor, tensors: Flat) -> Flat:
        nonlocal evaluations
        evaluations += 1
        return leaves(field(times.to(flat[0].dtype), rebuild(state, tensors)))

    with torch.no_grad():
        slopes = flat_field(start, flat)
        step = first_step(flat_field, rules, start, end, flat, slopes) if first is None else per_member(first)
        zero = torch.zeros(shape, dtype=torch.int64, device=flat[0].device)
        now = Progress(
            start,
            end,
            flat,
            slopes,
            step.clamp(max=rules.max_step),
            torch.full_like(start, SMALLEST_MEMORY),
            torch.zeros_like(start),
            torch.zeros_like(start, dtype=torch.bool),
            zero,
            zero,
            torch.where(start == end, ARRIVED, RUNNING),
        )
        every = method.check_every or (1 if flat[0].device.type == "cpu" else 8)
        while bool((now.status == RUNNING).any()):
            for _ in range(every):
                now = attempt(flat_field, rules, now)
        endings = _endings(now, flat, method.axes)
    return Members(rebuild(state, now.y), now.t, endings, now.accepted, now.rejected, now.step, evaluations)


def _member_shape(state: Any, axes: int) -> torch.Size:
    """Return the leading axes that all tensors share."""
    named = named_leaves(state)
    shape = named[0][1].shape[:axes]
    for name, leaf in named:
        if leaf.ndim < axes or leaf.shape[:axes] != shape:
            raise NlsimError(
                "The tensors of the state do not share their leading axes, so these do not index members.",
                where=name,
                given=f"shape {tuple(leaf.shape)}, members along the first {axes}",
                allowed=f"leading axes {tuple(shape)}",
                advice="Set axes to the number of ensemble axes; samples that share learned weights are not members.",
            )
    return shape


def _endings(now: Progress, start: Flat, axes: int) -> tuple[Ending, ...]:
    """Say why each member stopped; read by the host once, at the end."""

    def size(flat: Flat) -> Tensor:
        return torch.stack([largest_entry(leaf, axes).to(torch.float64) for leaf in flat]).amax(0)

    sizes = size(now.y)
    is_blown = ~sizes.isfinite() | (sizes > BLOW_UP * size(start).clamp(min=1.0)) | ~now.error.isfinite()
    endings = []
    for status, blown, finite in zip(
        now.status.flatten().tolist(), is_blown.flatten().tolist(), sizes.isfinite().flatten().tolist(), strict=True
    ):
        if status == ARRIVED:
            endings.append(Ending.REACHED_END if finite else Ending.DIVERGED)
        elif status == SPENT:
            endings.append(Ending.BUDGET_SPENT)
        else:
            endings.append(Ending.DIVERGED if blown else Ending.STEP_TOO_SMALL)
    return tuple(endings)
