"""A controller that hears an engine out and, unless told otherwise, lets every row run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, decode_to_controller, encode
from governor_protos.messages import Decision, Hello, RequestEnd, Snapshot, StepFeedback, Welcome


@dataclass
class Heard:
    """What the engine has said so far."""

    hello: Hello | None = None
    ended: list[RequestEnd] = field(default_factory=list)
    feedback: list[StepFeedback] = field(default_factory=list)

    def wait(self, holds: Callable[[Heard], bool], complaint: str, timeout_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not holds(self):
            assert time.monotonic() < deadline_s, complaint
            time.sleep(0.02)


Decide = Callable[[Snapshot], Decision]


def every_row_runs(asked: Snapshot) -> Decision:
    return Decision(asked.for_step, 4, b"", [], "none", 0, 0, 0, 0)


@contextlib.contextmanager
def listening(folder: Path, decide: Decide = every_row_runs) -> Iterator[Heard]:
    """Listen at ``controller.sock`` in ``folder``."""
    heard, stop = Heard(), threading.Event()
    path = folder / "controller.sock"

    def serve() -> None:
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        path.unlink(missing_ok=True)
        router.bind(f"ipc://{path}")
        while not stop.is_set():
            if not router.poll(5):
                continue
            peer, frame = router.recv_multipart()
            message = decode_to_controller(frame)
            if isinstance(message, Hello):
                router.send_multipart(
                    [
                        peer,
                        encode(Welcome(PROTOCOL_MAJOR, PROTOCOL_MINOR, "ear", "0", "none", 4096)),
                    ]
                )
                heard.hello = message
            elif isinstance(message, Snapshot):
                heard.ended += message.ended
                heard.feedback += message.feedback
                router.send_multipart([peer, encode(decide(message))])
        router.close()
        context.term()
        path.unlink(missing_ok=True)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()
