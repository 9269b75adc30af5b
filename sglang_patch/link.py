"""The engine's end of the wire: introduce, ask without waiting, keep the newest answer."""

from __future__ import annotations

import logging
import time
from enum import Enum

import zmq
from governor_protos import OURS, BadFrame, decode_to_engine, encode
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Decision, Goodbye, Hello, Refusal, Snapshot, Welcome, Wire
from governor_protos.version import describe

from sglang_patch.breaker import BreakerState, CircuitBreaker
from sglang_patch.fallback import FallReason
from sglang_patch.holds import HoldMeter
from sglang_patch.keys import Keys

logger = logging.getLogger(__name__)

MAX_DRAIN = 32
"""Frames read in one poll; what is left waits for the next step."""
HWM = 16
MAX_IDENTITY = 255
"""The most bytes that ZeroMQ takes as the identity of a socket."""
HELLO_INTERVAL_S = 0.25
KEEP_ALIVE_S = 5.0
"""An engine that asks nothing introduces itself this often, so that a controller that was
restarted meanwhile is found before the next request, not by it."""
POLL_PAUSE_S = 5e-5
REFUSED_RETRY_S = 10.0
RENEW_S = 10.0
"""After so long without a word the connection is made anew. ZeroMQ gives up for good on a peer that
broke its protocol, as by a frame above the limit, or whose key was refused."""


class LinkState(Enum):
    INTRODUCING = "introducing"
    READY = "ready"
    REFUSED = "refused"


