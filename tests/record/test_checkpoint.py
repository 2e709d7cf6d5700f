"""A checkpoint comes back bit for bit."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import read_checkpoint

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
    run = record(checkpoint=given, checkpoint_attributes={"time": 0.1 + 0.2, "steps": 2**53 + 1, "note": "é"})
    read, attributes = read_checkpoint(run.path)
    assert list(read) == list(given)
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert read[name].tobytes() == tensor.tobytes()
    assert attributes == {"time": 0.1 + 0.2, "steps": 2**53 + 1, "note": "é"}


def test_netcdf4_reads_the_checkpoint(record):
    run = record(checkpoint={"activity/1": np.arange(6.0).reshape(2, 3), "W": np.ones((3, 3), "f4")})
    with netCDF4.Dataset(run.path) as file:
        group = file["checkpoint"]
        assert group["activity_1"][:].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert group["activity_1"].tensor == "activity/1"
        assert group["W"].dtype == np.float32
        assert "state" not in group.ncattrs()


def test_a_run_without_a_checkpoint(record):
    with pytest.raises(RunFileError, match="holds no checkpoint"):
        read_checkpoint(record().path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a/1": np.ones(2), "a_1": np.ones(2)}, "a/1 and a_1, both 'a_1'"),
        ({"a": np.ones((0, 2))}, "without entries"),
        ({"a": np.ones(2, complex)}, "no such number"),
        ({"a": np.array([{}])}, "no such number"),
        ({"size/3": np.ones(3)}, "begin with 'size_'"),
        ({"a b": np.ones(3)}, "cannot be a channel"),
    ],
)
def test_a_state_that_cannot_be_kept_is_refused(record, state, message):
    with pytest.raises(RunFileError, match=message):
        record(checkpoint=state)
