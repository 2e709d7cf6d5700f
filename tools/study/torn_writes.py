"""Every instant at which a writer can be killed, one by one: `python tools/study/torn_writes.py [FRAMES]`.

A run file is written under `strace`; then the file is built up again write by write, as a kill after each of them
would leave it, and within a write at each boundary of a page, where the kernel may break off too. Every one of these
files is opened: it must hold all frames and the checkpoint that were there before, and say that it was interrupted;
some are recovered as well. Needs `strace`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nlsim.record import ChannelSpec, Checkpoint, RunWriter, open_run, read_checkpoint, recover

PAGE = 4096
SPECS = [ChannelSpec("a", ("n",), (50,)), ChannelSpec("b"), ChannelSpec("c", ("m",), (3,), np.dtype("int32"))]
Operation = tuple[str, int, bytes]


def stand(i: int) -> Checkpoint:
    return Checkpoint(float(i), i, {"w": np.full((30, 40), float(i)), "s": np.array(i)}, i)


def write(path: Path, frames: int) -> None:
    writer = RunWriter(path, SPECS, {"scenario": "s = 1\n" * 50}, block_frames=4, checkpoint=stand(0))
    for i in range(frames):
        writer.append(i, {"a": np.full(50, float(i)), "b": np.float64(2 * i), "c": np.full(3, i, "int32")})
        if i % 12 == 11:
            writer.commit(stand(i + 1))
    os._exit(0)


def traced(path: Path, frames: int) -> tuple[list[Operation], int]:
    """Return what was done to the file, and how much of it before the file was in its place."""
    log = path.with_suffix(".log")
    calls = "trace=openat,pwrite64,ftruncate,fallocate"
    command = ["strace", "-f", "-e", calls, "-xx", "-s", "100000000", "-o", str(log)]
    subprocess.run([*command, sys.executable, __file__, str(frames), str(path)], check=True)
    files: dict[str, str] = {}
    found: list[Operation] = []
    start = None
    for line in log.read_text().splitlines():
        if opened := re.search(r'openat\(.*?, "([^"]*)",.*\) = (\d+)', line):
            files[opened[2]] = os.path.basename(ast.literal_eval(f'"{opened[1]}"'))
            continue
        call = re.search(r"(pwrite64|ftruncate|fallocate)\((\d+), (.*)\) = \d+", line)
        name = files.get(call[2], "") if call else ""
        if call is None or not re.fullmatch(rf"{path.name}|\.{path.name}\.\d+\.new", name):
            continue
        if start is None and name == path.name:
            start = len(found)
        if call[1] == "pwrite64":
            data, _, place = re.fullmatch(r'"(.*)", (\d+), (\d+)', call[3]).groups()
            found.append(("write", int(place), ast.literal_eval(f'b"{data}"')))
        elif call[1] == "ftruncate":
            found.append(("cut", int(call[3]), b""))
        else:
            _, place, length = call[3].split(", ")
            found.append(("room", int(place) + int(length), b""))
    assert start is not None
    return found, start


def states(operations: list[Operation], start: int) -> Iterator[tuple[str, bytearray]]:
    """Yield the file as it is after every operation, and after every page of a write."""
    file = bytearray()
    for number, (kind, place, data) in enumerate(operations):
        if kind != "write":
            if kind == "cut":
                del file[place:]
            file.extend(bytes(max(0, place - len(file))))
            if number >= start - 1:
                yield kind, file
            continue
        end, begin = place + len(data), place
        for cut in [*range((place // PAGE + 1) * PAGE, end, PAGE), end]:
            file.extend(bytes(max(0, cut - len(file))))
            file[begin:cut] = data[begin - place : cut - place]
            begin = cut
            if number >= start - 1:
                yield "write" if cut == end else "page", file


def look(path: Path) -> tuple[int, int]:
    with open_run(path) as data:
        frames = data.sizes["time"]
        i = np.arange(frames)
        assert data.attrs["state"] == "interrupted"
        assert (data.time.values == i).all()
        assert (data.a.values == i[:, None]).all()
        assert (data.b.values == 2 * i).all()
        assert (data.c.values == i[:, None]).all()
    tensors, numbers = read_checkpoint(path)
    assert (tensors["w"] == numbers["steps"]).all()
    assert numbers["frames"] <= frames
    return frames, numbers["steps"]


def main(frames: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        operations, start = traced(Path(folder) / "run.nc", frames)
        path, seen, best = Path(folder) / "left.nc", Counter[str](), (0, 0)
        recovered = 0
        for kind, file in states(operations, start):
            seen[kind] += 1
            path.write_bytes(file)
            found = look(path)
            assert found[0] >= best[0], f"{best[0] - found[0]} committed frames are lost"
            assert found[1] >= best[1], "a checkpoint is lost"
            best = found
            if kind == "page" or sum(seen.values()) % 7 == 0:
                recover(path)
                assert look(path) == found
                recovered += 1
    print(
        f"{sum(seen.values())} instants ({', '.join(f'{n} after a {k}' for k, n in seen.items())}): every file opens,"
    )
    print(f"holds every committed frame, {best[0]} at last, and a checkpoint; {recovered} were recovered, all alike.")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write(Path(sys.argv[2]), int(sys.argv[1]))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
