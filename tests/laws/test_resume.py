"""A run that is stopped and goes on from its file is the run that was never stopped, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import nlsim
from nlsim.core.state import named_leaves
from nlsim.errors import CapabilityError, RunFileError
from nlsim.integrate.catalogue import ADAPTIVE, STEPPERS
from nlsim.record import RunWriter, read_checkpoint
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.provenance import unlike
from nlsim.simulation.recording import Recording
from nlsim.simulation.resume import resume
from nlsim.simulation.run import loop_of, run
from nlsim.systems.catalogue import RESPONDERS, SYSTEMS

EXPLICIT = ["explicit_euler", "heun", "rk4", "sdirk2", "implicit_midpoint", "gauss4", ADAPTIVE]
"""What every system takes."""
SWEEPS = ["implicit_sweep", "exponential_sweep", "exponential_euler", "etdrk2", "etdrk4"]
SPLIT = ["symplectic_euler", "symplectic_euler_adjoint", "stormer_verlet", "conformal_verlet"]
OFFERED = {
    **dict.fromkeys(SYSTEMS, EXPLICIT),
    "costate_reversal": EXPLICIT + SWEEPS,
    "hamilton_equations": [*EXPLICIT, "conformal_midpoint"],
    "heavy_ball": [*EXPLICIT, *SWEEPS, *SPLIT, "conformal_midpoint"],
    "hamiltonian_learning": [*EXPLICIT, "ordered_euler", "ordered_euler_old"],
    "inference": EXPLICIT + SWEEPS,
    "masked_neuron": EXPLICIT + SWEEPS,
    "neumiss": EXPLICIT + SWEEPS,
}
"""System -> every stepper that it takes."""

LAYERS = 'network={layers=[64,6,10], output_activation="identity"}'
SYSTEM = {
    "costate_reversal": 'name="costate_reversal", speed=5.0, mass=2.0, dissipation=1.0, network={layers=[64,6,10]}',
    "hamilton_equations": 'name="hamilton_equations", speed=2.0, mass=2.0, dissipation=1.0, network={layers=[64,6,10]}',
    "heavy_ball": 'name="heavy_ball", mass=20.0, dissipation=1.0, network={layers=[64,6,10]}',
    "hamiltonian_learning": f'name="hamiltonian_learning", beta=0.02, eta=1.0, speed=5.0, {LAYERS}',
    "inference": f'name="inference", update={{name="adam", rate=1e-3}}, {LAYERS}',
    "incremental_inference": f'name="incremental_inference", rate=0.2, {LAYERS}',
    "sequential_inference": f'name="sequential_inference", update={{name="mean_size", rate=1e-3}}, {LAYERS}',
    "backpropagation": f'name="backpropagation", descent={{name="adam"}}, {LAYERS}',
    "backpropagation_proximal": f'name="backpropagation_proximal", rate=0.1, {LAYERS}',
    "error_form": f'name="error_form", update={{name="nlms"}}, {LAYERS}',
    "fixed_prediction": f'name="fixed_prediction", descent={{name="adam"}}, {LAYERS}',
    "zero_divergence": f'name="zero_divergence", descent={{name="sgd", rate=0.1}}, {LAYERS}',
    "implicit_sgd": f'name="implicit_sgd", rate=0.1, {LAYERS}',
    "linear_quadratic": 'name="linear_quadratic", drift=[[-1.0,0.2],[0.0,-0.5]], control=[[1.0],[0.5]], '
    "tracking_weight=[[10.0,0.0],[0.0,1.0]], control_weight=[[0.1]], start=[0.3,-0.1], is_reversed=true",
    "tracking": 'name="tracking", neurons=5, tracking_weight=10.0, is_reversed=true',
    "masked_neuron": 'name="masked_neuron", inputs=64, neurons=6, recurrent_norm=0.5',
    "masked_energy": 'name="masked_energy", inputs=64, neurons=6, recurrent_norm=0.5',
    "neumiss": 'name="neumiss", inputs=64, ridge=0.1',
}
FOLLOWERS = ("linear_quadratic", "tracking")
# 400 of 1437 images in each interval: the second epoch begins in the fourth
IMAGES = 'name="samples", dataset="digits", batch=400, interval=0.3, test_fraction=0.2'
# small enough for the dense matrices and fixed points of implicit steppers
FEW_IMAGES = IMAGES.replace("400", "20")
IMPLICIT = ("sdirk2", "implicit_midpoint", "gauss4", "conformal_midpoint")
SINE = 'name="sine_target", amplitude=0.5, frequency=0.5'

REPRESENTATIVE = [
    *((name, "explicit_euler") for name in SYSTEMS),
    ("costate_reversal", "implicit_sweep"),
    ("costate_reversal", "exponential_sweep"),
    ("costate_reversal", "etdrk2"),
    ("costate_reversal", "etdrk4"),
    ("hamilton_equations", "sdirk2"),
    ("hamiltonian_learning", "ordered_euler"),
    ("hamiltonian_learning", "ordered_euler_old"),
    ("hamiltonian_learning", ADAPTIVE),
    *(("heavy_ball", stepper) for stepper in ("exponential_euler", "conformal_midpoint", *SPLIT)),
    ("inference", "gauss4"),
    ("inference", "exponential_sweep"),
    ("masked_neuron", "etdrk2"),
    ("neumiss", "sdirk2"),
    ("inference", ADAPTIVE),
    ("incremental_inference", "rk4"),
    ("tracking", "heun"),
    ("tracking", ADAPTIVE),
    ("linear_quadratic", "implicit_midpoint"),
]
ALL = [(name, stepper) for name, offered in OFFERED.items() for stepper in offered]


@pytest.fixture(autouse=True)
def _revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlsim.simulation.provenance.revision", lambda: "one and the same")  # git costs a moment


def scenario(
    system: str,
    stepper: str,
    *,
    signal: str | None = None,
    mask: str = "",
    until: float = 1.5,
    dt: float = 0.05,
    dtype: str = "float32",
) -> LoadedScenario:
    is_follower = any(f'name="{name}"' in system for name in FOLLOWERS)
    is_responder = any(f'name="{name}"' in system for name in RESPONDERS)
    channel = "lagrangian" if is_follower else "observed_fraction" if is_responder else "loss"
    images = FEW_IMAGES if stepper in IMPLICIT else IMAGES
    chosen = f'name="{ADAPTIVE}", rtol=1e-3, atol=1e-4' if stepper == ADAPTIVE else f'name="{stepper}", dt={dt}'
    signal = signal or (SINE if is_follower else images)
    return parse_scenario(
        f"seed = 3\nuntil = {until}\nsystem = {{{system}}}\nsignal = {{{signal}}}\n"
        f"stepper = {{{chosen}}}\n{mask}\n[numerics]\ndtype = '{dtype}'\n[record]\nevery = 0.1\n"
        f"channels = ['{channel}']\n"
    )


def stop_at(tick: int) -> Callable[[float, int], None]:
    seen = 0

    def progress(t: float, steps: int) -> None:
        nonlocal seen
        seen += 1
        if seen == tick:
            raise KeyboardInterrupt

    return progress


def bits(path: Path) -> dict[str, object]:
    """Everything that a run recorded and ended in, as bytes."""
    with nlsim.open_run(path) as data:
        found: dict[str, object] = {str(name): data[name].values.tobytes() for name in data.variables}
        found |= {each: data.attrs[each] for each in ("ending", "ending_detail", "steps", "state")}
    tensors, numbers = read_checkpoint(path)
    found |= {f"checkpoint {name}": tensor.tobytes() for name, tensor in tensors.items()}
    return found | {each: numbers[each] for each in ("time", "frames")}


def assert_resumes(source: LoadedScenario, folder: Path, stops: tuple[int, ...]) -> None:
    """Stop after so many ticks, then after so many more, and compare with the run that was not stopped."""
    assert run(source, folder / "whole.nc").ending == "reached_end"
    path = folder / "stopped.nc"
    outcome = run(source, path, progress=stop_at(stops[0]))
    for stop in stops[1:]:
        assert outcome.ending == "interrupted"
        outcome = resume(path, progress=stop_at(stop))
    assert outcome.ending == "interrupted"
    assert resume(path).ending == "reached_end"
    found, wanted = bits(path), bits(folder / "whole.nc")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_the_table_names_every_system_and_stepper() -> None:
    assert set(OFFERED) == set(SYSTEM) == set(SYSTEMS)
    assert {stepper for _, stepper in REPRESENTATIVE} == {stepper for _, stepper in ALL} == {*STEPPERS, ADAPTIVE}


@pytest.mark.parametrize(("name", "stepper"), REPRESENTATIVE)
def test_a_resumed_run_is_the_run(name: str, stepper: str, tmp_path: Path) -> None:
    # t = 0.2: within an interval; then four ticks on, in the second epoch
    assert_resumes(scenario(SYSTEM[name], stepper), tmp_path, (3, 10))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "stepper"), ALL)
def test_a_resumed_run_is_the_run_for_every_system_and_stepper(
    name: str, stepper: str, dtype: str, tmp_path: Path
) -> None:
    assert_resumes(scenario(SYSTEM[name], stepper, dtype=dtype), tmp_path, (1, 3, 2, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEM)
def test_every_other_stepper_is_refused(name: str) -> None:
    for stepper in {*STEPPERS, ADAPTIVE} - set(OFFERED[name]):
        with pytest.raises(CapabilityError):
            build(scenario(SYSTEM[name], stepper))


SENSOR = "name='random', rate=0.5, interval=0.1, each='sensor'"
OTHERS = {
    "random mask": scenario(
        SYSTEM["inference"], "explicit_euler", mask="mask = {name='random', rate=0.7, interval=0.2}"
    ),
    "outages": scenario(
        SYSTEM["costate_reversal"],
        "implicit_sweep",
        mask="mask = {name='outages', outages=[{sensors=[3, 20], start=0.15, stop=0.85}]}",
    ),
    "one sensor": scenario(
        SYSTEM["backpropagation"],
        "explicit_euler",
        mask="mask = {name='random', rate=0.5, interval=0.1, each='sensor'}",
    ),
    "uneven steps": scenario(
        SYSTEM["incremental_inference"], "rk4", mask="mask = {name='random', rate=0.5, interval=0.17}"
    ),
    "sinusoids": scenario(SYSTEM["costate_reversal"], "heun", signal='name="sinusoids", samples=5'),
    "patched": scenario(
        SYSTEM["tracking"],
        "rk4",
        signal='name="patched_cosine", amplitude=0.5, lowest_frequency=1.0, highest_frequency=3.0, interval=0.35',
    ),
    "flip": scenario(
        SYSTEM["tracking"].replace("is_reversed=true", 'flip={name="periodic", half_period=0.05}'), "explicit_euler"
    ),
    "track ball": scenario(
        SYSTEM["linear_quadratic"].replace("is_reversed=true", 'flip={name="track_ball", radius=1.0}'), "rk4"
    ),
    "settled": scenario(SYSTEM["inference"].replace('inference",', 'inference", output="settled",'), "heun"),
    "mean size": scenario(
        SYSTEM["inference"].replace('{name="adam", rate=1e-3}', '{name="mean_size", rate=1e-3}'), "explicit_euler"
    ),
    "graph": scenario(
        'name="costate_reversal", speed=5.0, mass=2.0, dissipation=1.0, network={inputs=2, neurons=4, arcs="all", '
        "outputs=[5]}",
        "rk4",
        signal='name="sinusoids", samples=2',
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_masks_flips_and_moving_signals_resume_too(name: str, tmp_path: Path) -> None:
    assert_resumes(OTHERS[name], tmp_path, (2, 7))


def test_a_long_stretch_resumes_within(tmp_path: Path) -> None:
    # a record in 400 steps: the run is looked at every hundred, and is stopped there
    source = scenario(SYSTEM["costate_reversal"], "explicit_euler", dt=0.00025, signal='name="sinusoids", samples=2')
    source = parse_scenario(source.text, overrides=["until=0.2"])
    assert_resumes(source, tmp_path, (3,))
    first = tmp_path / "first.nc"
    assert run(source, first, progress=stop_at(3)).steps % 400 == 200


def test_the_state_lies_in_memory_as_after_reading() -> None:
    """Strides and offsets decide which kernels run; what is read from a file has none."""
    for name, stepper in REPRESENTATIVE:
        loop = loop_of(build(scenario(SYSTEM[name], stepper, until=0.4)))
        with torch.no_grad():
            for _ in loop:
                for leaf, tensor in named_leaves(loop.state):
                    assert tensor.is_contiguous(), (name, stepper, leaf)
                    assert tensor.storage_offset() == 0, (name, stepper, leaf)


def test_a_checkpoint_that_lags_behind_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that are on file already come again, are compared, and stay."""
    source = scenario(SYSTEM["inference"], "explicit_euler")
    run(source, tmp_path / "whole.nc")
    path = tmp_path / "left.nc"

    class KilledError(Exception):
        pass

    def killed(writer: RunWriter, *_: object, **__: object) -> None:
        writer._let_go()
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("nlsim.record.writer.RunWriter.commit", lambda *_: None)
        patch.setattr("nlsim.record.writer.RunWriter.close", lambda self, *_, **__: self._let_go())
        patch.setattr("nlsim.record.writer.frames_per_block", lambda _: 3)
        run(source, path, progress=None)
    assert read_checkpoint(path)[1]["frames"] == 0
    with nlsim.open_run(path) as data:
        assert data.sizes["time"] == 15
        assert data.attrs["state"] == "interrupted"
    with monkeypatch.context() as patch:
        # a second kill, while frames are compared
        patch.setattr("nlsim.record.writer.RunWriter.close", killed)
        with pytest.raises(KilledError):
            resume(path, progress=stop_at(5))
    with nlsim.open_run(path) as data:
        assert data.sizes["time"] == 15
    assert resume(path).frames == 16
    assert bits(path) == bits(tmp_path / "whole.nc")


