"""The report page of a folder: a row a run, and the runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlsim.analysis.compare import scenario_values
from nlsim.analysis.summary import summarise_channel
from nlsim.report.chart import Chart, Line, scalar_line
from nlsim.report.page import TheoremNote, render

if TYPE_CHECKING:
    import xarray

_MOST_LINES = 24
_MOST_CHARTS = 8
_MOST_COLUMNS = 8
_LONGEST_CELL = 60


@dataclass(frozen=True)
class FolderRow:
    """A run of a folder, or a file that is refused.

    Attributes
    ----------
    file : str
        Its name.
    refusal : str
        Why it cannot be read; empty when it can.
    title, state, ending, time : str
        What it is and how far it came.
    frames : int
        How many frames it has.
    values : mapping of str to str
        The scenario's values.
    last : mapping of str to str
        Last values of the scalar channels.
    lines : mapping of str to (str, str, Line)
        Title, unit and line of each scalar channel.
    """

    file: str
    refusal: str = ""
    title: str = ""
    state: str = ""
    ending: str = ""
    time: str = ""
    frames: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, str, Line]] = field(default_factory=dict, repr=False)


def folder_row(data: xarray.Dataset, file: str) -> FolderRow:
    """Gather what a folder's page shows of a run; its scalar channels are read."""
    times = data["time"].values
    scalars = {
        str(variable.attrs.get("channel", name)): variable
        for name, variable in data.data_vars.items()
        if variable.dims == ("time",) and variable.dtype.kind in "iuf" and variable.size
    }
    title, state, ending = (str(data.attrs.get(name, "")) for name in ("title", "state", "ending"))
    return FolderRow(
        file,
        "",
        title,
        state,
        ending,
        f"{times[-1]:g}" if times.size else "",
        times.size,
        {name: value[:_LONGEST_CELL] for name, value in scenario_values(data).items()},
        {name: summarise_channel(variable)[1] for name, variable in scalars.items()},
        {
            name: (str(v.attrs.get("long_name", name)), str(v.attrs.get("units", "")), scalar_line(file, v))
            for name, v in scalars.items()
        },
    )


def render_folder(folder: str, rows: Sequence[FolderRow], theorems: Sequence[TheoremNote], note: str = "") -> str:
    """Return the page of a folder.

    Parameters
    ----------
    folder : str
        Its name for a reader.
    rows : sequence of FolderRow
        One a file.
    theorems : sequence of TheoremNote
        Those that concern one of the systems.
    note : str
        Why there are none, when that needs a word.
    """
    return render(
        "folder.html",
        overlays(rows),
        title=f"Runs in {folder}",
        rows=rows,
        varied=_varied(rows),
        measured=_measured(rows),
        theorems=theorems,
        note=note,
    )


def overlays(rows: Sequence[FolderRow]) -> list[Chart]:
    """Return a figure for each scalar channel, at most 8, with a line for each of at most 24 runs."""
    charts = []
    for name in _measured(rows):
        found = [row.lines[name] for row in rows if name in row.lines]
        shown = found[:_MOST_LINES]
        note = "" if len(shown) == len(found) else f"{len(shown)} of {len(found)} runs"
        title, unit, _ = found[0]
        charts.append(Chart(title, unit, (name,), tuple(line for _, _, line in shown), note))
    return charts


def _measured(rows: Sequence[FolderRow]) -> list[str]:
    """Return the scalar channels, those of most runs first."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.last:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])[:_MOST_CHARTS]


def _varied(rows: Sequence[FolderRow]) -> list[str]:
    """Return the values of the scenarios in which the runs differ, at most 8, those of system and stepper first."""
    readable = [row.values for row in rows if not row.refusal]
    names = {name: None for values in readable for name in values}
    differing = [name for name in names if len({values.get(name) for values in readable}) > 1 and name != "title"]
    ranks = {"seed": 0, "system": 1, "stepper": 2, "signal": 3}
    return sorted(differing, key=lambda name: ranks.get(name.partition(".")[0], 9))[:_MOST_COLUMNS]
