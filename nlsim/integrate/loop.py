"""The loop: an iterator over a run that lands on every instant that matters and ends by name."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nlsim.core.ending import Ending
from nlsim.core.state import first_bad_leaf, leaves, norm
from nlsim.core.system import Holding, Inputs, Jumping, Piece, Signal, interval_after
from nlsim.integrate.control import Control, Reached

S = TypeVar("S")


@dataclass(frozen=True)
class Tick(Generic[S]):
    """What the loop shows after each stretch.

    Attributes
    ----------
    t : float
        Time.
    state : S
        The state at t; no later step writes to it. At an edge, the state before a jumping system jumps.
    inputs : Inputs
        What drove the state up to t: at an edge, the inputs that end there.
    steps : int
        Steps taken since the start.
    is_record : bool
        Whether t is one of the record times.
    """

    t: float
    state: S
    inputs: Inputs
    steps: int
    is_record: bool


def is_same_instant(one: float, other: float) -> bool:
    """Whether two times differ by the rounding of their making only: 3 · 0.3 and 9 · 0.1 are one instant."""
    return one == other or abs(one - other) <= 1e-12 * max(1.0, min(abs(one), abs(other)))


def moving_part(system: Any, state: Any, piece: Piece) -> tuple[Any, Any]:
    """Return what a stepper is to advance: all of a system and its state, or the part that moves between jumps."""
    return system.moving(state, piece) if isinstance(system, Holding) else (system, state)


@dataclass(frozen=True)
class _Standstill:
    """Passes time where nothing moves."""

    def reach(self, system: Any, piece: Piece, state: S, t: float, until: float, max_steps: int) -> Reached[S]:
        if max_steps < 1:
            return Reached(state, t, 0, Ending.BUDGET_SPENT, "max_steps reached")
        return Reached(state, until, 1)


_STANDSTILL = _Standstill()


class Loop(Generic[S]):
    """Advance a state from ``start`` to ``until``, landing exactly on record times and edges.

    Iterate over it to run; afterwards :attr:`ending`, :attr:`detail`, :attr:`state`, :attr:`t` and
    :attr:`steps` say how it went. Whether the state is finite is looked at every ``check_every`` steps
    and before a record and the end, never in a step.

    A system that is :class:`~nlsim.core.system.Jumping` jumps at every end of an interval that is come to
    (every edge, unless the signal says which of them end none), the end of the horizon included, and
    never at the start. The tick shows the state before the jump; :attr:`state` is already the one after
    it, so a run resumed from there at an edge misses no jump and makes none twice.

    Parameters
    ----------
    system, control, signal
        What moves, how it is stepped, what drives it.
    state : S
        State at ``start``; kept intact.
    until : float
        End of the horizon, > start.
    record_times : sequence of float
        Increasing, within [start, until].
    start : float
        Initial time.
    steady_tolerance : float or None
        End as ``steady`` once ‖f‖ ≤ tolerance · max(1, ‖y‖), f being the vector field (its norm, not
        that of the state) and y what moves, in 1/time. None: never.
    max_steps : int or None
        End as ``budget_spent`` after so many steps.
    check_every : int
        Steps between two looks, ≥ 1.
    steps : int or None
        Steps that a run took to come to ``start``, which goes on from there: what is recorded at ``start``
        has been shown already. None: the run begins.

    Raises
    ------
    CapabilityError
        When the stepper needs a structure that the system lacks.
    """

    def __init__(
        self,
        system: Any,
        control: Control,
        signal: Signal,
        state: S,
        *,
        until: float,
        record_times: Sequence[float] = (),
        start: float = 0.0,
        steady_tolerance: float | None = None,
        max_steps: int | None = None,
        check_every: int = 100,
        steps: int | None = None,
    ) -> None:
        control.require(moving_part(system, state, signal.piece(start))[0])
        self.system, self.control, self.signal = system, control, signal
        self.state, self.t, self.until = state, start, until
        self.record_times = list(record_times)
        self.steady_tolerance, self.check_every = steady_tolerance, check_every
        self.max_steps = max_steps
        self.steps = steps or 0
        self.is_resumed = steps is not None
        self.ending: Ending | None = None
        self.detail = ""
        self._good = (state, start, self.steps)
        self._jumping: Jumping[Any] | None = system if isinstance(system, Jumping) else None

    def __iter__(self) -> Iterator[Tick[S]]:
        piece, edge = self.signal.piece(self.t), self.signal.edge_after(self.t)
        end = interval_after(self.signal, self.t)
        fresh: Piece | None = None
        due = self._due_after(0)
        shown = self.t if due and is_same_instant(self.record_times[due - 1], self.t) else -math.inf
        if self.is_resumed and is_same_instant(self.t, self.until):
            self._end(Ending.REACHED_END, "")
        elif due and not self.is_resumed:
            yield self._tick(piece, is_record=True)
        while self.ending is None:
            later = self.signal.edge_after(self.t)
            if later != edge:  # asked anew, so that a run resumed here goes on as the run itself does
                piece, edge, fresh = fresh or self.signal.piece(self.t), later, None
                end = interval_after(self.signal, self.t)
            record = self.record_times[due] if due < len(self.record_times) else math.inf
            landing = min(edge, record, self.until)
            target = self.control.horizon(self.t, landing, self.check_every)
            has_landed = target == landing
            is_record = has_landed and is_same_instant(record, target)
            is_end = has_landed and is_same_instant(self.until, target)
            self._reach(piece, target, must_look=is_record or is_end)
            if self.ending is None and is_end:
                self._end(Ending.REACHED_END, "")
            if self.ending is Ending.DIVERGED:
                return
            is_record = is_record and self.t == target  # a stretch that was cut short has not come to its record
            is_cut = self.ending not in (None, Ending.REACHED_END)
            if is_cut and self.record_times and not is_same_instant(shown, self.t):
                is_record = True  # the run stops here: its last state belongs into the record
            if is_record:
                due, shown = self._due_after(due), self.t
            if is_record or self.t == target:
                tick = self._tick(piece, is_record=is_record)
                fresh = self._jump(piece, end)
                yield tick

    def _due_after(self, due: int) -> int:
        """Return the number of the first record time later than now."""
        times = self.record_times
        while due < len(times) and (times[due] <= self.t or is_same_instant(times[due], self.t)):
            due += 1
        return due

    @property
    def is_settled(self) -> bool:
        """Whether a run that goes on from here is this run to the bit: all has been looked at up to now."""
        return self._good[1:] == (self.t, self.steps)

    def interrupt(self, detail: str = "") -> None:
        """End the run from outside; the state is the last complete one. A run that has ended stays so."""
        if self.ending is None:
            self._end(Ending.INTERRUPTED, detail or f"at t = {self.t:.9g}")

    def diverge(self, detail: str) -> None:
        """End the run as diverged from outside: something read from a finite state is not finite."""
        self._end(Ending.DIVERGED, detail)

    def _reach(self, piece: Piece, target: float, *, must_look: bool) -> None:
        budget = sys.maxsize if self.max_steps is None else self.max_steps - self.steps
        system, moving = moving_part(self.system, self.state, piece)
        # a system that only jumps has nothing for a stepper: the stretch passes, and counts as a step
        control = self.control if leaves(moving) else _STANDSTILL
        outcome = control.reach(system, piece, moving, self.t, target, budget)
        whole: S = self.system.whole(self.state, outcome.state) if system is not self.system else outcome.state
        since = self.steps + outcome.steps - self._good[2]
        if must_look or outcome.ending is not None or since >= self.check_every:
            bad = first_bad_leaf(whole)
            if bad is not None:
                self.state, self.t, self.steps = self._good
                self._end(
                    Ending.DIVERGED,
                    f"{bad} is not finite at t = {outcome.t:.9g}; all was at t = {self.t:.9g}",
                )
                return
            self._good = (whole, outcome.t, self.steps + outcome.steps)
            self._look_for_rest(system, piece, outcome.t, outcome.state)
        self.state, self.t = whole, outcome.t
        self.steps += outcome.steps
        if outcome.ending is not None:
            self._end(outcome.ending, outcome.detail)

    def _look_for_rest(self, system: Any, piece: Piece, t: float, state: Any) -> None:
        if self.steady_tolerance is None or not leaves(state):  # where nothing moves, rest says nothing
            return
        speed = float(norm(system.vector_field(t, state, piece(t))))
        if speed <= self.steady_tolerance * max(1.0, float(norm(state))):
            self._end(Ending.STEADY, f"|f| = {speed:.3g} at t = {t:.9g}")

    def _jump(self, piece: Piece, end: float) -> Piece | None:
        """Let a jumping system jump if the interval's end has been come to, and return the piece that begins there."""
        # an end is where the signal says that the next one is another: 0.3 and 3 · 0.1 are one instant
        if self._jumping is None or interval_after(self.signal, self.t) == end:
            return None
        begun = self.signal.piece(self.t)
        jumped = self._jumping.jump(self.t, self.state, piece(self.t), begun(self.t))
        if self._good[1] == self.t:  # this instant is looked at, so the state after the jump is too
            bad = first_bad_leaf(jumped)
            if bad is not None:
                self._end(Ending.DIVERGED, f"{bad} is not finite after the jump at t = {self.t:.9g}; all was before it")
                return None
            self._good = (jumped, self.t, self.steps)
        self.state = jumped
        return begun

    def _tick(self, piece: Piece, *, is_record: bool) -> Tick[S]:
        return Tick(self.t, self.state, piece(self.t), self.steps, is_record)

    def _end(self, ending: Ending, detail: str) -> None:
        self.ending, self.detail = ending, detail
