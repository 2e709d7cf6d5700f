"""The report page: what it holds, what it escapes, and that it fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nlsim.cli.app import main
from nlsim.errors import RunFileError
from nlsim.report.chart import MOST_CHARTS, charts_of, thin
from nlsim.report.page import TheoremNote, render_run, save_page, view
from nlsim.theorems import catalogue, verify
from nlsim.theorems.evidence import Evidence, Finding, Leg

EVIL = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>\"'{{ 7 * 7 }}"


class Tags(HTMLParser):
    """Counts elements and gathers what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.fetched += [
            str(value) for name, value in attrs if name in ("src", "srcset", "data", "poster", "background")
        ]
        self.fetched += [str(value) for name, value in attrs if name == "href" and not str(value).startswith("#")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def dataset(count: int = 20, **attributes: object) -> xr.Dataset:
    rng = np.random.default_rng(3)
    return xr.Dataset(
        {
            "loss": ("time", np.geomspace(100, 0.01, count), {"channel": "loss", "units": "1", "long_name": "loss L"}),
            "weight_1": (("time", "to", "from"), rng.standard_normal((count, 3, 5)), {"channel": "weight/1"}),
        },
        {"time": np.linspace(0, 1, count)},
        {"ending": "reached_end", **attributes},
    )


def figures(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def test_figures_hold_the_numbers_of_the_run() -> None:
    data = dataset()
    page = render_run(view(data, "run.nc"), ())
    loss, weight = figures(page)["charts"]
    np.testing.assert_allclose(loss["lines"][0]["y"], data["loss"], rtol=1e-6)  # seven digits are kept
    np.testing.assert_allclose(loss["lines"][0]["x"], data["time"], rtol=1e-6)
    assert (loss["log"], weight["log"]) == (True, False)
    assert [line["name"] for line in weight["lines"]][:2] == ["to 0, from 0", "to 0, from 2"]
    assert len(weight["lines"]) == 8
    np.testing.assert_allclose(weight["lines"][-1]["y"], data["weight_1"][:, 2, 4], rtol=1e-6)
    assert "8 of 15 entries" in page
    assert page.count('<a href="#figure-') == 2


@pytest.mark.parametrize("spot", ["title", "scenario", "versions", "ending", "long_name", "units", "channel", "file"])
def test_nothing_from_a_file_becomes_markup(spot: str) -> None:
    data = dataset(scenario="until = 1", versions="none", title="a run")
    plain = Tags(render_run(view(data, "run.nc"), ()))
    if spot in ("long_name", "units", "channel"):
        data["loss"].attrs[spot] = EVIL
    elif spot != "file":
        data.attrs[spot] = EVIL
    page = render_run(view(data, EVIL if spot == "file" else "run.nc"), ())
    found = Tags(page)
    assert found.names == plain.names
    assert found.handlers == []
    assert EVIL not in page
    assert "{{ 7 * 7 }}" in page, "shown as it stands"
    figures(page)


def test_nothing_from_a_theorem_becomes_markup() -> None:
    note = TheoremNote("family.key", EVIL, EVIL, EVIL, (EVIL,))
    found = Tags(render_run(view(dataset(), "run.nc"), (note,)))
    assert "img" not in found.names
    assert found.handlers == []


def test_the_policy_lets_our_script_and_style_run_and_nothing_else() -> None:
    page = render_run(view(dataset(), "run.nc"), ())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    allowed = policy.group(1).replace("&#39;", "'")
    assert allowed.startswith("default-src 'none';")
    assert "unsafe" not in allowed
    for kind, text in (
        ("script", re.findall(r"<script>(.*?)</script>", page, re.DOTALL)),
        ("style", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)),
    ):
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in allowed


def test_nothing_is_fetched() -> None:
    page = render_run(view(dataset(), "run.nc"), ())
    assert Tags(page).fetched == []
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "@import" not in page


def test_thinning_keeps_ends_peaks_and_gaps() -> None:
    times = np.arange(10_000.0)
    values = np.random.default_rng(4).standard_normal(10_000)
    values[[0, -1]] = 0.0  # no extremes
    values[4321], values[7000:7500] = 50.0, np.nan
    x, y = thin(times, values, 100)
    assert len(x) <= 100
    assert (x[0], x[-1]) == (0.0, 9999.0)
    assert y[x == 4321.0].tolist() == [50.0]
    assert np.isnan(y[(x > 7100) & (x < 7400)]).all()
    assert ((x > 7100) & (x < 7400)).any()
    assert (np.diff(x) > 0).all()
    same = thin(times[:100], values[:100], 100)
    np.testing.assert_array_equal(same, (times[:100], values[:100]))


def test_a_long_run_of_many_channels_stays_below_three_megabytes() -> None:
    rng = np.random.default_rng(1)
    times = np.linspace(0, 1, 3000)
    wide = {f"x{n}": (("time", "n"), rng.standard_normal((3000, 12))) for n in range(60)}
    data = xr.Dataset(wide, {"time": times})
    assert len(charts_of(data)) == MOST_CHARTS
    assert len(render_run(view(data, "run.nc"), ()).encode()) < 3_000_000


def test_numbers_that_json_lacks_are_gaps() -> None:
    data = xr.Dataset({"x": ("time", [1.0, np.nan, np.inf, 2.0])}, {"time": [0.0, 1.0, 2.0, 3.0]})
    (chart,) = figures(render_run(view(data, "run.nc"), ()))["charts"]
    assert chart["lines"][0]["y"] == [1.0, None, None, 2.0]


def test_a_run_without_frames_or_text_has_a_page() -> None:
    data = xr.Dataset({"x": ("time", np.empty(0)), "word": ("n", np.array(["a", "b"]))}, {"time": np.empty(0)})
    page = render_run(view(data, "run.nc"), ())
    assert figures(page)["charts"] == []
    assert "The file holds none." in page


def test_an_unwritable_page_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="page cannot be written"):
        save_page("text", tmp_path / "no" / "page.html")


