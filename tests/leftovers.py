"""Finds what a starter of processes has left running, by a variable that all of them inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

MARK = "STARTED_BY_TEST"
PATIENCE_S = 400.0
"""How long a test waits for something that must happen. No test measures time."""


class Starter:
    """A process that starts others, and all that descend from it."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._output = output
        with output.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def started(self) -> dict[int, str]:
        """Command lines of the processes that descend from the starter and run, by process id."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == self.pid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self._mark:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def runs(self, word: str) -> bool:
        """Whether a descendant has ``word`` in its command line."""
        return any(word in line for line in self.started().values())

    def wait_for(self, holds: Callable[[], bool], complaint: str) -> None:
        """Wait until it holds; the starter must live until then."""
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, f"the starter has ended:\n{self.said()[-3000:]}"
            assert time.monotonic() < end_s, f"{complaint}:\n{self.said()[-3000:]}"
            time.sleep(0.05)

    def assert_nothing_is_left_after(self, number: signal.Signals) -> None:
        """Send the signal to the starter alone. It ends, and so does all that it has started."""
        os.kill(self.pid, number)
        end_s = time.monotonic() + PATIENCE_S
        while self.process.poll() is None or self.started():
            left = {self.pid: "the starter"} if self.process.poll() is None else self.started()
            assert time.monotonic() < end_s, f"left after {number.name}: {left}"
            time.sleep(0.05)


@contextlib.contextmanager
def starter(command: Sequence[str], folder: Path) -> Iterator[Starter]:
    """Start it; at the end, kill whatever a failed test has left."""
    started = Starter(command, folder / "starter.log")
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pid in started.started():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]
