"""Cost of recording: runs with one frame in ten steps against runs with a frame at their end only, and their memory.

Both write a run file and are timed from their first step to the closed file. Paired, one thread; the median of the
ratios is printed, with the quartiles. Memory is the
most that a run takes in a process of its own, for runs of growing length.
"""

from __future__ import annotations

import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.run import run

ROUNDS = 11
DT = 0.01
FRAME = 10
"""Steps a frame."""

TEXT = """
seed = 1
until = {until}
[system]
name = "costate_reversal"
speed = 100.0
mass = 0.2
dissipation = 10.0
network = {{layers = {layers}}}
[signal]
name = "samples"
dataset = "digits"
batch = {batch}
interval = 0.05
[stepper]
name = "exponential_sweep"
dt = {dt}
[numerics]
threads = 1
[record]
every = {every}
channels = [{channels}]
{more}
"""

WEIGHTS = '"loss", "weight/*"'
NORMS = '"loss", {name = "weight/*", reduce = "norm"}, {name = "activity/*", reduce = "mean"}'
CASES = (
    ("loss", "[64, 32, 10]", 32, 4000, '"loss"', ""),
    ("norms and means", "[64, 32, 10]", 32, 4000, NORMS, ""),
    ("all weights", "[64, 32, 10]", 32, 4000, WEIGHTS, ""),
    ("all weights, packed", "[64, 32, 10]", 32, 4000, WEIGHTS, "compression = 1"),
    ("loss", "[64, 512, 512, 10]", 64, 400, '"loss"', ""),
    ("norms and means", "[64, 512, 512, 10]", 64, 400, NORMS, ""),
    ("all weights", "[64, 512, 512, 10]", 64, 400, WEIGHTS, ""),
    ("all weights, packed", "[64, 512, 512, 10]", 64, 400, WEIGHTS, "compression = 1"),
)
LENGTHS = (1000, 4000, 16000)


def scenario(layers: str, batch: int, steps: int, frame: int, channels: str, more: str) -> LoadedScenario:
    """Return a run of so many steps with a frame every so many."""
    return parse_scenario(
        TEXT.format(
            layers=layers,
            batch=batch,
            dt=DT,
            until=round(steps * DT, 9),
            every=round(frame * DT, 9),
            channels=channels,
            more=more,
        )
    )


def seconds(source: LoadedScenario, folder: Path) -> float:
    """Return how long a run takes, from its first step to the closed file."""
    path = folder / "run.nc"
    outcome = run(source, path, force=True)
    assert outcome.ending == "reached_end", outcome.detail
    return outcome.wall_time


def grown(steps: int, folder: Path) -> float:
    """Return the MiB that a run of so many steps takes at its most, beyond what is held after a short one."""
    source = scenario("[64, 32, 10]", 32, steps, FRAME, WEIGHTS, "")
    seconds(scenario("[64, 32, 10]", 32, 100, FRAME, WEIGHTS, ""), folder)
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the most memory is set to what is held now
    before = memory()
    seconds(source, folder)
    return memory() - before


def memory() -> float:
    """Return the most memory that this process has held [MiB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'recorded':<26}{'net':<20}{'batch':>5}{'step [µs]':>11}{'ratio':>8}{'quartiles':>15}{'KiB/frame':>11}")
        for title, layers, batch, steps, channels, more in CASES:
            bare = scenario(layers, batch, steps, steps, '"loss"', "")
            full = scenario(layers, batch, steps, FRAME, channels, more)
            seconds(bare, folder), seconds(full, folder)
            size = (folder / "run.nc").stat().st_size / 1024 / (steps / FRAME)
            pairs = []
            for turn in range(ROUNDS):
                if turn % 2:
                    b, a = seconds(full, folder), seconds(bare, folder)
                else:
                    a, b = seconds(bare, folder), seconds(full, folder)
                pairs.append((a, b / a))
            low, ratio, high = statistics.quantiles([each for _, each in pairs], n=4)
            step = 1e6 * statistics.median(a for a, _ in pairs) / steps
            print(
                f"{title:<26}{layers:<20}{batch:>5}{step:>11.1f}{ratio:>8.3f}{low:>8.3f}{high:>7.3f}{size:>11.2f}",
                flush=True,
            )
        print(f"\n{'steps':>8}{'frames':>8}{'memory taken by the run [MiB]':>32}   (64-32-10, all weights)")
        for steps in LENGTHS:
            with ProcessPoolExecutor(1, get_context("spawn")) as other:
                most = other.submit(grown, steps, folder).result()
            print(f"{steps:>8}{steps // FRAME:>8}{most:>32.1f}", flush=True)


if __name__ == "__main__":
    main()
