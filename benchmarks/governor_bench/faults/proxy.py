"""Stands between engines and a controller, and does to their frames what it is told to."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import zmq
from governor_protos.limits import MAX_FRAME_BYTES

from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.lies import Lies
from governor_bench.faults.tampering import REORDER_WITHIN_S, Outgoing, Tampering

POLL_MS = 1
TO_ENGINE, TO_CONTROLLER = "to_engine", "to_controller"


class Proxy:
    """A ROUTER towards the engines and, for each engine, a DEALER of its name to the controller.

    Args:
        listens: endpoint of the engines.
        controller: endpoint of the controller.
        faults: told of every fault that took effect.
        rng: where every draw comes from.
        mix: chance of each kind for a frame, in either direction.
    """

    def __init__(
        self,
        listens: str,
        controller: str,
        faults: Faults,
        rng: Random,
        mix: Mapping[Kind, float],
    ) -> None:
        self._listens, self._controller = listens, controller
        self._faults = faults
        self._mix, self._rng = mix, rng
        self._tampering: dict[tuple[str, bytes], Tampering] = {}
        self._treated_s: dict[tuple[str, bytes], float] = {}
        self._peers: dict[bytes, zmq.Socket[bytes]] = {}
        self._due: list[tuple[float, int, str, bytes, Outgoing]] = []
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")
        self.failure: Exception | None = None
        """Why it ended before it was told to."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        context = zmq.Context()
        router = _bounded(context.socket(zmq.ROUTER))
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        path = Path(self._listens.removeprefix("ipc://"))
        try:
            path.unlink(missing_ok=True)
            router.bind(self._listens)
            while not self._stop.is_set():
                for socket, _ in poller.poll(POLL_MS):
                    self._receive(socket, router, context, poller)
                self._send_due(router)
        except (zmq.ZMQError, OSError, ValueError) as error:
            self.failure = error  # raised where the proxy is closed
        finally:
            for socket in (router, *self._peers.values()):
                socket.close()
            context.term()
            path.unlink(missing_ok=True)

    def _receive(
        self,
        socket: zmq.Socket[bytes],
        router: zmq.Socket[bytes],
        context: zmq.Context[zmq.Socket[bytes]],
        poller: zmq.Poller,
    ) -> None:
        frames = socket.recv_multipart()
        if socket is router:
            name = frames[0]
            if name not in self._peers:
                peer = _bounded(context.socket(zmq.DEALER))
                peer.setsockopt(zmq.ROUTING_ID, name)
                # Nothing is kept for a controller that is away, as an engine would keep nothing.
                peer.setsockopt(zmq.IMMEDIATE, 1)
                peer.setsockopt(zmq.RECONNECT_IVL, 50)
                peer.connect(self._controller)
                poller.register(peer, zmq.POLLIN)
                self._peers[name] = peer
                self._tamper_with(name)
            self._treat(TO_CONTROLLER, name, frames[-1])
        else:
            name = next(key for key, peer in self._peers.items() if peer is socket)
            self._treat(TO_ENGINE, name, frames[-1])

    def _tamper_with(self, name: bytes) -> None:
        lies = Lies()
        for way, forge in ((TO_ENGINE, lies.to_engine), (TO_CONTROLLER, lies.to_controller)):
            rng = Random(self._rng.getrandbits(64))
            self._tampering[way, name] = Tampering(self._mix, forge, rng)

    def _treat(self, way: str, name: bytes, frame: bytes) -> None:
        out, done = self._tampering[way, name].treat(frame)
        if done is not None:
            self._faults.add(done)
        self._treated_s[way, name] = time.monotonic()
        self._put(way, name, out)

    def _put(self, way: str, name: bytes, out: list[Outgoing]) -> None:
        now_s = time.monotonic()
        for item in out:
            entry = (now_s + item.after_s, next(self._numbers), way, name, item)
            heapq.heappush(self._due, entry)

    def _send_due(self, router: zmq.Socket[bytes]) -> None:
        now_s = time.monotonic()
        for (way, name), treated_s in self._treated_s.items():
            if now_s - treated_s > REORDER_WITHIN_S:
                held = self._tampering[way, name].give_up_held()
                self._put(way, name, [] if held is None else [Outgoing(0.0, held, None)])
        while self._due and self._due[0][0] <= now_s:
            _, _, way, name, item = heapq.heappop(self._due)
            send = self._to_controller(name) if way == TO_CONTROLLER else _to_engine(router, name)
            if send(item.frame) and item.kind is not None:
                self._faults.add(item.kind)

    def _to_controller(self, name: bytes) -> Callable[[bytes], bool]:
        def send(frame: bytes) -> bool:
            try:
                self._peers[name].send(frame, zmq.NOBLOCK)
            except zmq.Again:
                return False
            return True

        return send


def _to_engine(router: zmq.Socket[bytes], name: bytes) -> Callable[[bytes], bool]:
    def send(frame: bytes) -> bool:
        try:
            router.send_multipart([name, frame], zmq.NOBLOCK)
        except zmq.ZMQError:  # nobody of that name is there
            return False
        return True

    return send


def _bounded(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    if socket.type == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return socket
