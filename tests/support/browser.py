"""A headless Chromium, spoken to by the W3C WebDriver protocol: the few commands that a test of a page needs."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def is_there() -> bool:
    """Whether Chromium and its driver are installed."""
    return CHROMIUM is not None and DRIVER is not None


class Browser:
    """One window.

    Parameters
    ----------
    address : str
        Of the driver's session.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self._ask("POST", "url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page and return what it returns."""
        return self._ask("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def size(self, width: int, height: int) -> None:
        """Give the page this many pixels, as a telephone of that width would."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("POST", "goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def messages(self) -> list[str]:
        """Return what was written to the console, errors of the network and of policies included, and forget it."""
        return [f"{each['level']}: {each['message']}" for each in self._ask("POST", "se/log", {"type": "browser"})]

    def pointer(self, *moves: tuple[str, float, float]) -> None:
        """Move a mouse: ``("move", x, y)``, ``("down", 0, 0)``, ``("up", 0, 0)``, in pixels of the window."""
        kinds = {"move": "pointerMove", "down": "pointerDown", "up": "pointerUp"}
        actions: list[dict[str, Any]] = []
        for kind, x, y in moves:
            place = {"x": round(x), "y": round(y), "duration": 30} if kind == "move" else {"button": 0}
            actions.append({"type": kinds[kind], **place})
        self._ask("POST", "actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self._ask("GET", "screenshot")))

    def _ask(self, method: str, command: str, values: dict[str, Any] | None = None) -> Any:
        return ask(method, f"{self.address}/{command}", values)


def ask(method: str, url: str, values: dict[str, Any] | None = None) -> Any:
    """Send a command to the driver and return the value of its answer."""
    body = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    # straight to this machine, whatever proxy the environment names
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:500]}") from None


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile, and end it."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        base = f"http://127.0.0.1:{_port(driver)}"
        chrome = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        session = ask("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})
        address = f"{base}/session/{session['sessionId']}"
        try:
            yield Browser(address)
        finally:
            ask("DELETE", address)
    finally:
        driver.terminate()
        driver.wait(timeout=30)
        assert driver.stdout is not None
        driver.stdout.close()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    until = time.monotonic() + 60
    while time.monotonic() < until:
        line = driver.stdout.readline()
        if "started successfully on port" in line:
            return int(line.rstrip(".\n").rpartition(" ")[2])
        if not line:
            break
    raise AssertionError("chromedriver did not start")