@pytest.fixture
def nlsim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nlsim", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out + printed.err

    return run


SHORT = ("--set", "until=1.0", "--set", "record.window=[]")


def test_the_command_writes_a_page_with_theorems_and_their_commands(
    nlsim: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert nlsim("run", "hamiltonian/digits", *SHORT)[0] == 0
    code, printed = nlsim("report", "digits.nc")
    assert (code, printed) == (0, "page  digits.html\n")
    page = (tmp_path / "digits.html").read_text(encoding="utf-8")
    assert "Handwritten digits by Hamiltonian dynamics" in page
    assert "mass = 0.2           # m; SGD" in page
    assert "git revision" in page
    assert "nlsim verify hamiltonian.backprop-limit" in page
    assert "inference." not in page.split('id="theorems"')[1].split("<script")[0], "no system of that family"
    assert len(page.encode()) < 3_000_000
    code, printed = nlsim("report", "digits.nc", "-o", "digits.nc")
    assert code == 2
    assert "would replace a run" in printed
    assert nlsim("report", "nowhere.nc")[0] == 2


@pytest.mark.parametrize(("finding", "verdict", "expected"), [("passed", "holds", 0), ("failed", "failed", 1)])
def test_verify_checks_the_theorems_now(
    nlsim: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finding: str,
    verdict: str,
    expected: int,
) -> None:
    found = Evidence(Leg.PROPERTY, "a check", Finding(finding), "less than 1", "0.5")
    short = {key: replace(each, checks=(lambda effort: found,)) for key, each in catalogue.THEOREMS.items()}
    monkeypatch.setattr(verify, "THEOREMS", short)
    assert nlsim("run", "hamiltonian/digits", *SHORT)[0] == 0
    assert nlsim("report", "digits.nc", "--verify")[0] == expected
    page = (tmp_path / "digits.html").read_text(encoding="utf-8")
    assert f'<strong class="verdict {verdict}">{verdict}</strong>' in page
    assert "less than 1" in page
    assert "Not checked for this page" not in page


def test_a_folder_has_a_row_a_run_and_says_which_file_is_refused(
    nlsim: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert nlsim("report", ".")[0] == 2, "no run in it"
    assert nlsim("run", "hamiltonian/digits", *SHORT, "--out", "a.nc")[0] == 0
    assert nlsim("run", "hamiltonian/digits", *SHORT, "--set", "system.speed=31", "--out", "b.nc")[0] == 0
    (tmp_path / "c.nc").write_text("<b>no run</b>")
    assert nlsim("report", ".") == (0, "page  report.html\n")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td><code>(.*?)</code></td>", page)
    assert rows == ["a.nc", "b.nc", "c.nc"]
    assert "<th><code>system.speed</code></th>" in page
    assert "<td>31.0</td>" in page
    assert "not an HDF5 file" in page
    names = [[line["name"] for line in chart["lines"]] for chart in figures(page)["charts"]]
    assert names == [["a.nc", "b.nc"]] * 5
