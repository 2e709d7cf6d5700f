"""``nlsim watch``: follow a run that is going in another process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import xarray
    from rich.console import RenderableType

_WIDTH = 40
_BYTES = 2**22
"""Arrays whose shown frames are larger than this get no curve."""


def watch(
    file: Annotated[Path, typer.Argument(help="The file of a run, going or not.")],
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", help="Show this channel, or all that match, such as 'activity/*'; may be repeated."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 0.5,
) -> None:
    """Follow the run FILE to its end: how far it is, the last values, and their curves."""
    from rich.console import Console
    from rich.live import Live

    from nlsim.record.follow import follow

    console = Console(emoji=False)
    ending = "running"
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                for data in follow(file, pause=every):
                    live.update(_panel(data, channel or []), refresh=True)
                    ending = data.attrs["ending"]
        else:
            seen = -1
            for data in follow(file, pause=every):
                ending = data.attrs["ending"]
                if data.sizes["time"] != seen or ending:
                    seen = data.sizes["time"]
                    typer.echo(_line(data, channel or []))
    except KeyboardInterrupt:
        return  # the run goes on; only the watching stops
    if ending not in ("reached_end", "steady"):
        raise typer.Exit(1)


def _line(data: xarray.Dataset, patterns: list[str]) -> str:
    from nlsim.cli.text import showable

    ending, until = data.attrs["ending"], _until(data)
    t = float(data["time"][-1]) if data.sizes["time"] else 0.0
    parts = [f"t = {t:g}" + (f" of {until:g}" if until else ""), f"{data.sizes['time']} frames"]
    for name in _chosen(data, patterns):
        values = _curve(data[name], 1)
        if values:
            parts.append(f"{data[name].attrs.get('channel', name)} {values[-1]:.4g}")
    return showable(", ".join([*parts, *([ending] if ending else [])]))


def _panel(data: xarray.Dataset, patterns: list[str]) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from nlsim.cli.text import plain_markup

    ending, until = data.attrs["ending"], _until(data)
    t = float(data["time"][-1]) if data.sizes["time"] else 0.0
    table = Table("channel", "last", "so far", "unit", box=None)
    for name in _chosen(data, patterns):
        values = _curve(data[name], _WIDTH)
        last = "" if not values else f"{values[-1]:.4g}" if data[name].ndim == 1 else f"|{values[-1]:.4g}|"
        attributes = data[name].attrs
        table.add_row(
            plain_markup(attributes.get("channel", name)),
            last,
            _spark(values),
            plain_markup(attributes.get("units", "")),
        )
    head = f"[bold]{plain_markup(data.attrs.get('title', ''))}[/bold]  {plain_markup(ending or data.attrs['state'])}"
    far = f"t = {t:g}" + (f" of {until:g}" if until else "") + f", {data.sizes['time']} frames"
    bar: list[Any] = [ProgressBar(total=until, completed=t, width=_WIDTH)] if until else []
    return Group(head, far, *bar, table)


def _until(data: xarray.Dataset) -> float | None:
    """Return the end of the run, where its scenario says one that we can read."""
    from nlsim.errors import NlsimError
    from nlsim.record import scenario_text
    from nlsim.scenario.load import parse_scenario
    from nlsim.scenario.overrides import read_overrides

    try:
        return parse_scenario(scenario_text(data), overrides=read_overrides(data.attrs)).values.until
    except NlsimError:
        return None


def _chosen(data: xarray.Dataset, patterns: list[str]) -> list[str]:
    from fnmatch import fnmatchcase

    from nlsim.errors import RunFileError, did_you_mean
    from nlsim.record import channels

    known = channels(data)
    if not patterns:
        return list(known.values())
    found = [variable for name, variable in known.items() if any(fnmatchcase(name, each) for each in patterns)]
    if not found:
        guess = did_you_mean(patterns[0], known)
        raise RunFileError(
            "No channel of the run has such a name.",
            where="--channel",
            given=", ".join(patterns),
            allowed=", ".join(known),
            advice=f"Did you mean '{guess}'?" if guess else None,
        )
    return found


def _curve(variable: xarray.DataArray, width: int) -> list[float]:
    """Return up to so many values at equal distances, the last one among them; of an array its norm."""
    import numpy as np

    from nlsim.analysis.frames import recorded

    variable = recorded(variable)
    frames = variable.sizes["time"]
    if not frames:
        return []
    bytes_a_frame = variable.nbytes // frames
    wanted = max(1, min(width, frames, _BYTES // max(bytes_a_frame, 1)))
    at = sorted({round(k * (frames - 1) / max(wanted - 1, 1)) for k in range(wanted)} if wanted > 1 else {frames - 1})
    found = []
    for position in at:
        values = np.asarray(variable.isel(time=position).values, dtype=np.float64)
        found.append(float(values) if values.ndim == 0 else float(np.linalg.norm(values)))
    return found


def _spark(values: list[float]) -> str:
    from nlsim.cli.sparkline import sparkline

    return sparkline(values, _WIDTH)
