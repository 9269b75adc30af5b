"""Branch admission: which rows sit a step out.

Whatever arrives, these bounds hold: only an opportunistic row is ever parked, never a pinned one,
never for more than ``max_parked_steps`` steps in a row, and never all rows of a batch.
"""

from __future__ import annotations

from collections.abc import Collection

from governor_protos.messages import Band, Role, RowFlag

from sglang_patch.rows import RowTable

_OPPORTUNISTIC = Role.OPPORTUNISTIC.value
_UNTOUCHABLE = int(RowFlag.PINNED | RowFlag.UNBORN)


def parkable(table: RowTable, roles: list[int], max_parked_steps: int) -> list[int]:
    """Indices of the rows that may sit this step out."""
    return [
        index
        for index, record in enumerate(table.records)
        if roles[index] == _OPPORTUNISTIC
        and not table.flags[index] & _UNTOUCHABLE
        and not (record.parked_steps and record.must_advance(max_parked_steps))
    ]


def park_as_decided(
    wanted: Collection[int], table: RowTable, roles: list[int], max_parked_steps: int
) -> list[int]:
    """Indices of the rows to park out of those that a decision names by request id."""
    allowed = parkable(table, roles, max_parked_steps)
    return _leave_one(
        [index for index in allowed if table.records[index].request_id in wanted], table
    )


def park_by_orders(
    orders: list[Band], table: RowTable, roles: list[int], max_parked_steps: int
) -> list[int]:
    """Indices of the rows to park under standing orders.

    The least advanced branches go first, so that turns are taken when no controller answers.
    """
    allowed = parkable(table, roles, max_parked_steps)
    if not allowed or not orders:
        return []
    mandatory = len(table.records) - len(allowed)
    band = next((band for band in orders if mandatory <= band.max_rows), orders[-1])
    open_slots = len(allowed) if band.extra_rows < 0 else band.extra_rows
    width: dict[int, int] = {}
    free = set(allowed)
    for index, record in enumerate(table.records):
        if record.group_id and index not in free:
            width[record.group_id] = width.get(record.group_id, 0) + 1
    park = []
    order = sorted(
        allowed, key=lambda index: (table.output_tokens[index], table.records[index].request_id)
    )
    for index in order:
        group = table.records[index].group_id
        taken = width.get(group, 0)
        if open_slots > 0 and (band.branch_width < 0 or taken < band.branch_width):
            open_slots -= 1
            width[group] = taken + 1
        else:
            park.append(index)
    return _leave_one(park, table)


def _leave_one(park: list[int], table: RowTable) -> list[int]:
    """Never park every row: a step must advance something."""
    return park[1:] if park and len(park) == len(table.records) else park
