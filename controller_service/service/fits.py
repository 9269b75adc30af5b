"""Where trees for output lengths are fitted: never in the thread that decides."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Protocol

from controller_service.learning.length_fit import fitted

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 180.0
STOP_WITHIN_S = 2.0
TOLD_CHARACTERS = 400


class LengthFits(Protocol):
    """Fits in the order of being asked, one at a time."""

    def start(self, lives: bytes) -> Future[bytes] | None:
        """See :func:`~controller_service.learning.length_fit.fitted`; None when another fit is
        running. A fit that fails gives nothing, and is logged."""
        ...


class InlineFits:
    """Fits at once, in the calling thread: for simulations, where time stands still."""

    def start(self, lives: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        future.set_result(fitted(lives))
        return future


class ProcessFits:
    """Fits in a process of its own, watched by a thread; one at a time for all engines."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._busy = self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def start(self, lives: bytes) -> Future[bytes] | None:
        with self._lock:
            if self._busy or self._closed:
                return None
            self._busy = True
        future: Future[bytes] = Future()
        self._watcher = threading.Thread(
            target=self._run, args=(lives, future), name="governor-lengths", daemon=True
        )
        self._watcher.start()
        return future

    def close(self) -> None:
        """End the process that fits, if there is one."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()
        if self._watcher is not None:
            self._watcher.join(STOP_WITHIN_S)

    def _run(self, lives: bytes, future: Future[bytes]) -> None:
        table = b""
        try:
            table = self._fit_elsewhere(lives)
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("output lengths: no trees were fitted: %s", error)
        finally:
            with self._lock:
                self._busy, self._child = False, None
            future.set_result(table)

    def _fit_elsewhere(self, lives: bytes) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", "controller_service.learning.length_fit"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        try:
            table, said = child.communicate(lives, timeout=self._time_limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise
        if child.returncode and not self._closed:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [""]
            raise subprocess.SubprocessError(
                f"the process ended with {child.returncode}: {last[0][:TOLD_CHARACTERS]}"
            )
        return b"" if child.returncode else table
