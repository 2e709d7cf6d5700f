"""What is refused in writing, and in which words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, CoordinateSpec, RunWriter, open_run, variable_name

X = ChannelSpec("x", ("n",), (3,), np.dtype("float32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelSpec("a b"), "cannot be a channel"),
        (lambda: ChannelSpec("/a"), "cannot be a channel"),
        (lambda: ChannelSpec("é"), "cannot be a channel"),
        (lambda: ChannelSpec("a", ("n",), ()), "Every axis of a channel needs a name"),
        (lambda: ChannelSpec("a", ("n", "n"), (2, 2)), "Name the two sides of a square matrix differently"),
        (lambda: ChannelSpec("a", ("n",), (0,)), "at least one entry"),
        (lambda: ChannelSpec("a", ("time",), (2,)), "cannot be an axis"),
        (lambda: ChannelSpec("a", ("n/1",), (2,)), "cannot be an axis"),
        (lambda: ChannelSpec("a", dtype=np.dtype(bool)), "Record truth values as int8"),
        (lambda: ChannelSpec("a", dtype=np.dtype(complex)), "no such number"),
        (lambda: ChannelSpec("a", dtype=np.dtype(object)), "no such number"),
        (lambda: ChannelSpec("a", ("n",), (2,), coordinates={"m": np.arange(2)}), "does not have"),
        (lambda: ChannelSpec("a", ("n",), (2,), coordinates={"n": np.arange(3)}), "one integer from 0"),
        (lambda: ChannelSpec("a", ("n",), (2,), coordinates={"n": np.array([-1, 0])}), "one integer from 0"),
        (lambda: ChannelSpec("a", ("n",), (2,), coordinates={"n": np.array([0.0, 1])}), "one integer from 0"),
        (lambda: CoordinateSpec("c", "n", np.ones((2, 2))), "one value for each entry"),
        (lambda: CoordinateSpec("c", "n", np.array([1j])), "no such number"),
        (lambda: CoordinateSpec("c", "n", np.array([None])), "no such number"),
    ],
)
def test_a_channel_that_cannot_be_written(make: Callable[[], object], message: str):
    with pytest.raises(RunFileError, match=message):
        make()


def test_variable_name():
    assert variable_name("activity/2/mean") == "activity_2_mean"


@pytest.mark.parametrize(
    ("specs", "coordinates", "message"),
    [
        ([ChannelSpec("a/1"), ChannelSpec("a_1")], [], "channel a/1 and channel a_1, both 'a_1'"),
        ([ChannelSpec("time")], [], "would be one variable"),
        ([ChannelSpec("checkpoint")], [], "would be one variable"),
        ([ChannelSpec("a", ("n",), (2,)), X], [], r"One axis name has two sizes[\s\S]*n = 3, elsewhere 2"),
        ([ChannelSpec("n"), X], [], "channel n, and the axis n"),
        (
            [
                ChannelSpec("a", ("n",), (2,), coordinates={"n": np.arange(2)}),
                ChannelSpec("b", ("a_n",), (2,)),
            ],
            [],
            "indices of n in channel a, and the axis a_n",
        ),
        ([X], [CoordinateSpec("c", "n", np.arange(2))], "One axis name has two sizes"),
        ([X], [CoordinateSpec("x", "n", np.arange(3))], "would be one variable"),
        ([X], [CoordinateSpec("m", "n", np.arange(3)), CoordinateSpec("c", "m", np.arange(2))], "the axis m"),
    ],
)
def test_channels_that_do_not_fit_together(tmp_path: Path, specs, coordinates, message):
    with pytest.raises(RunFileError, match=message):
        RunWriter(tmp_path / "r.nc", specs, {}, coordinates=coordinates)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"a": None}, "cannot be an attribute"),
        ({"a": {"b": 1}}, "cannot be an attribute"),
        ({"a": [1, "b"]}, "cannot be an attribute"),
        ({"a": [[1]]}, "cannot be an attribute"),
        ({"a": 2**64}, "at most 64 bits"),
        ({"a": b"bytes"}, "cannot be an attribute"),
        ({"a": 1j}, "cannot be an attribute"),
        ({"a": "nul\0"}, "NUL"),
        ({"a": "half \ud800"}, "surrogates"),
        ({"a b": 1}, "name cannot be an attribute"),
        ({"_hidden": 1}, "name cannot be an attribute"),
        ({"state": "x"}, r"keeps this attribute for itself[\s\S]*state"),
        ({"ending": "x"}, "keeps this attribute for itself"),
        ({"nlsim_schema": 1}, "keeps this attribute for itself"),
    ],
)
def test_attributes_that_cannot_be_stored(tmp_path: Path, attributes, message):
    with pytest.raises(RunFileError, match=message):
        RunWriter(tmp_path / "r.nc", [X], attributes)
    assert os.listdir(tmp_path) == []
    with RunWriter(tmp_path / "r.nc", [X], {}) as writer:
        with pytest.raises(RunFileError, match=message):
            writer.close("reached_end", attributes=attributes)
        writer.append(0.0, {"x": np.zeros(3)})  # the file is still open
        writer.close("reached_end")


def test_a_definition_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nlsim.record.definition._define_channel", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        RunWriter(tmp_path / "r.nc", [X], {})
    assert os.listdir(tmp_path) == []


def test_an_existing_path_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "r.nc"
    path.write_text("precious")
    with pytest.raises(RunFileError, match=r"exists already[\s\S]*another --out, or pass --force"):
        RunWriter(path, [X], {})
    assert path.read_text() == "precious"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunFileError, match="exists already"):
        RunWriter(tmp_path / "dangling", [X], {})
    with pytest.raises(RunFileError, match="exists already"):
        RunWriter(tmp_path, [X], {})


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(RunFileError, match=r"folder of the run file does not exist[\s\S]*Create it"):
        RunWriter(tmp_path / "no" / "r.nc", [X], {})


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda *a: False)  # as root every folder can be written
    with pytest.raises(RunFileError, match=r"cannot be created: the folder is not writable[\s\S]*--out"):
        RunWriter(tmp_path / "r.nc", [X], {})
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_created(tmp_path: Path):
    with pytest.raises(RunFileError, match="cannot be created"):
        RunWriter(tmp_path / ("long" * 100), [X], {})


def test_a_block_without_frames(tmp_path: Path):
    with pytest.raises(RunFileError, match="at least one frame"):
        RunWriter(tmp_path / "r.nc", [X], {}, block_frames=0)


@pytest.mark.parametrize(
    ("time", "values", "message"),
    [
        (1.0, {"x": np.zeros(3)}, r"later than the one before[\s\S]*more than 1.0"),
        (0.5, {"x": np.zeros(3)}, "later than the one before"),
        (np.nan, {"x": np.zeros(3)}, "finite"),
        (np.inf, {"x": np.zeros(3)}, "finite"),
        (2.0, {}, r"missing: \['x'\], unknown: \[\]"),
        (2.0, {"x": np.zeros(3), "y": np.zeros(3)}, r"missing: \[\], unknown: \['y'\]"),
        (2.0, {"x": np.zeros(4)}, r"float64 of shape \(4,\)[\s\S]*float32 of shape \(3,\)"),
        (2.0, {"x": np.zeros(())}, "does not fit its channel"),
        (2.0, {"x": np.zeros(3, complex)}, "does not fit its channel"),
    ],
)
def test_a_frame_that_does_not_fit_is_not_taken(tmp_path: Path, time, values, message):
    path = tmp_path / "r.nc"
    with RunWriter(path, [X], {}) as writer:
        writer.append(1.0, {"x": np.ones(3)})
        with pytest.raises(RunFileError, match=message):
            writer.append(time, values)
        writer.append(1.5, {"x": np.full(3, 2.0)})
        writer.close("reached_end")
    with open_run(path) as dataset:
        assert dataset.time.values.tolist() == [1.0, 1.5]
        assert dataset.x.values.tolist() == [[1.0] * 3, [2.0] * 3]


def test_an_integer_channel_takes_no_float(tmp_path: Path):
    spec = ChannelSpec("k", dtype=np.dtype("int32"))
    with (
        RunWriter(tmp_path / "r.nc", [spec], {}) as writer,
        pytest.raises(RunFileError, match="does not fit its channel"),
    ):
        writer.append(0.0, {"k": np.float64(0.5)})


def test_a_closed_file_takes_nothing(tmp_path: Path):
    writer = RunWriter(tmp_path / "r.nc", [X], {})
    with pytest.raises(RunFileError, match="needs an ending"):
        writer.close("")
    writer.close("reached_end")
    for call in (writer.flush, lambda: writer.close("steady"), lambda: writer.append(1.0, {})):
        with pytest.raises(RunFileError, match="is closed"):
            call()


def test_an_ending_that_cannot_be_written_keeps_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "r.nc"

    def full(_: Path, target: Path) -> None:
        target.write_text("a part")
        raise OSError("no space left")

    def failing_run() -> None:
        with RunWriter(path, [X], {}) as writer:
            writer.append(0.0, {"x": np.ones(3)})
            monkeypatch.setattr("shutil.copy", full)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        failing_run()
    assert "no space left" in caught.value.__notes__[0]
    with open_run(path) as dataset:
        assert dataset.x.values.tolist() == [[1.0] * 3]
    assert os.listdir(tmp_path) == ["r.nc"]
