"""``nlsim verify``: gather the evidence for theorems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from nlsim.theorems.verify import Report

_COLOURS = {"passed": "green", "failed": "red", "undecided": "yellow"}


def verify(
    keys: Annotated[list[str] | None, typer.Argument(help="Theorems, by key; all when none is given.")] = None,
    family: Annotated[str | None, typer.Option(help="Only the theorems of this family.")] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="Fresh random cases of each property; without it a fixed choice of 50."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the reports to this file.")] = None,
) -> None:
    """Verify theorems against the running code; exit 1 when one fails or stays undecided."""
    import json

    from nlsim.cli.screen import screen
    from nlsim.errors import NlsimError
    from nlsim.theorems.statement import Effort
    from nlsim.theorems.verify import choose, reports

    choose(keys or [], family)  # bad names are said before any work
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise NlsimError("The report cannot be written there.", where="--json", given=str(json_file))
    effort = Effort() if examples is None else Effort(examples, is_random=True)
    console = screen()
    done = []
    for report in reports(keys or [], family=family, effort=effort):
        _print(report, console)
        done.append(report)
    if json_file is not None:
        text = json.dumps([each.as_dict() for each in done], indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")
        console.print(f"reports  {json_file}", highlight=False)
    if not all(each.verdict.is_good for each in done):
        raise typer.Exit(1)


def _print(report: Report, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    theorem = report.theorem
    colour = "green" if report.verdict.is_good else "red"
    console.print(f"\n[bold]{theorem.key}[/bold]  [{colour}]{report.verdict}[/{colour}]  {theorem.title}")
    console.print(theorem.statement, style="dim", highlight=False, markup=False)
    console.print(f"if: {'; '.join(theorem.hypotheses)}", style="dim", highlight=False, markup=False)
    console.print(f"source: {theorem.source}", style="dim", highlight=False, markup=False)
    table = Table("leg", "check", "finding", "expected", "measured", box=None, pad_edge=False)
    for each in report.evidence:
        shown = f"[{_COLOURS[each.finding]}]{each.finding}[/{_COLOURS[each.finding]}]"
        table.add_row(each.leg, escape(each.name), shown, escape(each.expected), escape(each.measured))
    console.print(table, highlight=False)
    for each in report.evidence:
        for extra in each.tables:
            numbers = Table(*extra.columns, title=extra.title, title_justify="left", box=None)
            for row in extra.rows:
                numbers.add_row(*(escape(cell) for cell in row))
            console.print(numbers, highlight=False)
    console.print(f"took {report.seconds:.1f} s", style="dim", highlight=False)
