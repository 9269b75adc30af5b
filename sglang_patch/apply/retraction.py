"""Preemption: whose KV memory is freed before a step, for the sake of others who wait.

Whatever arrives, these bounds hold: only a running row is ever retracted, never a pinned or a
protected one, and never the last row that would advance.
"""

from __future__ import annotations

from collections.abc import Collection

from governor_protos.columns import unpack
from governor_protos.messages import Decision, RowFlag

from sglang_patch.rows import RowTable

_UNTOUCHABLE = int(RowFlag.PINNED | RowFlag.UNBORN | RowFlag.PROTECTED)


def retract_as_decided(
    decision: Decision, table: RowTable, parked: Collection[int] = ()
) -> tuple[str, ...]:
    """The rows (rid) to retract out of those that a decision names.

    Args:
        parked: indices of the rows that sit the step out.

    Returns:
        In the order in which the decision names them; rows that have left since are passed over.
    """
    if not decision.retract:
        return ()
    rows = {record.request_id: index for index, record in enumerate(table.records)}
    # NOTE: a dict drops an id that a peer names twice.
    named = dict.fromkeys(
        rows[number] for number in unpack("I", decision.retract) if number in rows
    )
    chosen = [index for index in named if not table.flags[index] & _UNTOUCHABLE]
    freed = set(chosen)
    advances = [
        index
        for index, flags in enumerate(table.flags)
        if index not in parked and not flags & RowFlag.UNBORN.value
    ]
    if freed.issuperset(advances):
        # The last that is named and would advance stays: a step must advance something.
        kept = next((index for index in reversed(chosen) if index in advances), None)
        chosen = [] if kept is None else [index for index in chosen if index != kept]
    return tuple(table.records[index].rid for index in chosen)
