"""The command line: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nlsim.cli.app import main

DIGITS = Path(__file__).resolve().parents[2] / "scenarios" / "hamiltonian" / "digits.toml"
BLOW_UP = ["--set", "system.name=hamilton_equations", "--set", "stepper.name=rk4"]
SHORT = ["--set", "until=1.0", "--set", "record.window=[]"]


@dataclass(frozen=True)
class Ran:
    """What came back from the command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def nlsim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command's own entry point in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["nlsim", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out = capsys.readouterr()
        return Ran(int(left.value.code or 0), out.out, out.err)

    return run


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_run_show_plot(nlsim: Run, tmp_path: Path) -> None:
    ran = nlsim("run", "hamiltonian/digits", *SHORT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "", "quiet when nobody is looking"
    assert "reached_end" in ran.stdout
    assert "test accuracy" in ran.stdout
    assert "100 steps, 4 frames" in ran.stdout
    assert written(tmp_path) == ["digits.nc"]
    shown = nlsim("show", "digits.nc")
    assert shown.returncode == 0
    for expected in ("reached_end", "gradient_error", "activity/1", "frames         4", "nlsim 0."):
        assert expected in shown.stdout
    text = nlsim("show", "digits.nc", "--scenario")
    assert text.stdout == DIGITS.read_text()
    drawn = nlsim("plot", "digits.nc")
    assert drawn.returncode == 0
    picture = (tmp_path / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


def test_plots_of_several_runs_and_of_chosen_channels(nlsim: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for seed in (0, 1):
        more = ["--set", f"seed={seed}", "--set", "record.every=0.1"]
        assert nlsim("run", "hamiltonian/digits", *SHORT, *more, "--out", f"runs/{seed}.nc").returncode == 0
    for words, picture in (
        (["runs"], "runs/runs.png"),
        (["runs/0.nc", "runs/1.nc", "-o", "both.png"], "both.png"),
        (["runs/0.nc", "--spectrum", "loss", "-o", "spectrum.png"], "spectrum.png"),
        (["runs/0.nc", "--phase", "activity/1[0,0]", "costate/1[0,0]", "-o", "phase.png"], "phase.png"),
    ):
        drawn = nlsim("plot", *words)
        assert drawn.returncode == 0, drawn.stderr
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    for words, expected in (
        (["runs/0.nc", "--spectrum", "los"], "Did you mean 'loss'?"),
        (["runs", "--spectrum", "loss"], "of one run"),
        (["runs/0.nc", "runs/1.nc", "-o", "runs/1.nc"], "would replace"),
    ):
        refused = nlsim("plot", *words)
        assert refused.returncode == 2
        assert expected in refused.stderr


def test_force_replaces(nlsim: Run, tmp_path: Path) -> None:
    (tmp_path / "out.nc").write_text("mine")
    assert nlsim("run", "hamiltonian/digits", *SHORT, "--out", "out.nc", "--force").returncode == 0
    assert (tmp_path / "out.nc").read_bytes().startswith(b"\x89HDF")


def test_force_spares_the_file_when_the_scenario_is_bad(nlsim: Run, tmp_path: Path) -> None:
    (tmp_path / "out.nc").write_text("mine")
    ran = nlsim("run", "hamiltonian/digits", "--set", "system.speed=[1.0]", "--out", "out.nc", "--force")
    assert ran.returncode == 2
    assert (tmp_path / "out.nc").read_text() == "mine"


def test_run_that_ends_otherwise_is_1_and_leaves_a_good_file(nlsim: Run, tmp_path: Path) -> None:
    ran = nlsim("run", "hamiltonian/digits", *BLOW_UP, *SHORT)
    assert ran.returncode == 1
    assert "diverged" in ran.stdout
    assert "do " in ran.stdout
    assert "diverged" in nlsim("show", "digits.nc").stdout


REFUSED = {
    "unknown key": (["run", "bad.toml"], ["Unknown key 'sead'", "bad.toml, line 7", "Did you mean 'seed'?"]),
    "misspelt stepper": (
        ["run", "hamiltonian/digits", "--set", "stepper.name=exponential_swep"],
        ["no stepper of this name", "--set stepper.name=exponential_swep", "Did you mean 'exponential_sweep'?"],
    ),
    "negative c": (
        ["run", "hamiltonian/digits", "--set", "system.speed=-1"],
        ["'speed' is not valid", "-1", "greater than 0"],
    ),
    "dt above the limit": (
        ["run", "hamiltonian/digits", "--set", "stepper.name=explicit_euler", "--set", "stepper.dt=0.02"],
        ["beyond the stability limit of 'explicit_euler'", "rate·dt = 2.2", "rate·dt < 2", "exponential_sweep"],
    ),
    "slow block above the limit": (
        ["run", "hamiltonian/digits", "--set", "system.dissipation=200"],
        ["beyond the stability limit of 'exponential_sweep'", "slow block", "rate·dt = 2", "dt < 0.01"],
    ),
    "unknown data set": (
        ["run", "hamiltonian/digits", "--set", "signal.dataset=digit"],
        ["no data set of this name", "digit", "Did you mean 'digits'?"],
    ),
    "unreadable TOML": (["run", "broken.toml"], ["not valid TOML", "broken.toml", "line 1"]),
    "output exists": (
        ["run", "hamiltonian/digits", "--out", "there.nc"],
        ["output file exists", "there.nc", "--force"],
    ),
    "no such folder": (["run", "hamiltonian/digits", *SHORT, "--out", "no/where.nc"], ["folder", "where:   no"]),
    "device that computes nothing": (["run", "hamiltonian/digits", "--device", "meta"], ["not there", "meta", "cpu"]),
    "number that overflows": (["check", "hamiltonian/digits", "--set", "system.mass=1e-300"], ["'mass'", "1e-18"]),
    "no training samples": (
        ["check", "hamiltonian/digits", "--set", "signal.test_fraction=0.9999"],
        ["leaves a part empty", "0 samples train"],
    ),
    "no test samples": (
        ["check", "hamiltonian/digits", "--set", "signal.test_fraction=1e-9"],
        ["leaves a part empty", "0 test"],
    ),
    "batch beyond the training set": (
        ["check", "hamiltonian/digits", "--set", "signal.batch=1439"],
        ["larger than the training set", "1 to 1438"],
    ),
    "too many frames": (
        ["check", "hamiltonian/digits", "--set", "until=1e7", "--set", "record.every=0.01"],
        ["recorded too often", "1e+09 frames"],
    ),
    "too many threads": (["check", "hamiltonian/digits", "--set", "numerics.threads=100000"], ["'threads'", "1024"]),
    "network beyond memory": (
        ["check", "hamiltonian/digits", "--set", "system.network.layers=[64,100000000000,10]"],
        ["state is too large"],
    ),
    "seed beyond the file": (["check", "hamiltonian/digits", "--set", "seed=99999999999999999999"], ["'seed'"]),
    "index twice": (
        ["check", "hamiltonian/digits", "--set", 'record.channels=[{name="activity/1", select={layer_1=[0,0]}}]'],
        ["each index once", "layer_1"],
    ),
    "cross-entropy of sinusoids": (
        [
            "check",
            "hamiltonian/digits",
            "--set",
            "signal={name='sinusoids'}",
            "--set",
            "system.network.loss=cross_entropy",
        ],
        ["Cross-entropy needs targets that are probabilities"],
    ),
    "tolerance finer than the dtype": (
        ["check", "hamiltonian/digits", "--set", "stepper={name='adaptive', rtol=1e-7}"],
        ["finer than the dtype", "1e-07 in float32", "float64"],
    ),
    "fault within an override": (
        ["check", "hamiltonian/digits", "--set", "record.window=[5]"],
        ["where:   --set record.window=[5]"],
    ),
    "misspelt suffix": (["run", "hamiltonian/digits.tmol"], ["no such scenario", "hamiltonian/digits"]),
    "report into a folder": (["verify", "--json", "."], ["cannot be written"]),
    "no such device": (
        ["run", "hamiltonian/digits", "--device", "cuda:99"],
        ["device is not there", "cuda:99", "cpu"],
    ),
    "nonsense device": (
        ["run", "hamiltonian/digits", "--device", "toaster"],
        ["device is not there", "toaster", "cpu"],
    ),
    "record time off the grid": (
        ["run", "hamiltonian/digits", "--set", "record.every=0.015"],
        ["'every' is not a multiple of the step", "0.015, with dt = 0.01", "0.02"],
    ),
    "interval off the grid": (
        ["check", "hamiltonian/digits", "--set", "signal.interval=0.055"],
        ["'interval' is not a multiple of the step"],
    ),
    "window outside": (
        ["check", "hamiltonian/digits", "--set", "until=10.0"],
        ["window does not lie within the run", "start < stop ≤ 10"],
    ),
    "widths that do not fit": (
        ["check", "hamiltonian/digits", "--set", "system.network.layers=[63, 10]"],
        ["first layer does not fit the data", "64 as the first entry"],
    ),
    "unknown channel": (
        ["check", "hamiltonian/digits", "--set", 'record.channels=["los"]'],
        ["no channel of this name", "Did you mean 'loss'?"],
    ),
    "unknown dimension": (
        ["check", "hamiltonian/digits", "--set", 'record.channels=[{name="activity/1", select={layer=[0]}}]'],
        ["no such dimension", "layer_1 (0 to 31)"],
    ),
    "index beyond": (
        ["check", "hamiltonian/digits", "--set", 'record.channels=[{name="activity/1", select={layer_1=[32]}}]'],
        ["no such entry", "0 to 31"],
    ),
    "sweep of a system that does not relax": (
        ["check", "hamiltonian/digits", "--set", "system.name=hamilton_equations"],
        ["needs a system that is Relaxing", "HamiltonEquations", "costate_reversal"],
    ),
    "graph that the theory does not cover": (
        ["check", "hamiltonian/digits", "--set", "system.network={inputs=1, neurons=1, outputs=[1], arcs=[[1, 0]]}"],
        ["leads into an input", "--set system.network=", "neurons 1 to 1"],
    ),
    "graph that does not fit the data": (
        [
            "check",
            "hamiltonian/digits",
            "--set",
            "stepper={name='rk4', dt=0.01}",
            "--set",
            "system.network={inputs=63, neurons=12, outputs=[64], arcs='all'}",
        ],
        ["inputs of the graph do not fit the data", "63 inputs", "64"],
    ),
    "file that is no run": (["show", "bad.toml"], ["bad.toml"]),
    "file that is not there": (["plot", "none.nc"], ["none.nc"]),
    "unknown theorem": (["verify", "hamiltonian.backprop"], ["no theorem of this name", "hamiltonian.backprop-limit"]),
    "unknown family": (["verify", "--family", "hamilton"], ["no family of theorems", "hamiltonian"]),
    "no folder for the report": (["verify", "--json", "no/where.json"], ["no/where.json"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistake_of_the_caller_is_2_on_one_screen_and_leaves_nothing(case: str, nlsim: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(DIGITS.read_text().replace("\nseed", "\nsead"))
    (tmp_path / "broken.toml").write_text("seed = = 3\n")
    (tmp_path / "there.nc").write_text("mine")
    arguments, said = REFUSED[case]
    ran = nlsim(*arguments)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert ran.stderr.startswith("error: ")
    assert len(ran.stderr.splitlines()) <= 7
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    for words in said:
        assert words in ran.stderr
    assert written(tmp_path) == ["bad.toml", "broken.toml", "there.nc"]
    assert (tmp_path / "there.nc").read_text() == "mine"


def test_a_run_that_was_stopped_says_how_to_go_on(nlsim: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlsim.simulation.stop import Stop

    with monkeypatch.context() as patch:
        patch.setattr(Stop, "reason", "Ctrl-C")
        stopped = nlsim("run", "hamiltonian/digits", *SHORT, "--out", "my run.nc")
    assert stopped.returncode == 1
    assert "interrupted (Ctrl-C" in stopped.stdout
    (said,) = [line for line in stopped.stdout.splitlines() if "to go on" in line]
    command = shlex.split(said.partition("to go on")[2])
    assert command == ["nlsim", "resume", "my run.nc"]
    resumed = nlsim(*command[1:])
    assert resumed.returncode == 0, resumed.stderr
    assert "to go on" not in resumed.stdout


def test_watching_a_channel_that_is_not_there(nlsim: Run) -> None:
    assert nlsim("run", "hamiltonian/digits", *SHORT, "--out", "a.nc").returncode == 0
    ran = nlsim("watch", "a.nc", "--channel", "nope*", "--channel", "los")
    assert (ran.returncode, ran.stdout) == (2, "")
    for words in ("No channel of the run has such a name", "given:   nope*, los", "gradient_error"):
        assert words in ran.stderr
    assert "Did you mean 'loss'?" in nlsim("watch", "a.nc", "--channel", "los").stderr
    ran = nlsim("watch", "a.nc", "--channel", "nope*", "--channel", "los?")
    assert ran.returncode == 0, "one that matches is enough"
    assert "loss " in ran.stdout


def test_data_set_whose_package_is_missing(nlsim: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sklearn" else find(name, *rest)
    )
    ran = nlsim("run", "hamiltonian/digits")
    assert ran.returncode == 2
    for words in ("not installed", "line 24, table [signal], key 'dataset'", "pip install 'nlsim[data]'"):
        assert words in ran.stderr
    assert written(tmp_path) == []


def test_text_in_a_run_is_shown_as_it_is(nlsim: Run) -> None:
    ran = nlsim("run", "hamiltonian/digits", *SHORT, "--set", "title=a [/b] c [red]", "--out", "a.nc")
    assert ran.returncode == 0
    assert "a [/b] c [red]" in nlsim("show", "a.nc").stdout


def test_a_picture_never_replaces_the_run(nlsim: Run, tmp_path: Path) -> None:
    assert nlsim("run", "hamiltonian/digits", *SHORT, "--out", "a.png").returncode == 0
    before = (tmp_path / "a.png").read_bytes()
    ran = nlsim("plot", "a.png")
    assert ran.returncode == 2
    assert "would replace the run" in ran.stderr
    assert (tmp_path / "a.png").read_bytes() == before


def test_usage_errors_are_2(nlsim: Run) -> None:
    assert nlsim("run").returncode == 2
    assert nlsim("fly").returncode == 2
    assert nlsim("verify", "--examples", "0").returncode == 2


def test_check_says_what_would_happen(nlsim: Run, tmp_path: Path) -> None:
    ran = nlsim("check", "hamiltonian/digits")
    assert ran.returncode == 0
    # 64-32-10 with biases: 2410 weights and as many costates, 42 neurons × 32 samples and as many costates
    assert f"a state of {2 * (65 * 32 + 33 * 10) + 2 * 42 * 32} numbers" in ran.stdout
    assert "222 frames of 11 channels" in ran.stdout
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("systems", ["costate_reversal", "hamilton_equations", "heavy_ball"]),
        ("steppers", ["explicit_euler", "order 4", "exponential_sweep", "adaptive", "dopri5 (5)"]),
        ("scenarios", ["hamiltonian/digits", "Handwritten digits"]),
        ("datasets", ["digits", "1797"]),
        ("theorems", ["hamiltonian.backprop-limit", "hamiltonian.momentum-limit"]),
    ],
)
def test_list(nlsim: Run, kind: str, expected: list[str]) -> None:
    ran = nlsim("list", kind)
    assert ran.returncode == 0
    for words in expected:
        assert words in ran.stdout


def test_verify_prints_and_writes(nlsim: Run, tmp_path: Path) -> None:
    ran = nlsim("verify", "hamiltonian.momentum-limit", "--examples", "4", "--json", "out.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (report,) = json.loads((tmp_path / "out.json").read_text())
    assert report["key"] == "hamiltonian.momentum-limit"
    assert report["verdict"] == "proved"
    assert {each["leg"] for each in report["evidence"]} == {"proof", "bridge", "property", "order", "control"}
    for each in report["evidence"]:
        assert each["measured"] in ran.stdout.replace("\n", " ") or each["name"] in ran.stdout


def test_installed_command_runs_as_a_process(tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("nlsim"))
    ran = subprocess.run([command, "run", "nope"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: There is no such scenario.")


def test_the_command_line_itself_imports_no_torch() -> None:
    code = "import sys, nlsim.cli.app; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
