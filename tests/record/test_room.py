"""Room asked for before it is needed: always enough, and not much more than is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, Checkpoint, RunWriter, definition, open_run, writer
from nlsim.record.room import SHARED_BYTES, array_room


def specs_of(shape: tuple[int, ...], count: int) -> list[ChannelSpec]:
    return [ChannelSpec(f"c{i}", tuple(f"d{k}" for k in range(len(shape))), shape) for i in range(count)]


# shape of a frame, channels, frames a block, frames, compression, frames between two flushes (0: full blocks only)
CASES = {
    "a number a frame": ((), 20, 1, 150, 0, 0),
    "small chunks, many levels of the index": ((2,), 1, 1, 2500, 0, 0),
    "packed": ((40,), 3, 4, 600, 1, 0),
    "packed, flushed again and again": ((40,), 3, 16, 400, 1, 3),
    "not packed, flushed again and again": ((300,), 2, 8, 200, 0, 3),
    "a frame of many chunks": ((700, 1000), 1, 1, 4, 0, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_block_never_takes_more_and_not_much_less(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, count, block, frames, compression, every = CASES[case]
    asked: list[int] = []
    monkeypatch.setattr(writer, "take_room", lambda _, length: asked.append(length))
    rng = np.random.default_rng(5)
    specs = specs_of(shape, count)
    with RunWriter(tmp_path / "a.nc", specs, {}, block_frames=block, compression=compression) as file:
        size, grown = file._file.id.get_filesize(), []
        for i in range(frames):
            file.append(i, {each.name: rng.random(shape) for each in specs})
            if every and i % every == 0:
                file.flush()
            if len(asked) > len(grown):
                now = file._file.id.get_filesize()
                grown.append(now - size)
                size = now
        monkeypatch.undo()
        file.close("reached_end")
    spare = np.array(asked) - np.array(grown)
    assert spare.min() >= 0, f"block {spare.argmin()}"
    chunk = 2 * block * 8 * int(np.prod(shape)) if block > 1 or shape else 256 * 8
    # the numbers, once and twice where small (< 2048 bytes), of each array and the times (2048 bytes);
    # levels of at most 2500 chunks (u ≤ 8): a block of 256 entries at 24 bytes, doubled, and tables of 9 · (32 + 144)
    assert max(asked) <= (count + 1) * (max(chunk, 4096) + 2 * (24 * 257 + 9 * 176)) + 2 * SHARED_BYTES


def test_the_index_is_weighed_beyond_what_a_test_can_write() -> None:
    """At chunk n the index takes O(√n): of 10⁶ chunks a block of 16 · 2⁸ entries at 24 bytes, doubled."""
    a_chunk = array_room((), (1,), 8, 10**6, 10**6 + 1)
    assert 2 * 24 * 16 * 2**8 < a_chunk < 2 * 24 * 16 * 2**8 + 2**14
    assert array_room((), (1,), 8, 0, 10**6) > 10**6 * (8 + 8)


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_where_a_level_of_the_index_begins(tmp_path: Path, packed: str | None) -> None:
    """Level 12 begins after 4 + 16 · (2¹² − 1) chunks: a table of 2⁶ blocks, the first of them of 16 · 2⁶ entries."""
    chunks = 4 + 16 * (2**12 - 1)
    with h5py.File(tmp_path / "a.h5", "w", libver=("v110", "v110")) as file:
        array = file.create_dataset("a", (0,), "i1", maxshape=(None,), chunks=(1,), compression=packed)
        sizes = []
        for count in (chunks, chunks + 1):
            array.resize((count,))
            array[count - 1 if sizes else 0 :] = 1
            file.flush()
            sizes.append(file.id.get_filesize())
    # the chunk twice; 1024 + 1 entries of 24 bytes and the table, 32 + 64 · (8 + 1), doubled
    bound = array_room((), (1,), 1, chunks, chunks + 1)
    assert bound == 2 + 2 * (1025 * 24 + 32 + 64 * 9)
    # an entry is an address of 8 bytes, and with filters a size and a mask of 4 bytes too
    assert 1024 * (8 if packed is None else 13) < sizes[1] - sizes[0] <= bound + SHARED_BYTES


def test_nothing_new_is_nothing_for_the_index() -> None:
    assert array_room((10,), (8, 10), 8, 9, 15) == 640 + 640


CREATED = {
    "one number": (specs_of((), 1), {}, 3),
    "a hundred channels": (specs_of((4,), 100), {"scenario": "x" * 30_000}, 3),
    "large texts": (specs_of((), 3), {f"a{i}": "y" * 5000 for i in range(30)}, 3),
    "a large state": (specs_of((), 3), {}, 400_000),
    "many small tensors": (specs_of((), 3), {}, None),
}


@pytest.mark.parametrize("case", CREATED)
def test_a_new_file_takes_no_more_and_not_much_less(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs, attributes, size = CREATED[case]
    tensors = {f"w{i}": np.ones((3, i + 1)) for i in range(80)} if size is None else {"w": np.ones(size)}
    asked: list[int] = []
    monkeypatch.setattr(definition, "check_room", lambda _, length: asked.append(length))
    path = tmp_path / "a.nc"
    file = RunWriter(path, specs, attributes, checkpoint=Checkpoint(0.0, 0, tensors, 0))
    grown = path.stat().st_size
    file.close("interrupted")
    assert grown <= asked[0] <= 2 * grown + SHARED_BYTES
    if size == 400_000:
        assert asked[0] <= grown + 2**14, "what is large is not asked for twice"


LIMITED = """
import resource, sys
import numpy as np
from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, Checkpoint, RunWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)  # no file may grow beyond it: a full disk
specs = [ChannelSpec(f"c{i}") for i in range(20)]
try:
    with RunWriter(sys.argv[1], specs, {}, block_frames=4, checkpoint=Checkpoint(0.0, 0, {"w": np.ones(9)}, 0)) as file:
        for i in range(8):
            file.append(i, {each.name: np.float64(i) for each in specs})
        file.flush()
        file._let_go()
except RunFileError as error:
    print(error)
"""


def test_a_small_disk_is_enough_for_a_small_run(tmp_path: Path) -> None:
    """20 channels of which each asked for 64 KiB a block: 1.3 MiB for a file of a tenth of it."""
    path = tmp_path / "a.nc"
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(path), str(300_000)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    with open_run(path) as data:
        assert data["c19"].values.tolist() == list(range(8))


def test_no_room_to_create_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(path), "20000"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    for words in ("There is no room for the run file", "bytes free, before its first frame", "Make room"):
        assert words in ran.stdout
    assert "that you may write to" not in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_another_fault_of_the_folder_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(definition, "check_room", refuse)
    with pytest.raises(RunFileError, match=r"cannot be created: [\s\S]*Permission denied[\s\S]*may write to"):
        RunWriter(tmp_path / "a.nc", specs_of((), 1), {})
