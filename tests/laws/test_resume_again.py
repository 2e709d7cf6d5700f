"""What a run that goes on is held to: frames that come again, rivals, later ends, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.resuming import SYSTEM, bits, scenario, stop_at

import nlsim
from nlsim.errors import RunFileError
from nlsim.record import RunWriter, read_checkpoint
from nlsim.scenario.load import LoadedScenario, parse_scenario
from nlsim.simulation.build import build
from nlsim.simulation.provenance import unlike
from nlsim.simulation.recording import Recording
from nlsim.simulation.resume import resume
from nlsim.simulation.run import run


@pytest.fixture(autouse=True)
def _revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlsim.simulation.provenance.revision", lambda: "one and the same")  # git costs a moment


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
