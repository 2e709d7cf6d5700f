"""Thousands of damaged files: each is refused clearly or read; none crashes, hangs or fills the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import mutating

FINE = {"refused", "read as it was", "read, with the checkpoint before", "read, other values", "read, other texts"}


@pytest.mark.parametrize("count", [100, pytest.param(2500, marks=pytest.mark.slow)])
def test_damaged_files(tmp_path: Path, count: int):
    command = [sys.executable, mutating.__file__, str(tmp_path), str(count), "20240"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        row = json.loads(line)
        outcomes[row["outcome"]] += row["count"]
    print(f"{count} damaged files: " + ", ".join(f"{number} {said}" for said, number in outcomes.most_common()))
    assert outcomes.total() == count
    assert set(outcomes) <= FINE
    assert outcomes["refused"] > count / 2
    # numbers that are stored as they are, and texts, have no checksum in HDF5
    assert outcomes["read, other values"] + outcomes["read, other texts"] < count / 20
