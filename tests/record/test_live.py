"""A run can be watched while it goes, and a kill loses no flushed frame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, RunWriter, open_run
from nlsim.record.definition import begin
from nlsim.record.lazy import guarded
from nlsim.record.lock import is_claimed

# writes frames i = 0, 1, …, where everything is a function of i, until told to stop
WRITER = """
import os, sys, numpy as np
from nlsim.record import ChannelSpec, RunWriter
path, count, pause = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "wait"
specs = [ChannelSpec("a", ("n",), (50,)), ChannelSpec("b"), ChannelSpec("c", ("m",), (3,), np.dtype("int32"))]
with RunWriter(path, specs, {"scenario": "s = 1\\n"}, block_frames=4) as writer:
    print("open", flush=True)
    for i in range(count):
        if os.path.exists(path + ".stop"):
            break
        writer.append(i, {"a": np.full(50, float(i)), "b": np.float64(2 * i), "c": np.full(3, i, "int32")})
    print("ready", flush=True)
    if pause:
        sys.stdin.readline()
    writer.close("reached_end")
"""


@contextmanager
def start(path: Path, count: int, then: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WRITER, str(path), str(count), then]
    with subprocess.Popen(command, stdout=pipe, stdin=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # a test that fails does not wait for it


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout.readline().strip() == word


def check(dataset: xr.Dataset) -> int:
    count = dataset.sizes["time"]
    i = np.arange(count)
    np.testing.assert_array_equal(dataset.time.values, i)
    np.testing.assert_array_equal(dataset.a.values, np.repeat(i[:, None], 50, 1))
    np.testing.assert_array_equal(dataset.b.values, 2 * i)
    np.testing.assert_array_equal(dataset.c.values, np.repeat(i[:, None], 3, 1))
    return count


def test_another_process_reads_what_is_flushed(tmp_path: Path):
    path = tmp_path / "run.nc"
    with start(path, 10, "wait") as process:
        wait_for(process, "open")
        wait_for(process, "ready")
        with open_run(path) as dataset:
            assert check(dataset) == 8
            assert dataset.attrs["state"] == "running"
            assert dataset.attrs["ending"] == ""
            assert dataset.attrs["scenario"] == "s = 1\n"
        with xr.open_dataset(path, engine="h5netcdf", driver_kwds={"swmr": True}) as dataset:
            assert check(dataset) == 8
        process.communicate("go on\n")
    with open_run(path) as dataset:
        assert check(dataset) == 10
        assert dataset.attrs["state"] == "complete"


def test_a_reader_does_not_hinder_the_end_and_keeps_its_frames(tmp_path: Path):
    path = tmp_path / "run.nc"
    with start(path, 10, "wait") as process:
        wait_for(process, "open")
        wait_for(process, "ready")
        with open_run(path) as dataset:
            process.communicate("go on\n")
            assert process.returncode == 0
            assert check(dataset) == 8
    with open_run(path) as dataset:
        assert check(dataset) == 10


def test_every_snapshot_of_a_growing_file_is_whole(tmp_path: Path):
    path = tmp_path / "run.nc"
    seen: list[int] = []
    with start(path, 10**9, "end") as process:
        wait_for(process, "open")
        while len(seen) < 20 or len(set(seen)) < 8:
            with open_run(path) as dataset:
                seen.append(check(dataset))
        (tmp_path / "run.nc.stop").touch()
        process.communicate()
    assert process.returncode == 0
    assert seen == sorted(seen)
    with open_run(path) as dataset:
        assert check(dataset) >= seen[-1]
        assert dataset.attrs["state"] == "complete"


@pytest.mark.parametrize("count", [3, 8, 41])
def test_a_killed_run_keeps_its_flushed_frames(tmp_path: Path, count: int):
    path = tmp_path / "run.nc"
    with start(path, count, "wait") as process:
        wait_for(process, "open")
        wait_for(process, "ready")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open_run(path) as dataset:
        assert check(dataset) == count - count % 4
        assert dataset.attrs["state"] == dataset.attrs["ending"] == "interrupted"
        assert "gone" in dataset.attrs["ending_detail"]
        assert dataset.attrs["scenario"] == "s = 1\n"


@pytest.mark.parametrize("delay", np.random.default_rng(7).uniform(0.0, 0.4, 6).round(3).tolist())
def test_a_kill_at_any_instant_leaves_whole_frames(tmp_path: Path, delay: float):
    path = tmp_path / "run.nc"
    with start(path, 10**9, "end") as process:
        wait_for(process, "open")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open_run(path) as dataset:
        assert check(dataset) % 4 == 0


def test_a_kill_while_the_ending_is_written_loses_no_frame(tmp_path: Path):
    path = tmp_path / "run.nc"
    code = WRITER.replace(
        "with RunWriter",
        "import os, signal, nlsim.record.writer as w\n"
        "w.netcdf = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\nwith RunWriter",
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), "10", "end"], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_run(path) as dataset:
        assert check(dataset) == 10
        assert dataset.attrs["state"] == "interrupted"


def test_a_frame_exists_only_once_its_time_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"
    writer = RunWriter(path, [ChannelSpec("x", ("n",), (2,))], {}, block_frames=2)
    for i in range(4):
        writer.append(i, {"x": np.full(2, i)})
    extend = writer._extend
    wanted = []

    def all_but_time(variable, *arguments):
        wanted.append(variable)
        if variable == "time":
            raise OSError("disk full")
        extend(variable, *arguments)

    monkeypatch.setattr(writer, "_extend", all_but_time)
    writer.append(4, {"x": np.full(2, 4)})
    with pytest.raises(Exception, match=r"disk full[\s\S]*The first 4 frames are in the file"):
        writer.append(5, {"x": np.full(2, 5)})
    writer._file.flush()
    assert wanted == ["x", "time"]
    torn = tmp_path / "torn.nc"
    torn.write_bytes(path.read_bytes())
    monkeypatch.undo()
    before = len(os.listdir("/dev/fd"))
    with open_run(torn) as dataset:
        assert dataset.x.values[:, 0].tolist() == [0, 1, 2, 3]
        assert len(os.listdir("/dev/fd")) > before
    assert len(os.listdir("/dev/fd")) == before
    writer.close("reached_end")
    with open_run(path) as dataset:
        assert dataset.x.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_block_is_flushed_before_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # within one flush HDF5 writes in an order of its own, and a kill can come between
    specs = [ChannelSpec("x"), ChannelSpec("y")]
    with RunWriter(tmp_path / "run.nc", specs, {}, block_frames=1) as writer:
        extend, flush, calls = writer._extend, writer._file.flush, []
        monkeypatch.setattr(writer, "_extend", lambda *a: calls.append(a[0]) or extend(*a))
        monkeypatch.setattr(writer._file, "flush", lambda: calls.append("flush") or flush())
        writer.append(0.0, {"x": np.float64(1.0), "y": np.float64(2.0)})
    assert calls == ["x", "y", "flush", "time", "flush"]


def test_the_same_process_reads_and_goes_on_writing(tmp_path: Path):
    path = tmp_path / "run.nc"
    with RunWriter(path, [ChannelSpec("x", ("n",), (2,))], {}, block_frames=2) as writer:
        for i in range(9):
            writer.append(i, {"x": np.full(2, i)})
            if i % 3 == 2:
                with open_run(path) as dataset:
                    assert dataset.x.values[:, 0].tolist() == list(range((i + 1) // 2 * 2))
                    assert dataset.attrs["state"] == "running"
        writer.close("reached_end")
    with open_run(path) as dataset:
        assert dataset.sizes["time"] == 9


def test_leaving_by_an_exception_interrupts_the_file_and_lets_it_through(tmp_path: Path):
    path = tmp_path / "run.nc"

    def stopped_run() -> None:
        with RunWriter(path, [ChannelSpec("x")], {}) as writer:
            writer.append(0.0, {"x": np.float64(1.0)})
            raise KeyboardInterrupt("by hand")

    with pytest.raises(KeyboardInterrupt):
        stopped_run()
    with open_run(path) as dataset:
        assert dataset.x.values.tolist() == [1.0]
        assert dataset.attrs["state"] == dataset.attrs["ending"] == "interrupted"
        assert dataset.attrs["ending_detail"] == "KeyboardInterrupt: by hand"
    assert os.listdir(tmp_path) == ["run.nc"]


def test_leaving_without_an_ending_interrupts_the_file(tmp_path: Path):
    path = tmp_path / "run.nc"
    with RunWriter(path, [ChannelSpec("x")], {}):
        pass
    with open_run(path) as dataset:
        assert dataset.attrs["state"] == "interrupted"


def test_a_run_that_closes_while_it_is_looked_at_was_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"
    with start(path, 10, "wait") as process:
        wait_for(process, "open")
        wait_for(process, "ready")

        def slow(dataset: xr.Dataset, where: str) -> xr.Dataset:  # the file is open, its state not yet judged
            if process.poll() is None:
                process.communicate("\n")
            return guarded(dataset, where)

        monkeypatch.setattr("nlsim.record.trajectory.guarded", slow)
        with open_run(path) as dataset:
            assert dataset.attrs["state"] == "running"
            assert check(dataset) == 8
    with open_run(path) as dataset:
        assert dataset.attrs["state"] == "complete"
        assert check(dataset) == 10


READER = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:  # takes HDF5's lock
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_a_reader_does_not_stop_a_run_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"
    with ExitStack() as readers:

        def looked_at(place: Path) -> h5py.File:  # between putting the file in its place and opening it for frames
            pipe = subprocess.PIPE
            reader = subprocess.Popen([sys.executable, "-c", READER, str(place)], stdout=pipe, stdin=pipe, text=True)
            readers.callback(reader.communicate, "\n")
            wait_for(reader, "open")
            return begin(place)

        monkeypatch.setattr("nlsim.record.writer.begin", looked_at)
        with RunWriter(path, [ChannelSpec("a")], {}) as writer:
            writer.append(0.0, {"a": np.float64(1.0)})
            writer.close("reached_end")
    with open_run(path) as dataset:
        assert (dataset.attrs["state"], dataset.a.values.tolist()) == ("complete", [1.0])


@pytest.mark.parametrize("looks", [0, 1])
def test_a_file_that_vanishes_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """It is taken away just before the reader asks, for the first or second time, whether somebody writes it."""
    path = tmp_path / "run.nc"
    with RunWriter(path, [ChannelSpec("a")], {}) as writer:
        writer.append(0.0, {"a": np.float64(1.0)})
        writer.close("reached_end")
    asked = 0

    def vanish(at: Path) -> bool | None:
        nonlocal asked
        if asked == looks:
            path.unlink()
        asked += 1
        return is_claimed(at)

    monkeypatch.setattr("nlsim.record.trajectory.is_claimed", vanish)
    with pytest.raises(RunFileError, match="There is no such run file"):
        open_run(path)
    assert asked == looks + 1
