"""Preemption on the engine side: whatever a peer names, the bounds hold."""

from __future__ import annotations

from governor_protos.columns import pack
from governor_protos.messages import Band, Decision, RowFlag
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.apply.retraction import retract_as_decided
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord, RowTable

UNTOUCHABLE = RowFlag.PINNED | RowFlag.UNBORN | RowFlag.PROTECTED


def table_of(flags: list[int]) -> RowTable:
    records = [RowRecord(number, f"r{number}", 0, ALONE, 0.0) for number in range(len(flags))]
    return RowTable(records, list(flags), [1] * len(flags))


def decision(*named: int) -> Decision:
    times = dict.fromkeys(["predicted_step_s", "baseline_step_s", "budget_s", "slack_s"], 0.0)
    orders = [Band(64, -1, -1)]
    return Decision(1, 4, park=b"", orders=orders, policy="p", retract=pack("I", named), **times)


@given(st.data())
def test_only_rows_that_may_be_retracted_are_and_something_advances(data: st.DataObject) -> None:
    flags = data.draw(st.lists(st.integers(0, 7), max_size=8))
    rows = list(range(len(flags)))
    parked = data.draw(st.sets(st.sampled_from(rows))) if rows else set()
    named = data.draw(st.lists(st.integers(0, 12), max_size=12))

    retracted = retract_as_decided(decision(*named), table_of(flags), parked)

    gone = {int(rid[1:]) for rid in retracted}
    assert len(gone) == len(retracted)
    assert gone <= {row for row in named if row < len(flags) and not flags[row] & UNTOUCHABLE}
    advancing = {row for row in rows if row not in parked and not flags[row] & RowFlag.UNBORN}
    assert advancing - gone or not advancing & gone


def test_those_named_are_retracted_in_order_and_the_last_one_that_would_advance_stays() -> None:
    assert retract_as_decided(decision(2, 0), table_of([0, 0, 0])) == ("r2", "r0")
    assert retract_as_decided(decision(2, 0, 1), table_of([0, 0, 0])) == ("r2", "r0")
    assert retract_as_decided(decision(2, 0), table_of([0, 0, 0]), {1}) == ("r2",)
