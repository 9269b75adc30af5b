"""Prefill over a session: what is told, what is remembered, and how much leeway there is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from controller_builders import batch, serial, snapshot_of
from governor_protos import decode_to_engine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, Rows
from hypothesis import given
from hypothesis import strategies as st
from prefill_builders import KV_TOKENS, NEVER, prefilling_hello, prefilling_state, queue_of
from test_adaptive_chunk import LINE

from controller_service.policies.registry import parse_policy
from controller_service.prefill.leeway import LEAST, Leeway
from controller_service.prefill.room import fits
from controller_service.session import EngineSession

ROWS = batch(4, 1, tpot_slo_s=NEVER)


def told(
    session: EngineSession,
    step: int,
    waiting: list[dict[str, float]],
    policy: str = "adaptive_chunk",
    rows: Rows = ROWS,
) -> Decision:
    snapshot = msgspec.structs.replace(
        snapshot_of(rows, step), queue=queue_of(waiting), kv_total_tokens=KV_TOKENS
    )
    reply = decode_to_engine(session.decide(snapshot, parse_policy(policy)))
    session.settle(snapshot, float(step))
    assert isinstance(reply, Decision)
    return reply


def session_of(**facts: Any) -> EngineSession:
    return EngineSession(prefilling_hello(**facts), LINE, lease_steps=4)


def test_a_decision_names_budget_and_order_and_what_a_late_one_may_take() -> None:
    waiting = [{"age_s": 0.7}, {"age_s": 0.6, "missing_tokens": 300}]
    reply = told(session_of(), 1, waiting)
    assert reply.prefill_tokens == 1300
    assert list(unpack("I", reply.prefill_first)) == [1001, 1002]
    due = [{"age_s": 0.7}, {"age_s": 0.8, "missing_tokens": 300}]
    reply = told(session_of(), 1, due)
    assert reply.prefill_tokens == 1300
    assert list(unpack("I", reply.prefill_first)) == [1002, 1001]
    assert reply.orders[0].prefill_tokens > 0


def test_an_engine_without_the_knob_is_told_nothing() -> None:
    hello = msgspec.structs.replace(prefilling_hello(), knobs=["branches"])
    session = EngineSession(hello, LINE, lease_steps=4)
    assert told(session, 1, []).prefill_tokens == -1


def test_other_policies_leave_prefill_to_the_engine() -> None:
    reply = told(session_of(), 1, [{"age_s": 0.7}], "taper_plus")
    assert reply.prefill_tokens == -1
    assert not reply.prefill_first
    assert reply.orders[0].prefill_tokens == -1


def test_prefill_and_decode_take_turns() -> None:
    session = session_of()
    budgets = [told(session, step, [{"age_s": 0.4}]).prefill_tokens for step in range(1, 5)]
    assert [bool(one) for one in budgets] == [True, False, True, False]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_step_that_is_planned_ahead_begins_after_the_one_before(overlap: bool) -> None:
    """After a long step of prefill a request that would have had time is due."""
    session = EngineSession(
        msgspec.structs.replace(prefilling_hello(), overlap=overlap), LINE, lease_steps=4
    )
    told(session, 1, [{"age_s": 0.3, "missing_tokens": 6000, "ttft_slo_s": 1.5}])
    # Only what is ahead tells the two apart: a request that has half a second.
    second = told(session, 2, [{"age_s": 0.45, "missing_tokens": 1000}], rows=ROWS)
    assert bool(second.prefill_tokens) is overlap


@given(st.lists(st.floats(0.0, 3.0), max_size=300))
def test_leeway_stays_within_bounds(used: list[float]) -> None:
    leeway = Leeway()
    for number, share in enumerate(used):
        first_token(leeway, number + 1, share)
        assert LEAST <= leeway.share <= 1.0


def first_token(leeway: Leeway, request: int, used: float) -> None:
    """A row of ``request`` has its first token after this share of its target."""
    row = serial(
        request_id=request, output_tokens=1, age_s=2.0 * used, since_first_token_s=0.0,
        ttft_slo_s=2.0,
    )  # fmt: skip
    leeway.observe(prefilling_state([], [row]))


def test_leeway_grows_while_all_is_well_and_falls_with_those_who_are_late() -> None:
    leeway = Leeway()
    for request in range(1, 400):
        first_token(leeway, request, 0.5)
    assert leeway.share == 1.0
    for request in range(400, 403):
        first_token(leeway, request, 1.5)
    assert leeway.share < 0.3


def test_a_first_token_counts_once() -> None:
    leeway = Leeway()
    for _ in range(5):
        first_token(leeway, 1, 1.5)
    once = Leeway()
    first_token(once, 1, 1.5)
    assert leeway.share == once.share


def test_who_was_promised_nothing_gives_no_leeway() -> None:
    leeway, before = Leeway(), Leeway().share
    row = serial(output_tokens=1, age_s=2.0, since_first_token_s=0.0, ttft_slo_s=NEVER)
    leeway.observe(prefilling_state([], [row]))
    assert leeway.share == before


def test_memory_that_small_prompts_need_is_kept_from_large_ones() -> None:
    waiting = [{"missing_tokens": 700, "max_new_tokens": 100}, {"missing_tokens": 9000}]
    state = prefilling_state(waiting, [serial(max_new_tokens=10)])
    assert state.prefill is not None
    for used, expected in ((80_000, [True, True]), (88_000, [True, False]), (99_900, [False] * 2)):
        full = msgspec.structs.replace(state, kv_used_tokens=used, kv_total_tokens=100_000)
        assert fits(full, state.prefill).tolist() == expected
