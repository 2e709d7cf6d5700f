"""Two runs side by side: data sets made by hand, and runs through the command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from nlsim.analysis import compare as module
from nlsim.analysis.compare import Tolerance, compare
from nlsim.cli.app import main

SCENARIO = 'until = 1.0\n[system]\nname = "tracking"\n'


def dataset(values: dict[str, object], times: list[float], **attributes: object) -> xr.Dataset:
    arrays = {name: np.asarray(each) for name, each in values.items()}
    dims = {name: ("time", *(f"{name}_{axis}" for axis in range(1, each.ndim))) for name, each in arrays.items()}
    return xr.Dataset(
        {name: (dims[name], each) for name, each in arrays.items()}, {"time": np.asarray(times)}, attributes
    )


def test_a_data_set_is_identical_to_itself_nan_and_all() -> None:
    data = dataset({"x": [[1.0, np.nan], [np.inf, -0.0]], "n": [1, 2]}, [0.0, 1.0], ending="steady")
    found = compare(data, data.copy(deep=True))
    assert found.is_identical
    assert found.is_within
    assert found.parting() is None
    assert [(each.name, each.largest, each.scale) for each in found.channels] == [("x", 0.0, 1.0), ("n", 0.0, 2.0)]


def test_one_flipped_bit_is_found_where_it_is() -> None:
    values = np.linspace(1.0, 2.0, 40).reshape(10, 4)
    flipped = values.copy()
    flipped[6].view("u8")[2] ^= 1
    one = dataset({"x": values, "y": values}, list(np.arange(10.0)))
    other = dataset({"x": values, "y": flipped}, list(np.arange(10.0)))
    found = compare(one, other)
    assert not found.is_identical
    parting = found.parting()
    assert parting is not None
    assert (parting.name, parting.first, parting.largest_time) == ("y", 6.0, 6.0)
    assert parting.largest == np.spacing(values[6, 2])
    assert compare(one, other, tolerance=Tolerance(absolute=1e-15)).is_within
    assert not compare(one, other, tolerance=Tolerance(absolute=1e-17)).is_within


def test_first_difference_and_first_beyond_the_tolerance() -> None:
    times = [0.0, 1.0, 2.0, 3.0]
    one = dataset({"x": [10.0, 10.0, 10.0, 10.0], "y": [0.0] * 4}, times)
    other = dataset({"x": [10.0, 10.001, 10.5, 11.0], "y": [0.0, 0.0, 0.0, 1e-9]}, times)
    found = compare(one, other, tolerance=Tolerance(relative=0.01))
    x, y = found.channels
    assert (x.first, x.first_beyond, x.largest, x.largest_time, x.scale) == (1.0, 2.0, 1.0, 3.0, 11.0)
    assert (y.first, y.first_beyond) == (3.0, 3.0)  # relative to 1e-9 the distance 1e-9 is all of it
    assert found.parting() is x
    assert found.parting(beyond=True) is x
    mixed = compare(one, other, tolerance=Tolerance(relative=0.05, absolute=1e-6))
    assert [each.first_beyond for each in mixed.channels] == [3.0, None]


@pytest.mark.parametrize(("a", "b"), [(np.nan, 1.0), (np.inf, 1.0), (np.inf, -np.inf), (np.nan, np.inf)])
def test_no_tolerance_covers_what_is_not_finite(a: float, b: float) -> None:
    found = compare(dataset({"x": [a]}, [0.0]), dataset({"x": [b]}, [0.0]), tolerance=Tolerance(1.0, 1e300))
    assert found.channels[0].largest == np.inf
    assert found.channels[0].first_beyond == 0.0


def test_the_sign_of_zero_is_a_bit_and_no_distance() -> None:
    found = compare(dataset({"x": [0.0]}, [0.0]), dataset({"x": [-0.0]}, [0.0]))
    assert (found.channels[0].first, found.channels[0].first_beyond, found.channels[0].largest) == (0.0, None, 0.0)
    assert not found.is_identical


def test_only_common_times_are_compared() -> None:
    one = dataset({"x": [0.0, 1.0, 2.0]}, [0.0, 1.0, 2.0])
    other = dataset({"x": [0.0, 5.0, 6.0, 2.0]}, [0.0, 1.25, 1.5, 2.0])
    found = compare(one, other)
    assert (found.frames, found.common, found.is_same_times) == ((3, 4), 2, False)
    assert found.channels[0].is_identical
    assert not found.is_identical


@pytest.mark.parametrize(
    ("other", "obstacle"),
    [
        (dataset({"x": np.zeros((2, 4))}, [0.0, 1.0]), "shapes (3,) and (4,)"),
        (dataset({"x": np.zeros(2)}, [0.0, 1.0]), "dimensions time, x_1 and time"),
        (dataset({"x": np.zeros((2, 3), "f4")}, [0.0, 1.0]), "numbers float64 and float32"),
        (dataset({"x": np.zeros((2, 3))}, [0.0, 1.0]).assign_coords(x_1=[0, 1, 3]), "different entries along x_1"),
    ],
)
def test_what_cannot_be_compared_is_said_and_is_different(other: xr.Dataset, obstacle: str) -> None:
    found = compare(dataset({"x": np.zeros((2, 3))}, [0.0, 1.0]), other)
    assert found.channels[0].obstacle.startswith(obstacle)
    assert not found.is_within


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    values, times = rng.standard_normal((50, 3)), list(np.arange(50.0))
    other = values.copy()
    other[[31, 44]] += 0.5
    pair = (dataset({"x": values}, times), dataset({"x": other}, times))
    whole = compare(*pair)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 100)  # four frames a block
    assert compare(*pair) == whole
    assert whole.channels[0].first == 31.0


def test_endings_channels_and_states_count() -> None:
    one, other = dataset({"x": [1.0]}, [0.0], ending="steady"), dataset({"y": [1.0]}, [0.0], ending="diverged")
    found = compare(one, other)
    assert (found.only, found.endings) == ((("x",), ("y",)), ("steady", "diverged"))
    assert not found.is_within
    assert not compare(one, one.assign_attrs(ending="diverged")).is_identical
    state = {"w": np.ones(3), "b": np.zeros(1, bool)}
    assert compare(one, one, states=(state, {**state})).is_identical
    bent = compare(one, one, states=(state, {**state, "w": np.array([1.0, 1.0, 1.0 + 2**-52])}))
    assert [each.is_identical for each in bent.state] == [False, True]
    assert not bent.is_identical
    assert compare(one, one, states=(state, {"w": state["w"]})).only_state == (("b",), ())
    assert not compare(one, one, states=(state, {"w": state["w"]})).is_identical


def test_a_comment_changes_the_text_and_not_the_values() -> None:
    text = (Path(__file__).parents[2] / "scenarios" / "hamiltonian" / "digits.toml").read_text()
    one = dataset({"x": [1.0]}, [0.0], scenario=text)
    found = compare(one, dataset({"x": [1.0]}, [0.0], scenario=text + "# a comment\n"))
    assert (found.is_same_text, dict(found.values), found.is_identical) == (False, {}, True)
    found = compare(one, dataset({"x": [1.0]}, [0.0], scenario=text, scenario_overrides="until=3\nstepper.dt=0.005"))
    assert dict(found.values) == {"until": ("80.0", "3.0"), "stepper.dt": ("0.01", "0.005")}
    broken = compare(one, dataset({"x": [1.0]}, [0.0], scenario="no toml ["))
    assert "scenario" in broken.values
    assert not broken.is_identical


@pytest.fixture
def nlsim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nlsim", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out + printed.err

    return run


def test_the_command_says_it_and_exits_with_it(nlsim: Callable[..., tuple[int, str]]) -> None:
    short = ["--set", "until=1.0", "--set", "record.window=[]"]
    for name, *more in (
        ["a"],
        ["again"],
        ["seed", "--set", "seed=1"],
        ["times", "--set", "record.every=0.25"],
        ["other", "--set", "stepper.dt=0.005"],
    ):
        assert nlsim("run", "hamiltonian/digits", *short, *more, "--out", f"{name}.nc")[0] == 0
    shutil.copy("a.nc", "copy.nc")
    for same in ("copy.nc", "again.nc"):
        code, printed = nlsim("compare", "a.nc", same)
        assert code == 0, printed
        assert "identical, bit for bit" in printed
        assert "identical, 8 tensors" in printed
    code, printed = nlsim("compare", "a.nc", "seed.nc", "--relative", "1e-3")
    assert code == 1
    assert "seed: 0 | 1" in printed
    assert "at t = 0.0, in test_loss (bits)" in printed
    assert "at t = 0.0, in test_loss (the tolerance)" in printed
    code, printed = nlsim("compare", "a.nc", "times.nc")
    assert code == 1
    assert "record.every: 0.47 | 0.25" in printed
    assert "2 in common, of 4 | 5 frames" in printed  # 0 and 1
    assert "identical, 8 tensors" in printed, "recording changes nothing"
    code, printed = nlsim("compare", "a.nc", "other.nc")
    assert code == 1
    assert "stepper.dt: 0.01 | 0.005" in printed
    assert "at t = 0.47" in printed
    code, printed = nlsim("compare", "a.nc", "nowhere.nc")
    assert code == 2
    assert "There is no such run file" in printed


def test_a_tolerance_forgives_numbers_and_a_missing_final_state_does_not(
    nlsim: Callable[..., tuple[int, str]],
) -> None:
    assert (
        nlsim("run", "hamiltonian/digits", "--set", "until=0.5", "--set", "record.window=[]", "--out", "a.nc")[0] == 0
    )
    shutil.copy("a.nc", "b.nc")
    with h5py.File("b.nc", "r+") as file:
        file["loss"][1] *= np.float32(1 + 1e-6)
    assert nlsim("compare", "a.nc", "b.nc")[0] == 1
    code, printed = nlsim("compare", "a.nc", "b.nc", "--relative", "1e-5")
    assert code == 0
    assert "the same within the tolerance" in printed
    assert nlsim("compare", "a.nc", "b.nc", "--relative", "1e-8")[0] == 1
    with h5py.File("b.nc", "r+") as file:
        del file["checkpoint"]
    code, printed = nlsim("compare", "a.nc", "b.nc", "--relative", "1e-5")
    assert code == 1
    assert "B: This run file holds no checkpoint." in printed
