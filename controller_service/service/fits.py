"""Where trees for output lengths are fitted: never in the thread that decides."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import Future
from typing import Protocol

from controller_service.learning.child import TIME_LIMIT_S, ChildFailed, ChildFits, Stopped
from controller_service.learning.length_fit import fitted

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "controller_service.learning.length_fit")


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
        self._fits = ChildFits("governor-lengths", time_limit_s)

    def start(self, lives: bytes) -> Future[bytes] | None:
        return self._fits.start(lambda: self._table(lives))

    def close(self) -> None:
        """End the process that fits, if there is one."""
        self._fits.close()

    def _table(self, lives: bytes) -> bytes:
        try:
            return self._fits.run(COMMAND, lives)
        except Stopped:
            return b""
        except ChildFailed as error:
            logger.warning("output lengths: no trees were fitted: %s", error)
            return b""
