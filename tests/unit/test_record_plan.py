"""What is asked for is what is recorded: patterns, thinning, single times, reductions, precision, packing."""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

import nlsim
from nlsim.analysis.summary import summarise_channel
from nlsim.cli.watch import _curve
from nlsim.errors import ScenarioError
from nlsim.report.chart import charts_of
from nlsim.report.figures import draw_run
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.reduction import Reduction
from nlsim.simulation.resume import resume
from nlsim.simulation.run import run

TEXT = """\
seed = 4
until = 1.0
[system]
name = "costate_reversal"
speed = 50.0
mass = 2.0
dissipation = 1.0
[system.network]
layers = [2, 3, 4, 2]
[signal]
name = "sinusoids"
samples = 4
[stepper]
name = "implicit_sweep"
dt = 0.01
[numerics]
dtype = "float64"
[record]
every = 0.1
"""
ALL = '"loss", "activity/*", "weight/*"'


def scenario(channels: str, *overrides: str) -> LoadedScenario:
    return parse_scenario(f"{TEXT}channels = [{channels}]\n", overrides=overrides)


def names(channels: str) -> list[str]:
    return [each.spec.name for each in build(scenario(channels)).plan.channels]


def recorded(tmp_path: Path, channels: str, *overrides: str, name: str = "run.nc") -> xr.Dataset:
    assert run(scenario(channels, *overrides), tmp_path / name).ending == "reached_end"
    with nlsim.open_run(tmp_path / name) as data:
        return data.load()


