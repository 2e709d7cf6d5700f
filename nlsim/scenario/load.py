"""Read a scenario: TOML text and overrides in, validated values out."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nlsim.errors import ScenarioError, did_you_mean
from nlsim.scenario.complaint import explain, line_of
from nlsim.scenario.model import Scenario


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario with where it came from.

    Attributes
    ----------
    values : Scenario
        The validated values.
    text : str
        The TOML text, byte for byte.
    path : Path or None
        Its file.
    overrides : tuple of str
        ``key=value`` assignments applied on top, in order.
    """

    values: Scenario
    text: str
    path: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the file's stem, or ``run``."""
        return self.path.stem if self.path else "run"

    def where(self, *keys: str) -> str:
        """Say where a key stands: file, line, table and key, or the override that set it."""
        return _where(self.path, self.text, self.overrides, keys)


def load_scenario(source: str | Path, *, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Read and validate a scenario file.

    Parameters
    ----------
    source : str or Path
        A TOML file, or the name of a shipped scenario such as ``hamiltonian/digits``.
    overrides : sequence of str
        ``table.key=value`` assignments; the value is TOML, or text when it is not.

    Raises
    ------
    ScenarioError
        When the file cannot be read, is not TOML, or is not a valid scenario.
    """
    path = _find(source)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ScenarioError(
            "The scenario cannot be read.",
            where=str(path),
            given=str(failure),
            allowed="a TOML file in UTF-8",
        ) from None
    return parse_scenario(text, path=path, overrides=overrides)


def parse_scenario(text: str, *, path: Path | None = None, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Validate TOML text; see :func:`load_scenario`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise ScenarioError(
            "The scenario is not valid TOML.",
            where=str(path) if path else "scenario text",
            given=str(failure),
            advice='Tables are [in.brackets], text is in "quotes", lists are in [brackets].',
        ) from None
    for assignment in overrides:
        _assign(raw, assignment)
    try:
        values = Scenario.model_validate(raw)
    except ValidationError as failure:
        raise explain(failure, raw, lambda keys: _where(path, text, tuple(overrides), keys)) from None
    return LoadedScenario(values, text, path, tuple(overrides))


def shipped_folder() -> Path:
    """Return the folder of the scenarios that come with nlsim."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "scenarios"
    return inside if inside.is_dir() else package.parent / "scenarios"


def shipped_scenarios() -> dict[str, Path]:
    """Return name -> file of the scenarios that come with nlsim."""
    folder = shipped_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.exists():
        return path
    shipped = shipped_scenarios()
    name = Path(source).as_posix().removesuffix(".toml")
    if name in shipped:
        return shipped[name]
    guess = did_you_mean(name, shipped)
    raise ScenarioError(
        "There is no such scenario.",
        given=str(source),
        allowed=f"a TOML file, or one of: {', '.join(shipped)}",
        advice=f"Did you mean '{guess}'?" if guess else None,
    )


def _assign(raw: dict[str, Any], assignment: str) -> None:
    """Set one ``table.key=value`` in the parsed tables."""
    key, equals, written = assignment.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise ScenarioError(
            "An override needs a key and a value.", where="--set", given=assignment, allowed="table.key=value"
        )
    table = raw
    for part in keys[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ScenarioError(f"'{part}' is not a table.", where="--set", given=assignment, allowed="table.key=value")
    table[keys[-1]] = _value(written.strip())


def _value(written: str) -> Any:
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return written


def _where(path: Path | None, text: str, overrides: Sequence[str], keys: Sequence[str]) -> str:
    dotted = ".".join(keys)
    for assignment in reversed(overrides):
        key = assignment.partition("=")[0].strip()
        if key == dotted or key.startswith(f"{dotted}.") or dotted.startswith(f"{key}."):
            return f"--set {assignment}"
    line = line_of(text, keys)
    file = str(path) if path else "scenario text"
    table, key = ".".join(keys[:-1]), keys[-1] if keys else ""
    place = f"table [{table}], key '{key}'" if table else f"key '{key}'"
    return f"{file}{f', line {line}' if line else ''}, {place}"
