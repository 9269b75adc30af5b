"""A controller that is refused memory while it needs some."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, encode
from governor_protos.messages import Hello

from governor_bench.faults.process_limits import without_memory
from governor_bench.servers import Controller

SPARE_BYTES = 0
ENGINES = 120
"""New engines, each of which needs a session; fewer than a controller serves."""
FOR_S = 3.0


def exhaust(controller: Controller, number: int) -> int:
    """Refuse it memory for some seconds, and have it need some.

    Args:
        number: makes the names of the engines that come to it.

    Returns:
        How often it could not do what it was asked to, its own end included.
    """
    failed = 0
    with (
        zmq.Context() as context,
        without_memory(controller.pid, SPARE_BYTES),
        context.socket(zmq.DEALER) as socket,
    ):
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(controller.endpoint)
        end_s = time.monotonic() + FOR_S
        for engine in range(ENGINES):
            socket.send(encode(_hello(f"memory-{number}-{engine}")))
            failed += not socket.poll(100)
            while socket.poll(0):
                socket.recv()
            failed += not _answers(f"{controller.url}/v1/steps?last=4096")
            if not controller.is_running() or time.monotonic() > end_s:
                break
    return failed


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own URL
            return bool(reply.read(64 << 20))
    except (OSError, urllib.error.URLError):
        return False


def _hello(name: str) -> Hello:
    return Hello(
        *(PROTOCOL_MAJOR, PROTOCOL_MINOR, name, name, "0", "0", "m", 1, 0, False),
        *(8, 64, 64, 1, -1, "", [], ["branches"]),
    )
