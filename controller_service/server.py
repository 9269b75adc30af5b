"""The ROUTER socket and the loop around the controller. One thread, no locks.

Each turn takes in what is queued, answers some engines about their newest snapshots, and only then
learns from these. An engine that is ahead of the controller wants one answer, to where it is now.

Engines are answered in the order in which they began to wait; a newer snapshot takes the place of
the older. So when more is asked than can be answered, all take turns, and each answer is about a
step that is not over yet: each engine misses some, rather than every one being late.
"""

from __future__ import annotations

import logging
import time
from itertools import islice

import zmq
from governor_protos import BadFrame
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Goodbye, Hello, Snapshot

from controller_service.controller import Controller
from controller_service.garbage import Garbage
from controller_service.loop_calls import LoopCalls
from controller_service.peer_limits import STRANGERS_PER_ENGINE, PeerLimits

logger = logging.getLogger(__name__)

TICK_MS = 500
FRAMES_PER_TURN = 64
ANSWERS_PER_TURN = 8
"""Far fewer than frames, so that a loop that has fallen behind comes to the newest of them: peers
are read in turns, and as many answers as frames would answer every engine in full, always late."""
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
        self._waiting: dict[bytes, tuple[Snapshot, float]] = {}
        """Newest snapshot of each engine that waits for an answer, and when it came."""
        self._next_expiry_s = 0.0
        self._memory_was_short = False

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
                ready = dict(poller.poll(0 if self._waiting else TICK_MS))
                self.last_turn_s = time.monotonic()
                self._serve_while_there_is_memory(has_come=self._router in ready)
                if self.calls.fileno() in ready:
                    self.calls.run()
                self._keep_house(idle=not ready and not self._waiting)
        self._say_goodbye()

    def _serve_while_there_is_memory(self, *, has_come: bool) -> None:
        """A turn for which memory does not suffice costs its decisions, and no more: to engines
        that is a controller that does not answer, and the next turn may find some again."""
        try:
            if has_come:
                self._take_in()
            if self._waiting:
                self._answer_some()
        except MemoryError:
            self._waiting.clear()
            self.controller.stats.memory_errors += 1
            self._memory_was_short = True  # to say so takes memory: later
            return
        if self._memory_was_short:
            self._memory_was_short = False
            logger.error(
                "out of memory: messages of %d turns dropped so far; give the controller more",
                self.controller.stats.memory_errors,
            )

    def _take_in(self) -> None:
        for _ in range(FRAMES_PER_TURN):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(parts)

    def _answer_some(self) -> None:
        waiting = self._waiting
        some = [(identity, *waiting.pop(identity)) for identity in self._longest_waiting()]
        for identity, snapshot, received_s in some:
            reply = self.controller.answer(identity, snapshot, received_s)
            if reply is not None:
                self._send(identity, reply)
                now_s = time.monotonic()
                self.controller.answered(identity, now_s - received_s, now_s)
        for identity, snapshot, _ in some:
            self.controller.settle(identity, snapshot, time.monotonic())

    def _longest_waiting(self) -> list[bytes]:
        return list(islice(self._waiting, ANSWERS_PER_TURN))

    def _take(self, parts: list[bytes]) -> None:
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
            older = self._waiting.get(identity)
            if older is not None:
                controller.stats.superseded += 1
                controller.settle(identity, older[0], received_s)
            self._waiting[identity] = (message, received_s)  # in the older one's place
            return
        if isinstance(message, Goodbye | Hello):
            self._waiting.pop(identity, None)  # asked before it left or started anew
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
