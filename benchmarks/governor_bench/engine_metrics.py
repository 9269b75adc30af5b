"""Reading Governor's counters from an engine's ``/metrics``."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class GovernorCounters:
    """Totals over all data-parallel ranks of one engine since its start."""

    outcomes: dict[str, int]
    """Governed steps by outcome: applied, late, stale, invalid, none."""
    falls: dict[str, int]
    parked_row_steps: int
    retracted_rows: int
    """Rows that gave up their memory because a decision said so."""
    vetoed_steps: int
    connected: bool
    """Whether every rank's controller answers."""
    stalled_steps: int = 0
    """Steps that Governor held for longer than it may, by its own doing."""
    disturbed_steps: int = 0
    """Steps that were held for as long, because something else had the processor."""
    held_steps: int = 0
    """Steps that Governor held at all."""
    longest_own_s: float = 0.0
    """The longest that it held one by its own doing, since the engine's start."""
    longest_carried_out_s: float = 0.0
    """The longest that SGLang carried out what was ordered in one step, since its start."""
    longest_wall_s: float = 0.0
    """The longest that it held one by the wall clock, since the engine's start."""

    @property
    def governed_steps(self) -> int:
        return sum(self.outcomes.values())

    def since(self, before: GovernorCounters) -> GovernorCounters:
        """What was counted after ``before``."""
        return GovernorCounters(
            outcomes={k: v - before.outcomes.get(k, 0) for k, v in self.outcomes.items()},
            falls={k: v - before.falls.get(k, 0) for k, v in self.falls.items()},
            parked_row_steps=self.parked_row_steps - before.parked_row_steps,
            retracted_rows=self.retracted_rows - before.retracted_rows,
            vetoed_steps=self.vetoed_steps - before.vetoed_steps,
            connected=self.connected,
            stalled_steps=self.stalled_steps - before.stalled_steps,
            disturbed_steps=self.disturbed_steps - before.disturbed_steps,
            held_steps=self.held_steps - before.held_steps,
            longest_own_s=self.longest_own_s,
            longest_carried_out_s=self.longest_carried_out_s,
            longest_wall_s=self.longest_wall_s,
        )


def read_counters(engine_url: str) -> GovernorCounters:
    """Fetch and sum up the counters; the engine must run with ``--enable-metrics``."""
    with urllib.request.urlopen(f"{engine_url}/metrics", timeout=10) as reply:  # noqa: S310
        text = reply.read(MAX_BYTES).decode()
    outcomes: dict[str, int] = {}
    falls: dict[str, int] = {}
    plain: dict[str, int] = {}
    longest_s: dict[str, float] = {}
    connected: list[bool] = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "governor_governed_steps_total":
                _add(outcomes, sample.labels["outcome"], sample.value)
            elif sample.name == "governor_falls_total":
                _add(falls, sample.labels["reason"], sample.value)
            elif sample.name == "governor_connected":
                connected.append(sample.value == 1)
            elif sample.name == "governor_longest_step_seconds":
                clock = sample.labels["clock"]
                longest_s[clock] = max(longest_s.get(clock, 0.0), sample.value)
            elif sample.name.startswith("governor_"):
                _add(plain, sample.name, sample.value)
    return GovernorCounters(
        outcomes=outcomes,
        falls=falls,
        parked_row_steps=plain.get("governor_parked_row_steps_total", 0),
        retracted_rows=plain.get("governor_retracted_rows_total", 0),
        vetoed_steps=plain.get("governor_vetoed_steps_total", 0),
        connected=bool(connected) and all(connected),
        stalled_steps=plain.get("governor_stalled_steps_total", 0),
        disturbed_steps=plain.get("governor_disturbed_steps_total", 0),
        held_steps=plain.get("governor_step_seconds_count", 0),
        longest_own_s=longest_s.get("own", 0.0),
        longest_carried_out_s=longest_s.get("carried_out", 0.0),
        longest_wall_s=longest_s.get("wall", 0.0),
    )


def _add(totals: dict[str, int], key: str, value: float) -> None:
    totals[key] = totals.get(key, 0) + int(value)
