"""Text from a file reaches no terminal raw: what it would act upon is made visible."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nlsim.cli.app import main
from nlsim.cli.run import summary
from nlsim.cli.text import showable
from nlsim.cli.watch import _panel
from nlsim.core.ending import Ending
from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, RunWriter, open_run
from nlsim.simulation.recording import Outcome

RED, TITLE, BELL, CSI, TURN = "\x1b[31m", "\x1b]0;mine\x07", "\x07", "\x9b31m", "\u202e"
HOSTILE = f"a{RED}b{TITLE}c{BELL}d{CSI}e{TURN}f\rg :skull: [red]"
SCENARIO = f"until = 1.0\r\n# {HOSTILE}\ttab ü\n"
"""Not a valid one, so it is shown whole wherever it is shown."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "a.nc", "one")


def written(path: Path, more: str) -> Path:
    specs = [ChannelSpec("loss", units=HOSTILE, long_name=HOSTILE)]
    attributes = {"title": HOSTILE, "scenario": SCENARIO + more, "device": HOSTILE, "versions": HOSTILE}
    with RunWriter(path, specs, attributes) as writer:
        writer.append(0.0, {"loss": np.float64(1.0)})
        writer.close(HOSTILE, f"first line\nsecond {HOSTILE}")
    return path


class Terminal(io.TextIOWrapper):
    """A terminal, as far as a program can tell, that keeps what it gets."""

    def isatty(self) -> bool:
        return True

    def got(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


Command = Callable[..., str]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command with a terminal for its output; return what the terminal got."""
    monkeypatch.setenv("TERM", "dumb")  # for which rich itself writes no escapes
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: str) -> str:
        terminal = Terminal(io.BytesIO(), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "argv", ["nlsim", *words])
            with pytest.raises(SystemExit):
                main()
        assert capsys.readouterr().err == ""
        return terminal.got()

    return run


def assert_harmless(text: str) -> None:
    for bad in "\x1b\x07\x9b\u202e\r":
        assert bad not in text, repr(text)
    assert "\\x1b" in text, "and what was there can be seen"


@given(st.text())
def test_nothing_is_left_to_act_upon(text: str) -> None:
    shown = showable(text)
    assert shown.splitlines() in ([shown], [])
    assert not any(ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in shown)
    shown.encode()  # no half of a surrogate pair
    assert showable(shown) == shown


def test_what_is_shown() -> None:
    assert showable(HOSTILE) == (r"a\x1b[31mb\x1b]0;mine\x07c\x07d\x9b31me\u202ef\rg :skull: [red]")
    assert showable("a\r\nb\tc\n\rd") == r"a\r\nb\tc\n\rd"
    assert showable("a\r\nb\tc\n\rd", lines=True) == "a\nb\tc\n" + r"\rd"
    for plain in ("ẇ = −∂H/∂w, |A − B| ≤ 5 %", "Größe 学習 тест", "نمی\u200cدانم", "👩\u200d🔬", r"C:\x1b"):
        assert showable(plain) == plain


@pytest.mark.parametrize("command", [["show"], ["show", "--scenario"], ["watch"]])
def test_on_a_terminal(command: list[str], path: Path, on_terminal: Command) -> None:
    out = on_terminal(command[0], str(path), *command[1:])
    assert_harmless(out)
    assert ":skull: [red]" in out


def test_comparing(path: Path, tmp_path: Path, on_terminal: Command) -> None:
    out = on_terminal("compare", str(path), str(written(tmp_path / "b.nc", "other")))
    assert_harmless(out)
    assert "scenario:" in out


def test_the_summary_of_a_run_and_its_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(Path("a.nc"), Ending.DIVERGED, HOSTILE, 1.0, 1, 1, 1.0)
    assert_harmless(summary(HOSTILE, outcome))

    def fail() -> None:
        raise RunFileError("No.", given=HOSTILE, allowed="this\nor that")

    monkeypatch.setattr("nlsim.cli.app.app", fail)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert_harmless(said)
    assert "this\nor that\n" in said


def test_lines_that_are_meant_stay_lines(path: Path, on_terminal: Command) -> None:
    out = on_terminal("show", str(path))
    assert "ending_detail  first line\n               second a\\x1b" in out
    assert out.count("\n") < 12, "and others are not"


def test_a_scenario_is_piped_byte_for_byte(path: Path) -> None:
    command = [sys.executable, "-c", "from nlsim.cli.app import main; main()", "show", str(path), "--scenario"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == (SCENARIO + "one").encode()


def test_the_panel_of_a_watcher(path: Path) -> None:
    console = Console(file=io.StringIO(), width=200, emoji=False)
    with open_run(path) as data:
        console.print(_panel(data, []))
    assert_harmless(console.file.getvalue())
    assert "[red]" in console.file.getvalue()
