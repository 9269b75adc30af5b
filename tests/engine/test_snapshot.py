"""Packing rows: what is cached must not go stale."""

from __future__ import annotations

from governor_protos import decode_to_controller, encode
from governor_protos.columns import ROW_COLUMNS, unpack
from governor_protos.messages import Rows, Snapshot
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.queue import QueuePacker, QueueTable
from sglang_patch.requests import RequestTerms
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.snapshot import RowPacker

TERMS = RequestTerms("a", False, 0.5, 0.05)


def record(number: int, hint: int = 0) -> RowRecord:
    terms = TERMS._replace(expected_tokens=hint)
    return RowRecord(
        number, f"r{number}", number % 3, terms, 1.0, prompt_tokens=10 * number, max_new_tokens=64
    )


def table_of(records: list[RowRecord], outputs: list[int]) -> RowTable:
    return RowTable(records, [0] * len(records), outputs)


@given(st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=8), st.data())
def test_a_packer_with_history_packs_like_a_fresh_one(
    batches: list[list[int]], data: st.DataObject
) -> None:
    everyone = [record(number, 7 * (number % 2)) for number in range(6)]
    packer = RowPacker()
    for numbers in batches:
        rows = [everyone[number] for number in numbers]
        outputs = [data.draw(st.integers(0, 9)) for _ in rows]
        table = table_of(rows, outputs)
        assert packer.pack(table, table.roles(), 2.0) == RowPacker().pack(table, table.roles(), 2.0)


def test_columns_hold_what_the_records_say() -> None:
    row = record(4)
    row.note_tokens(3, 5.0)
    row.sit_out()
    packed = RowPacker().pack(table_of([row], [3]), [2], 7.0)
    values = {
        name: unpack(code, getattr(packed, name))[0]
        for name, code in ROW_COLUMNS.items()
        if getattr(packed, name)
    }
    assert set(ROW_COLUMNS) - set(values) == {"draft_tokens", "accepted_tokens", "expected_tokens"}
    assert values["request_id"] == 4
    assert (values["context_tokens"], values["output_tokens"]) == (43, 3)
    assert (values["since_first_token_s"], values["since_last_token_s"]) == (2.0, 2.0)
    assert (values["parked_steps"], values["age_s"], values["ttft_slo_s"]) == (1, 6.0, 0.5)
    row.advance(6.5)
    again = RowPacker().pack(table_of([row], [3]), [2], 7.0)
    assert unpack("f", again.since_last_token_s)[0] == 0.5, "its deadline restarts on its return"
    assert unpack("i", again.parked_steps)[0] == 0


def test_hints_travel_as_they_are_and_silence_takes_no_room() -> None:
    silent, telling = [record(1), record(2)], [record(3), record(4, hint=120)]
    for records, told in ((silent, []), (telling, [0, 120]), (silent, [])):
        table = table_of(records, [0, 0])
        rows = RowPacker().pack(table, table.roles(), 2.0)
        waiting = QueuePacker().pack(QueueTable(records, [0, 0], [9, 9], [0, 0]), 2.0)
        assert list(unpack("i", rows.expected_tokens)) == told
        assert list(unpack("i", waiting.expected_tokens)) == told


@given(st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=8))
def test_a_packer_of_queues_with_history_packs_like_a_fresh_one(queues: list[list[int]]) -> None:
    everyone = [record(number, 7 * (number % 2)) for number in range(6)]
    packer = QueuePacker()
    for numbers in queues:
        nothing = [0] * len(numbers)
        table = QueueTable([everyone[number] for number in numbers], nothing, nothing, nothing)
        assert packer.pack(table, 2.0) == QueuePacker().pack(table, 2.0)


def test_more_rows_than_the_contract_allows_are_left_ungoverned() -> None:
    many = [record(number) for number in range(5000)]
    table = table_of(many, [1] * 5000)
    rows: Rows = RowPacker().pack(table, table.roles(), 2.0)
    decode_to_controller(encode(Snapshot(1, rows, 0, 0, 0, 0, [], 0)))
    assert len(rows) == 4096
