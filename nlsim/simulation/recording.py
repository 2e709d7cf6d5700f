"""A run and its file: frames and checkpoints while it goes, and its ending."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlsim.core.ending import Ending
from nlsim.core.state import named_leaves
from nlsim.errors import RunFileError
from nlsim.integrate.loop import Loop
from nlsim.record import Checkpoint, RunWriter
from nlsim.simulation.plan import RecordPlan
from nlsim.simulation.stop import Stop

Progress = Callable[[float, int], None]
"""Called with (time, steps) after every stretch."""

Frame = dict[str, NDArray[Any]]
"""Channel name -> value at one time."""

COMMIT_SECONDS = 10.0
"""A run is committed at least so often, whatever it records."""
COMMIT_SHARE = 0.02
"""Checkpoints between blocks take at most this share of the time of a run."""


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes
    ----------
    path : Path
        The run file.
    ending : Ending
        Why it stopped.
    detail : str
        For a person.
    t : float
        How far it came.
    steps, frames : int
        Steps taken, frames in the file.
    wall_time : float
        Seconds from the first step to the closed file; of a resumed run all of its parts.
    last : dict
        Scalars of the last frame.
    """

    path: Path
    ending: Ending
    detail: str
    t: float
    steps: int
    frames: int
    wall_time: float
    last: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stand:
    """Where a run stands, without a copy of anything: a state that is shown is never written to."""

    state: Any
    t: float
    steps: int
    frames: int

    def checkpoint(self, wall_time: float) -> Checkpoint:
        """Return it as it is kept in a file."""
        tensors = {name: leaf.detach().cpu().numpy() for name, leaf in named_leaves(self.state)}
        return Checkpoint(self.t, self.steps, tensors, self.frames, wall_time)


class Recording:
    """Drive a loop to its end, writing what it shows.

    A checkpoint is written where a run that goes on from it is this run to the bit: after a block of frames,
    and when none was for a while.

    Parameters
    ----------
    loop : Loop
        The run.
    plan : RecordPlan
        What is read at each record time.
    writer : RunWriter
        Its file; closed at the end.
    wall_time : float
        Seconds that the run took before.
    known : list of (time, Frame)
        Frames that are on file already and come again: they are compared, not written.
    """

    def __init__(
        self,
        loop: Loop[Any],
        plan: RecordPlan,
        writer: RunWriter,
        *,
        wall_time: float = 0.0,
        known: list[tuple[float, Frame]] | None = None,
    ) -> None:
        self.loop, self.plan, self.writer = loop, plan, writer
        self._known = list(known or [])
        self._frames = writer.frames - len(self._known)
        self._stand = Stand(loop.state, loop.t, loop.steps, self._frames)
        self._begin = time.perf_counter() - wall_time
        self._committed_at, self._cost = time.perf_counter(), 0.0
        self._last: dict[str, float] = {}

    def run(self, stop: Stop, progress: Progress | None = None) -> Outcome:
        """Run to the end and close the file; asked to stop, it stops at the next state that can be resumed.

        Raises
        ------
        RunFileError
            The file cannot be written, or the run does not repeat what is on file.
        """
        loop = self.loop
        try:
            with torch.no_grad():
                for tick in loop:
                    if tick.is_record:
                        self._take(tick.t, self.plan.read(tick.t, tick.state, tick.inputs))
                    if loop.is_settled:
                        self._settle()
                    if progress is not None:
                        progress(tick.t, tick.steps)
                    if stop.reason and loop.is_settled:
                        loop.interrupt(f"{stop.reason} at t = {loop.t:.9g}")
        except KeyboardInterrupt:
            loop.interrupt(f"Ctrl-C at t = {self._stand.t:.9g}")
        assert loop.ending is not None
        stand = self._stand
        if loop.ending is not Ending.INTERRUPTED:
            stand = Stand(loop.state, loop.t, loop.steps, self._frames)
        self.writer.close(
            loop.ending.value,
            loop.detail,
            attributes={"wall_time": self._wall_time(), "steps": stand.steps},
            checkpoint=stand.checkpoint(self._wall_time()),
        )
        return Outcome(
            self.writer.path,
            loop.ending,
            loop.detail,
            stand.t,
            stand.steps,
            self.writer.frames,
            self._wall_time(),
            self._last,
        )

    def _take(self, t: float, frame: Frame) -> None:
        if self._known:
            self._compare(t, frame)
        else:
            self.writer.append(t, frame)
        self._frames += 1
        self._last = {name: float(value) for name, value in frame.items() if value.ndim == 0}
        bad = first_bad_channel(frame)
        if bad is not None:
            self.loop.diverge(f"channel {bad} is not finite at t = {t:.9g}, although the state is")

    def _compare(self, t: float, frame: Frame) -> None:
        known_t, known = self._known.pop(0)
        other = "time" if known_t != t else first_other_channel(known, frame)
        if other is not None:
            raise RunFileError(
                "The run does not repeat what is on file.",
                where=f"{self.writer.path}: {other}, frame {self._frames} at t = {known_t:.9g}",
                advice="It was made by other code or on another machine, or the file is damaged; run it anew.",
            )

    def _settle(self) -> None:
        """Note where the run stands, and write it down when it is time."""
        loop = self.loop
        has_frames = self._frames > self._stand.frames
        self._stand = Stand(loop.state, loop.t, loop.steps, self._frames)
        now = time.perf_counter()
        since = now - self._committed_at
        is_block = has_frames and not self.writer.waiting and since * COMMIT_SHARE >= self._cost
        if loop.ending is None and (is_block or since >= COMMIT_SECONDS):
            self.writer.commit(self._stand.checkpoint(self._wall_time()))
            self._committed_at = time.perf_counter()
            self._cost = self._committed_at - now

    def _wall_time(self) -> float:
        return time.perf_counter() - self._begin


def first_bad_channel(frame: Frame) -> str | None:
    """Name the first channel that holds NaN or infinity, or return None."""
    return next((name for name, value in frame.items() if not np.isfinite(value).all()), None)


def first_other_channel(known: Frame, found: Frame) -> str | None:
    """Name the first channel whose bits differ, or return None."""
    return next((name for name in known if known[name].tobytes() != found[name].tobytes()), None)
