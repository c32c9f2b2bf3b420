"""A run that is asked to stop: by SIGTERM or Ctrl-C at its next safe point, by a second Ctrl-C at once.

Standard library only.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class StopSignals:
    """Takes SIGTERM and SIGINT while a run works, and remembers that somebody asked it to stop.

    Args:
        pass_on: Where another process does the work: gives it each signal. That process says and does all else.
    """

    def __init__(self, pass_on: Callable[[int], None] | None = None) -> None:
        self._pass_on = pass_on
        self._asked = threading.Event()
        self._num_interrupts = 0
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether the run shall stop at the next safe point."""
        return self._asked.is_set()

    def take(self) -> None:
        """Handle both signals from here on, where Python allows that: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def give_back(self) -> None:
        """Let those handle them that did before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker inherits this handler, and has to end when its pool says so
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._asked.set()
        if self._pass_on is not None:
            self._pass_on(number)
            return
        if number == signal.SIGINT:
            self._num_interrupts += 1
        if self._num_interrupts > 1:
            raise KeyboardInterrupt
        hint = " (press Ctrl-C again to stop at once)" if number == signal.SIGINT else ""
        # os.write, because a print inside a handler may meet the lock of a print that it interrupted.
        os.write(2, f"\nThe run stops at the next safe point and saves its work{hint}.\n".encode())
