"""Runs killed at random moments: every file opens, no written frame is lost, and the resumed run is the run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import killing

from nlsim.cli.app import main


def kill(folder: Path, kills: int, seed: int) -> list[killing.Count]:
    command = [sys.executable, killing.__file__, str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    assert [row.pop("family") for row in rows] == list(killing.FAMILIES)
    return [killing.Count(**row) for row in rows]


@pytest.mark.parametrize(
    ("kills", "least"), [pytest.param(6, 6, id="6"), pytest.param(210, 200, id="210", marks=pytest.mark.slow)]
)
def test_kills_at_random_moments(tmp_path: Path, kills: int, least: int) -> None:
    counts = kill(tmp_path, kills, seed=20240)
    assert sum(each.kills for each in counts) >= least
    for each in counts:
        assert each.files > 0
        assert each.opened == each.files
        assert each.lost_committed == 0
        assert each.lost_at_most <= killing.BLOCK
        assert each.resumed == each.identical > 0


KILLED = """
import os, signal, sys
from nlsim.scenario.load import load_scenario
from nlsim.simulation.run import run
def kill(t, steps):
    if t > 1.05:
        os.kill(os.getpid(), signal.SIGKILL)
run(load_scenario("hamiltonian/digits", overrides=sys.argv[2:]), sys.argv[1], progress=kill)
"""


def test_compare_says_that_a_killed_and_resumed_run_is_its_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nlsim(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nlsim", *words])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), capsys.readouterr().out

    overrides = ["until=2.0", "record.window=[]", "record.every=0.05"]
    one, other = str(tmp_path / "killed.nc"), str(tmp_path / "whole.nc")
    killed = subprocess.run([sys.executable, "-c", KILLED, one, *overrides], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert nlsim("run", "hamiltonian/digits", *(f"--set={each}" for each in overrides), "--out", other)[0] == 0
    code, said = nlsim("compare", one, other)
    assert code == 1
    assert "interrupted | reached_end" in said
    assert nlsim("resume", one)[0] == 0
    code, said = nlsim("compare", one, other)
    assert code == 0, said
    assert "identical, bit for bit" in said
