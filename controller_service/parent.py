"""Ends a process with the process that started it, however that one ends.

Otherwise a worker of a pool whose owner was killed waits for work for ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait

PARENT_VARIABLE = "_GOVERNOR_PARENT"
"""Process id of the process that started this one, where ``multiprocessing`` did not. A process is
told it, because its parent may have ended before it could ask."""
LOOK_EVERY_S = 0.5


def end_with_parent() -> None:
    """From now on, end this process as soon as its parent has ended.

    Does nothing in a process that was started neither by ``multiprocessing`` nor with
    ``PARENT_VARIABLE``.
    """
    parent = parent_process()
    told = os.environ.pop(PARENT_VARIABLE, "")
    if parent is not None:
        sentinel = parent.sentinel  # the kernel closes it with the parent
        _watch(lambda: bool(wait([sentinel])))
    elif told:
        _watch(lambda: _is_orphan(int(told)))


def _is_orphan(parent_pid: int) -> bool:
    if os.getppid() != parent_pid:
        return True
    time.sleep(LOOK_EVERY_S)
    return False


def _watch(parent_is_gone: Callable[[], bool]) -> None:
    def watch() -> None:
        while not parent_is_gone():
            continue
        os._exit(1)

    threading.Thread(target=watch, name="governor-parent", daemon=True).start()
