"""The import contracts hold, and each of them sees red when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# contract -> (file to break, line to add)
BREAKS = {
    "Imports go down only": ("nlsim/core/ending.py", "import nlsim.simulation.run"),
    "Reading a run costs no torch": ("nlsim/analysis/summary.py", "import torch"),
    "HDF5 lives in record": ("nlsim/systems/loss.py", "import h5py"),
    "Computer algebra lives in theorems": ("nlsim/analysis/orders.py", "import sympy"),
    "Plotting lives in report": ("nlsim/cli/show.py", "import matplotlib.pyplot"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "nlsim", tmp_path / "nlsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_has_a_break() -> None:
    written = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
    names = [line.split('"')[1] for line in written.splitlines() if line.startswith("name = ")]
    assert sorted(names) == sorted(BREAKS)


def test_contracts_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert f"{len(BREAKS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize("contract", BREAKS)
def test_broken_contract_is_seen(copy: Path, contract: str) -> None:
    file, line = BREAKS[contract]
    path = copy / file
    path.write_text(
        path.read_text().replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\n{line}\n", 1
        )
    )
    assert line in path.read_text()
    result = lint(copy)
    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout


def test_new_package_must_be_placed(copy: Path) -> None:
    (copy / "nlsim" / "extra").mkdir()
    (copy / "nlsim" / "extra" / "__init__.py").write_text('"""Nowhere in the layers."""\n')
    result = lint(copy)
    assert result.returncode != 0
    assert "extra" in result.stdout + result.stderr
