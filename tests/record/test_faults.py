"""Full disks, files taken away, two writers, a terminal that closes: a clear message, and never a broken file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, Checkpoint, RunWriter, open_run, read_checkpoint, recover

SPECS = [ChannelSpec("a", ("n",), (64,)), ChannelSpec("b")]


def stand(i: int) -> Checkpoint:
    return Checkpoint(float(i), i, {"w": np.full((20, 30), float(i))}, i)


def frame(i: int) -> dict[str, np.ndarray]:
    return {"a": np.random.default_rng(i).random(64), "b": np.float64(i)}


def assert_whole(path: Path, least: int = 0) -> int:
    """Every frame of the file is right, and the checkpoint is one that was written."""
    with open_run(path) as data:
        count = data.sizes["time"]
        assert count >= least
        assert data["time"].values.tolist() == list(range(count))
        for i in range(count):
            assert data["a"].values[i].tobytes() == frame(i)["a"].tobytes()
        assert data.attrs["state"] == data.attrs["ending"] == "interrupted"
    tensors, numbers = read_checkpoint(path)
    assert (tensors["w"] == numbers["steps"]).all()
    assert numbers["frames"] == numbers["steps"] <= count
    return count


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from record.test_faults import SPECS, frame, stand
from nlsim.errors import RunFileError
from nlsim.record import RunWriter
path, room, committed = Path(sys.argv[1]), int(sys.argv[2]), 0
try:
    with RunWriter(path, SPECS, {}, block_frames=4, checkpoint=stand(0)) as writer:
        limit = path.stat().st_size + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # no file may grow beyond it: a full disk
        for i in range(400):
            writer.append(i, frame(i))
            if i % 8 == 7:
                writer.commit(stand(i + 1))
                committed = i + 1
        writer.close("reached_end", checkpoint=stand(400))
except RunFileError as error:
    print(committed, error)
"""


def run_out_of_room(path: Path, room: int) -> tuple[int, str]:
    tests = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", FULL, str(path), str(room), tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    committed, _, message = done.stdout.partition(" ")
    return int(committed), message


@pytest.mark.parametrize("room", [0, 100, 1000, 5000, 20_000, 100_000, 200_000])
def test_a_full_disk_keeps_what_was_committed(tmp_path: Path, room: int):
    path = tmp_path / "run.nc"
    committed, message = run_out_of_room(path, room)
    assert "cannot be written: " in message
    assert "File too large" in message
    assert "Is the disk full?" in message
    found = assert_whole(path, committed)
    assert f"The first {found} frames are in the file" in message
    assert recover(path) == found
    assert_whole(path, committed)
    with netCDF4.Dataset(path) as file:  # a reader that knows nothing of live files
        assert file["b"][:].tolist() == list(range(found))
    assert os.listdir(tmp_path) == ["run.nc"]


