"""Runs killed at random moments: every file opens, no written frame is lost, and the resumed run is the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import killing


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
    ("kills", "least"), [pytest.param(12, 12, id="12"), pytest.param(210, 200, id="210", marks=pytest.mark.slow)]
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
