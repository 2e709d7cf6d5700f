"""Every command and every piece of Python in README and the site's pages runs as written.

The snippets of a page run in order, in a folder of their own. In a shell block a line is a command of nlsim, a target
of the Makefile, or the installation of an extra; ``# exit 2`` says with which code it ends. A text block after a shell
block is what the command prints: the labels at the head of its lines must be there, numbers may differ. A TOML block
that begins with ``# NAME.toml`` is a file of that name.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nlsim.cli.app import main
from nlsim.theorems import verify
from nlsim.theorems.catalogue import THEOREMS
from nlsim.theorems.evidence import Evidence, Finding, Leg

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w-]+\.toml)\n")
EXIT = re.compile(r"\s+# exit (\d)$")


@dataclass(frozen=True)
class Snippet:
    language: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    return [Snippet(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def written_pages() -> list[Path]:
    site = [page for page in (ROOT / "docs").rglob("*.md") if not {"generated", "_build"} & set(page.parts)]
    return sorted([ROOT / "README.md", ROOT / "scenarios" / "README.md", *site])


PAGES = [
    pytest.param(page, id=page.relative_to(ROOT).as_posix())
    for page in written_pages()
    if any(each.language in ("sh", "python") for each in snippets(page))
]


def test_pages_are_found() -> None:
    names = {param.id for param in PAGES}
    assert {"README.md", "docs/tutorials/digits.md", "docs/how-to/change-a-scenario.md"} <= names


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``nlsim verify`` report without making the checks; ``tests/bridge`` makes all of them."""
    passed = Evidence(Leg.PROPERTY, "none", Finding.PASSED, "nothing", "nothing")
    short = {key: replace(theorem, checks=(lambda effort: passed,)) for key, theorem in THEOREMS.items()}
    monkeypatch.setattr(verify, "THEOREMS", short)


@pytest.mark.usefixtures("no_checks")
@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "scenarios" / "hamiltonian" / "digits.toml", tmp_path / "my-digits.toml")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = ""
    for snippet in snippets(page):
        match snippet.language:
            case "sh":
                printed = "".join(run_line(line, monkeypatch, capsys) for line in snippet.text.splitlines())
            case "python":
                exec(compile(snippet.text, str(page), "exec"), names)
                printed = ""
            case "toml" if named := FILE.match(snippet.text):
                Path(named.group(1)).write_text(snippet.text, encoding="utf-8")
            case "text" if printed:
                assert_labels(snippet.text, printed)
                printed = ""


def run_line(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one line of a shell block as a reader would, and return what it prints."""
    expected = EXIT.search(line)
    words = shlex.split(line, comments=True)
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target '{target}'"
            return ""
        case ["python", "-m", "pip", "install", "-e", extra]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert extra.strip(".[]") in project["optional-dependencies"]
            return ""
        case ["nlsim", *_]:
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
            printed = capsys.readouterr()
            assert (ended.value.code or 0) == (int(expected.group(1)) if expected else 0), printed.err
            return printed.out + printed.err
    raise AssertionError(f"a command that this test does not know: {line}")


def assert_labels(shown: str, printed: str) -> None:
    for line in shown.splitlines():
        label = line.strip().split("  ")[0]
        assert label in printed, f"{label!r} is not among what was printed:\n{printed}"


def test_demo_in_readme_is_the_demo_of_the_makefile() -> None:
    """README shows what ``make demo`` prints; the tutorial runs the same scenario for real."""
    makefile = (ROOT / "Makefile").read_text()
    assert "nlsim run scenarios/hamiltonian/digits.toml --out runs/digits.nc" in makefile
    assert "nlsim plot runs/digits.nc -o runs/digits.png" in makefile
    demo = next(each.text for each in snippets(ROOT / "README.md") if each.language == "text")
    tutorial = next(each.text for each in snippets(ROOT / "docs/tutorials/digits.md") if each.language == "text")
    assert demo.splitlines()[:-2] == tutorial.splitlines()[:-1]
    assert "runs/digits.nc" in demo
    assert "runs/digits.png" in demo
