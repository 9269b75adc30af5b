"""Prometheus metrics of the engine side, on the engine's own ``/metrics``.

Import this only after SGLang has set the Prometheus client up for many processes.
"""

from __future__ import annotations

from collections import Counter as Tallied

import prometheus_client
from governor_protos.messages import Outcome

from sglang_patch.breaker import BreakerState
from sglang_patch.fallback import FallReason
from sglang_patch.governor import Tally
from sglang_patch.holds import Hold
from sglang_patch.link import ControllerLink, LinkState

PUBLISH_INTERVAL_S = 0.5
CLOCKS = ("wall", "own", "carried_out")
"""In the order of :class:`Hold`."""
HOLD_BUCKETS_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


class EngineMetrics:
    """Counters of one engine, brought up to date twice a second rather than every step."""

    def __init__(self, dp_rank: int) -> None:
        labels = {"dp_rank": str(dp_rank)}
        outcomes = prometheus_client.Counter(
            "governor_governed_steps",
            "Decode steps with something to decide, by what became of the controller's decision",
            ["dp_rank", "outcome"],
        )
        self._outcomes = {
            outcome.name.lower(): outcomes.labels(**labels, outcome=outcome.name.lower())
            for outcome in Outcome
            if outcome is not Outcome.UNGOVERNED
        }
        falls = prometheus_client.Counter(
            "governor_falls",
            "Governed steps without a fresh decision, by reason",
            ["dp_rank", "reason"],
        )
        self._falls = {
            reason.value: falls.labels(**labels, reason=reason.value) for reason in FallReason
        }
        self._parked = prometheus_client.Counter(
            "governor_parked_row_steps", "Row-steps that branches sat out", ["dp_rank"]
        ).labels(**labels)
        self._retracted = prometheus_client.Counter(
            "governor_retracted_rows", "Rows that gave up their memory for others", ["dp_rank"]
        ).labels(**labels)
        self._vetoed = prometheus_client.Counter(
            "governor_vetoed_steps", "Steps at which the engine could not park", ["dp_rank"]
        ).labels(**labels)
        self._hurried = prometheus_client.Counter(
            "governor_hurried_steps",
            "Steps that Governor left to SGLang, as somebody who waited was near a limit",
            ["dp_rank"],
        ).labels(**labels)
        self._invalid = prometheus_client.Counter(
            "governor_invalid_replies", "Replies that could not be used", ["dp_rank"]
        ).labels(**labels)
        self._dropped_ends = prometheus_client.Counter(
            "governor_dropped_request_ends",
            "Ends of requests that no controller was told of",
            ["dp_rank"],
        ).labels(**labels)
        self._ignored_fields = prometheus_client.Counter(
            "governor_ignored_request_fields",
            "Request fields that reached the scheduler unchecked and were of no use",
            ["dp_rank"],
        ).labels(**labels)
        self._connected = prometheus_client.Gauge(
            "governor_connected",
            "1 while a controller answers",
            ["dp_rank"],
            multiprocess_mode="mostrecent",
        ).labels(**labels)
        self._held = prometheus_client.Histogram(
            "governor_step_seconds",
            "How long Governor held the scheduler in a step, all told",
            ["dp_rank"],
            buckets=HOLD_BUCKETS_S,
        ).labels(**labels)
        longest = prometheus_client.Gauge(
            "governor_longest_step_seconds",
            "The longest that Governor held the scheduler in one step: all told, by its own doing, "
            "and while SGLang carried out what was ordered",
            ["dp_rank", "clock"],
            multiprocess_mode="mostrecent",
        )
        self._longest = {clock: longest.labels(**labels, clock=clock) for clock in CLOCKS}
        self._longest_s = dict.fromkeys(CLOCKS, 0.0)
        self._stalled = prometheus_client.Counter(
            "governor_stalled_steps",
            "Steps that Governor held for longer than it may, by its own doing",
            ["dp_rank"],
        ).labels(**labels)
        self._disturbed = prometheus_client.Counter(
            "governor_disturbed_steps",
            "Steps that were held for as long, because something else had the processor or memory "
            "had to be read from disk first",
            ["dp_rank"],
        ).labels(**labels)
        self._next_s = 0.0
        self._shown: Tallied[str] = Tallied()

    def publish(self, tally: Tally, link: ControllerLink, now_s: float) -> None:
        """Publish what was counted since the last time, if it is time."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + PUBLISH_INTERVAL_S
        for name, counter in self._outcomes.items():
            self._raise_to(counter, f"outcome:{name}", tally.outcomes[name])
        for name, counter in self._falls.items():
            self._raise_to(counter, f"fall:{name}", tally.falls[name])
        self._raise_to(self._parked, "parked", tally.parked_row_steps)
        self._raise_to(self._retracted, "retracted", tally.retracted_rows)
        self._raise_to(self._vetoed, "vetoed", tally.vetoed_steps)
        self._raise_to(self._hurried, "hurried", tally.hurried_steps)
        self._raise_to(self._invalid, "invalid", link.invalid_replies)
        self._raise_to(self._dropped_ends, "dropped_ends", tally.dropped_ends)
        self._raise_to(self._ignored_fields, "ignored_fields", tally.ignored_fields)
        answers = link.state is LinkState.READY and link.breaker.state is BreakerState.CLOSED
        self._connected.set(1 if answers else 0)

    def held(self, hold: Hold) -> None:
        """A step is over in which Governor held the scheduler."""
        self._held.observe(hold.wall_s)
        for clock, seconds in zip(CLOCKS, hold[: len(CLOCKS)], strict=True):
            if seconds > self._longest_s[clock]:
                self._longest_s[clock] = seconds
                self._longest[clock].set(seconds)
        if hold.is_stalled:
            self._stalled.inc()
        if hold.is_disturbed:
            self._disturbed.inc()

    def _raise_to(self, counter: prometheus_client.Counter, key: str, total: int) -> None:
        counter.inc(total - self._shown[key])
        self._shown[key] = total
