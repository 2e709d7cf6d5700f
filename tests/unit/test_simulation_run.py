"""Running a scenario: repeatable, interruptible, and careful with files that are there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import nlsim
from nlsim.core.ending import Ending
from nlsim.errors import RunFileError, ScenarioError
from nlsim.scenario.load import LoadedScenario, load_scenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.check import distinct, grid, is_multiple
from nlsim.simulation.run import run, threads

TEXT = """\
seed = 4
until = 1.0
[system]
name = "costate_reversal"
speed = 50.0
mass = 2.0
dissipation = 1.0
[system.network]
layers = [2, 3, 2]
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
channels = ["loss", "hamiltonian", "activity/1", "weight/2"]
"""


@pytest.fixture
def source() -> LoadedScenario:
    return parse_scenario(TEXT)


def read(path: Path) -> xr.Dataset:
    with nlsim.open_run(path) as data:
        return data.load()


def test_the_same_scenario_twice_is_the_same_to_the_bit(source: LoadedScenario, tmp_path: Path) -> None:
    first, second = run(source, tmp_path / "a.nc"), run(source, tmp_path / "b.nc")
    assert first.ending is second.ending is Ending.REACHED_END
    assert first.frames == 11
    a, b = read(first.path), read(second.path)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values)


def test_another_seed_is_another_run(source: LoadedScenario, tmp_path: Path) -> None:
    run(source, tmp_path / "a.nc")
    run(parse_scenario(TEXT, overrides=["seed=5"]), tmp_path / "b.nc")
    assert not np.allclose(read(tmp_path / "a.nc")["weight_2"], read(tmp_path / "b.nc")["weight_2"])


def test_recorded_frames_are_the_state_at_the_record_times(source: LoadedScenario, tmp_path: Path) -> None:
    data = read(run(source, tmp_path / "a.nc").path)
    np.testing.assert_allclose(data["time"], np.arange(11) / 10, rtol=0, atol=1e-15)
    assert data["activity_1"].dims == ("time", "sample", "layer_1")
    assert data["activity_1"].dtype == np.float64
    # the first frame is the initial state; the last is the checkpoint
    simulation = build(source)
    np.testing.assert_array_equal(data["weight_2"][0], simulation.state.weight[1].numpy())
    checkpoint, attributes = nlsim.record.read_checkpoint(tmp_path / "a.nc")
    np.testing.assert_array_equal(data["weight_2"][-1], checkpoint["weight/2"])
    assert attributes["time"] == 1.0
    assert attributes["steps"] == 100
    assert set(checkpoint) == {
        f"{field}/{layer}" for field in ("activity", "weight", "costate", "weight_costate") for layer in (1, 2)
    }


def test_attributes_tell_where_it_comes_from(tmp_path: Path) -> None:
    source = parse_scenario(TEXT, overrides=["title=with an override"])
    data = read(run(source, tmp_path / "a.nc").path)
    assert nlsim.record.scenario_text(data) == TEXT
    assert data.attrs["scenario_overrides"] == "title=with an override"
    assert data.attrs["title"] == "with an override"
    assert data.attrs["ending"] == "reached_end"
    assert data.attrs["seed"] == 4
    assert data.attrs["dtype"] == "float64"
    assert data.attrs["device"] == "cpu"
    assert f"torch {torch.__version__}" in data.attrs["versions"]
    assert data.attrs["wall_time"] > 0


def test_ctrl_c_ends_interrupted_with_a_good_file(source: LoadedScenario, tmp_path: Path) -> None:
    def stop(t: float, steps: int) -> None:
        if t >= 0.45:
            raise KeyboardInterrupt

    outcome = run(source, tmp_path / "a.nc", progress=stop)
    assert outcome.ending is Ending.INTERRUPTED
    data = read(outcome.path)
    assert data.attrs["ending"] == "interrupted"
    assert data["time"].values[-1] == pytest.approx(0.5)
    assert np.isfinite(data["weight_2"].values).all()


def test_a_crash_in_our_code_is_not_hidden(source: LoadedScenario, tmp_path: Path) -> None:
    def fall(t: float, steps: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path / "a.nc", progress=fall)
    assert read(tmp_path / "a.nc").attrs["ending"] == "interrupted"


def test_existing_file_is_refused_and_kept(source: LoadedScenario, tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_text("mine")
    with pytest.raises(RunFileError, match="exists"):
        run(source, tmp_path / "a.nc")
    assert (tmp_path / "a.nc").read_text() == "mine"


def test_a_forced_file_stays_when_its_successor_cannot_be_made(
    source: LoadedScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.nc").write_text("mine")

    def refuse(*_: object, is_filled: bool) -> None:
        if is_filled:  # and not already when the file is weighed
            raise OSError("The disk is full.")

    monkeypatch.setattr("nlsim.record.definition.define_checkpoint", refuse)
    with pytest.raises(RunFileError, match="full"):
        run(source, tmp_path / "a.nc", force=True)
    assert (tmp_path / "a.nc").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def test_forced_file_leaves_nothing_beside_it(source: LoadedScenario, tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_text("mine")
    run(source, tmp_path / "a.nc", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def final_weights(overrides: list[str], path: Path) -> np.ndarray:
    outcome = run(parse_scenario(TEXT, overrides=overrides), path)
    assert outcome.ending is Ending.REACHED_END
    return read(outcome.path)["weight_2"].values[-1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    adaptive = "stepper={name='adaptive', rtol=1e-7, atol=1e-9}"
    return final_weights([adaptive], tmp_path_factory.mktemp("reference") / "a.nc")


@pytest.mark.parametrize("name", ["explicit_euler", "heun", "rk4", "implicit_sweep", "exponential_sweep"])
def test_every_stepper_runs_the_scenario_alike(name: str, tmp_path: Path, reference: np.ndarray) -> None:
    # first-order methods at c dt = 0.1: errors of a few per cent of the weights' change
    found = final_weights([f"stepper.name={name}", "stepper.dt=0.002"], tmp_path / "found.nc")
    moved = np.abs(reference - build(parse_scenario(TEXT)).state.weight[1].numpy()).max()
    assert moved > 1e-3
    assert np.abs(found - reference).max() < 0.05 * moved


def test_speeds_one_number_or_one_per_layer(source: LoadedScenario) -> None:
    assert build(source).system.problem.speed == (50.0, 50.0)
    assert build(parse_scenario(TEXT, overrides=["system.speed=[50.0, 70]"])).system.problem.speed == (50.0, 70.0)
    with pytest.raises(ScenarioError, match="does not fit the network"):
        build(parse_scenario(TEXT, overrides=["system.speed=[50.0]"]))


def test_budget_is_an_ending(tmp_path: Path) -> None:
    outcome = run(parse_scenario(TEXT, overrides=["max_steps=42"]), tmp_path / "a.nc")
    assert outcome.ending is Ending.BUDGET_SPENT
    assert outcome.steps == 42
    assert outcome.t == pytest.approx(0.42)
    assert nlsim.record.read_checkpoint(outcome.path)[1]["steps"] == 42
    assert read(outcome.path)["time"].values[-1] == pytest.approx(0.42)  # the last state is recorded


def test_the_end_is_recorded_wherever_it_falls(tmp_path: Path) -> None:
    outcome = run(parse_scenario(TEXT, overrides=["record.every=0.3"]), tmp_path / "a.nc")
    np.testing.assert_allclose(read(outcome.path)["time"], [0.0, 0.3, 0.6, 0.9, 1.0], rtol=0, atol=1e-12)


def test_the_revision_is_that_of_our_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlsim.simulation import provenance

    package = Path(provenance.__file__).parent
    ours = subprocess.run(["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True, check=True)
    assert provenance.revision().removesuffix("-dirty") == ours.stdout.strip()[:12]
    # the same file within somebody else's checkout, not tracked there
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    (tmp_path / "provenance.py").write_text("")
    assert provenance.revision() == "unknown"


def test_the_code_is_that_which_makes_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlsim.simulation import provenance

    for part in ("core", "systems/masked", "report", "simulation"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "a.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "simulation" / "provenance.py"))
    code = provenance.code.__wrapped__
    found = [code()]
    (tmp_path / "report" / "a.py").write_text("x = 2")
    assert code() == found[0]
    (tmp_path / "systems" / "masked" / "a.py").write_text("x = 2")
    found.append(code())
    (tmp_path / "systems" / "masked" / "a.py").rename(tmp_path / "systems" / "masked" / "b.py")
    found.append(code())
    assert len(set(found)) == 3


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_grid_and_multiples() -> None:
    assert grid(0.0, 0.3, 0.1) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert len(grid(0.0, 100.0, 0.1)) == 1001
    assert grid(0.0, 0.25, 0.1) == pytest.approx([0.0, 0.1, 0.2])
    assert is_multiple(0.3, 0.1)
    assert is_multiple(0.0, 0.1)
    assert is_multiple(1e4, 0.1)
    assert not is_multiple(0.05, 0.1)
    assert not is_multiple(0.3001, 0.1)
    assert distinct([0.1 * 3, 0.3, 0.4]) == [0.1 * 3, 0.4]


CUT_SHORT = {
    "budget_spent": ("hamiltonian/flip_scalar", ["max_steps=3", "until=1.0"], 4),
    "not_converged": (  # μ dt = 3: stable, and ten iterations that shrink by 0.87 leave a quarter unsolved
        "hamiltonian/flip_scalar",
        ["stepper.name=gauss4", "stepper.dt=0.03", "system.flip.half_period=0.03", "record.every=0.03", "until=0.9",
         "system.tracking_weight=[[1e3]]"],
        1,
    ),
    "step_too_small": (
        "hamiltonian/flip_scalar",
        ['stepper={name="adaptive", min_step=0.005, rtol=1e-9, atol=1e-12}', "record.every=0.01", "until=1.0",
         "system.tracking_weight=[[1e7]]"],
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("ending", CUT_SHORT)
def test_a_run_cut_short_between_records_has_each_time_once(ending: str, tmp_path: Path) -> None:
    """Where every step is a record, what was aimed at and not reached must not be written as if it had been."""
    name, overrides, frames = CUT_SHORT[ending]
    outcome = run(load_scenario(name, overrides=overrides), tmp_path / "run.nc")
    assert outcome.ending == ending
    assert outcome.frames == frames
    with nlsim.open_run(outcome.path) as data:
        assert data.attrs["ending"] == ending
        times = data["time"].values
    assert len(times) == frames
    assert times[-1] == outcome.t


def test_a_channel_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    # float32: x = 1e18 is finite, q x²/2 = 5e39 is not
    overrides = ["numerics.dtype=float32", "system.tracking_weight=[[1e4]]", "system.start=[1e18]", "until=0.01",
                 "stepper.dt=0.001", "system.flip.half_period=0.001", "record.every=0.001"]  # fmt: skip
    outcome = run(load_scenario("hamiltonian/flip_scalar", overrides=overrides), tmp_path / "run.nc")
    assert outcome.ending == "diverged"
    assert "channel hamiltonian is not finite at t = 0" in outcome.detail
    assert outcome.frames == 1
