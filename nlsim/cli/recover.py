"""``nlsim recover``: make the file of a killed run plain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recover(
    file: Annotated[Path, typer.Argument(help="The file of a run that was killed.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also when the run was begun on another machine and may be going on.")
    ] = False,
) -> None:
    """Make the run FILE of a killed process one that every netCDF-4 reader opens; nlsim reads it either way."""
    from nlsim.record import recover as make_plain

    frames = make_plain(file, force=force)
    typer.echo(f"{file} is plain: {frames} frames. To go on with the run: nlsim resume {file}")
