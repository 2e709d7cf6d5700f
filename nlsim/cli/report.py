"""``nlsim report``: a page about a run, or about a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nlsim.report.page import TheoremNote
    from nlsim.theorems.statement import Theorem

_NO_SYSTEM = "The scenario in the file is not valid for this version of nlsim, so its theorems are not known."


def report(
    file: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A run file, or a folder of run files (*.nc).")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page; by default FILE with the suffix .html, or FOLDER/report.html."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the theorems that concern the system, now.")] = False,
) -> None:
    """Write one HTML page that needs nothing else: summary, figures, scenario, provenance, theorems.

    With --verify exit 1 when a theorem fails or stays undecided.
    """
    from nlsim.errors import RunFileError
    from nlsim.report.page import save_page

    path = out or (file / "report.html" if file.is_dir() else file.with_suffix(".html"))
    if path.resolve() == file.resolve() or path.suffix == ".nc":
        raise RunFileError("The page would replace a run.", where="--out", given=str(path))
    text, notes = _folder_page(file, verify) if file.is_dir() else _run_page(file, verify)
    save_page(text, path)
    typer.echo(f"page  {path}")
    failed = [note.key for note in notes if note.verdict in ("failed", "undecided")]
    if failed:
        typer.echo(f"failed  {', '.join(failed)}")
        raise typer.Exit(1)


def _run_page(file: Path, is_verified: bool) -> tuple[str, Sequence[TheoremNote]]:
    from nlsim.record import open_run
    from nlsim.report.page import render_run, view

    with open_run(file) as data:
        run = view(data, file.name)
        subjects = _subjects(data.attrs)
    notes = _notes(subjects or (), is_verified)
    return render_run(run, notes, _NO_SYSTEM if subjects is None else ""), notes


def _folder_page(folder: Path, is_verified: bool) -> tuple[str, Sequence[TheoremNote]]:
    from nlsim.errors import RunFileError
    from nlsim.record import open_run
    from nlsim.report.folder import FolderRow, folder_row, render_folder

    files = sorted(folder.glob("*.nc"))
    if not files:
        raise RunFileError("There is no run file in this folder.", where=str(folder), allowed="files named *.nc")
    rows: list[FolderRow] = []
    subjects: list[object] = []
    for file in files:
        try:
            with open_run(file) as data:
                rows.append(folder_row(data, file.name))
                subjects.extend(_subjects(data.attrs) or ())
        except RunFileError as refusal:
            rows.append(FolderRow(file.name, refusal.problem))
    notes = _notes(subjects, is_verified)
    return render_folder(folder.resolve().name, rows, notes), notes


def _subjects(attrs: dict[object, object]) -> list[object] | None:
    """Return what the theorems of a run may be about: its system, flip, mask and stepper; None when unknown."""
    from nlsim.errors import NlsimError
    from nlsim.integrate.catalogue import STEPPERS
    from nlsim.scenario.load import parse_scenario
    from nlsim.scenario.overrides import read_overrides
    from nlsim.systems.catalogue import FLIPS, SYSTEMS
    from nlsim.systems.hamiltonian.sign_flip import SignFlip
    from nlsim.systems.masked.layer import gate
    from nlsim.systems.masked.signal import MaskedSignal, Outages, RandomMask

    try:
        values = parse_scenario(str(attrs.get("scenario", "")), overrides=read_overrides(attrs)).values
    except NlsimError:
        return None
    subjects: list[object] = [SYSTEMS[values.system.name].system]
    flip = getattr(values.system, "flip", None)
    if flip is not None:
        subjects += [SignFlip, FLIPS[flip.name]]
    if values.mask is not None:
        subjects += [MaskedSignal, gate, {"random": RandomMask, "outages": Outages}[values.mask.name]]
    if values.stepper.name in STEPPERS:
        subjects.append(type(STEPPERS[values.stepper.name]))
    return subjects


def _notes(subjects: Sequence[object], is_verified: bool) -> list[TheoremNote]:
    from nlsim.report.page import Leg, TheoremNote
    from nlsim.theorems.catalogue import THEOREMS
    from nlsim.theorems.verify import reports

    about = [each for each in THEOREMS.values() if any(subject in each.about for subject in subjects)]
    if not is_verified or not about:
        return [TheoremNote(*_words(theorem)) for theorem in about]
    return [
        TheoremNote(
            *_words(found.theorem),
            found.verdict.value,
            tuple(Leg(str(e.leg), e.name, str(e.finding), e.expected, e.measured) for e in found.evidence),
        )
        for found in reports([theorem.key for theorem in about])
    ]


def _words(theorem: Theorem) -> tuple[str, str, str, str, tuple[str, ...]]:
    return theorem.key, theorem.title, theorem.statement, theorem.source, theorem.hypotheses
