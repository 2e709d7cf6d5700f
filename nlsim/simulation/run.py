"""Run a scenario into a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nlsim.core.state import leaves
from nlsim.errors import RunFileError
from nlsim.integrate.loop import Loop
from nlsim.record import RunWriter
from nlsim.scenario.load import LoadedScenario
from nlsim.scenario.overrides import ATTRIBUTE as OVERRIDES
from nlsim.scenario.overrides import join_overrides
from nlsim.simulation.build import Simulation, build
from nlsim.simulation.provenance import provenance
from nlsim.simulation.recording import Outcome, Progress, Recording, Stand
from nlsim.simulation.stop import listening


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
        Physics that goes wrong is an ending in it, not an exception. Ctrl-C and SIGTERM end the run as
        ``interrupted``, with a file from which :func:`~nlsim.simulation.resume.resume` goes on.

    Raises
    ------
    ScenarioError, DataError, DeviceError, CapabilityError
        When the scenario asks for the impossible; no file is touched then.
    RunFileError
        When the file is there already, is being written by another run, or cannot be written.
    """
    path = Path(out)
    if path.exists() and not force:
        raise RunFileError("The output file exists.", given=str(path), advice="Choose another --out, or pass --force.")
    simulation = build(source)
    with (
        threads(source.values.numerics.threads),
        listening() as stop,
        _recorder(simulation, path, force=force) as writer,
    ):
        return Recording(loop_of(simulation), simulation.plan, writer).run(stop, progress)


def loop_of(simulation: Simulation, *, stand: Stand | None = None) -> Loop[Any]:
    """Return the loop of a simulation, from its beginning or from where it stands."""
    values = simulation.source.values
    return Loop(
        simulation.system,
        simulation.control,
        simulation.signal,
        simulation.state if stand is None else stand.state,
        until=values.until,
        record_times=simulation.plan.times,
        start=0.0 if stand is None else stand.t,
        max_steps=values.max_steps,
        steps=None if stand is None or not stand.frames else stand.steps,  # else its first frame is still to come
    )


def _recorder(simulation: Simulation, path: Path, *, force: bool) -> RunWriter:
    source = simulation.source
    device = leaves(simulation.state)[0].device
    attributes = {
        "title": source.values.title or source.name,
        "scenario": source.text,
        OVERRIDES: join_overrides(source.overrides),
        **provenance(source, device),
    }
    beginning = Stand(simulation.state, 0.0, 0, 0).checkpoint(0.0)
    plan = simulation.plan
    return RunWriter(
        path,
        [each.spec for each in plan.channels],
        attributes,
        coordinates=plan.coordinates,
        checkpoint=beginning,
        force=force,
        compression=source.values.record.compression,
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the threads of a tensor operation for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
