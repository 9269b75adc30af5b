"""What the wire contract allows, said a second time.

The product decodes with msgspec, from types; this reads with another library and asks plain rules,
written down from the contract's text and ``limits.py``. Where the two disagree one of them is
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import pairwise
from typing import Any

import msgpack
from governor_protos import limits

Rule = Callable[[object], str]
"""What is wrong with a value; empty: nothing."""


class To(Enum):
    """Which way a frame goes."""

    CONTROLLER = "controller"
    ENGINE = "engine"


class _Map:
    """A msgpack map: nothing in the contract is one."""

    def __init__(self, pairs: object) -> None:
        del pairs


def problem_of(frame: bytes, to: To) -> str:
    """The rule of the contract that a frame breaks; empty: none."""
    if len(frame) > limits.MAX_FRAME_BYTES:
        return "larger than a frame may be"
    reader = msgpack.Unpacker(
        object_pairs_hook=_Map,
        unicode_errors="surrogateescape",
        strict_map_key=False,
        max_buffer_size=limits.MAX_FRAME_BYTES + 1,
    )
    reader.feed(frame)
    try:
        return _problem(reader, len(frame), to)
    except (msgpack.UnpackException, ValueError) as error:
        return f"not msgpack: {error}"


def _problem(reader: msgpack.Unpacker, size: int, to: To) -> str:
    length = reader.read_array_header()
    if not length:
        return "no tag"
    tag = reader.unpack()
    rules, least = _MESSAGES[to].get(tag, (None, 0)) if isinstance(tag, str) else (None, 0)
    if rules is None:
        return "unknown tag"
    if length - 1 < least:
        return f"{tag}: too short"
    values: dict[str, object] = {}
    for name, rule in list(rules.items())[: length - 1]:
        values[name] = reader.unpack()
        if found := rule(values[name]):
            return f"{tag}.{name}: {found}"
    for _ in range(length - 1 - len(values)):
        reader.skip()  # fields of a newer minor version
    if reader.tell() != size:
        return "bytes after the message"
    return _among_fields(tag, values)


def _among_fields(tag: str, values: Mapping[str, Any]) -> str:
    """What no field says alone."""
    if tag == "snapshot":
        queue = values.get("queue", [])
        return _uneven(values["rows"], _ROWS) or _uneven(queue, _QUEUE)
    if tag == "decision":
        if len(values.get("capped", b"")) != 4 * len(values.get("caps", b"")):
            return "decision.caps: not as many as capped"
        bounds = [band[0] for band in values["orders"]]
        if any(after <= before for before, after in pairwise(bounds)):
            return "decision.orders: do not ascend"
    return ""


def _uneven(columns: list[bytes], named: Mapping[str, int]) -> str:
    """Columns hold as many items as the first; those that came later may be left empty."""
    widths = list(named.items())
    count = len(columns[0]) // 4 if columns else 0
    sizes = [len(column) for column in columns] + [0] * (len(widths) - len(columns))
    for (name, width), size in zip(widths, sizes, strict=False):
        if size != count * width and not (size == 0 and name in _LATER):
            return f"column {name}: uneven"
    return ""


def _integer(low: int, high: int) -> Rule:
    def rule(value: object) -> str:
        if type(value) is not int:
            return "not an integer"
        return "" if low <= value <= high else "out of range"

    return rule


def _real(low: float, high: float) -> Rule:
    def rule(value: object) -> str:
        if type(value) not in (int, float):
            return "not a number"
        assert isinstance(value, int | float)  # noqa: S101 - for the type checker
        if isinstance(value, float) and not math.isfinite(value):
            return "not finite"
        return "" if low <= value <= high else "out of range"

    return rule


def _text(most: int) -> Rule:
    def rule(value: object) -> str:
        if type(value) is not str:
            return "not text"
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
            return "not UTF-8"
        return "" if len(value) <= most else "too long"

    return rule


def _flag(value: object) -> str:
    return "" if type(value) is bool else "not a boolean"


def _packed(most_items: int, width: int, *, whole: bool = False) -> Rule:
    def rule(value: object) -> str:
        if type(value) is not bytes:
            return "not bytes"
        if whole and len(value) % width:
            return "torn"
        return "" if len(value) <= most_items * width else "too long"

    return rule


def _listed(rule: Rule, most: int) -> Rule:
    def of_all(value: object) -> str:
        if type(value) is not list:
            return "not an array"
        if len(value) > most:
            return "too many"
        return next(filter(None, map(rule, value)), "")

    return of_all


def _record(rules: list[Rule], least: int) -> Rule:
    def of_fields(value: object) -> str:
        if type(value) is not list:
            return "not an array"
        if len(value) < least:
            return "too short"
        each = (rule(item) for rule, item in zip(rules, value, strict=False))
        return next(filter(None, each), "")

    return of_fields


def _maybe(rule: Rule) -> Rule:
    return lambda value: "" if value is None else rule(value)


_COUNT = _integer(0, limits.MAX_COUNT)
_CAP = _integer(-1, limits.MAX_COUNT)
_NUMBER = _integer(0, limits.MAX_NUMBER)
_STEP = _integer(0, limits.MAX_STEP)
_BYTE = _integer(0, 255)
_SECONDS = _real(0, limits.MAX_DURATION_S)
_NAME = _text(limits.MAX_TEXT)
_WORDS = _text(limits.MAX_MESSAGE)

_ROWS = {
    "request_id": 4, "group_id": 4, "role": 1, "flags": 1, "context_tokens": 4,
    "output_tokens": 4, "max_new_tokens": 4, "priority": 4, "parked_steps": 4, "age_s": 4,
    "since_first_token_s": 4, "since_last_token_s": 4, "ttft_slo_s": 4, "tpot_slo_s": 4,
    "group_output_tokens": 4, "draft_tokens": 4, "accepted_tokens": 4, "expected_tokens": 4,
}  # fmt: skip
_QUEUE = {
    "request_id": 4, "group_id": 4, "flags": 1, "missing_tokens": 4, "prompt_tokens": 4,
    "output_tokens": 4, "max_new_tokens": 4, "priority": 4, "age_s": 4, "ttft_slo_s": 4,
    "tpot_slo_s": 4, "draft_tokens": 4, "accepted_tokens": 4, "expected_tokens": 4,
}  # fmt: skip
_LATER = {"group_output_tokens", "draft_tokens", "accepted_tokens", "expected_tokens"}
"""Columns that contract 1.0 did not have."""


def _columns(widths: Mapping[str, int], most: int) -> Rule:
    return _record([_packed(most, width) for width in widths.values()], 0)


_DRAFTING = _record(
    [
        _BYTE,
        _integer(1, limits.MAX_DRAFT_TOKENS),
        _integer(0, limits.MAX_DRAFT_TOKENS),
        _flag,
        _flag,
        _SECONDS,
    ],
    1,
)
_FEEDBACK = _record(
    [_STEP, _BYTE, _COUNT, _COUNT, _COUNT, _SECONDS, _BYTE, _COUNT, _COUNT, _COUNT, _COUNT], 8
)
_END = _record(
    [_NUMBER, _NUMBER, _COUNT, _COUNT, _COUNT, _BYTE, _SECONDS, _COUNT, _COUNT, _COUNT], 7
)
_BAND = _record([_COUNT, _CAP, _CAP, _CAP, _CAP], 3)
_GOODBYE: tuple[dict[str, Rule], int] = ({"reason": _WORDS}, 1)

_MESSAGES: dict[To, dict[str, tuple[dict[str, Rule], int]]] = {
    To.CONTROLLER: {
        "goodbye": _GOODBYE,
        "hello": (
            {
                "protocol_major": _COUNT,
                "protocol_minor": _COUNT,
                "engine_id": _NAME,
                "incarnation": _NAME,
                "plugin_version": _NAME,
                "sglang_version": _NAME,
                "model": _WORDS,
                "tp_size": _COUNT,
                "dp_rank": _COUNT,
                "overlap": _flag,
                "max_running_requests": _COUNT,
                "max_total_tokens": _COUNT,
                "max_context_tokens": _COUNT,
                "page_size": _COUNT,
                "chunked_prefill_tokens": _CAP,
                "speculative_algorithm": _NAME,
                "draft_lengths": _listed(_COUNT, limits.MAX_DRAFT_LENGTHS),
                "knobs": _listed(_NAME, 16),
                "device": _NAME,
                "graph_rows": _listed(_COUNT, limits.MAX_GRAPHS),
                "drafting": _maybe(_DRAFTING),
                "mixes_chunks": _flag,
                "url": _NAME,
            },
            18,
        ),
        "snapshot": (
            {
                "for_step": _STEP,
                "rows": _columns(_ROWS, limits.MAX_ROWS),
                "kv_used_tokens": _COUNT,
                "kv_total_tokens": _COUNT,
                "waiting_requests": _COUNT,
                "waiting_prefill_tokens": _COUNT,
                "feedback": _listed(_FEEDBACK, limits.MAX_FEEDBACK),
                "falls": _COUNT,
                "ended": _listed(_END, limits.MAX_ENDED),
                "queue": _columns(_QUEUE, limits.MAX_QUEUED),
            },
            8,
        ),
    },
    To.ENGINE: {
        "goodbye": _GOODBYE,
        "welcome": (
            {
                "protocol_major": _COUNT,
                "protocol_minor": _COUNT,
                "controller_id": _NAME,
                "controller_version": _NAME,
                "policy": _NAME,
                "max_rows": _COUNT,
            },
            6,
        ),
        "refusal": (
            {
                "protocol_major": _COUNT,
                "protocol_minor": _COUNT,
                "reason": _NAME,
                "message": _WORDS,
            },
            4,
        ),
        "decision": (
            {
                "for_step": _STEP,
                "lease_steps": _integer(1, limits.MAX_LEASE_STEPS),
                "park": _packed(limits.MAX_ROWS, 4, whole=True),
                "orders": _listed(_BAND, limits.MAX_BANDS),
                "policy": _NAME,
                "predicted_step_s": _SECONDS,
                "baseline_step_s": _SECONDS,
                "budget_s": _SECONDS,
                "slack_s": _real(-limits.MAX_DURATION_S, limits.MAX_DURATION_S),
                "draft_length": _CAP,
                "capped": _packed(limits.MAX_ROWS, 4),
                "caps": _packed(limits.MAX_ROWS, 1),
                "draft_budget": _CAP,
                "draft_price": _real(0, limits.MAX_DRAFT_PRICE),
                "prefill_tokens": _CAP,
                "prefill_first": _packed(limits.MAX_QUEUED, 4, whole=True),
                "retract": _packed(limits.MAX_ROWS, 4, whole=True),
            },
            9,
        ),
    },
}
"""For each direction and tag: the fields in order, and how many every peer sends."""
