"""Bounds of branch admission, whatever a controller sends."""

from __future__ import annotations

from governor_protos.messages import Band, Role, RowFlag
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.apply.branches import park_as_decided, park_by_orders
from sglang_patch.requests import RequestTerms
from sglang_patch.rows import RowRecord, RowTable

MAX_PARKED = 5


@st.composite
def tables(draw: st.DrawFn) -> RowTable:
    table = RowTable()
    for number in range(1, draw(st.integers(1, 24)) + 1):
        group = draw(st.integers(0, 3))
        terms = RequestTerms(str(group), draw(st.booleans()) and group > 0, None, None)
        record = RowRecord(number, f"r{number}", group, terms, 0.0)
        record.parked_steps = draw(st.integers(0, MAX_PARKED + 1))
        table.records.append(record)
        table.flags.append(draw(st.sampled_from([0, 0, 0, RowFlag.PINNED, RowFlag.UNBORN])))
        table.output_tokens.append(draw(st.integers(0, 50)))
    return table


bands = st.lists(
    st.tuples(st.integers(0, 64), st.integers(-1, 6), st.integers(-1, 30)), max_size=6
).map(
    lambda items: [Band(rows, width, extra) for rows, width, extra in sorted(dict.fromkeys(items))]
)


def check_bounds(table: RowTable, park: list[int]) -> None:
    roles = table.roles()
    assert len(set(park)) == len(park) < len(table.records)
    for index in park:
        assert roles[index] == Role.OPPORTUNISTIC
        assert table.flags[index] == 0
        assert table.records[index].parked_steps < MAX_PARKED
    for group in {record.group_id for record in table.records} - {0}:
        rows = [i for i, record in enumerate(table.records) if record.group_id == group]
        assert set(rows) - set(park), "a whole request was parked"


@given(tables(), st.sets(st.integers(0, 30)))
def test_no_decision_breaks_the_bounds(table: RowTable, wanted: set[int]) -> None:
    park = park_as_decided(wanted, table, table.roles(), MAX_PARKED)
    check_bounds(table, park)
    assert {table.records[index].request_id for index in park} <= wanted


@given(tables(), bands)
def test_no_standing_orders_break_the_bounds(table: RowTable, orders: list[Band]) -> None:
    check_bounds(table, park_by_orders(orders, table, table.roles(), MAX_PARKED))


@given(tables())
def test_every_group_has_a_trunk_and_lone_rows_are_serial(table: RowTable) -> None:
    roles = table.roles()
    for index, record in enumerate(table.records):
        if record.group_id == 0:
            assert roles[index] == Role.SERIAL
        if record.trunk:
            assert roles[index] == Role.TRUNK
    for group in {record.group_id for record in table.records} - {0}:
        assert any(
            role == Role.TRUNK and record.group_id == group
            for role, record in zip(roles, table.records, strict=True)
        )


@given(st.integers(2, 12), st.integers(0, 12))
def test_no_row_starves_under_a_controller_that_parks_all_it_can(rows: int, width: int) -> None:
    """The longest wait of any row is ``max_parked_steps``, whatever is decided."""
    table = RowTable()
    for number in range(1, rows + 1):
        table.records.append(
            RowRecord(number, str(number), 1, RequestTerms("a", False, None, None), 0)
        )
        table.flags.append(0)
        table.output_tokens.append(0)
    everything = set(range(rows + 1))
    waited = [0] * rows
    for step in range(6 * MAX_PARKED):
        if step % 3:
            park = park_as_decided(everything, table, table.roles(), MAX_PARKED)
        else:
            park = park_by_orders([Band(64, width, 0)], table, table.roles(), MAX_PARKED)
        for index, record in enumerate(table.records):
            record.parked_steps = waited[index] = waited[index] + 1 if index in park else 0
        assert max(waited) <= MAX_PARKED


def test_standing_orders_let_the_least_advanced_branches_go_first() -> None:
    table = RowTable()
    for number, tokens in ((1, 9), (2, 5), (3, 3), (4, 7)):
        table.records.append(
            RowRecord(number, str(number), 1, RequestTerms("a", False, None, None), 0)
        )
        table.flags.append(0)
        table.output_tokens.append(tokens)
    park = park_by_orders([Band(64, 3, 8)], table, table.roles(), 100)
    assert park == [3]  # trunk (1), then 3 tokens, then 5; the fourth is over the width of 3


def test_rows_parked_together_do_not_all_come_back_at_once() -> None:
    table = RowTable()
    for number in range(1, 42):
        record = RowRecord(number, str(number), 1, RequestTerms("a", False, None, None), 0)
        table.records.append(record)
        table.flags.append(0)
        table.output_tokens.append(0)
    everything = set(range(42))
    back = []
    for _ in range(65):
        park = set(park_as_decided(everything, table, table.roles(), 64))
        back.append(len(table.records) - 1 - len(park))
        for index, record in enumerate(table.records):
            if index in park:
                record.sit_out()
            else:
                record.advance(0.0)
    assert sum(back) >= 40
    assert max(back) <= 2
