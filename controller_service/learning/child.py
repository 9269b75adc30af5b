"""Fitting in a process of its own, one at a time: the thread that decides starts it and goes on."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from controller_service.parent import PARENT_VARIABLE

TIME_LIMIT_S = 180.0
STOP_WITHIN_S = 2.0
TOLD_CHARACTERS = 400
STOPPING = "the controller is stopping"

R = TypeVar("R")


class ChildFailed(RuntimeError):
    """The process came to nothing; says why."""


class Stopped(ChildFailed):
    """The controller stops, and the process with it."""


class ChildFits:
    """Runs work that waits for a process, in a thread that watches it.

    Args:
        name: of the thread.
        time_limit_s: after which the process is ended.
    """

    def __init__(self, name: str, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._name = name
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def start(self, work: Callable[[], R]) -> Future[R] | None:
        """Do ``work``, which may :meth:`run` a process and must not raise.

        Returns:
            What will come of it; None when other work is under way, or after :meth:`close`.
        """
        with self._lock:
            if self._busy or self._closed:
                return None
            self._busy = True
        future: Future[R] = Future()
        self._watcher = threading.Thread(
            target=self._watch, args=(work, future), name=self._name, daemon=True
        )
        self._watcher.start()
        return future

    def close(self) -> None:
        """End the process, if there is one, and wait for the work to clean up after it."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()
        if self._watcher is not None:
            self._watcher.join(STOP_WITHIN_S)

    def run(self, command: Sequence[str], given: bytes = b"") -> bytes:
        """Wait for a process, from within the work.

        Args:
            given: its standard input.

        Returns:
            Its standard output.

        Raises:
            Stopped: :meth:`close` was called.
            ChildFailed: it did not start, took too long, or ended with an error.
        """
        child = self._spawn(command)
        try:
            output, said = child.communicate(given, timeout=self._time_limit_s)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise ChildFailed(f"not done within {self._time_limit_s:g} s") from error
        finally:
            with self._lock:
                self._child = None
        if self._closed:
            raise Stopped(STOPPING)
        if child.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [""]
            raise ChildFailed(
                f"the process ended with {child.returncode}: {last[0][:TOLD_CHARACTERS]}"
            )
        return output

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise Stopped(STOPPING)
            try:
                self._child = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={
                        **os.environ,
                        "OMP_NUM_THREADS": "1",
                        PARENT_VARIABLE: str(os.getpid()),
                    },
                )
            except OSError as error:
                raise ChildFailed(f"the process did not start: {error}") from error
            return self._child

    def _watch(self, work: Callable[[], R], future: Future[R]) -> None:
        try:
            outcome = work()
        except BaseException as error:
            self._free()
            future.set_exception(error)
            raise
        self._free()
        future.set_result(outcome)

    def _free(self) -> None:
        with self._lock:
            self._busy = False
