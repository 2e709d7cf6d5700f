"""What is written is what every reader reads."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

from nlsim.errors import RunFileError
from nlsim.record import (
    ChannelSpec,
    CoordinateSpec,
    RunWriter,
    channels,
    open_run,
    scenario_text,
    variable_name,
)

from .conftest import SPECS

NUMBERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)] + ["float32", "float64"]
DIMS = {
    "loss": ("time",),
    "weight/1": ("time", "to_1", "from_1"),
    "activity/2": ("time", "sample", "layer_2"),
    "count": ("time", "ensemble"),
    "flag": ("time",),
    "picked": ("time", "sample", "picked_layer_2"),
}


@pytest.mark.parametrize("block", [None, 1, 2, 4, 11, 50])
def test_open_run_gives_back_every_frame(record, block):
    run = record(block_frames=block)
    with open_run(run.path) as dataset:
        names = channels(dataset)
        assert names == {spec.name: variable_name(spec.name) for spec in SPECS}
        assert list(names) == [spec.name for spec in SPECS]
        np.testing.assert_array_equal(dataset.time.values, run.times)
        for spec in SPECS:
            variable = dataset[names[spec.name]]
            assert variable.dims == DIMS[spec.name]
            assert variable.dtype == spec.dtype
            np.testing.assert_array_equal(variable.values, run.values[spec.name])


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 1, 3)])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_number_and_shape(record, dtype, shape):
    spec = ChannelSpec("q", tuple(f"axis_{i}" for i in range(len(shape))), shape, np.dtype(dtype))
    run = record(9, (spec,), block_frames=4)
    with open_run(run.path) as dataset:
        assert dataset.q.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(dataset.q.values, run.values["q"])


def test_a_frame_larger_than_a_block_is_split_into_chunks(record):
    spec = ChannelSpec("big", ("a", "b"), (700, 1100))
    run = record(2, (spec,))
    with h5py.File(run.path) as file:
        chunk = file["big"].chunks
        assert chunk[0] == 1
        assert 2**18 < np.prod(chunk) * 8 <= 2**20
        np.testing.assert_array_equal(file["big"][:], run.values["big"])


def test_default_block_is_a_mebibyte_of_all_channels(record):
    specs = (ChannelSpec("a", ("x",), (4096,)), ChannelSpec("b", ("x",), (4096,)))
    with h5py.File(record(3, specs).path) as file:
        assert file["a"].chunks == (16, 4096)


def test_default_block_has_at_most_256_frames(record):
    with h5py.File(record(1, (ChannelSpec("a", ("x",), (2,)),)).path) as file:
        assert file["a"].chunks == (256, 2)


def test_plain_xarray_reads_it(record):
    run = record()
    with xr.open_dataset(run.path, engine="h5netcdf") as dataset:
        assert dataset.sizes["time"] == 11
        for spec in SPECS:
            variable = dataset[variable_name(spec.name)]
            np.testing.assert_array_equal(variable.values, run.values[spec.name])
            assert variable.attrs["channel"] == spec.name
        assert dataset.loss.attrs == {"channel": "loss", "units": "nat", "long_name": "loss L"}


def test_netcdf4_reads_it(record):
    attributes = {"title": "Ein Lauf – θ", "seed": 7, "h": 0.25, "versions": ["a 1", "b 2"], "n": [1, 2]}
    run = record(attributes=attributes, time_units="tau")
    with netCDF4.Dataset(run.path) as file:
        file.set_auto_mask(False)
        assert file.dimensions["time"].isunlimited()
        assert {n: d.size for n, d in file.dimensions.items()} == {
            "time": 11,
            "to_1": 3,
            "from_1": 4,
            "sample": 2,
            "layer_2": 5,
            "ensemble": 7,
            "picked_layer_2": 3,
        }
        np.testing.assert_array_equal(file["time"][:], run.times)
        assert file["time"].units == "tau"
        for spec in SPECS:
            variable = file[variable_name(spec.name)]
            assert variable.dimensions == DIMS[spec.name]
            assert variable.dtype == spec.dtype
            np.testing.assert_array_equal(variable[:], run.values[spec.name])
        assert np.isnan(file["weight_1"]._FillValue)
        assert {k: np.asarray(file.getncattr(k)).tolist() for k in attributes} == attributes
        assert (file.Conventions, file.nlsim_schema, file.state) == ("nlsim-1", 1, "complete")
        assert (file.ending, file.ending_detail) == ("reached_end", "")


def test_plain_h5py_reads_it(record):
    run = record()
    with h5py.File(run.path) as file:
        for spec in SPECS:
            np.testing.assert_array_equal(file[variable_name(spec.name)][:], run.values[spec.name])
        assert file["weight_1"].dims[1][0].name == "/to_1"
        assert "writer_pid" not in file.attrs


def test_selected_entries_carry_their_indices(record):
    with open_run(record().path) as dataset:
        assert dataset.picked_layer_2.values.tolist() == [4, 0, 2]
        assert dataset.picked.sel(picked_layer_2=0).equals(dataset.picked.isel(picked_layer_2=1))


@pytest.mark.parametrize("values", [np.array([0.1, 0.2]), np.array(["tanh", "größer"]), np.array([3, 1])])
@pytest.mark.parametrize("name", ["speed", "ensemble"])
def test_coordinates_along_an_axis(record, name, values):
    spec = ChannelSpec("loss", ("ensemble",), (2,))
    run = record(3, (spec,), coordinates=[CoordinateSpec(name, "ensemble", values, long_name="swept")])
    with open_run(run.path) as dataset:
        assert name in dataset.loss.coords
        assert dataset[name].dims == ("ensemble",)
        assert dataset[name].values.tolist() == values.tolist()
        assert dataset[name].attrs["long_name"] == "swept"
    with netCDF4.Dataset(run.path) as file:
        assert file[name][:].tolist() == values.tolist()


LONG = "".join(f"# línea {i} – θ̇ = φ̇/φ 🧠\r\n" for i in range(20_000))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a = 1\n",
        "a = 1\r\n\r\n",
        " padded \t\n\n",
        'e = ""\n',
        "naïve = 'ĥ'\n",
        "x" * 65_519,
        "x" * 70_000 + "\n",
        LONG,
    ],
    ids=["empty", "newline", "plain", "crlf", "blanks", "quotes", "accents", "64k", "ascii", "long"],
)
def test_scenario_text_survives_byte_for_byte(record, text):
    run = record(1, attributes={"scenario": text, "further": "kept"})
    with open_run(run.path) as dataset:
        assert scenario_text(dataset).encode() == text.encode()
        assert dataset.attrs["further"] == "kept"
    with netCDF4.Dataset(run.path) as file:
        assert file.scenario.encode() == text.encode()
    with h5py.File(run.path) as file:
        assert file.attrs["scenario"].encode() == text.encode()


def test_scenario_text_of_a_run_without_one(record):
    with open_run(record(1).path) as dataset, pytest.raises(RunFileError, match="holds no scenario"):
        scenario_text(dataset)


def test_many_and_large_attributes(record):
    given = {f"a{i}": i for i in range(100)} | {"flags": True, "big": list(range(20_000)), "u": 2**64 - 1}
    with open_run(record(1, attributes=given).path) as dataset:
        assert {k: np.asarray(dataset.attrs[k]).tolist() for k in given} == given


def test_frames_appended_after_a_flush_follow_it(tmp_path: Path):
    spec = ChannelSpec("x", ("n",), (3,))
    with RunWriter(tmp_path / "r.nc", [spec], {}, block_frames=4) as writer:
        for i in range(15):
            writer.append(i, {"x": np.full(3, i)})
            if i in (0, 1, 6):
                writer.flush()
        assert writer.frames == 15
        writer.close("steady")
    with open_run(tmp_path / "r.nc") as dataset:
        assert dataset.x.values.tolist() == [[i] * 3 for i in range(15)]


def test_a_run_without_frames(record):
    with open_run(record(0).path) as dataset:
        assert dataset.sizes["time"] == 0
        assert dataset.attrs["state"] == "complete"


def test_opening_leaves_the_arrays_on_disk(record):
    run = record(64, (ChannelSpec("big", ("a",), (16_384,)),))
    tracemalloc.start()
    try:
        with open_run(run.path) as dataset:
            opened = tracemalloc.get_traced_memory()[1]
            one = dataset.big[5, :4].values
            tracemalloc.reset_peak()
            whole = dataset.big.values
            loaded = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(one, run.values["big"][5, :4])
    assert whole.nbytes == 2**23
    assert opened < 2**20 < 2**23 <= loaded


def test_units_of_time_are_not_decoded(record):
    spec = ChannelSpec("delay", units="seconds")
    run = record(3, (spec,), time_units="seconds")
    with open_run(run.path) as dataset:
        np.testing.assert_array_equal(dataset.time.values, run.times)
        np.testing.assert_array_equal(dataset.delay.values, run.values["delay"])
        assert dataset.delay.dtype == np.float64


def test_no_torch():
    code = "import sys, nlsim.record; print([m for m in ('torch', 'nlsim.core') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
