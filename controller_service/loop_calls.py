"""Calls from other threads, run on the loop's thread between two snapshots.

The controller's state belongs to one thread and needs no lock. Whoever else wants to read or change
it hands in a function, and waits for its result here rather than on the hot path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

CALLS_PER_TURN = 16


class LoopCalls:
    """A queue of calls and a pipe that wakes the loop. The pipe's ends never block."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)

    def fileno(self) -> int:
        """Readable when there are calls to run."""
        return self._read_fd

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have ``function`` run on the loop's thread. Safe from any thread."""
        future: Future[T] = Future()
        self._queue.put((future, function))
        self.wake()
        return future

    def wake(self) -> None:
        """Make the loop turn. Safe from any thread and from a signal handler."""
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:
            return  # so full of wake-ups that the loop wakes anyway

    def run(self) -> None:
        """Run what was handed in, a bounded number of calls; on the loop's thread."""
        os.read(self._read_fd, 4096)
        for _ in range(CALLS_PER_TURN):
            try:
                future, function = self._queue.get_nowait()
            except Empty:
                return
            _run(future, function)
        self.wake()

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


def _run(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the result
        future.set_exception(error)
