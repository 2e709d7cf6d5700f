"""A run file behind a symbolic link: the file is the one that is written and replaced, and the link stays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nlsim.errors import RunFileError
from nlsim.record import ChannelSpec, Checkpoint, RunWriter, open_run, recover

SPECS = [ChannelSpec("b")]


def write(path: Path, count: int, **options: bool) -> RunWriter:
    writer = RunWriter(path, SPECS, {}, block_frames=1, checkpoint=stand(0), **options)
    for i in range(count):
        writer.append(i, {"b": np.float64(i)})
    return writer


def stand(i: int) -> Checkpoint:
    return Checkpoint(float(i), i, {"w": np.full(3, float(i))}, i)


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A link in one folder to a place in another, by a relative path."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    link, target = tmp_path / "here" / "run.nc", tmp_path / "disk" / "real.nc"
    link.symlink_to(Path("..") / "disk" / "real.nc")
    return link, target


def assert_still_linked(link: Path, target: Path, frames: int, state: str = "interrupted") -> None:
    assert link.is_symlink()
    assert not target.is_symlink()
    assert os.listdir(link.parent) == ["run.nc"], "nothing is left beside the link"
    assert os.listdir(target.parent) == ["real.nc"], "nothing is left beside the file"
    with open_run(target) as data:
        assert data["b"].values.tolist() == list(range(frames))
        assert data.attrs["state"] == state


def test_closing(linked: tuple[Path, Path]) -> None:
    link, target = linked
    writer = write(link, 3, force=True)  # the link leads to no file yet
    writer.close("reached_end", checkpoint=stand(3))
    assert_still_linked(link, target, 3, "complete")


def test_recovering(linked: tuple[Path, Path]) -> None:
    link, target = linked
    write(target, 4)._let_go()
    assert recover(link) == 4
    assert_still_linked(link, target, 4)


def test_going_on(linked: tuple[Path, Path]) -> None:
    link, target = linked
    write(target, 2).close("interrupted", checkpoint=stand(2))
    with RunWriter.reopen(link, SPECS, {}) as writer:
        writer.append(2, {"b": np.float64(2)})
        writer.close("interrupted", checkpoint=stand(3))
    assert_still_linked(link, target, 3)


def test_replacing(linked: tuple[Path, Path]) -> None:
    link, target = linked
    write(target, 5).close("interrupted", checkpoint=stand(5))
    write(link, 1, force=True).close("interrupted", checkpoint=stand(1))
    assert_still_linked(link, target, 1)


def test_the_file_behind_a_link_is_never_overwritten(linked: tuple[Path, Path]) -> None:
    link, target = linked
    target.write_text("precious")
    with pytest.raises(RunFileError, match="exists already"):
        write(link, 0)
    assert target.read_text() == "precious"
    assert os.listdir(target.parent) == ["real.nc"]


def test_one_lock_for_both_names(linked: tuple[Path, Path]) -> None:
    link, target = linked
    for one, other in ((link, target), (target, link)):
        with write(one, 1, force=True) as writer:
            for attempt in (lambda at=other: RunWriter.reopen(at, SPECS, {}), lambda at=other: recover(at)):
                with pytest.raises(RunFileError, match="Another run is writing this file"):
                    attempt()
            with pytest.raises(RunFileError, match="Another run is writing this file"):
                write(other, 0, force=True)
            writer.append(1, {"b": np.float64(1)})
            writer.close("interrupted", checkpoint=stand(2))
        assert_still_linked(link, target, 2)