def test_a_run_that_does_not_repeat_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scenario(SYSTEM["inference"], "explicit_euler")
    path = tmp_path / "run.nc"
    with monkeypatch.context() as patch:
        patch.setattr("nlsim.record.writer.RunWriter.commit", lambda *_: None)
        patch.setattr("nlsim.record.writer.RunWriter.close", lambda self, *_, **__: (self.flush(), self._let_go()))
        run(source, path)
    read = Recording._compare
    one = np.float32(9.0)
    monkeypatch.setattr(
        Recording, "_compare", lambda self, t, frame: read(self, t, {k: np.nextafter(v, one) for k, v in frame.items()})
    )
    with pytest.raises(RunFileError, match=r"does not repeat what is on file[\s\S]*loss, frame 0 at t = 0"):
        resume(path)


@pytest.mark.parametrize("is_behind", [False, True])
def test_of_two_that_resume_the_later_one_changes_nothing(
    is_behind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one goes on and ends while this one has read the file and not claimed it yet."""
    source, path = scenario(SYSTEM["inference"], "explicit_euler"), tmp_path / "run.nc"
    with monkeypatch.context() as patch:
        if is_behind:  # as after a kill
            patch.setattr("nlsim.record.writer.RunWriter.commit", lambda *_: None)
            patch.setattr("nlsim.record.writer.RunWriter.close", lambda self, *_, **__: (self.flush(), self._let_go()))
            run(source, path)
        else:
            run(source, path, progress=stop_at(4))
    found: list[bytes] = []

    def slowly(given: LoadedScenario) -> object:
        if not found:
            found.append(b"")
            assert resume(path).ending == "reached_end"
            found.append(path.read_bytes())
        return build(given)

    monkeypatch.setattr("nlsim.simulation.resume.build", slowly)
    with pytest.raises(RunFileError, match="Another process has gone on with this run"):
        resume(path)
    assert path.read_bytes() == found[1]
    run(source, tmp_path / "whole.nc")
    assert bits(path) == bits(tmp_path / "whole.nc")


class TestExtending:
    def test_a_finished_run_goes_on_to_a_later_end(self, tmp_path: Path) -> None:
        short = scenario(SYSTEM["inference"], "explicit_euler", until=0.6)
        run(short, tmp_path / "a.nc")
        assert resume(tmp_path / "a.nc", until=1.5).ending == "reached_end"
        run(scenario(SYSTEM["inference"], "explicit_euler"), tmp_path / "b.nc")
        assert bits(tmp_path / "a.nc") == bits(tmp_path / "b.nc")
        with nlsim.open_run(tmp_path / "a.nc") as data:
            assert data.attrs["scenario_overrides"] == "until=1.5"
            assert data.attrs["resumed_at"] == 0.6
        # the file alone still says what was run
        assert resume(tmp_path / "a.nc", until=1.8).t == pytest.approx(1.8)

    def test_an_end_that_has_passed(self, tmp_path: Path) -> None:
        run(scenario(SYSTEM["inference"], "explicit_euler", until=0.6), tmp_path / "a.nc")
        before = (tmp_path / "a.nc").read_bytes()
        for until, message in [(None, "reached its end"), (0.6, "reached its end"), (0.3, "end"), (-1.0, "not a time")]:
            with pytest.raises(RunFileError, match=message):
                resume(tmp_path / "a.nc", until=until)
        assert (tmp_path / "a.nc").read_bytes() == before


class TestRefusals:
    @pytest.fixture
    def stopped(self, tmp_path: Path) -> Path:
        path = tmp_path / "run.nc"
        run(scenario(SYSTEM["heavy_ball"], "heun"), path, progress=stop_at(4))
        return path

    def test_a_run_that_ended_by_itself(self, tmp_path: Path) -> None:
        source = parse_scenario(scenario(SYSTEM["heavy_ball"], "heun").text, overrides=["max_steps=7"])
        run(source, tmp_path / "a.nc")
        with pytest.raises(RunFileError, match=r"ended by itself[\s\S]*budget_spent"):
            resume(tmp_path / "a.nc")

    @pytest.mark.parametrize(
        ("target", "value", "message"),
        [
            ("code", lambda: "another", r"code was \w{16}, is another"),
            ("_version", lambda name: "0.0", "torch was .*, is 0.0"),
        ],
    )
    def test_other_code(self, stopped: Path, monkeypatch: pytest.MonkeyPatch, target, value, message) -> None:
        monkeypatch.setattr(f"nlsim.simulation.provenance.{target}", value)
        before = stopped.read_bytes()
        with pytest.raises(RunFileError, match=rf"would not go on as it began[\s\S]*{message}"):
            resume(stopped)
        assert stopped.read_bytes() == before
        assert resume(stopped, force=True).ending == "reached_end"
        with nlsim.open_run(stopped) as data:
            assert "is " in data.attrs["resumed_with"]

    def test_every_part_counts_and_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def on(code: str, *, force: bool, until: float | None) -> str:
            with monkeypatch.context() as patch:
                patch.setattr("nlsim.simulation.provenance.code", lambda: code)
                return resume(path, force=force, until=until).ending

        path = tmp_path / "run.nc"
        monkeypatch.setattr("nlsim.simulation.provenance.code", lambda: "a")
        run(scenario(SYSTEM["heavy_ball"], "heun", until=0.3), path)
        assert on("a", force=False, until=0.6) == "reached_end"
        assert on("b", force=True, until=0.9) == "reached_end"
        with pytest.raises(RunFileError, match=r"given:   it went on from t = 0\.6\d*: code was a, is b\n"):
            on("a", force=False, until=1.2)  # where it began: the file is of both
        with pytest.raises(RunFileError, match=r"given:   code was a, is b\n"):
            on("b", force=False, until=1.2)
        assert on("a", force=True, until=1.2) == "reached_end"
        with pytest.raises(RunFileError, match=r"was a, is c; it went on .* was a, is b; it went on .*: as it began\n"):
            on("c", force=False, until=1.5)
        assert on("c", force=True, until=1.5) == "reached_end"
        with nlsim.open_run(path) as data:
            kept = [each.partition(": ")[2] for each in data.attrs["resumed_with"]]
            assert kept == ["code was a, is b", "as it began", "code was a, is c"]
            assert np.allclose(data.attrs["resumed_at"], [0.3, 0.6, 0.9, 1.2])

    def test_an_older_file_says_it_without_a_time(self) -> None:
        begun = {"code": "a", "resumed_with": "code was a, is b"}
        assert unlike(begun, {"code": "a"}) == ["it went on with code was a, is b"]
        assert unlike(begun, {"code": "b"}) == ["code was a, is b"]
        assert unlike({"code": "a"}, {"code": "a"}) == []

    def test_another_processor(self, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "Z80")
        with pytest.raises(RunFileError, match=r"cpu_capability was .*, is Z80"):
            resume(stopped)

    def test_writers_of_numbers_may_differ(self, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from nlsim.simulation import provenance

        version = provenance._version
        monkeypatch.setattr(provenance, "_version", lambda n: "9" if n in ("h5py", "h5netcdf") else version(n))
        assert resume(stopped).ending == "reached_end"
