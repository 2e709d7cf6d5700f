"""A progress bar with rate and time left; silent when nobody is looking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(until: float) -> Iterator[Callable[[float, int], None] | None]:
    """Give a function ``progress(t, steps)`` that moves a bar on standard error, or None off a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("t = {task.fields[t]:.4g}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]:,.0f} steps/s"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    begin = last = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=until, t=0.0, rate=0.0)

        def progress(t: float, steps: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= 0.1 or t >= until:
                bar.update(task, completed=t, t=t, rate=steps / max(now - begin, 1e-9))
                last = now

        yield progress
