"""Packing rows: what is cached must not go stale."""

from __future__ import annotations

from governor_protos import decode_to_controller, encode
from governor_protos.columns import ROW_COLUMNS, unpack
from governor_protos.messages import Rows, Snapshot
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.requests import RequestTerms
from sglang_patch.rows import RowRecord, RowTable
from sglang_patch.snapshot import RowPacker

TERMS = RequestTerms("a", False, 0.5, 0.05)


def record(number: int) -> RowRecord:
    return RowRecord(
        number, f"r{number}", number % 3, TERMS, 1.0, prompt_tokens=10 * number, max_new_tokens=64
    )


def table_of(records: list[RowRecord], outputs: list[int]) -> RowTable:
    return RowTable(records, [0] * len(records), outputs)


@given(st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=8), st.data())
def test_a_packer_with_history_packs_like_a_fresh_one(
    batches: list[list[int]], data: st.DataObject
) -> None:
    everyone = [record(number) for number in range(6)]
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
    assert set(ROW_COLUMNS) - set(values) == {"draft_tokens", "accepted_tokens"}
    assert values["request_id"] == 4
    assert (values["context_tokens"], values["output_tokens"]) == (43, 3)
    assert (values["since_first_token_s"], values["since_last_token_s"]) == (2.0, 2.0)
    assert (values["parked_steps"], values["age_s"], values["ttft_slo_s"]) == (1, 6.0, 0.5)
    row.advance(6.5)
    again = RowPacker().pack(table_of([row], [3]), [2], 7.0)
    assert unpack("f", again.since_last_token_s)[0] == 0.5, "its deadline restarts on its return"
    assert unpack("i", again.parked_steps)[0] == 0


def test_more_rows_than_the_contract_allows_are_left_ungoverned() -> None:
    many = [record(number) for number in range(5000)]
    table = table_of(many, [1] * 5000)
    rows: Rows = RowPacker().pack(table, table.roles(), 2.0)
    decode_to_controller(encode(Snapshot(1, rows, 0, 0, 0, 0, [], 0)))
    assert len(rows) == 4096
