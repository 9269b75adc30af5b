"""Waiting queues and states with them, for the tests of prefill policies."""

from __future__ import annotations

import msgspec
from controller_builders import hello_of, state_of
from governor_protos.columns import QUEUE_COLUMNS, pack
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Hello, Queue, QueueFlag

from controller_service.prefill.queue import PrefillState
from controller_service.state import StepState

MOST_TOKENS = 8192
STARTED = int(QueueFlag.STARTED)
NEVER = MAX_DURATION_S
KV_TOKENS = 1 << 20

DEFAULTS = {
    "group_id": 0,
    "flags": 0,
    "missing_tokens": 1000,
    "prompt_tokens": 1000,
    "output_tokens": 0,
    "max_new_tokens": 200,
    "priority": 0,
    "age_s": 0.1,
    "ttft_slo_s": 1.0,
    "tpot_slo_s": 0.05,
    "draft_tokens": 0,
    "accepted_tokens": 0,
    "expected_tokens": 0,
}


def queue_of(waiting: list[dict[str, float]]) -> Queue:
    """Pack waiting requests; what is left out takes a default, ids count from 1001."""
    whole = [{"request_id": 1001 + index, **DEFAULTS, **one} for index, one in enumerate(waiting)]
    return Queue(
        **{name: pack(code, [one[name] for one in whole]) for name, code in QUEUE_COLUMNS.items()}
    )


def prefilling_hello(**facts: object) -> Hello:
    knobs = ["branches", "prefill"]
    return msgspec.structs.replace(
        hello_of(), knobs=knobs, chunked_prefill_tokens=MOST_TOKENS, page_size=1, **facts
    )


def prefill_of(waiting: list[dict[str, float]], **facts: object) -> PrefillState:
    return PrefillState.from_queue(queue_of(waiting), prefilling_hello(**facts))


def prefilling_state(
    waiting: list[dict[str, float]],
    rows: list[dict[str, float]],
    for_step: int = 7,
    **facts: object,
) -> StepState:
    """A step at which ``rows`` run and ``waiting`` wait."""
    queue = prefill_of(waiting, **facts)
    return msgspec.structs.replace(
        state_of(rows, for_step), prefill=queue, kv_total_tokens=KV_TOKENS
    )
