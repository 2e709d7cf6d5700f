"""Damaged heaps, on which HDF5 alone would stay for ever, are refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nlsim.record.heap import SIGNATURE, is_sound

READ = """
import sys
from nlsim.errors import RunFileError
from nlsim.record import open_run, read_checkpoint, recover
for read in (open_run, recover):
    try:
        read(sys.argv[1])
    except RunFileError as refusal:
        print("refused:", refusal)
    else:
        print("read")
"""


def heap(*objects: tuple[int, int], size: int = 256) -> bytes:
    """Return a file with a collection of objects (index, size) at 4, each with as many bytes as fit."""
    text = b""
    for index, held in objects:
        body = (held + 7) // 8 * 8 if index else held - 16
        text += struct.pack("<HH4xQ", index, 1, held) + b"x" * max(0, min(body, size))
    return (b"...." + struct.pack("<4sB3xQ", SIGNATURE, 1, size) + text)[: size + 4].ljust(size + 4, b"\0")


@pytest.mark.parametrize(
    ("objects", "size", "sound"),
    [
        ([(1, 5), (2, 64), (0, 256 - 16 - 24 - 80)], 256, True),
        ([(1, 5), (2, 200)], 16 + 24 + 216, True),  # full, without free space
        ([(1, 8)], 16 + 24 + 8, True),  # eight bytes are left, too few for one more
        ([(1, 5), (0, 0)], 256, False),  # HDF5 goes nowhere from here
        ([(1, 2**64 - 16), (0, 100)], 256, False),  # with its head this size is 0 too
        ([(1, 5), (2, 640)], 256, False),  # beyond the end
        ([(1, 5), (0, 8)], 256, False),  # free space is never smaller than its head
    ],
)
def test_objects_lead_to_the_end(objects: list[tuple[int, int]], size: int, sound: bool):
    file = heap(*objects, size=size)
    assert is_sound(lambda at, count: file[at : at + count], 4) is sound


def test_a_file_that_ends_within_a_heap():
    file = heap((1, 5), (2, 64), (0, 256 - 16 - 24 - 80))
    assert not is_sound(lambda at, count: file[at : min(at + count, 30)], 4)
    assert not is_sound(lambda at, count: file[at : min(at + count, 10)], 4)


def test_heaps_without_sizes_are_refused_and_hold_nobody(record: Callable[..., object], tmp_path: Path):
    path = record(attributes={"title": "long " * 3000, "scenario": "until = 1\n"}).path
    whole = path.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(SIGNATURE, at)]
    assert len(places) > 1
    for number, at in enumerate(places):
        damaged = tmp_path / f"{number}.nc"
        damaged.write_bytes(whole[: at + 16] + bytes(80) + whole[at + 96 :])
        done = subprocess.run(
            [sys.executable, "-c", READ, str(damaged)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("refused: This run file is damaged") == 2