def refused(channels: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        build(scenario(channels, *overrides))
    return str(caught.value)


class TestPatterns:
    def test_a_star_is_every_name(self):
        assert names('"activity/*"') == ["activity/1", "activity/2", "activity/3"]
        assert names('"*costate/2"') == ["costate/2", "weight_costate/2"]
        assert names('"weight/?", "loss"') == ["weight/1", "weight/2", "weight/3", "loss"]
        assert names('"weight/[13]"') == ["weight/1", "weight/3"]

    def test_a_name_of_its_own_goes_before_a_pattern(self):
        given = '"activity/*", {name = "activity/2", select = {layer_2 = [0]}}'
        plan = build(scenario(given)).plan
        assert {each.spec.name: each.spec.shape for each in plan.channels} == {
            "activity/1": (4, 3),
            "activity/3": (4, 2),
            "activity/2": (4, 1),
        }
        assert names('"weight/*", "*/1", {name = "weight/*", reduce = "norm"}').count("weight/1") == 1

    def test_a_pattern_that_nothing_matches(self):
        message = refused('"wieght/*"')
        assert "No channel matches this pattern" in message
        assert "weight/1, " in message


class TestTimes:
    def test_single_times(self, tmp_path: Path):
        data = recorded(tmp_path, '"loss"', "record.at=[0.03, 0.1, 0.55]")
        wanted = sorted({0.03, 0.55, *(k * 0.1 for k in range(11))})
        np.testing.assert_allclose(data["time"], wanted, rtol=0, atol=1e-15)

    def test_a_time_beyond_the_end_or_between_steps(self):
        assert "beyond the end" in refused('"loss"', "record.at=[1.5]")
        assert "not a multiple of the step" in refused('"loss"', "record.at=[0.015]")

    def test_thinned_channels_are_nan_in_between(self, tmp_path: Path):
        thin = recorded(tmp_path, '"loss", {name = "weight/*", every = 0.3}', name="thin.nc")
        full = recorded(tmp_path, '"loss", "weight/*"')
        due = np.array([True, False, False] * 3 + [True, False])
        for name in ("weight_1", "weight_2", "weight_3"):
            assert np.isfinite(full[name].values).all()
            assert np.isnan(thin[name].values[~due]).all()
            np.testing.assert_array_equal(thin[name].values[due], full[name].values[due])
        np.testing.assert_array_equal(thin["loss"], full["loss"])

    def test_a_thinned_run_resumes(self, tmp_path: Path):
        source = scenario('"loss", {name = "weight/*", every = 0.3}, {name = "activity/1", reduce = "mean"}')
        run(source, tmp_path / "whole.nc")

        def stop(t: float, steps: int) -> None:
            if t > 0.35:
                raise KeyboardInterrupt

        run(source, tmp_path / "stopped.nc", progress=stop)
        resume(tmp_path / "stopped.nc")
        with nlsim.open_run(tmp_path / "whole.nc") as whole, nlsim.open_run(tmp_path / "stopped.nc") as found:
            for name in whole.variables:
                assert found[name].values.tobytes() == whole[name].values.tobytes()

    def test_times_that_never_come(self):
        message = refused('{name = "loss", every = 0.25}')
        assert "not record times" in message
        assert "a multiple, for example 0.2" in message


class TestReductions:
    def test_norm_and_mean(self, tmp_path: Path):
        data = recorded(
            tmp_path,
            '"weight/2", "activity/2", {name = "weight/?", reduce = "norm"}, '
            '{name = "activity/2", reduce = "mean", over = ["sample"], select = {layer_2 = [3, 0]}}',
        )
        w, x = data["weight_2"].values, data["activity_2"].values
        np.testing.assert_allclose(data["weight_2_norm"], np.sqrt((w**2).sum((1, 2))), rtol=1e-14)
        np.testing.assert_allclose(data["activity_2_mean"], x[:, :, [3, 0]].mean(1), rtol=1e-13, atol=1e-16)
        assert data["activity_2_mean"].dims == ("time", "activity_2_mean_layer_2")
        assert data["activity_2_mean_layer_2"].values.tolist() == [3, 0]
        assert data["weight_2_norm"].attrs["channel"] == "weight/2/norm"
        assert data["weight_2_norm"].attrs["long_name"].startswith("Euclidean norm of ")
        assert {"weight_1_norm", "weight_3_norm"} <= set(data.data_vars)
        assert "weight_1" not in data

    def test_histogram(self, tmp_path: Path):
        data = recorded(tmp_path, '"weight/2", {name = "weight/2", reduce = "histogram", bins = [-0.5, 0, 0.1, 0.4]}')
        wanted = [np.histogram(w, [-0.5, 0, 0.1, 0.4])[0] for w in data["weight_2"].values]
        np.testing.assert_array_equal(data["weight_2_histogram"], wanted)
        assert data["weight_2_histogram_from"].values.tolist() == [-0.5, 0, 0.1]
        assert data["weight_2_histogram_to"].values.tolist() == [0, 0.1, 0.4]
        assert data["weight_2_histogram"].attrs["units"] == "1"

    @pytest.mark.parametrize(
        "values", [[0.0, 1.0, 2.0, 3.0], [0.5, 0.5], [-1.0, 3.5], [3.0], [float("nan"), 1.5], [float("inf")]]
    )
    def test_edges_belong_where_numpy_puts_them(self, values: list[float]):
        bins = [0.0, 1.0, 2.5, 3.0]
        counts = Reduction("histogram", (), torch.tensor(bins))(torch.tensor(values))
        wanted = np.histogram(np.array(values)[np.isfinite(values)], bins)[0]
        assert counts.tolist() == wanted.tolist()

    @pytest.mark.parametrize(
        ("channel", "message"),
        [
            ('{name = "weight/1", reduce = "histogram"}', "at least two edges"),
            ('{name = "weight/1", reduce = "histogram", bins = [1.0, 0.0]}', "bins that increase"),
            ('{name = "weight/1", bins = [1.0, 2.0]}', "only there"),
            ('{name = "weight/1", reduce = "norm", over = ["sample"]}', "no such dimension"),
            ('{name = "weight/1", over = ["source_1"]}', "over with reduce"),
            ('{name = "weight/1", reduce = "median"}', "median"),
            ('{name = "loss", reduce = "norm"}, {name = "loss", reduce = "norm"}', "twice: loss/norm"),
        ],
    )
    def test_what_cannot_be_meant(self, channel: str, message: str):
        with pytest.raises(ScenarioError, match=message):
            build(scenario(channel))


class TestStorage:
    def test_float32_of_a_float64_run(self, tmp_path: Path):
        full, half = recorded(tmp_path, ALL), recorded(tmp_path, ALL, 'record.dtype="float32"', name="half.nc")
        for name in full.data_vars:
            assert half[name].dtype == np.float32
            np.testing.assert_array_equal(half[name], full[name].values.astype(np.float32))
        assert half["time"].dtype == np.float64
        tensors, _ = nlsim.record.read_checkpoint(tmp_path / "half.nc")
        wanted, _ = nlsim.record.read_checkpoint(tmp_path / "run.nc")
        for name in wanted:
            assert tensors[name].dtype == np.float64
            assert tensors[name].tobytes() == wanted[name].tobytes()

    def test_a_number_too_large_for_float32_is_no_ending(self, tmp_path: Path):
        source = parse_scenario(
            TEXT.replace("costate_reversal", "hamilton_equations").replace("implicit_sweep", "rk4")
            + "channels = ['hamiltonian']\n",
            overrides=["until=3.0", 'record.dtype="float32"', "system.speed=100.0", "stepper.dt=0.005"],
        )
        outcome = run(source, tmp_path / "run.nc")
        assert outcome.ending == "reached_end"  # it blows up, yet float64 holds it
        with nlsim.open_run(tmp_path / "run.nc") as data:
            assert np.isinf(data["hamiltonian"].values[-1])

    @pytest.mark.parametrize("level", [0, 1, 9])
    def test_packing_changes_the_size_only(self, tmp_path: Path, level: int):
        data = recorded(tmp_path, ALL, f"record.compression={level}", name=f"{level}.nc")
        with h5py.File(tmp_path / f"{level}.nc") as file:
            assert file["weight_1"].compression_opts == (level or None)
        other = recorded(tmp_path, ALL)
        for name in other.variables:
            np.testing.assert_array_equal(data[name], other[name])

    def test_foreign_readers_open_all_of_it(self, tmp_path: Path):
        recorded(
            tmp_path,
            '{name = "weight/*", reduce = "norm", every = 0.2}, '
            '{name = "activity/?", reduce = "histogram", bins = [-1,0,1]}',
            'record.dtype="float32"',
        )
        with netCDF4.Dataset(tmp_path / "run.nc") as file:
            assert file["weight_2_norm"].dimensions == ("time",)
            assert file["activity_1_histogram"].shape == (11, 2)
            assert file["activity_1_histogram"].coordinates == "activity_1_histogram_from activity_1_histogram_to"
        assert xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf").load().sizes["activity_3_histogram_bin"] == 2


class TestThinnedChannelsAreShown:
    """A channel with times of its own is NaN at the others; what people look at leaves those out."""

    CHANNELS = '{name = "loss", every = 0.3}, {name = "weight/1", every = 0.5}, "activity/1", "costate/1"'

    @pytest.fixture
    def data(self, tmp_path: Path) -> xr.Dataset:
        return recorded(tmp_path, self.CHANNELS)

    def test_the_file_says_so(self, data: xr.Dataset):
        assert data["loss"].attrs["recorded_every"] == 0.3
        assert "recorded_every" not in data["activity_1"].attrs

    def test_summaries_and_curves(self, data: xr.Dataset):
        loss, weight = (data[name].dropna("time", how="all") for name in ("loss", "weight_1"))
        assert loss["time"].values == pytest.approx([0.0, 0.3, 0.6, 0.9])
        assert weight["time"].values == pytest.approx([0.0, 0.5, 1.0])
        assert summarise_channel(data["loss"])[1] == f"{loss.values[-1]:.4g}"
        assert _curve(data["loss"], 40) == loss.values.tolist()
        assert _curve(data["weight_1"], 40) == [np.linalg.norm(w) for w in weight.values]
        lines = {line.name: line for chart in charts_of(data) for line in chart.lines}
        assert lines["loss"].values.tolist() == loss.values.tolist()

    def test_figures(self, data: xr.Dataset):
        learning = draw_run(data).axes[0].get_lines()[0]
        assert np.isfinite(learning.get_ydata()).all()
        assert len(learning.get_ydata()) == 4
