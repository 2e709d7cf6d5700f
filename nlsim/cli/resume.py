"""``nlsim resume``: go on with a run that stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def resume(
    file: Annotated[Path, typer.Argument(help="The file of a run that was interrupted.")],
    until: Annotated[float | None, typer.Option(help="A new, later end; also of a run that reached its end.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on although versions, devices or machines differ; the file will say so."),
    ] = False,
) -> None:
    """Go on with the run FILE from where it stopped, to the bit as if it had not."""
    from nlsim.cli.progress import progress_bar
    from nlsim.cli.run import summary
    from nlsim.record import open_run
    from nlsim.scenario.load import parse_scenario
    from nlsim.scenario.overrides import read_overrides

    with open_run(file) as data:
        title, text = str(data.attrs.get("title", file.stem)), data.attrs.get("scenario", "")
        overrides = read_overrides(data.attrs)
    end = until or (parse_scenario(text, overrides=overrides).values.until if text else 0.0)
    from nlsim.simulation.resume import resume as go_on

    with progress_bar(end) as progress:
        outcome = go_on(file, until=until, force=force, progress=progress)
    typer.echo(summary(title, outcome))
    if not outcome.ending.is_success:
        raise typer.Exit(1)
