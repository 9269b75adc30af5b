"""Messages in, replies out, for all engines. No socket and no clock: the server brings both."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from governor_protos import OURS, PROTOCOL_MAJOR, PROTOCOL_MINOR, encode
from governor_protos import decode_to_controller as decode
from governor_protos.limits import MAX_MESSAGE, MAX_ROWS
from governor_protos.messages import Goodbye, Hello, Refusal, Snapshot, ToController, Welcome
from governor_protos.version import describe, speaks

from controller_service.columns import BadColumn
from controller_service.config import ControllerConfig
from controller_service.models.desk import ModelDesk
from controller_service.observe.stats import ControllerStats
from controller_service.peer_limits import Limit
from controller_service.policies.base import Policy, PolicyFailed
from controller_service.policies.registry import parse_policy
from controller_service.session import EngineSession
from controller_service.sessions import NameTaken, Sessions, TooManyEngines
from controller_service.throttle import Throttle
from controller_service.unmet import unmet
from controller_service.version import package_version

if TYPE_CHECKING:
    from controller_service.logbook.book import Logbook  # pyarrow is loaded only to keep a log

logger = logging.getLogger(__name__)

REFUSALS_PER_S = 10.0
EXCESS_WARNINGS_PER_S = 1.0


class Controller:
    """Decides for every engine that has introduced itself.

    The order of calls for one message is ``read``, ``answer``, and, once the reply is sent,
    ``settle``. ``settle`` alone takes in what an unanswered snapshot reports.
    """

    def __init__(
        self,
        config: ControllerConfig,
        logbook: Logbook | None = None,
        read_policy: Callable[[str], Policy] = parse_policy,
    ) -> None:
        """
        Args:
            logbook: the decision log; none by default. It is the caller's to start and to close.
            read_policy: reads a policy as an operator writes it; raises a ValueError that says
                what is wrong with it.

        Raises:
            ValueError: no such policy or predictor, or a model that cannot be used.
        """
        self.config = config
        self.logbook = logbook
        self.controller_id = uuid.uuid4().hex[:12]
        self.version = package_version()
        self.read_policy = read_policy
        self.policy: Policy = read_policy(config.policy)
        self.sessions = Sessions(config.max_engines, config.session_expiry_s)
        self.stats = ControllerStats()
        self._bad_frame_replies = Throttle(REFUSALS_PER_S)
        self._excess_warnings = Throttle(EXCESS_WARNINGS_PER_S)
        self._policy_fails = False
        # Fail, and load what predictor and model need, before the first engine.
        self.models = ModelDesk(config.predictor)
        if config.model:
            self.models.load_at_start(config.model)

    def set_policy(self, policy: Policy) -> Policy:
        """Switch every engine to ``policy`` from its next decision on; returns the one before."""
        previous, self.policy = self.policy, policy
        self._policy_fails = False
        logger.info("policy: %s (was %s)", policy.label, previous.label)
        for session, _ in self.sessions:
            self._look_for_unmet(session)
        return previous

    def _look_for_unmet(self, session: EngineSession) -> None:
        """Say once what of the policy an engine cannot carry out."""
        found = unmet(self.policy, session.hello)
        if found and found != session.unmet:
            told = "; ".join(map(str, found))
            logger.warning("engine %s: %s", session.hello.engine_id, told)
        session.unmet = found

    def read(self, frame: bytes) -> ToController:
        """Decode a frame.

        Raises:
            BadFrame: it breaks the contract.
        """
        return decode(frame)

    def refuse_frame(self, reason: str, error: Exception, now_s: float) -> bytes | None:
        """Count a frame that could not be used; the reply to it, at most a few per second."""
        self.stats.bad_frames[reason] += 1
        if not self._bad_frame_replies.allows(now_s):
            return None
        return _refusal("invalid_message", str(error))

    def note_excess(self, identity: bytes, limit: Limit, now_s: float) -> None:
        """Count a message that was dropped unread, and say so at most once a second."""
        self.stats.throttled_frames[limit] += 1
        if self._excess_warnings.allows(now_s):
            setting = {"frames": "peer_frames_per_s", "bytes": "peer_mb_per_s"}[limit]
            most = getattr(self.config, setting)
            logger.warning("peer %.64r sends more than %s = %d: dropped", identity, setting, most)

    def answer(self, identity: bytes, message: ToController, now_s: float) -> bytes | None:
        """The reply to ``message``; ``None`` when there is nothing to say."""
        if isinstance(message, Snapshot):
            return self._decide(identity, message, now_s)
        if isinstance(message, Hello):
            return self._welcome(identity, message, now_s)
        gone = self.sessions.forget(identity)
        if gone is not None:
            logger.info("engine %s: goodbye (%s)", gone.hello.engine_id, message.reason)
        return None

    def settle(self, identity: bytes, snapshot: Snapshot, now_s: float) -> None:
        """Learn from a snapshot whose reply, if it gets one, is on its way."""
        session = self.sessions.hear(identity, now_s)
        if session is None:
            return
        for feedback in snapshot.feedback:
            self.stats.outcomes.add(feedback.outcome)
        try:
            session.settle(snapshot, now_s)
        except PolicyFailed:
            self._policy_failed()  # the standing orders of before stay in force

    def answered(self, identity: bytes, turnaround_s: float, now_s: float) -> None:
        """A decision left ``turnaround_s`` after its snapshot came."""
        session = self.sessions.hear(identity, now_s)
        if session is not None:
            self.stats.turnaround_s.add(turnaround_s)
            session.turnarounds_s.append(turnaround_s)

    def keep_house(self, now_s: float) -> None:
        """About once a second: set silent engines aside, hand over what the log has gathered."""
        self.sessions.expire(now_s)
        if self.logbook is not None:
            self.logbook.tick(now_s)

    def farewells(self) -> list[tuple[bytes, bytes]]:
        """What to send on leaving: ``(identity, frame)``."""
        frame = encode(Goodbye("the controller is shutting down"))
        return [(identity, frame) for identity in self.sessions.identities()]

    def _decide(self, identity: bytes, snapshot: Snapshot, now_s: float) -> bytes | None:
        session = self.sessions.hear(identity, now_s)
        if session is None:
            # After a restart this is how an engine learns to introduce itself again.
            return _refusal("unknown_engine", "no hello from this engine: send one, then snapshots")
        try:
            reply = session.decide(snapshot, self.policy)
        except BadColumn as error:
            return self.refuse_frame("rows", error, now_s)
        except PolicyFailed:
            self._policy_failed()  # no decision is always safe: the engine falls back
            return None
        self.stats.decisions[self.policy.branches.kind.name] += 1
        return reply

    def _policy_failed(self) -> None:
        self.stats.policy_errors += 1
        if not self._policy_fails:
            logger.exception("policy %s fails; its steps run as stock", self.policy.label)
        self._policy_fails = True

    def _welcome(self, identity: bytes, hello: Hello, now_s: float) -> bytes:
        if not speaks(hello.protocol_major):
            theirs = describe(hello.protocol_major, hello.protocol_minor)
            text = f"the engine speaks protocol {theirs}, this controller {OURS}: upgrade the older"
            logger.warning("engine %s: refused, %s", hello.engine_id, text)
            return _refusal("incompatible_version", text)
        try:
            self.sessions.admit(identity, hello, now_s)
        except (NameTaken, TooManyEngines) as error:
            logger.warning("engine %s: refused, %s", hello.engine_id, error)
            reason = "name_taken" if isinstance(error, NameTaken) else "too_many_engines"
            return _refusal(reason, str(error))
        session = self.sessions.known(hello)
        is_news = session is None or self.sessions.hear(identity, now_s) is not session
        if session is None:
            session = EngineSession(
                hello,
                self.models.new_predictor(hello),
                self.config.lease_steps,
                self.config.replan_steps,
                None if self.logbook is None else self.logbook.open(hello),
                self.models.acceptance_prior(hello),
                self.models.length_fits,
            )
        session.hello = hello
        self._look_for_unmet(session)
        self.sessions.seat(identity, session, now_s)
        if is_news:  # an idle engine introduces itself every few seconds
            logger.info("engine %s: welcome (SGLang %s)", hello.engine_id, hello.sglang_version)
        return encode(
            Welcome(
                PROTOCOL_MAJOR,
                PROTOCOL_MINOR,
                self.controller_id,
                self.version,
                self.policy.label,
                MAX_ROWS,
            )
        )


def _refusal(reason: str, message: str) -> bytes:
    return encode(Refusal(PROTOCOL_MAJOR, PROTOCOL_MINOR, reason, message[:MAX_MESSAGE]))
