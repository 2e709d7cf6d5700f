"""A checkpoint comes back bit for bit."""

from __future__ import annotations

import h5py
import netCDF4
import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, Checkpoint, RunWriter, read_checkpoint

DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"]


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    state = {f"of/{d}": (rng.standard_normal((3, 4)) * 10).astype(d) for d in DTYPES if d[0] != "u"}
    state |= {f"of/{d}": rng.integers(0, np.iinfo(d).max, 4, d) for d in DTYPES if d[0] == "u"}
    state["weight/1"] = rng.standard_normal((4, 3)).T
    state["special"] = np.array([np.nan, -0.0, np.inf, 5e-324])
    state["alone"] = np.float64(0.1) * np.ones(())
    return state


def test_every_tensor_comes_back_bit_for_bit(record):
    given = tensors()
    run = record(checkpoint=Checkpoint(0.1 + 0.2, 2**53 + 1, given, 11, 1.5))
    read, numbers = read_checkpoint(run.path)
    assert list(read) == list(given)
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert read[name].tobytes() == tensor.tobytes()
    assert numbers == {"time": 0.1 + 0.2, "steps": 2**53 + 1, "frames": 11, "wall_time": 1.5}


def test_netcdf4_reads_the_checkpoint(record):
    state = {"activity/1": np.arange(6.0).reshape(2, 3), "W": np.ones((3, 3), "f4")}
    run = record(checkpoint=Checkpoint(1.0, 5, state))
    with netCDF4.Dataset(run.path) as file:
        group = file["checkpoint"]
        last = int(group["slot_sequence"][:].argmax())
        assert group["activity_1"][last].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert group["activity_1"].tensor == "activity/1"
        assert group["W"].dtype == np.float32
        assert group["slot_steps"][last] == 5


def test_a_run_without_a_checkpoint(record):
    with pytest.raises(RunFileError, match="holds no checkpoint"):
        read_checkpoint(record().path)


def numbered(i: int) -> Checkpoint:
    return Checkpoint(i / 4, i, {"w": np.full((3, 3), float(i)), "n": np.array(i)}, i)


def write_four(path) -> None:
    with RunWriter(path, [ChannelSpec("x")], {}, checkpoint=numbered(0)) as writer:
        for i in range(1, 4):
            writer.append(i, {"x": np.float64(i)})
            writer.commit(numbered(i))
            found, numbers = read_checkpoint(path)  # while the run goes on
            assert (numbers["steps"], numbers["frames"], numbers["time"]) == (i, i, i / 4)
            assert found["w"].tolist() == np.full((3, 3), float(i)).tolist()
        writer.close("reached_end")


def spoil(path, variable: str, slot: int, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file["checkpoint"][variable][slot] = value


def test_the_last_checkpoint_counts_and_the_one_before_stands_in_for_a_torn_one(tmp_path):
    path = tmp_path / "run.nc"
    write_four(path)
    assert read_checkpoint(path)[1]["steps"] == 3
    with h5py.File(path) as file:
        last = int(file["checkpoint/slot_sequence"][...].argmax())
    spoil(path, "w", last, -1.0)  # its sequence number is there, and its checksum does not fit
    found, numbers = read_checkpoint(path)
    assert numbers["steps"] == numbers["frames"] == 2
    assert found["w"].tolist() == np.full((3, 3), 2.0).tolist()
    spoil(path, "slot_time", 1 - last, 9.0)
    with pytest.raises(RunFileError, match="damaged: neither fits its checksum"):
        read_checkpoint(path)


@pytest.mark.parametrize("variable", ["w", "n", "slot_time", "slot_steps", "slot_frames", "slot_wall_time"])
def test_the_checksum_covers_everything(tmp_path, variable):
    path = tmp_path / "run.nc"
    write_four(path)
    for slot in (0, 1):
        spoil(path, variable, slot, 77)
    with pytest.raises(RunFileError, match="neither fits its checksum"):
        read_checkpoint(path)


@pytest.mark.parametrize("fails", ["w", "slot_checksum", "slot_sequence"])
def test_a_checkpoint_that_breaks_off_leaves_the_one_before(tmp_path, monkeypatch, fails):
    path = tmp_path / "run.nc"
    with RunWriter(path, [ChannelSpec("x")], {}, checkpoint=numbered(0)) as writer:
        writer.commit(numbered(1))
        parts = writer._checkpoints
        whole = {"w": parts._arrays["w"], "slot_checksum": parts._checksum, "slot_sequence": parts._sequence}[fails]

        class Broken:
            attrs, shape = whole.attrs, whole.shape

            def __setitem__(self, *_: object) -> None:
                raise OSError("disk full")

        monkeypatch.setattr(parts, "_checksum", Broken()) if fails == "slot_checksum" else None
        monkeypatch.setattr(parts, "_sequence", Broken()) if fails == "slot_sequence" else None
        monkeypatch.setitem(parts._arrays, "w", Broken()) if fails == "w" else None
        with pytest.raises(RunFileError, match="disk full"):
            writer.commit(numbered(2))
        assert read_checkpoint(path)[1]["steps"] == 1
        monkeypatch.undo()
        writer.commit(numbered(3))
        assert read_checkpoint(path)[1]["steps"] == 3
        writer.close("steady")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": np.ones((3, 3))}, "tensor n"),
        ({"w": np.ones((3, 2)), "n": np.array(1)}, "tensor w"),
        ({"w": np.ones((3, 3), "f4"), "n": np.array(1)}, "float32"),
        ({"w": np.ones((3, 3)), "n": np.array(1), "z": np.ones(1)}, "tensor z"),
    ],
)
def test_a_state_of_another_kind_is_refused(tmp_path, state, message):
    with RunWriter(tmp_path / "run.nc", [ChannelSpec("x")], {}, checkpoint=numbered(0)) as writer:
        with pytest.raises(RunFileError, match=message):
            writer.commit(Checkpoint(1.0, 1, state))
        writer.close("steady")


def test_a_checkpoint_needs_a_place(tmp_path):
    with RunWriter(tmp_path / "run.nc", [ChannelSpec("x")], {}) as writer:
        with pytest.raises(RunFileError, match="no place for checkpoints"):
            writer.commit(numbered(0))
        writer.close("steady")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a/1": np.ones(2), "a_1": np.ones(2)}, "a/1 and a_1, both 'a_1'"),
        ({"a": np.ones((0, 2))}, "without entries"),
        ({"a": np.ones(2, complex)}, "no such number"),
        ({"a": np.array([{}])}, "no such number"),
        ({"size/3": np.ones(3)}, "begin with 'size_'"),
        ({"slot/time": np.ones(3)}, "or 'slot'"),
        ({"a b": np.ones(3)}, "cannot be a channel"),
    ],
)
def test_a_state_that_cannot_be_kept_is_refused(record, state, message):
    with pytest.raises(RunFileError, match=message):
        record(checkpoint=Checkpoint(0.0, 0, state))
