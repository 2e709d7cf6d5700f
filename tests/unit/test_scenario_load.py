"""Scenarios are read strictly, and refusals name file, line, table, key, given, allowed and a guess."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nlsim.errors import ScenarioError
from nlsim.scenario.load import load_scenario, parse_scenario, shipped_scenarios

TEXT = """\
until = 1.0
[system]
name = "costate_reversal"
speed = [50.0, 60.0]
[system.network]
layers = [2, 3, 2]
[signal]
name = "sinusoids"
[stepper]
name = "implicit_sweep"
dt = 0.01
[record]
every = 0.1
channels = ["loss", { name = "activity/1", select = { layer_1 = [0] } }]
[[record.window]]
start = 0.0
stop = 0.2
every = 0.01
"""


def test_good_text_is_read() -> None:
    values = parse_scenario(TEXT).values
    assert values.system.network.layers == [2, 3, 2]
    assert values.system.speed == [50.0, 60.0]
    assert values.stepper.dt == 0.01
    assert values.record.window[0].stop == 0.2
    assert values.seed == 0


def test_text_is_kept_byte_for_byte(tmp_path: Path) -> None:
    written = TEXT.replace("\n", "\r\n") + "# ünicode, no newline at the end"
    path = tmp_path / "story.toml"
    path.write_bytes(written.encode())
    assert load_scenario(path).text == written


# (what to replace, by what) -> (problem, where, given, allowed, advice), each a part of the message's line
REFUSALS = {
    "unknown key": (
        ("until =", "untill ="),
        ("Unknown key 'untill'", "line 1, key 'untill'", "untill", "until", "'until'"),
    ),
    "unknown key in a table": (
        ("layers =", "layer ="),
        ("Unknown key 'layer'", "line 6, table [system.network], key 'layer'", "layer", "layers", "'layers'"),
    ),
    "unknown key in a selection's table": (
        ("select =", "selct ="),
        ("Unknown key 'selct'", "table [record.channels.1], key 'selct'", "selct", "select", "'select'"),
    ),
    "unknown key in a list of tables": (
        ("stop =", "end ="),
        ("Unknown key 'end'", "table [record.window.0], key 'end'", "end", "stop", "'stop' is missing"),
    ),
    "misspelt stepper": (
        ("implicit_sweep", "implicit_swep"),
        (
            "There is no stepper of this name",
            "line 10, table [stepper], key 'name'",
            "implicit_swep",
            "rk4",
            "'implicit_sweep'",
        ),
    ),
    "misspelt system": (
        ("costate_reversal", "costate_reversl"),
        (
            "There is no system of this name",
            "line 3, table [system], key 'name'",
            "costate_reversl",
            "heavy_ball",
            "'costate_reversal'",
        ),
    ),
    "misspelt choice": (
        ("layers = [2, 3, 2]", 'layers = [2, 3, 2]\nactivation = "tahn"'),
        ("'activation' has no such choice", "line 7", "tahn", "softplus", "'tanh'"),
    ),
    "negative number": (
        ("speed = [50.0, 60.0]", "speed = -3.0"),
        ("'speed' is not valid", "line 4, table [system], key 'speed'", "-3.0", "greater than 0", None),
    ),
    "zero width": (("[2, 3, 2]", "[2, 0, 2]"), ("not valid", "layers", "0", "greater than or equal to 1", None)),
    "infinite number": (("dt = 0.01", "dt = inf"), ("'dt' is not valid", "line 11", "inf", "finite", None)),
    "number as text": (("dt = 0.01", 'dt = "0.01"'), ("'dt' is not valid", "line 11", "0.01", "number", None)),
    "missing key": (("dt = 0.01", ""), ("'dt' is missing", "table [stepper]", None, "Step [time]", None)),
    "missing table": (
        ('[signal]\nname = "sinusoids"\n', ""),
        ("'signal' is missing", "key 'signal'", None, "What drives it", None),
    ),
    "no name": (('name = "implicit_sweep"', ""), ("'stepper' needs a name", "stepper", None, "name", None)),
    "channel twice": (
        ('["loss",', '["loss", "loss",'),
        ("'channels' is not valid", "line 14", "loss", "each channel once; twice: loss", None),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str, tmp_path: Path) -> None:
    (old, new), (problem, where, given, allowed, advice) = REFUSALS[case]
    assert old in TEXT
    path = tmp_path / "story.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    error = caught.value
    assert problem in error.problem
    assert str(path) in str(error.where)
    assert where in str(error.where)
    assert given is None or given in str(error.given)
    assert allowed in str(error.allowed)
    assert (advice or "") in (error.advice or "")
    assert len(str(error).splitlines()) <= 6


def test_several_faults_are_all_named() -> None:
    broken = TEXT.replace("dt = 0.01", "dt = -1").replace("every = 0.1\n", "every = 0\n")
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(broken)
    assert "'dt' is not valid" in caught.value.problem
    assert "record.every" in str(caught.value.advice)


def test_unreadable_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "story.toml"
    path.write_text("until = 1.0\nseed = = 3\n")
    with pytest.raises(ScenarioError, match="not valid TOML") as caught:
        load_scenario(path)
    assert "line 2" in str(caught.value.given)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "story.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(path)


def test_folder_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)


def test_unknown_file_suggests_a_shipped_scenario() -> None:
    with pytest.raises(ScenarioError, match="no such scenario") as caught:
        load_scenario("hamiltonian/digit")
    assert "hamiltonian/digits" in str(caught.value.advice)


def test_overrides_apply_in_order_and_are_kept() -> None:
    loaded = parse_scenario(
        TEXT, overrides=["stepper.dt=0.02", "stepper.dt = 0.005", "title=a story", "numerics.device=cpu"]
    )
    assert loaded.values.stepper.dt == 0.005
    assert loaded.values.title == "a story"
    assert loaded.text == TEXT
    assert loaded.overrides[0] == "stepper.dt=0.02"


@pytest.mark.parametrize("assignment", ["stepper.dt", "=3", "stepper..dt=3", "until.x=3"])
def test_bad_override(assignment: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(TEXT, overrides=[assignment])
    assert caught.value.where == "--set"
    assert caught.value.given == assignment


def test_fault_in_an_override_is_found_there() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(TEXT, overrides=["stepper.dt=-1"])
    assert caught.value.where == "--set stepper.dt=-1"


def test_every_shipped_scenario_is_valid() -> None:
    shipped = shipped_scenarios()
    assert "hamiltonian/digits" in shipped
    for name in shipped:
        assert load_scenario(name).values.title


def test_reading_a_scenario_imports_no_torch() -> None:
    code = "import sys, nlsim; nlsim.load_scenario('hamiltonian/digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
