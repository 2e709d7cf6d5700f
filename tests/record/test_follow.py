"""A reader in another process follows a live run to its end."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nlsim.cli.sparkline import sparkline
from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, RunWriter
from nlsim.record.follow import follow

# a run of 300 frames, each a function of its number; after 60, 120, 180 and 240 it waits until they are seen
WRITER = """
import os, sys, time, numpy as np
from nlsim.record import ChannelSpec, RunWriter
specs = [ChannelSpec("loss"), ChannelSpec("weight/1", ("to_1", "from_1"), (4, 5))]
with RunWriter(sys.argv[1], specs, {"title": "slow"}, block_frames=5) as writer:
    print("open", flush=True)
    for i in range(300):
        while i % 60 == 0 < i and not os.path.exists(f"{sys.argv[1]}.{i}"):
            time.sleep(0.01)
        writer.append(i, {"loss": np.float64(i * i), "weight/1": np.full((4, 5), float(i))})
    if sys.argv[2] == "kill":
        import signal
        os.kill(os.getpid(), signal.SIGKILL)
    writer.close("reached_end")
"""


def start(path: Path, then: str = "end") -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), then], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


def acknowledge(path: Path, count: int) -> None:
    """Let the writer know how many frames have been seen."""
    for wanted in range(60, count + 1, 60):
        Path(f"{path}.{wanted}").touch()


@pytest.mark.parametrize(("then", "state", "frames"), [("end", "complete", 300), ("kill", "interrupted", 300)])
def test_a_run_is_followed_to_its_end(tmp_path: Path, then: str, state: str, frames: int):
    path = tmp_path / "run.nc"
    seen: list[int] = []
    with start(path, then) as process:
        try:
            for data in follow(path, pause=0.05):
                count = data.sizes["time"]
                seen.append(count)
                i = np.arange(count)
                np.testing.assert_array_equal(data.loss.values, i * i)
                np.testing.assert_array_equal(data.weight_1.values[:, 3, 4], i)
                last = data.attrs["state"]
                acknowledge(path, count)
        finally:
            process.kill()
    assert seen == sorted(seen)
    assert len(set(seen)) >= 5  # it was seen to grow
    assert (seen[-1], last) == (frames, state)


@pytest.mark.parametrize(("then", "code", "ending"), [("end", 0, "reached_end"), ("kill", 1, "interrupted")])
def test_nlsim_watch_follows_to_the_end(tmp_path: Path, then: str, code: int, ending: str):
    path = tmp_path / "run.nc"
    with start(path, then) as process:
        try:
            command = [sys.executable, "-m", "nlsim", "watch", str(path), "--every", "0.1", "--channel", "lo*"]
            found, lines = [], []
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
                for line in watcher.stdout:
                    lines.append(line.strip())
                    if "loss" in line:
                        found.append(re.fullmatch(r"t = (\d+), (\d+) frames, loss (\S+)(, \w+)?", line.strip()))
                        acknowledge(path, int(found[-1][2]))
        finally:
            process.kill()
    assert watcher.returncode == code
    counts = [int(each[2]) for each in found]
    assert len(set(counts)) >= 5
    assert counts == sorted(counts)
    for each in found:
        assert float(each[3]) == pytest.approx(int(each[1]) ** 2, rel=1e-3)
    assert lines[-1].endswith(f"300 frames, loss 8.94e+04, {ending}")


def test_on_a_terminal_it_draws_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from nlsim.cli.watch import watch

    path = tmp_path / "run.nc"
    with RunWriter(path, [ChannelSpec("loss"), ChannelSpec("w", ("n",), (3,))], {"title": "[a] run"}) as writer:
        for i in range(8):
            writer.append(i, {"loss": np.float64(i), "w": np.full(3, 2.0)})
        writer.close("reached_end")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    watch(path)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert "[a] run  reached_end" in shown
    assert "t = 7, 8 frames" in shown
    assert "▁▂▃▄▅▆▇█" in shown
    assert "|3.464|" in shown


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(RunFileError, match="no such run file"):
        next(follow(tmp_path / "no.nc"))


def test_a_file_taken_away_meanwhile(tmp_path: Path):
    path = tmp_path / "run.nc"
    writer = RunWriter(path, [ChannelSpec("x")], {})
    looks = follow(path, pause=0.01)
    assert next(looks).sizes["time"] == 0
    os.unlink(path)
    with pytest.raises(RunFileError, match="no such run file"):
        next(looks)
    writer._let_go()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], ""),
        ([1.0], "▅"),
        ([2.0, 2.0], "▅▅"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0.0, math.nan, 7.0, -math.inf], "▁ █ "),
        ([math.nan], " "),
        ([-1e308, 1e308], "▅▅"),
        (list(range(100)), "▁▃▄▆█"),
    ],
)
def test_curves_in_a_line(values: list[float], shown: str):
    assert sparkline(values, 5 if len(values) == 100 else 40) == shown
