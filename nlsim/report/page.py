"""The report page: a run, or a folder of runs, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from nlsim.analysis.summary import summarise_channel
from nlsim.errors import RunFileError
from nlsim.report.chart import MOST_POINTS, Chart, charts_of
from nlsim.report.style import CYCLE

if TYPE_CHECKING:
    import xarray

_FACTS = ("ending", "ending_detail", "state", "steps")
_LEFT_OUT = frozenset({"scenario", "title", "Conventions", "nlsim_schema", "wall_time", *_FACTS})
_LONGEST_FACT = 2000
_LONGEST_SCENARIO = 200_000
_FEWEST_POINTS = 100


@dataclass(frozen=True)
class Leg:
    """One check of a theorem, in words: what kind, what was checked, what came out."""

    kind: str
    name: str
    finding: str
    expected: str
    measured: str


@dataclass(frozen=True)
class TheoremNote:
    """What a page says of a theorem that concerns a system.

    Attributes
    ----------
    key, title, statement, source : str
        As the theorem has them.
    hypotheses : tuple of str
        Under which conditions.
    verdict : str
        Empty when the checks were not made for this page.
    legs : tuple of Leg
        What the checks found.
    """

    key: str
    title: str
    statement: str
    source: str
    hypotheses: tuple[str, ...]
    verdict: str = ""
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True)
class ChannelRow:
    """A line of the table of channels; ``chart`` is the number of its figure from 1, or 0."""

    name: str
    dimensions: str
    unit: str
    first: str
    last: str
    meaning: str
    chart: int


@dataclass(frozen=True)
class RunView:
    """What a page shows of a run, as text and figures; nothing of it touches the file any more."""

    file: str
    title: str
    is_success: bool
    facts: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    scenario: str
    channels: tuple[ChannelRow, ...]
    charts: tuple[Chart, ...] = field(repr=False)


def view(data: xarray.Dataset, file: str) -> RunView:
    """Gather what a page shows of a run.

    Parameters
    ----------
    data : xarray.Dataset
        As :func:`nlsim.open_run` returns it.
    file : str
        Its name for a reader.
    """
    attrs = data.attrs
    charts = charts_of(data)
    numbers = {channel: number for number, chart in enumerate(charts, start=1) for channel in chart.channels}
    scenario = str(attrs.get("scenario", ""))
    if len(scenario) > _LONGEST_SCENARIO:
        scenario = scenario[:_LONGEST_SCENARIO] + "\n… (cut)"
    return RunView(
        file,
        str(attrs.get("title", "")) or file,
        attrs.get("ending") in ("reached_end", "steady"),
        (*_facts(data), *_last_values(data)),
        tuple((_words(name), _cut(value)) for name, value in attrs.items() if name not in _LEFT_OUT and str(value)),
        scenario,
        tuple(_channel_rows(data, numbers)),
        tuple(charts),
    )


def render_run(run: RunView, theorems: Sequence[TheoremNote], note: str = "") -> str:
    """Return the page of one run.

    Parameters
    ----------
    run : RunView
        From :func:`view`.
    theorems : sequence of TheoremNote
        Those that concern its system.
    note : str
        Why there are none, when that needs a word.
    """
    return render("run.html", run.charts, title=run.title, run=run, theorems=theorems, note=note)


def render(name: str, charts: Sequence[Chart], **values: Any) -> str:
    """Return a page from the template of this name; everything given is escaped.

    Notes
    -----
    The page's policy lets only our own script run, told by its hash, and lets nothing be fetched. So text from a
    file that got past the escaping would still not run.
    """
    folder = files("nlsim.report") / "template"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_template)
    )
    style, script = ((folder / file).read_text(encoding="utf-8") for file in ("page.css", "chart.js"))
    lines = sum(len(chart.lines) for chart in charts)
    points = max(_FEWEST_POINTS, MOST_POINTS // max(lines, 1))
    return environment.get_template(name).render(
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'",
        figures={"colours": CYCLE, "charts": [chart.as_dict(points) for chart in charts]},
        charts=charts,
        **values,
    )


def save_page(text: str, path: Path) -> None:
    """Write a page.

    Raises
    ------
    RunFileError
        When the file cannot be written.
    """
    try:
        # a lone surrogate in a file's text must not keep the page from being written
        path.write_bytes(text.encode("utf-8", errors="replace"))
    except OSError as failure:
        raise RunFileError("The page cannot be written.", where=str(path), given=str(failure)) from None


def _template(name: str) -> str:
    return (files("nlsim.report") / "template" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _facts(data: xarray.Dataset) -> list[tuple[str, str]]:
    facts = [(_words(name), _cut(data.attrs[name])) for name in _FACTS if str(data.attrs.get(name, ""))]
    if isinstance(data.attrs.get("wall_time"), float):
        facts.append(("took", f"{data.attrs['wall_time']:.3g} s"))
    times = data["time"].values
    if times.size:
        facts.append(("time", f"{times[0]:g} to {times[-1]:g}, {times.size} frames"))
    return facts


def _last_values(data: xarray.Dataset) -> list[tuple[str, str]]:
    return [
        (_words(str(variable.attrs.get("channel", name))), summarise_channel(variable)[1])
        for name, variable in data.data_vars.items()
        if variable.dims == ("time",) and variable.dtype.kind in "iuf" and variable.size
    ]


def _channel_rows(data: xarray.Dataset, numbers: dict[str, int]) -> list[ChannelRow]:
    rows = []
    for name, variable in data.data_vars.items():
        is_ours = variable.dims[:1] == ("time",) and variable.dtype.kind in "iuf"
        first, last = summarise_channel(variable) if is_ours else ("", "")
        channel = str(variable.attrs.get("channel", name))
        dims = " × ".join(
            f"{str(dim).removeprefix(f'{name}_')} {variable.sizes[dim]}" for dim in variable.dims if dim != "time"
        )
        unit, meaning = (_cut(variable.attrs.get(key, "")) for key in ("units", "long_name"))
        rows.append(ChannelRow(channel, dims, unit, first, last, meaning, numbers.get(channel, 0)))
    return rows


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _cut(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_FACT else text[:_LONGEST_FACT] + "…"
