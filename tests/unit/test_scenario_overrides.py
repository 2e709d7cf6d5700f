"""Overrides come back from a run file as they were given, whatever characters they hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlsim
from nlsim.analysis.compare import scenario_values
from nlsim.cli.report import _subjects
from nlsim.cli.watch import _until
from nlsim.scenario.load import parse_scenario
from nlsim.scenario.overrides import ATTRIBUTE, join_overrides, read_overrides
from nlsim.simulation.resume import resume
from nlsim.simulation.run import run

TEXT = """\
until = 0.4
[system]
name = "heavy_ball"
dissipation = 1.0
[system.network]
layers = [2, 3, 2]
[signal]
name = "sinusoids"
[stepper]
name = "heun"
dt = 0.1
[record]
every = 0.1
channels = ["loss"]
"""

BREAKS = [chr(code) for code in range(sys.maxunicode + 1) if len(f"a{chr(code)}b".splitlines()) > 1]
"""Every character at which Python ends a line."""


@given(st.lists(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from([*BREAKS, '"', "\\"])), min_size=1)))
def test_whatever_is_kept_comes_back(overrides: list[str]) -> None:
    text = join_overrides(overrides)
    assert read_overrides({ATTRIBUTE: text}) == overrides
    assert len(text.splitlines()) == len(overrides), "one a line, for whatever reader"


def test_older_files_stay_readable() -> None:
    """They have one override a line, as it was given."""
    assert read_overrides({ATTRIBUTE: 'title="a\\nb"\nuntil=3'}) == ['title="a\\nb"', "until=3"]
    assert read_overrides({ATTRIBUTE: 'title="a\u2028b"\nuntil=3'}) == ['title="a\u2028b"', "until=3"]
    assert read_overrides({ATTRIBUTE: '"half'}) == ['"half']
    assert read_overrides({ATTRIBUTE: ""}) == read_overrides({}) == []
    assert join_overrides(["title=plain", "until=3"]) == "title=plain\nuntil=3", "and are what is written still"


@pytest.mark.parametrize(
    "written", ['title="""a\nb"""', *(f'title="a{each}b"' for each in "\u2028\x85"), "title=a\x0bb"]
)
def test_every_reader_of_a_run_understands_them(written: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    source = parse_scenario(TEXT, overrides=[written, "until=0.2"])
    run(source, path)
    with nlsim.open_run(path) as data:
        assert read_overrides(data.attrs) == [written, "until=0.2"]
        assert _until(data) == 0.2
        assert _subjects(data.attrs) is not None
        assert scenario_values(data)["title"] == source.values.title == data.attrs["title"]
    assert resume(path, until=0.3).t == pytest.approx(0.3)
    assert resume(path, until=0.4).t == pytest.approx(0.4), "what the resumed run wrote is read too"
