"""``nlsim compare``: are two runs the same, and where do they part?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nlsim.analysis.compare import ChannelDifference, Comparison, Tolerance


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run file.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another run file.")],
    relative: Annotated[
        float, typer.Option("--relative", min=0.0, help="Let numbers differ by this share of the larger one.")
    ] = 0.0,
    absolute: Annotated[float, typer.Option("--absolute", min=0.0, help="Let numbers differ by this much.")] = 0.0,
) -> None:
    """Say whether the runs A and B are the same, and where they part; exit 0 when they are, 1 when they differ.

    Without a tolerance only identical runs are the same: equal values of the scenario, endings, times, channels and
    final states, bit for bit. With one, the numbers may differ by it, and nothing else.
    """
    from nlsim.analysis.compare import Tolerance
    from nlsim.analysis.compare import compare as compare_runs
    from nlsim.record import open_run

    tolerance = Tolerance(relative, absolute)
    with open_run(one) as a, open_run(other) as b:
        states, notes = _final_states(one, other)
        found = compare_runs(a, b, tolerance=tolerance, states=states)
    _print(found, tolerance, states is not None, notes)
    has_tolerance = bool(relative or absolute)
    is_alike = not notes and (found.is_identical or (has_tolerance and found.is_within))
    if not is_alike:
        raise typer.Exit(1)


def _final_states(one: Path, other: Path) -> tuple[tuple[dict[str, Any], dict[str, Any]] | None, list[str]]:
    """Return both final states, or None with what is amiss when exactly one is there to be read."""
    from nlsim.errors import RunFileError
    from nlsim.record import read_checkpoint

    states, faults = [], []
    for name, path in (("A", one), ("B", other)):
        try:
            states.append(read_checkpoint(path)[0])
        except RunFileError as error:
            faults.append(f"{name}: {error.problem}")
    if len(states) == 2:
        return (states[0], states[1]), []
    return None, faults if states else []


def _print(found: Comparison, tolerance: Tolerance, has_states: bool, notes: list[str]) -> None:
    from rich.table import Table

    from nlsim.cli.screen import screen
    from nlsim.cli.text import plain_markup

    console = screen()

    def say(label: str, text: str) -> None:
        console.print(f"[bold]{label:<14}[/bold] {plain_markup(text)}", highlight=False)

    say("verdict", _verdict(found, tolerance, notes))
    text = "the same text, byte for byte" if found.is_same_text else "different text"
    say("scenario", f"{text}; {'other values:' if found.values else 'the same values'}")
    for name, (mine, yours) in found.values.items():
        say("", f"{name}: {_short(mine)} | {_short(yours)}")
    same_ending = found.endings[0] == found.endings[1]
    say("ending", found.endings[0] if same_ending else " | ".join(each or "none" for each in found.endings))
    times = "the same" if found.is_same_times else f"{found.common} in common"
    say("times", f"{times}, of {found.frames[0]} | {found.frames[1]} frames")
    for label, names in zip(("only in A", "only in B"), found.only, strict=True):
        if names:
            say(label, ", ".join(names))
    for label, is_beyond in (("part", False), ("part beyond", True)):
        if is_beyond and not (tolerance.relative or tolerance.absolute):
            continue
        parting = found.parting(beyond=is_beyond)
        if parting is not None:
            when = parting.first_beyond if is_beyond else parting.first
            say(label, f"at t = {when!r}, in {parting.name}" + (" (the tolerance)" if is_beyond else " (bits)"))
    table = Table("channel", "bits", "first at t", "beyond at t", "largest |A − B|", "of", "at t", box=None)
    for each in found.channels:
        table.add_row(*map(plain_markup, _row(each)))
    console.print(table, highlight=False)
    _print_state(found, has_states, notes, say)


def _print_state(found: Comparison, has_states: bool, notes: list[str], say: Any) -> None:
    for note in notes:
        say("final state", note)
    if not has_states:
        if not notes:
            say("final state", "neither file holds one")
        return
    for label, names in zip(("state, only A", "state, only B"), found.only_state, strict=True):
        if names:
            say(label, ", ".join(names))
    parted = [each for each in found.state if not each.is_identical]
    if not parted and not any(found.only_state):
        say("final state", f"identical, {len(found.state)} tensors")
    for each in parted:
        say("final state", f"{each.name}: {each.obstacle or f'largest |A − B| {each.largest:.4g} of {each.scale:.4g}'}")


def _row(each: ChannelDifference) -> tuple[str, ...]:
    if each.obstacle:
        return each.name, each.obstacle, "", "", "", "", ""
    if each.is_identical:
        return each.name, "identical", "", "", "0", f"{each.scale:.4g}", ""

    def when(time: float | None) -> str:
        return "" if time is None else f"{time:.6g}"

    times = (when(each.first), when(each.first_beyond))
    return each.name, "differ", *times, f"{each.largest:.4g}", f"{each.scale:.4g}", when(each.largest_time)


def _verdict(found: Comparison, tolerance: Tolerance, notes: list[str]) -> str:
    if notes:
        return "different: only one of them holds a final state"
    if found.is_identical:
        return "identical, bit for bit"
    if (tolerance.relative or tolerance.absolute) and found.is_within:
        return f"the same within the tolerance (relative {tolerance.relative:g}, absolute {tolerance.absolute:g})"
    reasons = [
        (found.values, "the scenario's values"),
        (found.endings[0] != found.endings[1], "the ending"),
        (not found.is_same_times, "the times"),
        (any(found.only), "the channels"),
        (not all(each.is_within for each in found.channels), "the numbers"),
        (not all(each.is_within for each in found.state) or any(found.only_state), "the final state"),
    ]
    return "different: " + (", ".join(text for is_so, text in reasons if is_so) or "bits that no distance shows")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
