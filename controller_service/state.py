"""One snapshot as numpy columns: what every policy and predictor looks at.

A :class:`StepState` is a frozen view. Its columns are read-only ``np.frombuffer`` views of the
frame's packed columns, so building one copies nothing and makes no object per row. It knows no
clock: all its times are durations relative to the moment the engine built the snapshot.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from governor_protos.columns import APPENDED_COLUMNS, ROW_COLUMNS
from governor_protos.messages import Role, RowFlag, Rows, Snapshot
from msgspec.structs import astuple

from controller_service.columns import F4, I4, U1, U4, BadColumn, Mask, dtypes
from controller_service.prefill.queue import PrefillState
from controller_service.service.state import ServiceState
from controller_service.speculation.drafting import DraftState

_DTYPES = dtypes(ROW_COLUMNS)
_APPENDED = tuple(position for position, name in enumerate(ROW_COLUMNS) if name in APPENDED_COLUMNS)


# NOTE: plain ints: numpy takes microseconds to compare a column with a member of an enum.
_OPPORTUNISTIC = int(Role.OPPORTUNISTIC)
_UNBORN = int(RowFlag.UNBORN)


class StepState(msgspec.Struct, frozen=True, eq=False):
    """The batch that is to be decided. Every column has shape ``(rows,)``."""

    for_step: int
    rows: int
    running: Mask
    """Rows that take part in the step: all but those still in prefill (UNBORN)."""
    parkable: Mask
    """Rows that a policy may park: opportunistic, in a group, with no flag set. An unknown flag
    forbids parking, so that a newer engine's reasons are respected."""
    deferred: Mask
    """Rows that sat out the step before this one."""
    running_rows: int
    running_context_tokens: int
    parkable_rows: int
    kv_used_tokens: int
    kv_total_tokens: int
    waiting_requests: int
    waiting_prefill_tokens: int
    prefill_per_token_s: float
    """Time that steps of prefill take per token decoded, of late."""
    drafts: DraftState | None
    """What is known of drafting; ``None`` for an engine that cannot be told how much to draft."""
    prefill: PrefillState | None
    """Who waits for prefill; ``None`` for an engine that cannot be told how much to prefill."""
    service: ServiceState | None
    """What each has had and is expected to need; ``None`` where nobody decides about the order."""
    request_id: U4
    group_id: U4
    role: U1
    flags: U1
    context_tokens: I4
    output_tokens: I4
    max_new_tokens: I4
    priority: I4
    parked_steps: I4
    age_s: F4
    since_first_token_s: F4
    since_last_token_s: F4
    ttft_slo_s: F4
    tpot_slo_s: F4
    group_output_tokens: I4
    """Tokens of the row's whole group, finished branches included; 0 for a row on its own, and
    throughout from an engine that does not tell."""
    draft_tokens: I4
    """Draft tokens verified for the row so far; 0 from an engine that does not tell."""
    accepted_tokens: I4
    """How many of them were accepted; likewise."""
    expected_tokens: I4
    """Output that the row's client expects; 0: it said nothing."""

    @classmethod
    def from_snapshot(
        cls,
        snapshot: Snapshot,
        prefill_per_token_s: float = 0.0,
        drafts: DraftState | None = None,
        prefill: PrefillState | None = None,
        service: ServiceState | None = None,
    ) -> StepState:
        """View ``snapshot`` as columns.

        Args:
            prefill_per_token_s: see the field.
            drafts: likewise.
            prefill: likewise.
            service: likewise.

        Raises:
            BadColumn: a row has a negative context.
        """
        columns: list[Any] = list(map(np.frombuffer, astuple(snapshot.rows), _DTYPES))
        _, group_id, role, flags, context, _, _, _, parked_steps = columns[:9]
        rows = len(role)
        for position in _APPENDED:
            if len(columns[position]) != rows:
                columns[position] = np.zeros(rows, dtype=np.int32)
        if rows and np.minimum.reduce(context) < 0:
            raise BadColumn("rows.context_tokens: negative; a context holds at least 0 tokens")
        parkable = (role == _OPPORTUNISTIC) & (group_id != 0)
        running = np.ones(rows, dtype=np.bool_)
        running_rows = rows
        running_context = context
        # Nearly every step has no flagged row at all.
        if np.count_nonzero(flags):
            parkable &= flags == 0
            running = (flags & _UNBORN) == 0
            running_rows = int(np.count_nonzero(running))
            running_context = context[running]
        return cls(
            snapshot.for_step,
            rows,
            running,
            parkable,
            parked_steps > 0,
            running_rows,
            int(np.add.reduce(running_context, dtype=np.int64)),
            int(np.count_nonzero(parkable)),
            snapshot.kv_used_tokens,
            snapshot.kv_total_tokens,
            snapshot.waiting_requests,
            snapshot.waiting_prefill_tokens,
            prefill_per_token_s,
            drafts,
            prefill,
            service,
            *columns,
        )

    @classmethod
    def from_rows(cls, rows: Rows, for_step: int = 0) -> StepState:
        """View bare rows, for simulators and tests."""
        return cls.from_snapshot(Snapshot(for_step, rows, 0, 0, 0, 0, [], 0))


if Rows.__struct_fields__ != tuple(ROW_COLUMNS) or tuple(ROW_COLUMNS) != tuple(
    StepState.__struct_fields__[-len(ROW_COLUMNS) :]
):
    raise ImportError("StepState's columns and governor_protos' columns have come apart")
