"""The controller's records of a stretch of steps."""

from __future__ import annotations

import time
from typing import Any

from governor_bench.eval.running_engine import PUBLISHED_AFTER_S, last_step
from governor_bench.servers import Controller

DECODE = 0
TOLD_AFTER_S = 0.3
"""An engine tells of its last steps with its next snapshot, at the eighth step or when idle."""

Record = dict[str, Any]

__all__ = ["DECODE", "PUBLISHED_AFTER_S", "Record", "decode_since", "last_step"]


def decode_since(controller: Controller, since: int) -> list[Record]:
    """Records of pure decode after step ``since``, oldest first, as far as they are remembered."""
    time.sleep(TOLD_AFTER_S)
    return [
        record
        for record in controller.steps()
        if record["step"] > since and record["kind"] == DECODE and record["latency_s"] > 0
    ]
