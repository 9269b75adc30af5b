"""Who has come off badly: a share of the places goes to them, so that nobody pays for all others.

Shortest first leaves the longest for last, and while a queue is deep that is very late. Serving all
who are late at once is no remedy: in a deep queue they all are, and it is first come, first served
again. So they get a share of the places, whatever the queue is like, and the others the rest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from controller_service.columns import Mask
from controller_service.predictors.base import Floats
from controller_service.service.state import Service


def latency_s(service: Service, remaining_s: Floats) -> Floats:
    """What each request's latency comes to if it is served from now on, shape ``(n,)``."""
    seconds: Floats = service.attained_s + service.waited_s + remaining_s
    return seconds


def late(queue_s: Floats, rows_s: Floats, factor: float) -> tuple[Mask, Mask]:
    """Who will have taken more than ``factor`` times the mean of all that are there.

    Args:
        queue_s: latencies of those who wait, as :func:`latency_s` gives them.
        rows_s: of those who run.

    Returns:
        Of those who wait, and of those who run.
    """
    limit_s = factor * np.concatenate([queue_s, rows_s]).mean()
    return queue_s > limit_s, rows_s > limit_s


def let_in(waiting: Mask, running: int, age_s: npt.NDArray[Any], places: float) -> Mask:
    """The oldest of those who wait and are late, as many as have a place kept for them.

    Args:
        waiting: who is late, shape ``(waiting,)``.
        running: how many late ones run already.
        places: kept for late ones.
    """
    kept = max(math.ceil(places) - running, 0)
    found = np.zeros_like(waiting)
    which = np.flatnonzero(waiting)
    found[which[(-age_s[which]).argsort(kind="stable")][:kept]] = True
    return found
