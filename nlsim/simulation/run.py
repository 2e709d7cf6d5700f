"""Run a scenario into a file, or a vector field of one's own into a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlsim.core.ending import Ending
from nlsim.core.state import leaves, named_leaves
from nlsim.errors import RunFileError
from nlsim.integrate.loop import Loop
from nlsim.record.writer import RunWriter
from nlsim.scenario.load import LoadedScenario
from nlsim.simulation.build import Simulation, build
from nlsim.simulation.provenance import provenance

Progress = Callable[[float, int], None]
"""Called with (time, steps) after every stretch."""


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
        Steps taken, frames written.
    wall_time : float
        Seconds from the first step to the closed file.
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


def run(source: LoadedScenario, out: str | Path, *, force: bool = False, progress: Progress | None = None) -> Outcome:
    """Run a scenario and record it.

    Parameters
    ----------
    source : LoadedScenario
        What to run.
    out : str or Path
        The run file to write.
    force : bool
        Whether a file that is already there may be replaced; it is, once the scenario is found good.
    progress : callable, optional
        ``progress(t, steps)``, called often.

    Returns
    -------
    Outcome
        Physics that goes wrong is an ending in it, not an exception. Ctrl-C ends the run as
        ``interrupted`` with a good file.

    Raises
    ------
    ScenarioError, DataError, DeviceError, CapabilityError
        When the scenario asks for the impossible; no file is touched then.
    RunFileError
        When the file is there already, or cannot be written.
    """
    path = Path(out)
    if path.exists() and not force:
        raise RunFileError("The output file exists.", given=str(path), advice="Choose another --out, or pass --force.")
    simulation = build(source)
    with threads(source.values.numerics.threads):
        return _record(simulation, path, progress)


@contextmanager
def moved_aside(path: Path) -> Iterator[None]:
    """Take a file out of the way while its successor is created; put it back if that fails."""
    if not path.is_file():
        yield
        return
    aside = path.with_name(f".{path.name}.old")
    try:
        path.replace(aside)
    except OSError as failure:
        raise RunFileError("The output file cannot be replaced.", where=str(path), given=str(failure)) from None
    try:
        yield
    except BaseException:
        aside.replace(path)
        raise
    aside.unlink()


def _record(simulation: Simulation, path: Path, progress: Progress | None) -> Outcome:
    source, plan = simulation.source, simulation.plan
    values = source.values
    device = leaves(simulation.state)[0].device
    attributes = {
        "title": values.title or source.name,
        "scenario": source.text,
        "scenario_overrides": "\n".join(source.overrides),
        **provenance(source, device),
    }
    begin = time.perf_counter()
    with moved_aside(path):
        recorder = RunWriter(path, [each.spec for each in plan.channels], attributes)
    with recorder as writer:
        loop = Loop(
            simulation.system,
            simulation.control,
            simulation.signal,
            simulation.state,
            until=values.until,
            record_times=plan.times,
            max_steps=values.max_steps,
        )
        frames, last = _follow(loop, simulation, writer, progress)
        assert loop.ending is not None
        writer.close(
            loop.ending.value,
            loop.detail,
            attributes={"wall_time": time.perf_counter() - begin, "steps": loop.steps},
            checkpoint={name: leaf.detach().cpu().numpy() for name, leaf in named_leaves(loop.state)},
            checkpoint_attributes={"time": loop.t, "steps": loop.steps},
        )
    wall_time = time.perf_counter() - begin
    return Outcome(path, loop.ending, loop.detail, loop.t, loop.steps, frames, wall_time, last)


def _follow(
    loop: Loop[Any], simulation: Simulation, writer: RunWriter, progress: Progress | None
) -> tuple[int, dict[str, float]]:
    """Drive the loop, writing frames; return how many, and the scalars of the last."""
    frames, last = 0, {}
    try:
        with torch.no_grad():
            for tick in loop:
                if tick.is_record:
                    frame = simulation.plan.read(tick.t, tick.state, tick.inputs)
                    writer.append(tick.t, frame)
                    frames += 1
                    last = {name: float(value) for name, value in frame.items() if value.ndim == 0}
                    bad = first_bad_channel(frame)
                    if bad is not None:
                        loop.diverge(f"channel {bad} is not finite at t = {tick.t:.9g}, although the state is")
                if progress is not None:
                    progress(tick.t, tick.steps)
    except KeyboardInterrupt:
        loop.interrupt()
    return frames, last


def first_bad_channel(frame: dict[str, NDArray[Any]]) -> str | None:
    """Name the first channel that holds NaN or infinity, or return None."""
    return next((name for name, value in frame.items() if not np.isfinite(value).all()), None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the threads of a tensor operation for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
