"""``nlsim plot``: draw a run, or runs of one kind together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer


def plot(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...|FOLDER", help="A run file; several, or a folder of them (*.nc).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="The picture; by default FILE with the suffix .png, .spectrum.png or .phase.png, or FOLDER/runs.png.",
        ),
    ] = None,
    spectrum: Annotated[
        str | None,
        typer.Option(
            "--spectrum",
            metavar="CHANNEL",
            help="Draw the power spectrum of a channel, or of an entry of an array: 'activity/1[0,3]'.",
        ),
    ] = None,
    phase: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--phase", metavar="CHANNEL CHANNEL", help="Draw one channel against another; of arrays an entry each."
        ),
    ] = None,
) -> None:
    """Draw the run FILE: what suits its system and was recorded, from the loss to a phase portrait.

    Of several runs, such as those of several seeds, it draws the mean of each scalar channel with its 95 % interval.
    An entry of an array is named by its index along each axis but time, in the order in which `nlsim show` lists the
    axes: 'activity/1[0,3]' is neuron 3 for sample 0. Quote it, for the shell.
    """
    from nlsim.errors import RunFileError
    from nlsim.record import open_run
    from nlsim.report.ensemble import draw_runs, draw_spectrum
    from nlsim.report.figures import draw_run, save
    from nlsim.report.phase import draw_phase
    from nlsim.report.single import channel_of, draw_one

    folder = files[0] if len(files) == 1 and files[0].is_dir() else None
    runs = sorted(folder.glob("*.nc")) if folder else files
    if not runs:
        raise RunFileError("There is no run file in this folder.", where=str(folder), allowed="files named *.nc")
    if spectrum and phase:
        raise RunFileError(
            "A picture shows a spectrum or a phase portrait, not both.", advice="Draw one after another."
        )
    if (spectrum or phase) and len(runs) > 1:
        raise RunFileError("A spectrum or a phase portrait is of one run.", given=f"{len(runs)} runs")
    kind = "spectrum." if spectrum else "phase." if phase else ""
    path = out or (folder / "runs.png" if folder and not kind else runs[0].with_suffix(f".{kind}png"))
    if path.resolve() in {run.resolve() for run in runs}:
        raise RunFileError("The picture would replace the run.", where="--out", given=str(path))
    with ExitStack() as closing:
        opened = [closing.enter_context(open_run(run)) for run in runs]
        if spectrum:
            channel = channel_of(opened[0], spectrum)
            figure = draw_one(lambda axes: draw_spectrum(axes, channel))
        elif phase:
            pair = [channel_of(opened[0], name) for name in phase]
            figure = draw_one(lambda axes: draw_phase(axes, pair[0], pair[1]))
        else:
            figure = draw_run(opened[0]) if len(opened) == 1 else draw_runs(opened)
        save(figure, path)
    typer.echo(f"figure  {path}")
