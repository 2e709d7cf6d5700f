"""Asked to stop: Ctrl-C, SIGTERM and a closed terminal end a run where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "the terminal was closed"}


class Stop:
    """Whether somebody asked a run to stop, and how.

    Attributes
    ----------
    reason : str
        Empty until then.
    """

    reason: str = ""

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first one asks, a second Ctrl-C does not wait.

        Raises
        ------
        KeyboardInterrupt
            At a second Ctrl-C.
        """
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = self.reason or _NAMES[signal.Signals(number).name]


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen while a run goes; signals that somebody else listens to or ignores are left to them.

    Outside the main thread nothing is heard, and Ctrl-C stays what it is there.
    """
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)  # Windows has fewer
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop.hear)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
