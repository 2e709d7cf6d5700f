"""Damage run files at random and read them: ``python mutating.py FOLDER COUNT SEED``.

Files are read in child processes whose memory is limited, so that a crash of the HDF5 library, a reading without end
and a blow-up of memory are seen and counted. Counts are printed as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from nlsim.errors import RunFileError
from nlsim.record import (
    ChannelSpec,
    Checkpoint,
    CoordinateSpec,
    RunWriter,
    channels,
    open_run,
    read_checkpoint,
    recover,
)
from nlsim.record import scenario_text as text_of

MEMORY = 2**29
"""What a reader may take above what it has when it starts, in bytes."""
SECONDS = 20

SPECS = [
    ChannelSpec("loss"),
    ChannelSpec("weight/1", ("to_1", "from_1"), (8, 9)),
    ChannelSpec("activity/2", ("sample", "layer_2"), (2, 3), coordinates={"layer_2": np.array([4, 0, 2])}),
    ChannelSpec("count", ("ensemble",), (4,), np.dtype("int32")),
]


def stand(i: int) -> Checkpoint:
    return Checkpoint(i / 8, i, {"weight/1": np.random.default_rng(i).random((8, 9)), "n": np.array(i)}, i)


def make(path: Path, *, is_killed: bool) -> None:
    rng = np.random.default_rng(7)
    speeds = CoordinateSpec("speed", "ensemble", np.array(["slow", "brisk", "fast", "größer"]))
    given = {"title": "a run", "scenario": "seed = 1\n" * 40, "versions": "a 1; b 2"}
    writer = RunWriter(path, SPECS, given, coordinates=[speeds], block_frames=4, checkpoint=stand(0))
    for i in range(30):
        values = {s.name: (100 * rng.random(s.shape)).astype(s.dtype) for s in SPECS}
        writer.append(i / 8, values)
        if i % 8 == 7:
            writer.commit(stand(i + 1))
    if is_killed:
        writer._let_go()
        head = bytearray(path.read_bytes())
        assert head[11] == 0
        # the marks that a killed writer leaves, with their checksum
        head[11] = 0b101
        head[44:48] = struct.pack("<I", lookup3(bytes(head[:44])))
        path.write_bytes(head)
    else:
        writer.close("reached_end", checkpoint=stand(30))


def lookup3(data: bytes) -> int:
    from nlsim.record.superblock import lookup3 as found

    return found(data)


def mutate(original: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return a kind of damage and a file that has it."""
    file = bytearray(original)
    kind = str(rng.choice(["bit", "bits", "byte", "block", "zeros", "number", "swap", "cut", "longer", "head"]))
    place = int(rng.integers(len(file)))
    match kind:
        case "bit":
            file[place] ^= 1 << int(rng.integers(8))
        case "bits":
            for each in rng.integers(len(file), size=int(rng.integers(2, 200))):
                file[each] ^= 1 << int(rng.integers(8))
        case "byte":
            file[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        case "block":
            size = int(rng.integers(1, 600))
            file[place : place + size] = rng.bytes(len(file[place : place + size]))
        case "zeros":
            size = int(rng.integers(1, 5000))
            file[place : place + size] = bytes(len(file[place : place + size]))
        case "number":  # a size, a count or an address that cannot be
            place -= place % 4
            value = (2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)[int(rng.integers(6))]
            file[place : place + 8] = struct.pack("<Q", value)[: len(file[place : place + 8])]
        case "swap":
            size, other = int(rng.integers(1, 600)), int(rng.integers(len(file)))
            size = min(size, len(file) - max(place, other))
            file[place : place + size] = original[other : other + size]
        case "cut":
            del file[place:]
        case "longer":
            file += rng.bytes(int(rng.integers(1, 5000)))
        case "head":  # where all addresses begin, and with a checksum that fits
            file[int(rng.integers(8, 44))] = int(rng.integers(256))
            file[44:48] = struct.pack("<I", lookup3(bytes(file[:44])))
    return kind, bytes(file)


def content(path: Path) -> dict[str, object]:
    with open_run(path) as data:
        found: dict[str, object] = {str(name): data[name].values.tolist() for name in data.variables}
        found |= {
            "channels": channels(data),
            "text": text_of(data),
            "attributes": {k: str(v) for k, v in data.attrs.items()},
        }
    tensors, numbers = read_checkpoint(path)
    return found | {"tensors": {name: each.tobytes() for name, each in tensors.items()}, "numbers": repr(numbers)}


def outcome(found: dict[str, object], wanted: dict[str, object]) -> str:
    differing = {name for name in {**found, **wanted} if found.get(name) != wanted.get(name)}
    if not differing:
        return "read as it was"
    if differing <= {"tensors", "numbers"}:
        return "read, with the checkpoint before"
    return (
        "read, other values" if differing & {s.variable for s in SPECS} | {"time"} & differing else "read, other texts"
    )


def read(path: Path, wanted: dict[str, object]) -> str:
    """Read a damaged file in every way and say how that went."""
    said = "read as it was"
    try:
        found = content(path)
        said = outcome(found, wanted)
    except RunFileError:
        said = "refused"
    except OSError:
        said = "refused when its values were read"
    except MemoryError:
        return "out of memory"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    try:
        recover(path)
    except RunFileError:
        pass
    except MemoryError:
        return "out of memory"
    except Exception as error:
        return f"recover, {type(error).__name__}: {error}"[:200]
    return said


def in_children(paths: list[Path], wanted: list[dict[str, object]]) -> list[str]:
    """Read files in a child; where it dies, another goes on with the next file."""
    said: list[str] = []
    while len(said) < len(paths):
        inlet, outlet = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(inlet)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            for path, each in zip(paths[len(said) :], wanted[len(said) :], strict=True):
                signal.alarm(SECONDS)
                os.write(outlet, (json.dumps(read(path, each)) + "\n").encode())
            os._exit(0)
        os.close(outlet)
        with os.fdopen(inlet) as results:
            said += [json.loads(line) for line in results]
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            said.append("hang" if number == signal.SIGALRM else f"crash by {signal.Signals(number).name}")
    return said


def main(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    originals = []
    for is_killed in (False, True):
        path = folder / f"original {is_killed}.nc"
        make(path, is_killed=is_killed)
        originals.append((path.read_bytes(), content(path)))
    table: Counter[tuple[str, str]] = Counter()
    done = 0
    while done < count:
        paths, wanted, kinds = [], [], []
        for i in range(min(100, count - done)):
            file, right = originals[int(rng.integers(2))]
            kind, damaged = mutate(file, rng)
            paths.append(folder / f"{done + i}.nc")
            paths[-1].write_bytes(damaged)
            wanted.append(right)
            kinds.append(kind)
        for path, kind, said in zip(paths, kinds, in_children(paths, wanted), strict=True):
            table[kind, said] += 1
            if os.environ.get("KEEP") and not said.startswith(("re",)):
                path.rename(folder / f"{said[:40].replace('/', ' ')} {path.name}")
            else:
                path.unlink(missing_ok=True)
        done += len(paths)
    for (kind, said), number in sorted(table.items()):
        print(json.dumps({"damage": kind, "outcome": said, "count": number}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
