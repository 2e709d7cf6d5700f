"""``nlsim run``: run a scenario into a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nlsim.simulation.recording import Outcome

Scenario = Annotated[
    str, typer.Argument(help="A TOML file, or the name of a shipped scenario (see `nlsim list scenarios`).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Change a value; may be given many times."),
]


def run(
    scenario: Scenario,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run file; by default NAME.nc in this folder.")] = None,
    device: Annotated[str | None, typer.Option(help="A torch device such as cpu or cuda.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run file.")] = False,
) -> None:
    """Run SCENARIO and record it."""
    from nlsim.cli.progress import progress_bar
    from nlsim.errors import RunFileError
    from nlsim.scenario.load import load_scenario

    chosen = list(overrides or [])
    if device is not None:
        chosen.append(f'numerics.device="{device}"')
    source = load_scenario(scenario, overrides=chosen)
    path = out or Path(f"{source.name}.nc")
    if path.exists() and not force:  # said before the slow import of torch
        raise RunFileError("The output file exists.", given=str(path), advice="Choose another --out, or pass --force.")
    from nlsim.simulation.run import run as run_scenario

    with progress_bar(source.values.until) as progress:
        outcome = run_scenario(source, path, force=force, progress=progress)
    typer.echo(summary(source.values.title or source.name, outcome))
    if not outcome.ending.is_success:
        raise typer.Exit(1)


def summary(title: str, outcome: Outcome) -> str:
    """Return a few lines on how a run went."""
    from nlsim.cli.text import showable
    from nlsim.core.ending import Ending

    rows = [
        ("ending", outcome.ending.value + (f" ({outcome.detail})" if outcome.detail else "")),
        ("time", f"{outcome.t:g}, {outcome.steps} steps, {outcome.frames} frames"),
        ("took", f"{outcome.wall_time:.2f} s ({outcome.steps / max(outcome.wall_time, 1e-9):,.0f} steps/s)"),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in outcome.last.items()),
        ("file", str(outcome.path)),
    ]
    if not outcome.ending.is_success:
        rows.insert(1, ("do", outcome.ending.advice))
    if outcome.ending is Ending.INTERRUPTED:
        rows.insert(2, ("to go on", f"nlsim resume {shlex.quote(str(outcome.path))}"))
    return "\n".join([showable(title), *(f"  {label:<16}{showable(value)}" for label, value in rows)])