class ControllerLink:
    """A DEALER socket to one controller. No call ever blocks except :meth:`wait`, which is bounded.

    Args:
        endpoint: ZeroMQ address of the controller.
        hello: how this engine introduces itself; sent again whenever the controller forgot it.
        breaker: decides when to stop asking.
        keys: for an encrypted connection; ``None``: in the clear.
        holds: told of each wait, where anybody wants to know.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Hello,
        breaker: CircuitBreaker,
        keys: Keys | None = None,
        holds: HoldMeter | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._hello = encode(hello)
        self._breaker = breaker
        self._context = zmq.Context(io_threads=1)
        self._identity = _identity(hello)
        self._keys = keys
        self._holds = holds
        self._socket = self._connected()
        self._unheard_since_s: float | None = None
        """When it first spoke after it last heard something; ``None`` while it has not spoken."""
        self._told_of_keys = False
        self._next_hello_s = 0.0
        self._unanswered = False
        self._garbage = False
        self._asked_step = -1
        self._may_probe = False
        self.state = LinkState.INTRODUCING
        self.decision: Decision | None = None
        """The newest valid decision."""
        self.invalid_replies = 0

    @property
    def breaker(self) -> CircuitBreaker:
        return self._breaker

    def trouble(self) -> FallReason:
        """Why there might be no fresh decision right now."""
        if self._garbage:
            return FallReason.INVALID
        if self.state is LinkState.REFUSED:
            return FallReason.REFUSED
        if self._breaker.state is not BreakerState.CLOSED:
            return FallReason.BREAKER_OPEN
        if self.state is LinkState.INTRODUCING:
            return FallReason.DISCONNECTED
        return FallReason.NO_REPLY

    def poll(self, now_s: float) -> None:
        """Read what has arrived and keep the connection going; never blocks."""
        for _ in range(MAX_DRAIN):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._receive(frames, now_s)
        if self._breaker.take_probe(now_s):
            # The next snapshot may be asked about, should the controller still know this engine;
            # introducing it again costs little and serves the case that it does not.
            self._may_probe = True
            self._introduce(now_s)
        elif now_s >= self._next_hello_s and self.state is not LinkState.READY:
            self._introduce(now_s)

    def keep_alive(self, now_s: float) -> None:
        """For an idle engine: read what has arrived, and introduce the engine now and then."""
        self.poll(now_s)
        if self.state is LinkState.READY and now_s >= self._next_hello_s:
            self._next_hello_s = now_s + KEEP_ALIVE_S
            if self._is_deaf(now_s) or not self._send(self._hello, now_s):
                self._introduce_anew(now_s)

    def wait(self, for_step: int, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` for the decision on ``for_step``, if one is being made."""
        if not self._waits_for(for_step):
            return
        if self._holds is not None:
            self._holds.begin_wait()
        pauses, paused_s = self._pause_until_answered(for_step, timeout_s)
        if self._holds is not None:
            self._holds.end_wait(pauses, paused_s, timeout_s)

    def _pause_until_answered(self, for_step: int, timeout_s: float) -> tuple[int, float]:
        """Returns how often it paused, and for how many seconds in all it asked to."""
        now_s = time.perf_counter()
        deadline_s = now_s + timeout_s
        pauses, paused_s = 0, 0.0
        while now_s < deadline_s and self._waits_for(for_step):
            # ZeroMQ's own timeouts are whole milliseconds, most of what there is to wait.
            pause_s = min(POLL_PAUSE_S, deadline_s - now_s)
            time.sleep(pause_s)
            pauses, paused_s = pauses + 1, paused_s + pause_s
            now_s = time.perf_counter()
            self.poll(now_s)
        return pauses, paused_s

    def _waits_for(self, step: int) -> bool:
        return self._unanswered and self.is_asking and not self.has_fresh(step)

    @property
    def is_asking(self) -> bool:
        allowed = self._breaker.allows_question() or self._may_probe
        return self.state is LinkState.READY and allowed

    def has_fresh(self, step: int) -> bool:
        return self.decision is not None and self.decision.for_step == step

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        """Send a snapshot if the controller is worth asking. Returns whether it left."""
        if self._unanswered and self._breaker.record_miss(now_s):
            logger.warning(
                "Governor: the controller at %s does not answer; running as stock until it does",
                self._endpoint,
            )
        if not self.is_asking:
            return False
        self._unanswered = True
        self._may_probe = False
        self._asked_step = snapshot.for_step
        if self._send(encode(snapshot), now_s):
            return True
        self._introduce_anew(now_s)
        return False

    def close(self, reason: str) -> None:
        self._send(encode(Goodbye(reason=reason)), time.perf_counter())
        self._socket.close(linger=50)
        self._context.term()

    def _connected(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, self._identity)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, HWM)
        socket.setsockopt(zmq.RCVHWM, 4 * HWM)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        # Queue nothing for a controller that is not there: an old snapshot is worth nothing.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        if (keys := self._keys) is not None:
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(keys.secret))
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.controller_public)
        socket.connect(self._endpoint)
        return socket

    def _is_deaf(self, now_s: float) -> bool:
        since_s = self._unheard_since_s
        return since_s is not None and now_s - since_s >= RENEW_S

    def _renew(self, now_s: float) -> None:
        """Connect anew."""
        if self._keys is not None and not self._told_of_keys:
            logger.warning(
                "Governor: no controller at %s, or its key or this engine's is refused "
                "(GOVERNOR_CONTROLLER_KEY_FILE, GOVERNOR_KEY_FILE, the controller's "
                "engine_keys); running as stock",
                self._endpoint,
            )
        self._told_of_keys = True
        self._socket.close(linger=0)
        self._socket = self._connected()
        self._unheard_since_s = None
        if self.state is LinkState.READY:
            self.state = LinkState.INTRODUCING  # it may have been forgotten meanwhile

    def _introduce_anew(self, now_s: float) -> None:
        if self.state is LinkState.READY:
            self.state = LinkState.INTRODUCING
            self._garbage = False  # what it last said is no longer what is wrong
            self._next_hello_s = now_s
            logger.warning("Governor: lost the controller at %s; running as stock", self._endpoint)

    def _introduce(self, now_s: float) -> None:
        if self._is_deaf(now_s):
            self._renew(now_s)
            self._next_hello_s = now_s + HELLO_INTERVAL_S  # it takes a moment to connect
            return
        retry = REFUSED_RETRY_S if self.state is LinkState.REFUSED else HELLO_INTERVAL_S
        self._next_hello_s = now_s + retry
        self._send(self._hello, now_s)

    def _send(self, frame: bytes, now_s: float) -> bool:
        if self._unheard_since_s is None:
            self._unheard_since_s = now_s
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _receive(self, frames: list[bytes], now_s: float) -> None:
        self._unheard_since_s = None
        self._told_of_keys = False
        try:
            if len(frames) != 1:
                raise BadFrame(f"a message has one frame, got {len(frames)}")
            message: Wire = decode_to_engine(frames[0])
        except BadFrame as error:
            self._receive_garbage(str(error), now_s)
            return
        if isinstance(message, Decision):
            self._receive_decision(message, now_s)
        elif isinstance(message, Welcome):
            self._receive_welcome(message)
        elif isinstance(message, Refusal):
            self._receive_refusal(message, now_s)
        else:
            self.state = LinkState.INTRODUCING
            self._garbage = False
            self._next_hello_s = now_s + HELLO_INTERVAL_S
            logger.warning("Governor: the controller left; running as stock")

    def _receive_garbage(self, problem: str, now_s: float) -> None:
        self.invalid_replies += 1
        if not self._garbage:
            logger.warning("Governor: a reply of the controller cannot be used: %s", problem)
        self._garbage = True
        self._unanswered = False  # it was answered, if badly: one question, one miss
        if self._breaker.record_miss(now_s):
            logger.warning("Governor: too many unusable replies; running as stock")

    def _receive_decision(self, decision: Decision, now_s: float) -> None:
        if decision.for_step > self._asked_step:
            # Kept, it would outrank every real decision from here on.
            self._receive_garbage(f"decision for step {decision.for_step}, never asked", now_s)
            return
        self._unanswered = False
        self._garbage = False
        if self._breaker.record_answer():
            logger.warning("Governor: the controller decides again")
        if self.decision is None or decision.for_step >= self.decision.for_step:
            self.decision = decision

    def _receive_welcome(self, welcome: Welcome) -> None:
        # A handshake closes no breaker: a controller may greet and yet never decide.
        self._unanswered = False
        if self.state is not LinkState.READY:
            logger.info(
                "Governor: governed by controller %s (protocol %d.%d, policy %s)",
                welcome.controller_version,
                welcome.protocol_major,
                welcome.protocol_minor,
                welcome.policy,
            )
        self.state = LinkState.READY

    def _receive_refusal(self, refusal: Refusal, now_s: float) -> None:
        if refusal.reason == "unknown_engine":
            self.state = LinkState.INTRODUCING
            self._next_hello_s = now_s
            return
        if refusal.reason == "invalid_message":
            self._receive_garbage(f"refused: {refusal.message}", now_s)
            return
        self._garbage = False  # this could be read, and is what is wrong now
        if self.state is not LinkState.REFUSED:
            theirs = describe(refusal.protocol_major, refusal.protocol_minor)
            logger.error(
                "Governor: refused by the controller (%s): %s. It speaks protocol %s, this plugin "
                "%s. Running as stock; asking again every %.0f s",
                refusal.reason,
                refusal.message,
                theirs,
                OURS,
                REFUSED_RETRY_S,
            )
        self.state = LinkState.REFUSED
        self._next_hello_s = now_s + REFUSED_RETRY_S


def _identity(hello: Hello) -> bytes:
    """The socket's identity. No other process has it, so another engine of the same name cannot
    take the connection."""
    own = b"." + hello.incarnation.encode()
    return (hello.engine_id.encode()[: MAX_IDENTITY - len(own)] + own)[:MAX_IDENTITY]
