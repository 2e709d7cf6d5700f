"""What is refused in reading, and in which words."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, RunWriter, open_run, read_checkpoint


@pytest.mark.parametrize("read", [open_run, read_checkpoint])
class TestReading:
    def test_no_such_file(self, tmp_path: Path, read):
        with pytest.raises(RunFileError, match="There is no such run file"):
            read(tmp_path / "r.nc")
        with pytest.raises(RunFileError, match="There is no such run file"):
            read(tmp_path)

    @pytest.mark.parametrize("content", ["", "name = 'a scenario'\n", "x" * 1000])
    def test_not_hdf5(self, tmp_path: Path, read, content):
        (tmp_path / "r.nc").write_text(content)
        with pytest.raises(RunFileError, match="not an HDF5 file"):
            read(tmp_path / "r.nc")

    @pytest.mark.parametrize("schema", [None, "one", 1.5, [1, 2]])
    def test_hdf5_but_not_ours(self, tmp_path: Path, read, schema):
        with h5py.File(tmp_path / "r.nc", "w") as file:
            file["time"] = np.arange(3.0)
            if schema is not None:
                file.attrs["nlsim_schema"] = schema
        with pytest.raises(RunFileError, match="not a run file of nlsim"):
            read(tmp_path / "r.nc")

    def test_a_truncated_file(self, record, read):
        path = record(200).path
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(RunFileError, match="cannot be opened"):
            read(path)

    def test_a_truncated_file_of_a_killed_run(self, tmp_path: Path, read):
        x = ChannelSpec("x", ("n",), (1000,))
        path = tmp_path / "killed.nc"
        with RunWriter(tmp_path / "r.nc", [x], {}, block_frames=1) as writer:
            for i in range(20):
                writer.append(i, {"x": np.random.default_rng(i).random(1000)})
            content = (tmp_path / "r.nc").read_bytes()  # as a kill at this instant would leave it
        path.write_bytes(content)
        with open_run(path) as dataset:
            assert dataset.sizes["time"] == 20
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(RunFileError, match=r"cannot be opened: it is cut short: \d+ of \d+ bytes"):
            read(path)

    def test_newer_schema(self, record, read):
        path = record().path
        with h5py.File(path, "r+") as file:
            file.attrs["nlsim_schema"] = 2
        with pytest.raises(RunFileError, match=r"newer nlsim[\s\S]*schema 2[\s\S]*up to 1"):
            read(path)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda f: f.__setitem__("e", h5py.ExternalLink("other.nc", "/x")), "a link to elsewhere"),
            (
                lambda f: f.create_group("checkpoint").__setitem__("e", h5py.ExternalLink("o", "/")),
                "a link to elsewhere",
            ),
            (lambda f: f.__setitem__("s", h5py.SoftLink("/loss")), "a link to elsewhere"),
            (
                lambda f: f.create_dataset("raw", (3,), "f8", external=[("raw.bin", 0, 24)]),
                "lies in another file",
            ),
            (
                lambda f: f.create_virtual_dataset("v", h5py.VirtualLayout((3,), "f8")),
                "lies in another file",
            ),
            (
                lambda f: f.create_dataset("o", (2,), h5py.vlen_dtype(np.dtype("u1"))),
                "an array of neither numbers nor text",
            ),
            (lambda f: f.create_dataset("r", (2,), h5py.ref_dtype), "an array of neither numbers nor text"),
            (lambda f: f.create_dataset("v", (2,), "V8"), "an array of neither numbers nor text"),
            (
                lambda f: f["loss"].attrs.create("o", np.void(b"pickle")),
                "loss, attribute o",
            ),
            (lambda f: f.attrs.create("o", f.ref, dtype=h5py.ref_dtype), "an attribute of neither"),
        ],
    )
    def test_what_nlsim_never_writes(self, record, read, spoil, message):
        path = record().path
        with h5py.File(path, "r+") as file:
            spoil(file)
        with pytest.raises(RunFileError, match=message):
            read(path)


def declare(file: h5py.File, name: str, shape: tuple[int, ...], **options: object) -> None:
    file.create_dataset(name, shape, "f8", **options)


TRICKS = {
    "a shape of 2⁶⁰ without any values": (
        lambda f: declare(f, "x", (2**60,), chunks=(1024,)),
        r"an array of shape \(1152921504606846976,\), larger than the file can hold",
    ),
    "a compressed terabyte": (
        lambda f: declare(f, "x", (2**37,), chunks=(2**16,), compression="gzip"),
        "larger than the file can hold",
    ),
    "a packed array of nothing": (  # not more than deflate could hold in a file of this size, had it been stored
        lambda f: declare(f, "x", (3 * 10**6,), chunks=(2**14,), compression="gzip"),
        "larger than the file can hold",
    ),
    "packed times": (
        lambda f: (f.move("time", "old"), declare(f, "time", (10**4,), chunks=(2**10,), compression="gzip")),
        "times that are packed|larger than the file can hold",
    ),
    "times without end": (lambda f: f["time"].resize((2**40,)), "larger than the file can hold"),
    "a checkpoint without end": (
        lambda f: declare(f.require_group("checkpoint"), "w", (2, 2**40), chunks=(1, 1024)),
        "larger than the file can hold",
    ),
    "chunks of a gigabyte": (lambda f: declare(f, "x", (0,), chunks=(2**27,), maxshape=(None,)), "in chunks of more"),
    "a foreign filter": (
        lambda f: declare(f, "x", (4,), chunks=(4,), scaleoffset=2),
        "an array packed by a foreign filter",
    ),
    "a dimension that claims to be one": (
        lambda f: (
            declare(f, "x", (2**50,), chunks=(64,)),
            f["x"].make_scale("This is a netCDF dimension but not a netCDF variable."),
        ),
        "larger than the file can hold",
    ),
    "a name that climbs": (lambda f: declare(f, "..", (1,)), r"a name, which nlsim never writes[\s\S]*: \.\."),
    "a name with a backslash": (lambda f: declare(f, "a\\b", (1,)), "a name, which nlsim never writes"),
    "a name that clears the screen": (lambda f: declare(f, "a\x1b[2J", (1,)), r"a name, which[\s\S]*a\\x1b\[2J"),
    "a name in another direction": (lambda f: declare(f, "a\u202etxt", (1,)), "a name, which nlsim never writes"),
    "a group with a blank": (lambda f: f.create_group("a b"), "a name, which nlsim never writes"),
    "a channel that climbs": (
        lambda f: f["loss"].attrs.__setitem__("channel", "../../etc/passwd"),
        "loss, attribute channel: ../../etc/passwd",
    ),
    "a channel that clears the screen": (
        lambda f: f["loss"].attrs.__setitem__("channel", "a\x1b[2J"),
        r"attribute channel: a\\x1b\[2J",
    ),
    "an attribute with a slash": (lambda f: f.attrs.__setitem__("a/b", 1), "a name, which nlsim never writes"),
    "a named type": (lambda f: f.__setitem__("t", np.dtype("f8")), "neither an array nor a group"),
    "a compound": (lambda f: f.create_dataset("c", (2,), [("a", "f8")]), "neither numbers nor text"),
    "complex numbers": (lambda f: f.create_dataset("c", (2,), "c16"), "neither numbers nor text"),
    "an empty space": (lambda f: f.create_dataset("e", data=h5py.Empty("f8")), "an array without a shape"),
    "no times": (lambda f: f.__delitem__("time"), "has no times"),
    "times that are texts": (
        lambda f: (f.__delitem__("time"), f.create_dataset("time", (2,), h5py.string_dtype())),
        "has no times",
    ),
    "no state": (lambda f: f.attrs.__delitem__("state"), r"does not say how its run stands[\s\S]*attribute state"),
    "a state of its own": (
        lambda f: f.attrs.__setitem__("state", "fine"),
        r"given: *fine\n[\s\S]*running, complete, interrupted",
    ),
    "an ending that is a number": (lambda f: f.attrs.__setitem__("ending", 1), "attribute ending"),
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("read", [open_run, read_checkpoint])
def test_hostile_files(record, read, trick: str):
    spoil, message = TRICKS[trick]
    path = record(20).path
    with h5py.File(path, "r+", libver="v110") as file:
        spoil(file)
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(RunFileError, match=message):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < size + 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", [open_run, read_checkpoint])
def test_a_file_blown_up_without_any_bytes(record, read):
    path = record(20).path
    with h5py.File(path, "r+", libver="v110") as file:
        for name in ("time", "loss"):
            file[name].resize((10**7,))
    os.truncate(path, 10**9)  # takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(RunFileError, match="larger than the file can hold"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_circle_of_groups_is_walked_once(record):
    path = record(5).path
    with h5py.File(path, "r+", libver="v110") as file:
        file.create_group("a")["b"] = file["/"]
    with open_run(path) as dataset:
        assert dataset.sizes["time"] == 5


def test_values_that_cannot_be_read_are_said_to_be_so(record):
    run = record(200)
    content = bytearray(run.path.read_bytes())
    with h5py.File(run.path) as file:
        chunk = file["weight_1"].id.get_chunk_info(0)
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 40] = bytes(40)
    run.path.write_bytes(content)
    with open_run(run.path) as dataset:
        with pytest.raises(RunFileError, match=r"values of this variable cannot be read[\s\S]*run.nc: weight_1"):
            dataset.weight_1.load()
        np.testing.assert_array_equal(dataset.activity_2.values, run.values["activity/2"])
        np.testing.assert_array_equal(dataset.isel(time=[3, 5]).activity_2.values, run.values["activity/2"][[3, 5]])


def test_a_reader_that_meets_the_writer_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.nc"
    whole = xr.open_dataset
    faults: list[Exception] = [ValueError("conflicting sizes for dimension 'time'"), OSError("replaced")]

    def met(*arguments: object, **options: object) -> xr.Dataset:
        if faults:
            raise faults.pop()
        return whole(*arguments, **options)

    monkeypatch.setattr(xr, "open_dataset", met)
    monkeypatch.setattr("nlsim.record.trajectory._PAUSE", 0.0)
    with RunWriter(path, [ChannelSpec("x")], {}) as writer:
        writer.append(0.0, {"x": np.float64(1.0)})
        writer.flush()
        with open_run(path) as dataset:
            assert dataset.sizes["time"] == 1
        faults.extend(ValueError("conflicting sizes") for _ in range(100))
        with pytest.raises(RunFileError, match="cannot be read: conflicting sizes"):
            open_run(path)
        assert len(faults) == 80
        writer.close("reached_end")
    # nobody writes it any more, so what is wrong with it stays wrong
    with pytest.raises(RunFileError, match="cannot be read: conflicting sizes"):
        open_run(path)
    assert len(faults) == 79
