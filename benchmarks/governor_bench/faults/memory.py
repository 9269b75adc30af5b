"""A controller that is refused memory while it needs some."""

from __future__ import annotations

import time

import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, encode
from governor_protos.columns import ITEM_BYTES, ROW_COLUMNS, pack
from governor_protos.limits import MAX_ROWS
from governor_protos.messages import Hello, Rows, Snapshot

from governor_bench.faults.process_limits import without_memory
from governor_bench.servers import Controller

SPARE_BYTES = 0
ENGINES = 100
"""New engines, each of which needs a session; fewer than a controller serves."""
SNAPSHOTS = 8
"""Of each, as large as they may be."""
FOR_S = 3.0
ANSWERED_WITHIN_MS = 100


def exhaust(controller: Controller, number: int) -> int:
    """Refuse it memory, and have it need some, until it fails for want of it or some seconds are
    over.

    Args:
        number: makes the names of the engines that come to it.

    Returns:
        How often it failed: turns of its loop that ended early, or its own end.
    """
    before = int(controller.status()["memory_errors"])
    with zmq.Context() as context, without_memory(controller.pid, SPARE_BYTES):
        end_s = time.monotonic() + FOR_S
        for engine in range(ENGINES):
            name = f"memory-{number}-{engine}"
            with context.socket(zmq.DEALER) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.ROUTING_ID, name.encode())
                socket.connect(controller.endpoint)
                socket.send(encode(_hello(name)))
                for step in range(1, SNAPSHOTS + 1):
                    socket.send(encode(_large(step)))
                    if socket.poll(ANSWERED_WITHIN_MS):
                        socket.recv()
            if not controller.is_running() or time.monotonic() > end_s:
                break
    if not controller.is_running():
        return 1
    return int(controller.status()["memory_errors"]) - before


def _hello(name: str) -> Hello:
    return Hello(
        *(PROTOCOL_MAJOR, PROTOCOL_MINOR, name, name, "0", "0", "m", 1, 0, False),
        *(MAX_ROWS, 1 << 20, 1 << 20, 1, -1, "", [], ["branches"]),
    )


def _large(step: int) -> Snapshot:
    columns = {name: bytes(MAX_ROWS * ITEM_BYTES[code]) for name, code in ROW_COLUMNS.items()}
    columns["request_id"] = pack("I", range(1, MAX_ROWS + 1))
    return Snapshot(step, Rows(**columns), 1, 1 << 20, 0, 0, [], 0)
