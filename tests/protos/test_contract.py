"""The wire contract: golden frames, versions, limits, hostile bytes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from governor_protos import BadFrame, decode_to_controller, decode_to_engine, encode, limits
from governor_protos.columns import QUEUE_COLUMNS, ROW_COLUMNS, pack, unpack
from governor_protos.limits import MAX_ENDED, MAX_FEEDBACK, MAX_GRAPHS, MAX_NUMBER
from governor_protos.messages import (
    Band,
    Decision,
    Drafting,
    DraftSource,
    Goodbye,
    Hello,
    Queue,
    Refusal,
    RequestEnd,
    Rows,
    Snapshot,
    StepFeedback,
    Welcome,
    Wire,
)
from governor_protos.schema import json_schema
from governor_protos.version import OURS
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parent / "golden"
NEWEST = {"hello": "1.8", "snapshot": "1.7", "decision": "1.6"}
"""Messages that have grown since contract 1.0."""


def rows(count: int) -> Rows:
    return Rows(
        **{
            name: pack(code, [index % 100 for index in range(count)])
            for name, code in ROW_COLUMNS.items()
        }
    )


def queue(count: int) -> Queue:
    return Queue(
        **{
            name: pack(code, [index % 100 for index in range(count)])
            for name, code in QUEUE_COLUMNS.items()
        }
    )


EXAMPLES: dict[str, Wire] = {
    "hello": Hello(
        1, 0, "host-1-dp0", "abc", "0.1.0", "0.5.17", "m", 1, 0, True, 64, 4096, 2048, 1, 512, "",
        [], ["branches"], "NVIDIA H200", [1, 2, 4, 8],
        Drafting(DraftSource.MODEL, 4, 16, True, True, 0.0005), True, "http://host-1:30000",
    ),
    "welcome": Welcome(1, 0, "controller-1", "0.1.0", "taper", 4096),
    "refusal": Refusal(2, 3, "incompatible_version", "engine 1.0, controller 2.3"),
    "snapshot": Snapshot(
        7, rows(3), 100, 4096, 2, 64, [StepFeedback(6, 0, 3, 120, 0, 0.0125, 0, 1, 4, 3, 2)], 5,
        [RequestEnd(9, 2, 40, 17, 64, 1, 0.75, 30, 12, 20), RequestEnd(11, 0, 5, 2, 8, 0, 0.25)],
        queue(2),
    ),
    "decision": Decision(
        7, 4, pack("I", [2]), [Band(1, 2, 8), Band(64, 1, 0)], "taper", 0.02, 0.015, 0.025, 0.03,
        5, pack("I", [3, 9]), pack("B", [1, 0]), 24, 0.125, 512, pack("I", [7, 5]),
        pack("I", [4]),
    ),
    "goodbye": Goodbye("bye"),
}  # fmt: skip


def decode(name: str, frame: bytes) -> Wire:
    if name in ("hello", "snapshot"):
        return decode_to_controller(frame)
    return decode_to_engine(frame)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_frame_still_decodes_and_encodes(name: str) -> None:
    """Frames as released, newest version. They may never change: a peer out there sends them."""
    version = NEWEST.get(name, "1.0")
    frame = (GOLDEN / f"{name}-{version}.msgpack").read_bytes()
    assert decode(name, frame) == EXAMPLES[name]
    assert encode(EXAMPLES[name]) == frame


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.3", "1.5"])
def test_a_hello_of_an_older_contract_lacks_only_what_came_later(version: str) -> None:
    decoded = decode_to_controller((GOLDEN / f"hello-{version}.msgpack").read_bytes())
    expected = msgspec.structs.replace(EXAMPLES["hello"], url="")
    if version != "1.5":
        expected = msgspec.structs.replace(expected, mixes_chunks=False)
    if version not in ("1.3", "1.5"):
        expected = msgspec.structs.replace(expected, drafting=None)
    if version == "1.0":
        expected = msgspec.structs.replace(expected, device="", graph_rows=[])
    assert decoded == expected


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.5", "1.6"])
def test_a_snapshot_of_an_older_contract_lacks_only_what_came_later(version: str) -> None:
    decoded = decode_to_controller((GOLDEN / f"snapshot-{version}.msgpack").read_bytes())
    newest = EXAMPLES["snapshot"]
    assert isinstance(newest, Snapshot)
    newest = msgspec.structs.replace(
        newest,
        rows=msgspec.structs.replace(newest.rows, expected_tokens=b""),
        ended=[msgspec.structs.replace(item, expected_tokens=0) for item in newest.ended],
        queue=msgspec.structs.replace(newest.queue, expected_tokens=b""),
    )
    if version == "1.6":
        assert decoded == newest
        return
    plain = msgspec.structs.replace(newest.queue, draft_tokens=b"", accepted_tokens=b"")
    newest = msgspec.structs.replace(newest, queue=plain if version == "1.5" else Queue())
    if version == "1.5":
        assert decoded == newest
        return
    if version == "1.3":
        assert decoded == newest
        return
    older = msgspec.structs.replace(newest.rows, draft_tokens=b"", accepted_tokens=b"")
    if version == "1.0":
        older = msgspec.structs.replace(older, group_output_tokens=b"")
    lacking: dict[str, int] = {"accepted_tokens": 0, "draft_length": 0}
    if version != "1.2":
        lacking["draft_tokens"] = 0
    feedback = [msgspec.structs.replace(item, **lacking) for item in newest.feedback]
    expected = msgspec.structs.replace(newest, rows=older, feedback=feedback)
    if version != "1.2":
        expected = msgspec.structs.replace(expected, ended=[])
    assert decoded == expected


@pytest.mark.parametrize("version", ["1.0", "1.3", "1.4", "1.5"])
def test_a_decision_of_an_older_contract_lacks_only_what_came_later(version: str) -> None:
    """Without a word about drafts or prefill they are the engine's own choice."""
    decoded = decode_to_engine((GOLDEN / f"decision-{version}.msgpack").read_bytes())
    expected = msgspec.structs.replace(EXAMPLES["decision"], retract=b"")
    if version != "1.5":
        expected = msgspec.structs.replace(expected, prefill_tokens=-1, prefill_first=b"")
    if version not in ("1.4", "1.5"):
        expected = msgspec.structs.replace(expected, draft_price=0.0)
    if version == "1.0":
        expected = msgspec.structs.replace(
            expected, draft_length=-1, capped=b"", caps=b"", draft_budget=-1
        )
    assert decoded == expected


