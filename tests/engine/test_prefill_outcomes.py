"""What is said of steps that prefill: whose decision they ran by."""

from __future__ import annotations

from typing import Any

import pytest
from governor_protos.messages import Decision, Outcome, Snapshot, StepKind

from sglang_patch.config import EngineConfig
from sglang_patch.fallback import FallReason
from sglang_patch.governor import EngineGovernor
from sglang_patch.queue import QueueTable
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.steps import LaunchedStep


class Link:
    """A controller that has decided about step 2 and then is silent."""

    is_asking = True
    decision = Decision(2, 1, b"", [], "test", 0.0, 0.0, 0.0, 0.0, prefill_tokens=8)

    def poll(self, now_s: float) -> None: ...

    def wait(self, step: int, longest_s: float) -> None: ...

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        return True

    def keep_alive(self, now_s: float) -> None: ...

    def trouble(self) -> FallReason:
        return FallReason.DISCONNECTED

    def close(self, reason: str) -> None: ...


@pytest.fixture
def governor() -> EngineGovernor:
    link: Any = Link()
    return EngineGovernor(EngineConfig(), link, overlap=True, prefill=True)


def prefilled(governor: EngineGovernor, step: int) -> Outcome:
    launched = LaunchedStep(
        step=step,
        kind=StepKind.PREFILL,
        rows=1,
        context_tokens=9,
        prefill_tokens=9,
        launched_s=1.0,
    )
    governor.launched(launched)
    return Outcome(launched.outcome)


def test_a_prefill_after_an_idle_spell_ran_by_nobodys_decision(governor: EngineGovernor) -> None:
    waits = QueueTable([RowRecord(1, "a", 0, ALONE, 0.5)], [0], [9], [0])
    governor.observe(
        RowTable(),
        for_step=2,
        now_s=1.0,
        kv_used_tokens=0,
        kv_total_tokens=9,
        waiting_requests=1,
        waiting_prefill_tokens=9,
        queue=waits,
    )
    assert governor.plan(2, 1.0, busy=True) is not None
    assert prefilled(governor, 2) is Outcome.APPLIED
    governor.plan(3, 2.0, busy=False)
    assert prefilled(governor, 3) is Outcome.UNGOVERNED
    assert governor.tally.outcomes == {"applied": 1}
