"""``nlsim plot``: draw a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    file: Annotated[Path, typer.Argument(help="A run file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The picture; by default FILE with the suffix .png.")
    ] = None,
) -> None:
    """Draw the run FILE: what suits its system and was recorded, from the loss to a phase portrait."""
    from nlsim.errors import RunFileError
    from nlsim.record import open_run
    from nlsim.report.figures import draw_run, save

    path = out or file.with_suffix(".png")
    if path.resolve() == file.resolve():
        raise RunFileError("The picture would replace the run.", where="--out", given=str(path))
    with open_run(file) as data:
        save(draw_run(data), path)
    typer.echo(f"figure  {path}")