def test_no_room_for_the_copy_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:1000])
        raise OSError(28, "No space left on device")

    with RunWriter(path, SPECS, {}, checkpoint=stand(0)) as writer:
        writer.append(0, frame(0))
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copy", full)
            with pytest.raises(
                RunFileError, match=r"ending of the run cannot be written[\s\S]*No space left[\s\S]*resume"
            ):
                writer.close("reached_end", checkpoint=stand(1))
    assert assert_whole(path, 1) == 1
    assert read_checkpoint(path)[1]["frames"] == 1
    assert os.listdir(tmp_path) == ["run.nc"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy", full)
        with pytest.raises(RunFileError, match=r"cannot be changed[\s\S]*as it was"):
            recover(path)
    assert assert_whole(path, 1) == 1


class TestTakenAway:
    def test_moved(self, tmp_path: Path):
        path, moved = tmp_path / "run.nc", tmp_path / "moved.nc"

        def moved_away() -> None:
            with RunWriter(path, SPECS, {}, block_frames=2, checkpoint=stand(0)) as writer:
                for i in range(9):
                    writer.append(i, frame(i))
                    if i == 4:
                        path.rename(moved)

        with pytest.raises(RunFileError, match=r"taken away while it was written[\s\S]*the file that was moved"):
            moved_away()
        assert os.listdir(tmp_path) == ["moved.nc"]
        assert assert_whole(moved) == 4
        assert recover(moved) == 4

    def test_removed_and_another_put_there(self, tmp_path: Path):
        path = tmp_path / "run.nc"
        writer = RunWriter(path, SPECS, {}, block_frames=2, checkpoint=stand(0))
        path.unlink()
        path.write_text("precious")
        with pytest.raises(RunFileError, match="taken away"):
            writer.close("reached_end")
        assert path.read_text() == "precious"
        assert os.listdir(tmp_path) == ["run.nc"]

    def test_the_folder_removed(self, tmp_path: Path):
        folder = tmp_path / "runs"
        folder.mkdir()
        writer = RunWriter(folder / "run.nc", SPECS, {}, checkpoint=stand(0))
        shutil.rmtree(folder)
        with pytest.raises(RunFileError, match="taken away"):
            writer.commit(stand(0))
        with pytest.raises(RunFileError, match="taken away"):
            writer.close("reached_end")


class TestTwoWriters:
    def test_neither_replaced_nor_recovered_nor_reopened_while_it_is_written(self, tmp_path: Path):
        path = tmp_path / "run.nc"
        with RunWriter(path, SPECS, {}, block_frames=1, checkpoint=stand(0)) as writer:
            writer.append(0, frame(0))
            for attempt in (
                lambda: RunWriter(path, SPECS, {}, force=True),
                lambda: RunWriter.reopen(path, SPECS, {}),
                lambda: recover(path),
            ):
                with pytest.raises(RunFileError, match=r"Another run is writing this file[\s\S]*nlsim watch"):
                    attempt()
            writer.append(1, frame(1))
            writer.close("interrupted", checkpoint=stand(2))
        assert assert_whole(path) == 2
        assert os.listdir(tmp_path) == ["run.nc"]

    def test_of_many_processes_one_wins(self, tmp_path: Path):
        """All reopen the file of a killed run at once; each that loses says so, and nothing is torn."""
        path = tmp_path / "run.nc"
        writer = RunWriter(path, SPECS, {}, block_frames=2, checkpoint=stand(0))
        for i in range(4):
            writer.append(i, frame(i))
        writer._let_go()
        tests = str(Path(__file__).resolve().parent.parent)
        code = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from record.test_faults import SPECS, frame, stand\n"
            "from nlsim.errors import RunFileError\nfrom nlsim.record import RunWriter\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "try:\n    writer = RunWriter.reopen(sys.argv[1], SPECS, {})\n"
            "except RunFileError as error:\n    print(error); sys.exit(3)\n"
            "print('won', flush=True); sys.stdin.readline()\n"
            "with writer:\n    writer.append(4, frame(4)); writer.close('interrupted', checkpoint=stand(5))\n"
        )
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code, str(path), tests]
        many = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        try:
            for each in many:
                assert each.stdout.readline() == "ready\n"
            for each in many:
                each.stdin.write("go\n")
                each.stdin.flush()
            said = [each.stdout.readline() for each in many]
            for each in many:
                each.communicate("end\n")
        finally:
            for each in many:
                each.kill()
        assert sorted(each.returncode for each in many) == [0, 3, 3]
        assert said.count("won\n") == 1
        assert assert_whole(path) == 5

    def test_the_lock_goes_with_the_process(self, tmp_path: Path):
        path = tmp_path / "run.nc"
        code = (
            "import sys, os, signal; sys.path.insert(0, sys.argv[2])\n"
            "from record.test_faults import SPECS, stand\nfrom nlsim.record import RunWriter\n"
            "writer = RunWriter(sys.argv[1], SPECS, {}, checkpoint=stand(0))\nos.kill(os.getpid(), signal.SIGKILL)\n"
        )
        tests = str(Path(__file__).resolve().parent.parent)
        assert subprocess.run([sys.executable, "-c", code, str(path), tests], check=False).returncode == -signal.SIGKILL
        assert recover(path) == 0


def test_a_file_begun_elsewhere_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"
    writer = RunWriter(path, SPECS, {}, block_frames=1, checkpoint=stand(0))
    writer.append(0, frame(0))
    writer._let_go()
    monkeypatch.setattr("nlsim.record.lock.platform.node", lambda: "another machine")
    with open_run(path) as data:
        assert data.attrs["state"] == "running"  # as far as can be seen from here
    with pytest.raises(RunFileError, match=r"begun on another machine[\s\S]*--force"):
        recover(path)
    assert recover(path, force=True) == 1
    assert_whole(path)


def test_recovering_twice_changes_nothing(tmp_path: Path):
    path = tmp_path / "run.nc"
    writer = RunWriter(path, SPECS, {}, block_frames=2, checkpoint=stand(0))
    for i in range(5):
        writer.append(i, frame(i))
    writer._let_go()
    assert recover(path) == 4
    content = path.read_bytes()
    assert recover(path) == 4
    assert path.read_bytes() == content


def test_what_a_writer_killed_while_closing_left_is_cleared(tmp_path: Path):
    path = tmp_path / "run.nc"
    writer = RunWriter(path, SPECS, {}, checkpoint=stand(0))
    writer._let_go()
    (tmp_path / ".run.nc.123.closing").write_text("half a copy")
    (tmp_path / ".other.nc.123.closing").write_text("of another run")
    recover(path)
    assert sorted(os.listdir(tmp_path)) == [".other.nc.123.closing", "run.nc"]
