"""Kill runs at random moments, look at what they left, and let them go on: ``python killing.py FOLDER KILLS SEED``.

One process imports torch and forks a worker for each run, so that a kill costs what a short run costs. Counts are
printed as JSON, one object a family.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import nlsim
import nlsim.record.writer
import nlsim.simulation.provenance
from nlsim.record import read_checkpoint
from nlsim.record.writer import RunWriter
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.resume import resume
from nlsim.simulation.run import run

BLOCK = 3
"""Frames a block, so that a short run has many."""

COMMON = """
seed = 5
{until}
[signal]
name = "samples"
dataset = "digits"
batch = 8
interval = 0.2
[record]
every = 0.05
channels = ["loss", "weight/2", "activity/1"]
"""
FAMILIES = {
    "hamiltonian": COMMON.format(until="until = 6.0")
    + """
[system]
name = "costate_reversal"
speed = 5.0
mass = 2.0
dissipation = 1.0
network = {layers = [64, 12, 10]}
[stepper]
name = "implicit_sweep"
dt = 0.01
""",
    "inference": COMMON.format(until="until = 6.0")
    + """
[system]
name = "inference"
update = {name = "adam", rate = 1e-3}
network = {layers = [64, 12, 10], output_activation = "identity"}
[stepper]
name = "explicit_euler"
dt = 0.01
""",
    "masked": COMMON.format(until="until = 6.0")
    + """
[mask]
name = "random"
rate = 0.7
interval = 0.06
[system]
name = "incremental_inference"
rate = 0.2
network = {layers = [64, 12, 10], output_activation = "identity"}
[stepper]
name = "heun"
dt = 0.01
""",
}


@dataclass
class Count:
    """What was seen of a family."""

    kills: int = 0
    """Runs that were killed before they ended."""
    kills_of_resumed: int = 0
    """Of these, runs that had been resumed."""
    files: int = 0
    """Files that the killed runs had put in their place."""
    opened: int = 0
    """Of these, files that open, say interrupted, and hold right frames only."""
    frames: int = 0
    """Frames on file."""
    lost: int = 0
    """Frames taken by the writer that are not on file."""
    lost_at_most: int = 0
    """The most of them in one run."""
    lost_committed: int = 0
    """Frames whose writing had returned and that are not on file."""
    resumed: int = 0
    """Runs that went on and ended."""
    identical: int = 0
    """Of these, runs that are the uninterrupted one to the bit."""


class Shared:
    """Frames taken and written, where they outlive the worker."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 16)

    def put(self, writer: RunWriter) -> None:
        self._map[:] = struct.pack("qq", writer.frames, writer.frames - writer.waiting)

    def get(self) -> tuple[int, int]:
        return struct.unpack("qq", self._map[:])

    def clear(self) -> None:
        self._map[:] = bytes(16)


SHARED = Shared()


def watch_writer() -> None:
    """Let every writer say what it has taken and what it has written, after it is done."""
    append, flush = RunWriter.append, RunWriter.flush

    def watched_append(self, *arguments):
        append(self, *arguments)
        SHARED.put(self)

    def watched_flush(self):
        flush(self)
        SHARED.put(self)

    RunWriter.append, RunWriter.flush = watched_append, watched_flush
    nlsim.record.writer.frames_per_block = lambda _: BLOCK
    nlsim.simulation.provenance.revision = lambda: "one and the same"


def in_child(work) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    return pid


def killed(work, delay: float) -> bool:
    """Do some work in a child and kill it after a while; return whether it was still at it."""
    pid = in_child(work)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "a worker failed by itself"
    return False


def frames_of(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with nlsim.open_run(path) as data:
        return {str(name): data[name].values for name in data.variables}, data.attrs["state"]


def is_prefix(found: dict[str, np.ndarray], whole: dict[str, np.ndarray]) -> bool:
    count = len(found["time"])
    return found.keys() == whole.keys() and all(
        values.tobytes() == whole[name][:count].tobytes() for name, values in found.items()
    )


def is_same_end(path: Path, whole: Path) -> bool:
    (tensors, numbers), (wanted, others) = read_checkpoint(path), read_checkpoint(whole)
    return all(tensors[name].tobytes() == wanted[name].tobytes() for name in wanted) and all(
        numbers[each] == others[each] for each in ("time", "steps", "frames")
    )


def look(path: Path, whole: dict[str, np.ndarray], count: Count) -> None:
    """Look at what a killed run left."""
    taken, written = SHARED.get()
    if not path.exists():
        assert taken == 0
        return
    count.files += 1
    found, state = frames_of(path)
    on_file = len(found["time"])
    assert state in ("interrupted", "complete"), state
    assert is_prefix(found, whole), f"{path}: a frame is not that of the uninterrupted run"
    count.opened += 1
    count.frames += on_file
    count.lost += max(0, taken - on_file)
    count.lost_at_most = max(count.lost_at_most, taken - on_file)
    count.lost_committed += max(0, written - on_file)


def kill_runs(folder: Path, source: LoadedScenario, kills: int, rng: np.random.Generator) -> Count:
    """Kill so many runs of a scenario and resume them all."""
    reference = folder / "whole.nc"
    run(source, reference)  # here, so that the workers find everything imported
    frames_of(reference)
    begin = time.perf_counter()
    os.waitpid(in_child(lambda: run(source, reference, force=True)), 0)
    duration = time.perf_counter() - begin
    whole, _ = frames_of(reference)
    count = Count()
    number = 0
    while count.kills < kills:
        number += 1
        path = folder / f"{number}.nc"
        SHARED.clear()
        if not killed(lambda: run(source, path), rng.uniform(0, duration)):  # noqa: B023
            path.unlink()
            continue
        count.kills += 1
        look(path, whole, count)
        if not path.exists():
            continue
        while count.kills < kills and rng.uniform() < 0.4:  # the run that goes on is killed too
            if frames_of(path)[1] == "complete":
                break
            SHARED.clear()
            if not killed(lambda: resume(path), rng.uniform(0, duration)):  # noqa: B023
                break
            count.kills += 1
            count.kills_of_resumed += 1
            look(path, whole, count)
        if frames_of(path)[1] != "complete":
            pid = in_child(lambda: resume(path))  # noqa: B023
            assert os.waitpid(pid, 0)[1] == 0
        found, state = frames_of(path)
        count.resumed += 1
        is_whole = state == "complete" and len(found["time"]) == len(whole["time"]) and is_prefix(found, whole)
        count.identical += is_whole and is_same_end(path, reference)
        path.unlink()
    left = [each.name for each in folder.iterdir() if each.name != "whole.nc"]
    assert all(name.startswith(".") and name.endswith((".new", ".closing")) for name in left), left
    return count


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    watch_writer()
    rng = np.random.default_rng(seed)
    share = -(-kills // len(FAMILIES))
    for name, text in FAMILIES.items():
        (folder / name).mkdir()
        count = kill_runs(folder / name, parse_scenario(text), share, rng)
        print(json.dumps({"family": name, **asdict(count)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
