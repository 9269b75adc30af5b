"""The engine's link to a controller, in virtual time and without a wire.

It carries the real messages between the real engine side (``sglang_patch.governor``) and the real
controller side (``controller_service.session``); only their travel is simulated. A reply that is
under way when the engine plans is late, exactly as over a socket.
"""

from __future__ import annotations

import random

from governor_protos import decode_to_engine
from governor_protos.messages import Decision, Snapshot

from controller_service.policies.base import Policy
from controller_service.session import EngineSession
from governor_sim.timing import DecisionLatency
from sglang_patch.fallback import FallReason


class VirtualLink:
    """Offers what :class:`sglang_patch.link.ControllerLink` offers to the governor.

    Args:
        session: what the controller knows of this engine.
        policy: the controller's policy.
        latency: time from a snapshot to its decision.
        seed: of the latencies.
    """

    def __init__(
        self, session: EngineSession, policy: Policy, latency: DecisionLatency, seed: int
    ) -> None:
        self._session = session
        self._policy = policy
        self._latency = latency
        self._rng = random.Random(seed)
        self._under_way: list[tuple[float, Decision]] = []
        self.is_asking = True
        self.decision: Decision | None = None
        self.waited_s = 0.0
        """What the last :meth:`wait` took."""

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        """Send a snapshot; it always leaves."""
        reply = decode_to_engine(self._session.decide(snapshot, self._policy))
        self._session.settle(snapshot, now_s)
        if isinstance(reply, Decision):
            self._under_way.append((now_s + self._latency.sample(self._rng), reply))
        return True

    def poll(self, now_s: float) -> None:
        """Take in what has arrived by ``now_s``; the newest counts."""
        self.waited_s = 0.0
        arrived = [item for item in self._under_way if item[0] <= now_s]
        if arrived:
            self.decision = arrived[-1][1]
            self._under_way = [item for item in self._under_way if item[0] > now_s]
        self._polled_s = now_s

    def wait(self, step: int, longest_s: float) -> None:
        """Wait for the decision for ``step`` as the normal loop may, at most ``longest_s``."""
        for due_s, decision in self._under_way:
            if decision.for_step == step and due_s <= self._polled_s + longest_s:
                self.waited_s = due_s - self._polled_s
                self.decision = decision
                self._under_way = [item for item in self._under_way if item[0] > due_s]
                return

    def keep_alive(self, now_s: float) -> None:
        """An idle engine has nobody to lose here."""

    def trouble(self) -> FallReason:
        return FallReason.NO_REPLY

    def close(self, reason: str) -> None:
        """Nothing to close."""
