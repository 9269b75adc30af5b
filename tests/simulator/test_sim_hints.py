"""Lengths that users declare: the simulated engine passes them on, and an order profits."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from governor_protos.messages import Queue, Rows, Snapshot
from governor_sim.batching import EngineLimits
from governor_sim.link import VirtualLink
from governor_sim.simulate import SimConfig
from governor_workloads.spec import Workload
from sim_builders import request, run, workload

CROWDED = SimConfig(limits=EngineLimits(max_running_requests=4), max_new_tokens=4096)


def crowd(*, honest: bool) -> Workload:
    """More than fits at once, of very different lengths, with true hints or none."""
    rng = np.random.default_rng(5)
    lengths = np.clip(60 * np.exp(1.2 * rng.standard_normal(150)), 2, 2000).astype(int)
    return workload(
        *(
            request(
                index,
                20,
                int(length),
                arrival_s=0.25 * index,
                expected_tokens=int(length) if honest else 0,
            )
            for index, length in enumerate(lengths)
        )
    )


def told(column: Rows | Queue) -> dict[int, int]:
    ids = np.frombuffer(column.request_id, np.uint32).tolist()
    return dict(zip(ids, np.frombuffer(column.expected_tokens, np.int32).tolist(), strict=False))


def listen(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    heard: list[Snapshot] = []
    ask = VirtualLink.ask

    def noting(self: VirtualLink, snapshot: Snapshot, now_s: float) -> bool:
        heard.append(snapshot)
        return ask(self, snapshot, now_s)

    monkeypatch.setattr(VirtualLink, "ask", noting)
    return heard


def test_a_hint_is_told_of_who_waits_runs_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = listen(monkeypatch)
    # The last comes once all others have ended: its snapshots tell of their ends.
    load = workload(
        request(0, 20, 40, expected_tokens=33),
        request(1, 20, 60, arrival_s=0.001, branches=2, expected_tokens=77),
        request(2, 20, 30, arrival_s=0.002, expected_tokens=9),
        request(3, 20, 30, arrival_s=60.0),
    )
    limits = EngineLimits(max_running_requests=2)
    run(load, "laps_sd", msgspec.structs.replace(CROWDED, limits=limits))
    for part in ("rows", "queue"):
        hints = {hint for one in heard for hint in told(getattr(one, part)).values()}
        assert hints >= {33, 77, 9} - ({33} if part == "queue" else set())
    ended = sorted(end.expected_tokens for one in heard for end in one.ended)
    assert ended == [9, 33, 77, 77]
    last = heard[-1].rows
    assert len(last)
    assert last.expected_tokens == b""


def test_the_shortest_first_are_found_better_with_hints() -> None:
    waits = []
    for honest in (True, False):
        load = crowd(honest=honest)
        result = run(load, "laps_sd", CROWDED)
        assert all(item.finished for item in result.served)
        times = [item.last_token_s - item.sent_s for item in result.served if item.last_token_s]
        waits.append(float(np.mean(times)))
    assert waits[0] < 0.8 * waits[1]
