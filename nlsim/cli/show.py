"""``nlsim show``: what is in a run file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_FACTS = (
    "title",
    "ending",
    "ending_detail",
    "device",
    "dtype",
    "seed",
    "threads",
    "steps",
    "wall_time",
    "versions",
    "git_revision",
)


def show(
    file: Annotated[Path, typer.Argument(help="A run file.")],
    scenario: Annotated[
        bool, typer.Option("--scenario", help="Print the scenario's text only: into a pipe or file byte for byte.")
    ] = False,
) -> None:
    """Say what is in the run FILE: how it ended, where it comes from, its channels."""
    from rich.table import Table

    from nlsim.analysis.summary import summarise_channel
    from nlsim.cli.screen import screen
    from nlsim.cli.text import plain_markup, showable
    from nlsim.record import open_run, scenario_text

    with open_run(file) as data:
        if scenario:
            text = scenario_text(data)
            # bytes, as otherwise escape sequences would be taken out on the way into a pipe
            typer.echo(showable(text, lines=True) if sys.stdout.isatty() else text.encode(), nl=False)
            return
        console = screen()
        for fact in _FACTS:
            said = plain_markup(data.attrs.get(fact, ""), lines=True)
            if said:
                console.print(f"[bold]{fact:<14}[/bold] " + said.replace("\n", f"\n{'':<15}"), highlight=False)
        times = data["time"].values
        if times.size:
            console.print(
                f"[bold]{'frames':<14}[/bold] {times.size}, t = {times[0]:g} to {times[-1]:g}",
                highlight=False,
            )
        table = Table("channel", "dimensions", "unit", "first", "last", "what it is", box=None)
        for name, variable in data.data_vars.items():
            first, last = summarise_channel(variable)
            # a selected axis carries its variable's name; the short one is enough beside it
            dims = " × ".join(
                f"{str(dim).removeprefix(f'{name}_')} {variable.sizes[dim]}" for dim in variable.dims if dim != "time"
            )
            table.add_row(
                plain_markup(variable.attrs.get("channel", str(name))),
                plain_markup(dims),
                plain_markup(variable.attrs.get("units", "")),
                first,
                last,
                plain_markup(variable.attrs.get("long_name", "")),
            )
        console.print(table)
