"""The ROUTER socket and the loop around the controller. One thread, no locks.

Each turn takes in what is queued, answers the newest snapshot of each engine, and only then learns
from all of them. An engine that is ahead of the controller wants one answer, to where it is now.
"""

from __future__ import annotations

import time

import zmq
from governor_protos import BadFrame
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Goodbye, Snapshot

from controller_service.controller import Controller
from controller_service.garbage import Garbage
from controller_service.loop_calls import LoopCalls
from controller_service.peer_limits import STRANGERS_PER_ENGINE, PeerLimits

TICK_MS = 500
FRAMES_PER_TURN = 64
"""Taken in at a turn at most, beside what follows."""
BACKLOG_FRAMES = 16
"""Likewise, for each engine. Peers are read in turns, so a turn that took in fewer than all that
wait would never come to the newest frame of any once the loop has fallen behind: each engine would
be answered in full, and too late for ever."""
HIGH_WATER_MARK = 1024
EXPIRE_EVERY_S = 1.0
FAREWELL_MS = 200
"""How long a goodbye may take to leave when the socket closes."""


def make_router(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    # A reconnecting engine keeps its identity: the new connection takes over from the old one.
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)
    router.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    router.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    router.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    return router


class Server:
    """Moves frames between a ROUTER socket and a :class:`Controller`."""

    def __init__(self, controller: Controller, router: zmq.Socket[bytes], calls: LoopCalls) -> None:
        self.controller = controller
        self.calls = calls
        self.started_s = time.monotonic()
        self.last_turn_s = self.started_s
        """When the loop last turned; other threads read it to tell whether it still does."""
        self._router = router
        self._stopping = False
        self._garbage = Garbage()
        config = controller.config
        self._limits = PeerLimits(
            config.peer_frames_per_s,
            config.peer_mb_per_s << 20,
            STRANGERS_PER_ENGINE * config.max_engines,
        )
        self._next_expiry_s = 0.0

    def stop(self) -> None:
        """End :meth:`run` soon. Safe from any thread and from a signal handler."""
        self._stopping = True
        self.calls.wake()

    def run(self) -> None:
        """Serve until :meth:`stop`, then tell the engines."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self.calls.fileno(), zmq.POLLIN)
        with self._garbage:
            while not self._stopping:
                ready = dict(poller.poll(TICK_MS))
                self.last_turn_s = time.monotonic()
                if self._router in ready:
                    self._serve()
                if self.calls.fileno() in ready:
                    self.calls.run()
                self._keep_house(idle=not ready)
        self._say_goodbye()

    def _serve(self) -> None:
        newest: dict[bytes, tuple[Snapshot, float]] = {}
        for _ in range(FRAMES_PER_TURN + BACKLOG_FRAMES * len(self.controller.sessions)):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._take(parts, newest)
        for identity, (snapshot, received_s) in newest.items():
            reply = self.controller.answer(identity, snapshot, received_s)
            if reply is not None:
                self._send(identity, reply)
                now_s = time.monotonic()
                self.controller.answered(identity, now_s - received_s, now_s)
        for identity, (snapshot, _) in newest.items():
            self.controller.settle(identity, snapshot, time.monotonic())

    def _take(self, parts: list[bytes], newest: dict[bytes, tuple[Snapshot, float]]) -> None:
        received_s = time.monotonic()
        controller, identity = self.controller, parts[0]
        size = sum(map(len, parts[1:]))
        if (limit := self._limits.exceeded(identity, size, received_s)) is not None:
            controller.note_excess(identity, limit, received_s)
            return
        try:
            if len(parts) != 2:
                raise BadFrame(f"a message is one frame, this one has {len(parts) - 1}")
            message = controller.read(parts[1])
        except BadFrame as error:
            self._send(identity, controller.refuse_frame("undecodable", error, received_s))
            return
        if isinstance(message, Snapshot):
            older = newest.pop(identity, None)
            if older is not None:
                controller.stats.superseded += 1
                controller.settle(identity, older[0], received_s)
            newest[identity] = (message, received_s)
            return
        if isinstance(message, Goodbye):
            newest.pop(identity, None)
        self._send(identity, controller.answer(identity, message, received_s))

    def _send(self, identity: bytes, reply: bytes | None) -> None:
        # A ROUTER never blocks here: it drops what a gone or choked peer will not take.
        if reply is not None:
            self._router.send_multipart((identity, reply), zmq.NOBLOCK)

    def _keep_house(self, *, idle: bool) -> None:
        self._garbage.collect_if_due(self.last_turn_s, idle=idle)
        if self.last_turn_s >= self._next_expiry_s:
            self._next_expiry_s = self.last_turn_s + EXPIRE_EVERY_S
            self.controller.keep_house(self.last_turn_s)

    def _say_goodbye(self) -> None:
        for identity, frame in self.controller.farewells():
            self._send(identity, frame)
        self._router.setsockopt(zmq.LINGER, FAREWELL_MS)
