"""Where tables are printed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def screen() -> Console:
    """Return the console: as wide as the terminal, and wide enough for our tables in a file or a pipe."""
    from rich.console import Console

    console = Console(emoji=False)  # :words: in a text are words
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(width=180, emoji=False)
    return console
