"""A relay between engines and a controller through which both speak an earlier contract."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import zmq
from governor_protos import encode
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Goodbye
from governor_protos.version import PROTOCOL_MINOR

from governor_bench.upgrade.contracts import as_of

POLL_MS = 50


class Relay:
    """Listens where engines connect, and passes their frames on, each engine under its own name.

    Args:
        front: endpoint that engines connect to; bound here.
        back: endpoint of the controller; it may come and go.
    """

    def __init__(self, front: str, back: str) -> None:
        self._back = back
        self._context = zmq.Context()
        self._engines = self._context.socket(zmq.ROUTER)
        self._engines.setsockopt(zmq.LINGER, 0)
        self._engines.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._engines.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._engines.bind(front)
        self._controllers: dict[bytes, zmq.Socket[bytes]] = {}
        self._minor = self._wanted = PROTOCOL_MINOR
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.frames = 0

    def speak(self, minor: int) -> None:
        """Cut frames to contract 1.``minor`` from now on; engines are made to introduce themselves
        again, as if the other side had been replaced."""
        self._wanted = minor

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._engines, zmq.POLLIN)
        while not self._stopping.is_set():
            if self._wanted != self._minor:
                self._minor = self._wanted
                self._part()
            ready = dict(poller.poll(POLL_MS))
            if self._engines in ready:
                identity, frame = self._engines.recv_multipart()
                self._pass_on(self._controller(identity, poller), frame)
            for identity, controller in self._controllers.items():
                if controller in ready:
                    self._engines.send_multipart([identity, self._cut(controller.recv())])
        for socket in (self._engines, *self._controllers.values()):
            socket.close(linger=0)
        self._context.term()

    def _controller(self, identity: bytes, poller: zmq.Poller) -> zmq.Socket[bytes]:
        if identity not in self._controllers:
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.ROUTING_ID, identity)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.setsockopt(zmq.RECONNECT_IVL, 50)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
            socket.connect(self._back)
            poller.register(socket, zmq.POLLIN)
            self._controllers[identity] = socket
        return self._controllers[identity]

    def _pass_on(self, controller: zmq.Socket[bytes], frame: bytes) -> None:
        try:
            controller.send(self._cut(frame), zmq.NOBLOCK)
        except zmq.Again:
            return  # nobody there, as if the engine had found that out itself
        self.frames += 1

    def _cut(self, frame: bytes) -> bytes:
        return frame if self._minor == PROTOCOL_MINOR else as_of(frame, self._minor)

    def _part(self) -> None:
        farewell = encode(Goodbye(reason="replaced"))
        for identity, controller in self._controllers.items():
            self._pass_on(controller, farewell)
            self._engines.send_multipart([identity, farewell])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
