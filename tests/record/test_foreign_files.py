"""What is refused in reading, and in which words."""

from __future__ import annotations

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