def test_a_snapshot_of_an_engine_without_drafts_is_hardly_larger_than_before() -> None:
    newest = EXAMPLES["snapshot"]
    assert isinstance(newest, Snapshot)
    plain = msgspec.structs.replace(newest.rows, draft_tokens=b"", accepted_tokens=b"")
    with_drafts, without = (
        len(encode(msgspec.structs.replace(newest, rows=columns)))
        for columns in (newest.rows, plain)
    )
    assert with_drafts - without == 2 * 4 * len(newest.rows)


def test_there_is_a_frame_of_the_newest_contract() -> None:
    """Whoever raises the version releases frames of it."""
    assert OURS in set(NEWEST.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_fields_of_a_newer_minor_version_are_tolerated(name: str) -> None:
    newer = msgspec.msgpack.encode(
        [*msgspec.msgpack.decode(encode(EXAMPLES[name])), "new", {"a": 1}]
    )
    assert decode(name, newer) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_frame_cut_anywhere_is_refused(name: str) -> None:
    frame = encode(EXAMPLES[name])
    for length in range(len(frame)):
        with pytest.raises(BadFrame):
            decode(name, frame[:length])


def test_messages_do_not_cross_directions() -> None:
    with pytest.raises(BadFrame):
        decode_to_engine(encode(EXAMPLES["snapshot"]))
    with pytest.raises(BadFrame):
        decode_to_controller(encode(EXAMPLES["decision"]))


def test_oversized_frame_is_refused_unread() -> None:
    with pytest.raises(BadFrame, match="bytes"):
        decode_to_engine(b"\x00" * (limits.MAX_FRAME_BYTES + 1))


BROKEN_DECISIONS = [
    {"lease_steps": 0},
    {"lease_steps": limits.MAX_LEASE_STEPS + 1},
    {"for_step": -1},
    {"park": b"123"},
    {"park": b"\x00" * 4 * (limits.MAX_ROWS + 1)},
    {"orders": [Band(4, 1, 1), Band(4, 1, 1)]},
    {"orders": [Band(n, 1, 1) for n in range(limits.MAX_BANDS + 1)]},
    {"orders": [Band(1, -2, 0)]},
    {"policy": "x" * (limits.MAX_TEXT + 1)},
    {"draft_length": -2},
    {"draft_budget": -2},
    {"draft_price": -0.5},
    {"draft_price": float("nan")},
    {"draft_price": 2 * limits.MAX_DRAFT_PRICE},
    {"capped": pack("I", [1, 2, 3])},
    {"caps": b""},
    {"capped": b"123"},
    {"capped": b"\x00" * 4 * (limits.MAX_ROWS + 1), "caps": b"\x00" * (limits.MAX_ROWS + 1)},
    {"prefill_tokens": -2},
    {"prefill_first": b"123"},
    {"retract": b"12345"},
    {"prefill_first": b"\x00" * 4 * (limits.MAX_QUEUED + 1)},
    {"predicted_step_s": float("nan")},
    {"predicted_step_s": float("inf")},
    {"predicted_step_s": -1.0},
    {"slack_s": float("nan")},
]


@pytest.mark.parametrize("change", BROKEN_DECISIONS, ids=str)
def test_decision_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    broken = msgspec.structs.replace(EXAMPLES["decision"], **change)
    with pytest.raises(BadFrame):
        decode_to_engine(encode(broken))


END = RequestEnd(1, 1, 1, 1, 1, 0, 0.5)
BROKEN_SNAPSHOTS = [
    {"ended": [END] * (MAX_ENDED + 1)},
    {"ended": [msgspec.structs.replace(END, age_s=-1.0)]},
    {"ended": [msgspec.structs.replace(END, age_s=float("nan"))]},
    {"ended": [msgspec.structs.replace(END, request_id=MAX_NUMBER + 1)]},
    {"ended": [msgspec.structs.replace(END, reason=256)]},
    {"ended": [msgspec.structs.replace(END, output_tokens=-1)]},
    {"ended": [msgspec.structs.replace(END, expected_tokens=-1)]},
    {"ended": [msgspec.structs.replace(END, expected_tokens=limits.MAX_COUNT + 1)]},
    {"feedback": [StepFeedback(6, 0, 3, 120, 0, 0.01, 0, 1, -1)]},
    {"feedback": [StepFeedback(6, 0, 3, 120, 0, 0.01, 0, 1, 4, -1)]},
    {"feedback": [StepFeedback(6, 0, 3, 120, 0, 0.01, 0, 1, 4, 3, -1)]},
    {"feedback": [StepFeedback(6, 0, 3, 120, 0, 0.01, 0, 1)] * (MAX_FEEDBACK + 1)},
]


@pytest.mark.parametrize("change", BROKEN_SNAPSHOTS, ids=range(len(BROKEN_SNAPSHOTS)))
def test_snapshot_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    broken = msgspec.structs.replace(EXAMPLES["snapshot"], **change)
    with pytest.raises(BadFrame):
        decode_to_controller(encode(broken))


@pytest.mark.parametrize(
    "change",
    [
        {"device": "x" * (limits.MAX_TEXT + 1)},
        {"url": "x" * (limits.MAX_TEXT + 1)},
        {"graph_rows": [1] * (MAX_GRAPHS + 1)},
        {"graph_rows": [-1]},
        {"graph_rows": ["8"]},
        {"drafting": Drafting(0, width=0)},
        {"drafting": Drafting(0, most_tokens=limits.MAX_DRAFT_TOKENS + 1)},
        {"drafting": Drafting(0, switch_s=float("nan"))},
        {"drafting": Drafting(256)},
        {"draft_lengths": [1] * (limits.MAX_DRAFT_LENGTHS + 1)},
    ],
    ids=range(10),
)
def test_hello_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    broken = msgspec.structs.replace(EXAMPLES["hello"], **change)
    with pytest.raises(BadFrame):
        decode_to_controller(encode(broken))


@pytest.mark.parametrize("column", ROW_COLUMNS)
def test_uneven_columns_are_refused(column: str) -> None:
    whole = EXAMPLES["snapshot"]
    torn = msgspec.structs.replace(whole.rows, **{column: getattr(whole.rows, column) + b"\x00"})
    with pytest.raises(BadFrame, match=r"rows\."):
        decode_to_controller(encode(msgspec.structs.replace(whole, rows=torn)))


@pytest.mark.parametrize("column", QUEUE_COLUMNS)
def test_uneven_columns_of_the_queue_are_refused(column: str) -> None:
    whole = EXAMPLES["snapshot"]
    torn = msgspec.structs.replace(whole.queue, **{column: getattr(whole.queue, column) + b"\x00"})
    with pytest.raises(BadFrame, match=r"queue\."):
        decode_to_controller(encode(msgspec.structs.replace(whole, queue=torn)))


@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(frame: bytes) -> None:
    for decoder in (decode_to_engine, decode_to_controller):
        try:
            decoder(frame)
        except BadFrame:
            continue


@given(st.data(), st.sampled_from(sorted(EXAMPLES)))
def test_flipped_bits_are_decoded_or_refused(data: st.DataObject, name: str) -> None:
    frame = bytearray(encode(EXAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(name, bytes(frame))
    except BadFrame:
        return


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_columns_round_trip(values: list[int]) -> None:
    assert list(unpack("I", pack("I", values))) == values


def test_json_schema_describes_every_message() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {"Hello", "Welcome", "Refusal", "Snapshot", "Decision", "Goodbye"} <= set(
        schema["$defs"]
    )
    validator = jsonschema.Draft202012Validator(schema)
    for message in EXAMPLES.values():
        validator.validate(json.loads(msgspec.json.encode(message)))


def test_largest_snapshot_fits_a_frame() -> None:
    most = RequestEnd(MAX_NUMBER, MAX_NUMBER, *[limits.MAX_COUNT] * 3, 255, 1e7, *[1 << 30] * 3)
    step = StepFeedback(limits.MAX_STEP, 255, *[limits.MAX_COUNT] * 3, 1e7, 255, *[1 << 30] * 4)
    largest = msgspec.structs.replace(
        EXAMPLES["snapshot"],
        rows=rows(limits.MAX_ROWS),
        queue=queue(limits.MAX_QUEUED),
        ended=[most] * MAX_ENDED,
        feedback=[step] * MAX_FEEDBACK,
    )
    frame = encode(largest)
    assert len(frame) < limits.MAX_FRAME_BYTES
    assert decode_to_controller(frame) == largest
