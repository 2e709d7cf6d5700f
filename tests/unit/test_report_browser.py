"""The report page in a real browser: it opens from a file without a complaint, draws, reads and zooms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from support.browser import Browser, chromium

from nlsim.report.folder import folder_row, render_folder
from nlsim.report.page import TheoremNote, render_run, save_page, view

pytestmark = pytest.mark.browser

EVIL = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>"
LONG = "word" * 60
TIMES = np.linspace(0.0, 10.0, 201)


def dataset() -> xr.Dataset:
    values = {
        "loss": ("time", 100 * np.exp(-TIMES), {"channel": "loss", "long_name": "loss L"}),
        "accuracy": ("time", TIMES / 10, {"long_name": f"accuracy {EVIL} {LONG}"}),
        "weight_1": (("time", "n"), np.sin(np.outer(TIMES, [1.0, 2.0])), {"channel": "weight/1"}),
    }
    text = f'title = "{LONG} {EVIL}"\n'
    return xr.Dataset(values, {"time": TIMES}, {"title": EVIL, "scenario": text, "versions": LONG, "ending": "steady"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.html"
    theorem = TheoremNote("family.key", "a title", f"statement {LONG}", "source", ("one", "two"))
    save_page(render_run(view(dataset(), "run.nc"), [theorem]), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder") / "report.html"
    rows = [folder_row(dataset(), name) for name in ("a.nc", f"{LONG}.nc")]
    save_page(render_folder("folder", rows, ()), path)
    return path


def opened(browser: Browser, path: Path, width: int = 1280) -> Browser:
    browser.messages()  # forgotten
    browser.size(width, 900)
    browser.get(path.as_uri())
    return browser


@pytest.mark.parametrize("kind", ["page", "folder"])
@pytest.mark.parametrize("width", [1280, 390])
def test_opens_without_complaints_and_fits(
    browser: Browser, request: pytest.FixtureRequest, kind: str, width: int
) -> None:
    window = opened(browser, request.getfixturevalue(kind), width)
    assert window.messages() == []
    assert window.run("return performance.getEntriesByType('resource').length") == 0
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.run("return window.stolen ?? null") is None
    assert window.run("return document.querySelectorAll('img').length") == 0
    lines = window.run("return [...document.querySelectorAll('path.trace')].map((p) => p.getTotalLength())")
    assert len(lines) == 4
    assert min(lines) > 100  # pixels


def test_a_complaint_would_be_seen(browser: Browser, page: Path) -> None:
    window = opened(browser, page)
    window.run("console.error('seen'); const img = new Image(); img.src = 'http://127.0.0.1:9/x.png';")
    told = "\n".join(window.messages())
    assert "seen" in told
    assert "Content Security Policy" in told, "the page may fetch nothing"


def box(window: Browser, number: int = 0) -> tuple[float, float, float, float]:
    script = "const r = document.querySelectorAll('.chart > svg')[arguments[0]].getBoundingClientRect();"
    x, y, width, height = window.run(script + "return [r.left, r.top, r.width, r.height]", number)
    return x, y, width, height


def shown_times(window: Browser, number: int = 0) -> list[float]:
    script = """const svg = document.querySelectorAll('.chart > svg')[arguments[0]];
    return [...svg.querySelectorAll('text[text-anchor=middle]')].slice(0, -1).map((t) => Number(t.textContent))"""
    return list(window.run(script, number))


def test_hovering_reads_the_value_under_the_pointer(browser: Browser, page: Path) -> None:
    window = opened(browser, page)
    x, y, width, height = box(window)
    inside = width - 58 - 10  # between the margins of chart.js
    window.pointer(("move", x + 58 + 0.3 * inside, y + height / 2))
    text = window.run("const t = document.querySelector('.chart .tip'); return t.hidden ? '' : t.innerText")
    head, line = text.splitlines()
    seen = float(head.removeprefix("t = "))
    assert seen == pytest.approx(3.0, abs=0.05)  # the nearest frame, one each 0.05
    assert float(line.rpartition(" ")[2]) == pytest.approx(100 * np.exp(-seen), rel=1e-4)  # five digits are shown
    left, top = window.run("const t = document.querySelector('.tip').getBoundingClientRect(); return [t.left, t.top]")
    assert left == pytest.approx(x + 58 + seen / 10 * inside + 12, abs=1.5)  # 12 pixels right of the frame's line
    assert y <= top <= y + height


def test_dragging_zooms_all_figures_and_a_double_click_shows_all(browser: Browser, page: Path) -> None:
    window = opened(browser, page)
    before = shown_times(window)
    assert (before[0], before[-1]) == (0.0, 10.0)
    x, y, width, height = box(window)
    inside = width - 58 - 10
    a, b = (x + 58 + share * inside for share in (0.4, 0.6))
    window.pointer(
        ("move", a, y + 50), ("down", 0, 0), ("move", (a + b) / 2, y + 60), ("move", b, y + 70), ("up", 0, 0)
    )
    for number in (0, 2):
        times = shown_times(window, number)
        assert 4.0 <= times[0] < times[-1] <= 6.0
    middle = (x + width / 2, y + height / 2)
    click = [("down", 0, 0), ("up", 0, 0)]
    window.pointer(("move", *middle), *click, *click)
    assert shown_times(window) == before


def test_buttons_zoom_and_change_the_axis(browser: Browser, page: Path) -> None:
    window = opened(browser, page)
    press = "document.querySelector(`.chart button[title='${arguments[0]}']`).click()"
    path = "return document.querySelector('path.trace').getAttribute('d')"
    before = window.run(path)
    window.run(press, "zoom in")
    assert shown_times(window)[0] >= 2.5
    window.run(press, "show all")
    assert window.run(path) == before
    window.run(press, "logarithmic or linear")
    linear = window.run(path)
    assert linear != before
    # the loss falls e-fold a unit of time: a straight line on the logarithmic axis only
    for text, is_straight in ((before, True), (linear, False)):
        points = np.array([pair.split(" ") for pair in text.replace("h0", "").strip("M").split("L")], dtype=float)
        chord = np.interp(points[:, 0], points[[0, -1], 0], points[[0, -1], 1])
        assert (np.abs(points[:, 1] - chord).max() < 0.2) == is_straight  # drawn to a tenth of a pixel


def test_links_lead_to_the_figures(browser: Browser, page: Path) -> None:
    window = opened(browser, page)
    targets = window.run("return [...document.querySelectorAll('#channels a')].map((a) => a.hash)")
    assert targets == ["#figure-1", "#figure-2", "#figure-3"]
    assert all(window.run("return document.querySelector(arguments[0]) !== null", target) for target in targets)
