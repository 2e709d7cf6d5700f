"""Go on with a run that stopped, from its file alone and to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from nlsim.core.ending import Ending
from nlsim.core.state import leaves, named_leaves, rebuild
from nlsim.errors import RunFileError
from nlsim.record import COMPLETE, RUNNING, RunWriter, channels, glance, open_run, read_checkpoint, scenario_text
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.scenario.overrides import ATTRIBUTE as OVERRIDES
from nlsim.scenario.overrides import join_overrides, read_overrides
from nlsim.simulation.build import build
from nlsim.simulation.plan import RecordPlan
from nlsim.simulation.provenance import DECISIVE, RESUMED_WITH, part, provenance, unlike, went_on
from nlsim.simulation.recording import Frame, Outcome, Progress, Recording, Stand
from nlsim.simulation.run import loop_of, threads
from nlsim.simulation.stop import listening


def resume(
    path: str | Path, *, until: float | None = None, force: bool = False, progress: Progress | None = None
) -> Outcome:
    """Go on with a run from its last checkpoint and write to the same file.

    On a CPU, with the same versions, the finished run is the one that was never interrupted, to the bit. Frames
    that are on file beyond the checkpoint are computed again and compared.

    Parameters
    ----------
    path : str or Path
        The file of a run that was interrupted; with ``until`` also of one that reached its end.
    until : float, optional
        A new end of the run, later than where it stands [time]. The run has landed on its old end, so it is the
        longer run to the bit if that falls on one of its record times.
    force : bool
        Whether to go on although versions or devices differ (the file then says so), or although the file was
        begun on another machine.
    progress : callable, optional
        ``progress(t, steps)``, called often.

    Returns
    -------
    Outcome
        As of :func:`~nlsim.simulation.run.run`.

    Raises
    ------
    RunFileError
        The file is not that of a run that can go on, or the run does not repeat what is on file.
    ScenarioError, DataError, DeviceError
        As of :func:`~nlsim.simulation.run.run`.
    """
    path = Path(path)
    seen = glance(path)  # what is read from here on counts only if nobody has written since
    tensors, numbers = read_checkpoint(path)
    with open_run(path) as data:
        attributes = dict(data.attrs)
        source = _source(data, path, until)
        _refuse_ended(data, path, numbers["time"], source)
        simulation = build(source)
        plan = simulation.plan
        now = provenance(source, leaves(simulation.state)[0].device)
        others = unlike(attributes, now)
        if others and not force:
            raise RunFileError(
                "The run would not go on as it began.",
                where=str(path),
                given="; ".join(others),
                allowed=f"the same {', '.join(DECISIVE)}",
                advice="Resume it where it was begun, or pass --force; the file will say what made each part.",
            )
        known = _frames_after(data, plan, numbers["frames"], path)
    state = _state(simulation.state, tensors, path)
    stand = Stand(state, numbers["time"], numbers["steps"], numbers["frames"])
    changed: dict[str, Any] = {
        OVERRIDES: join_overrides(source.overrides),
        "resumed_at": [*np.atleast_1d(attributes.get("resumed_at", [])).tolist(), stand.t],
    }
    if others:
        changed[RESUMED_WITH] = [*went_on(attributes), part(stand.t, attributes, now)]
    with (
        threads(source.values.numerics.threads),
        listening() as stop,
        RunWriter.reopen(path, [each.spec for each in plan.channels], changed, seen=seen, force=force) as writer,
    ):
        loop = loop_of(simulation, stand=stand)
        return Recording(loop, plan, writer, wall_time=numbers["wall_time"], known=known).run(stop, progress)


def _source(data: xr.Dataset, path: Path, until: float | None) -> LoadedScenario:
    overrides = read_overrides(data.attrs)
    if until is not None:
        if not (math.isfinite(until) and until > 0):
            raise RunFileError("The new end is not a time.", where="--until", given=until, allowed="a positive number")
        overrides = [each for each in overrides if each.partition("=")[0].strip() != "until"] + [f"until={until!r}"]
    return parse_scenario(scenario_text(data), overrides=overrides)


def _refuse_ended(data: xr.Dataset, path: Path, t: float, source: LoadedScenario) -> None:
    state, ending = data.attrs["state"], data.attrs["ending"]
    if state == RUNNING:
        raise RunFileError(
            "This run is still going.", where=str(path), advice="nlsim watch shows how far it is; wait for it."
        )
    if state == COMPLETE and ending != Ending.REACHED_END:
        raise RunFileError(
            "This run has ended by itself and would end so again.",
            where=str(path),
            given=f"{ending}: {data.attrs['ending_detail']}",
            allowed="interrupted, or reached_end with --until",
            advice="Change the scenario (nlsim show --scenario prints it) and run that.",
        )
    if state == COMPLETE and source.values.until <= t:
        raise RunFileError(
            "This run has reached its end.",
            where=str(path),
            given=f"until = {source.values.until:g}, reached t = {t:g}",
            advice=f"To extend it pass --until with a time later than {t:g}.",
        )
    if source.values.until < t:
        raise RunFileError(
            "The new end has passed already.", where="--until", given=source.values.until, allowed=f"more than {t:g}"
        )


def _frames_after(data: xr.Dataset, plan: RecordPlan, first: int, path: Path) -> list[tuple[float, Frame]]:
    """Return the frames on file that the checkpoint does not know of; the run comes to them again."""
    if data.sizes["time"] < first:
        raise RunFileError(
            "The file holds fewer frames than were committed; it is damaged.",
            where=str(path),
            given=f"{data.sizes['time']} frames",
            allowed=f"at least {first}",
        )
    later = data.isel(time=slice(first, None))
    variables = channels(data)
    names = [each.spec.name for each in plan.channels]
    missing = [name for name in names if name not in variables]
    if missing:
        raise RunFileError("The run file has no such channel.", where=str(path), given=", ".join(missing))
    values = {name: later[variables[name]].values for name in names}
    times: NDArray[np.float64] = later["time"].values
    return [(float(t), {name: values[name][i] for name in names}) for i, t in enumerate(times)]


def _state(like: Any, tensors: Mapping[str, NDArray[Any]], path: Path) -> Any:
    """Return the state on file, of the kind of the one that the scenario begins with."""
    found = []
    for name, leaf in named_leaves(like):
        array = tensors.get(name)
        given = None if array is None else torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        if given is None or given.shape != leaf.shape or given.dtype != leaf.dtype:
            raise RunFileError(
                "The state on file is not one of this scenario.",
                where=f"{path}: tensor {name}",
                given="missing" if given is None else f"{given.dtype} of shape {tuple(given.shape)}",
                allowed=f"{leaf.dtype} of shape {tuple(leaf.shape)}",
            )
        found.append(given.to(leaf.device, copy=True))
    if len(found) != len(tensors):
        raise RunFileError("The state on file has more tensors than this scenario's.", where=str(path))
    return rebuild(like, found)
