"""With dask a long run is analysed piece by piece: nothing is read before a result is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

from nlsim.analysis.energy import energy_drift, power_balance
from nlsim.analysis.ensemble import summarise_ensemble
from nlsim.analysis.frames import recorded
from nlsim.analysis.spectrum import power_spectrum
from nlsim.record import ChannelSpec, RunWriter, open_run

FRAMES = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(8)
    values = {"energy": rng.standard_normal((FRAMES, 6)), "power": rng.standard_normal((FRAMES, 6))}
    specs = [ChannelSpec(name, ("ensemble",), (6,)) for name in values]
    with RunWriter(tmp_path / "run.nc", specs, {}, block_frames=8) as writer:
        for i in range(FRAMES):
            writer.append(0.25 * i, {name: each[i] for name, each in values.items()})
        writer.close("reached_end")
    return tmp_path / "run.nc"


def drift(data: xr.Dataset) -> xr.DataArray:
    found = energy_drift(data["energy"])
    return found.largest + found.rate + found.scale


ANALYSES: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "drift": drift,
    "balance": lambda data: power_balance(data["energy"], data["power"]),
    "interval": lambda data: summarise_ensemble(data["energy"])["high"],
    "spectrum": lambda data: power_spectrum(data["energy"].chunk({"time": -1, "ensemble": 2})),
    "as recorded": lambda data: recorded(data["energy"]),
}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("something was read")


@pytest.mark.parametrize("name", ANALYSES)
def test_nothing_is_read_before_it_is_asked_for(name: str, path: Path):
    analyse = ANALYSES[name]
    with open_run(path) as whole:
        wanted = analyse(whole.load())
    with open_run(path) as data:
        pieces = data.chunk({"time": 10})
        with dask.config.set(scheduler=refuse):
            found = analyse(pieces)
            assert found.chunks is not None
        with dask.config.set(scheduler="synchronous"):
            # sums in another order: a few units in the last place of 64 terms of order 10
            np.testing.assert_allclose(found.values, wanted.values, rtol=1e-12, atol=1e-13)


def test_pieces_are_read_by_several_threads(path: Path):
    with open_run(path) as data, dask.config.set(scheduler="threads", num_workers=4):
        found = data["energy"].chunk({"time": 1}).sum().values
    with open_run(path) as data:
        assert found == pytest.approx(data["energy"].values.sum(), rel=1e-12)
