"""What the engine side remembers of a request while it runs, and one step's view of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Role

from sglang_patch.apply.time_limits import TimeLimit
from sglang_patch.requests import RequestTerms

_SERIAL, _TRUNK, _OPPORTUNISTIC = (
    Role.SERIAL.value,
    Role.TRUNK.value,
    Role.OPPORTUNISTIC.value,
)

NEVER_S = -1.0
"""Timestamp of something that has not happened."""
FEW_GROUPS = 64
"""So many names are kept for longer than they are needed."""


class GroupProgress:
    """What all branches of one group have produced, finished ones included."""

    __slots__ = ("output_tokens",)

    def __init__(self) -> None:
        self.output_tokens = 0


class RowRecord:
    """One request's terms and history on this engine. Times in seconds of one monotonic clock."""

    __slots__ = (
        "accepted_tokens",
        "arrival_s",
        "deadline_from_s",
        "draft_tokens",
        "ended",
        "expected_tokens",
        "first_token_s",
        "group",
        "group_id",
        "last_token_s",
        "max_new_tokens",
        "parked_steps",
        "pinned",
        "priority",
        "prompt_tokens",
        "protected",
        "request_id",
        "rid",
        "runs",
        "tokens_seen",
        "tpot_slo_s",
        "trunk",
        "ttft_slo_s",
        "waits",
    )

    def __init__(
        self,
        request_id: int,
        rid: str,
        group_id: int,
        terms: RequestTerms,
        arrival_s: float,
        *,
        prompt_tokens: int = 0,
        max_new_tokens: int = 0,
        priority: int = 0,
        pinned: bool = False,
        protected: bool = False,
        group: GroupProgress | None = None,
    ) -> None:
        self.request_id = request_id
        self.rid = rid
        self.group_id = group_id
        self.group = group
        self.trunk = terms.trunk
        self.ttft_slo_s = MAX_DURATION_S if terms.ttft_slo_s is None else terms.ttft_slo_s
        self.tpot_slo_s = MAX_DURATION_S if terms.tpot_slo_s is None else terms.tpot_slo_s
        self.expected_tokens = terms.expected_tokens
        """Output that its client expects; 0: it said nothing."""
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.priority = priority
        self.pinned = pinned
        """Never to be parked, whatever else is true of it."""
        self.protected = protected or terms.protected
        """Never to lose its memory for others' sake."""
        self.first_token_s = NEVER_S
        self.last_token_s = NEVER_S
        self.deadline_from_s = NEVER_S
        """When the time to the next token started to run: the last token, or the row's return to
        the batch if that was later ("on return its deadline restarts", TAPER)."""
        self.tokens_seen = 0
        self.draft_tokens = 0
        """Draft tokens verified for it so far."""
        self.accepted_tokens = 0
        """How many of them were accepted."""
        self.parked_steps = 0
        self.runs: TimeLimit | None = None
        """The engine ends the request at the end of it, if it still runs."""
        self.waits: TimeLimit | None = None
        """The engine ends the request at the end of it, if it still waits."""
        self.ended = False
        """Done, and noted as such: the overlap loop sees a finished row once more."""

    def note_tokens(self, output_tokens: int, now_s: float) -> None:
        """Take note of how many tokens the request has by now."""
        if output_tokens <= self.tokens_seen:
            return
        if self.first_token_s < 0:
            self.first_token_s = now_s
        self.last_token_s = self.deadline_from_s = now_s
        if self.group is not None:
            self.group.output_tokens += output_tokens - self.tokens_seen
        self.tokens_seen = output_tokens

    def note_drafts(self, verified: int, accepted: int) -> None:
        """A step has verified draft tokens for the row. Call it with :meth:`note_tokens`: the
        controller takes the difference of both from snapshot to snapshot."""
        self.draft_tokens += verified
        self.accepted_tokens += accepted

    def sit_out(self) -> None:
        """The row is parked for a step."""
        self.parked_steps += 1

    def must_advance(self, max_parked_steps: int) -> bool:
        """Whether the row has sat out for as long as it may.

        Rows of one burst are parked together. Their limits are spread over the upper half of
        ``max_parked_steps``, so that they do not all come back at one step.
        """
        spread = max(1, max_parked_steps // 2)
        return self.parked_steps >= max_parked_steps - self.request_id % spread

    def advance(self, now_s: float) -> None:
        """The row takes part in a step."""
        if self.parked_steps:
            self.parked_steps = 0
            if self.last_token_s >= 0:
                self.deadline_from_s = now_s


@dataclass(slots=True)
class RowTable:
    """The rows that can take part in a step, one list per fact, all of one length."""

    records: list[RowRecord] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    """:class:`governor_protos.messages.RowFlag` bits."""
    output_tokens: list[int] = field(default_factory=list)

    def roles(self) -> list[int]:
        """The role of every row.

        A group always has a trunk: where no row of it declared itself one, or that row has
        finished, the oldest row left takes over. So admission can never hold a whole request.
        """
        acting: dict[int, int] = {}
        declared: set[int] = set()
        for record in self.records:
            group = record.group_id
            if not group:
                continue
            if record.trunk:
                declared.add(group)
            elif record.request_id < acting.get(group, record.request_id + 1):
                acting[group] = record.request_id
        if not acting and not declared:
            return [_SERIAL] * len(self.records)
        trunks = {number for group, number in acting.items() if group not in declared}
        return [
            _SERIAL
            if not record.group_id
            else _TRUNK
            if record.trunk or record.request_id in trunks
            else _OPPORTUNISTIC
            for record in self.records
        ]


class Names:
    """Turns request and group names into the small numbers that travel on the wire.

    A number is never used twice in one engine's life; a group's number is forgotten with its last
    live row, so that memory follows what runs.
    """

    def __init__(self) -> None:
        self._requests = itertools.count(1)
        self._groups = itertools.count(1)
        self._named: dict[str, tuple[int, GroupProgress]] = {}

    def request_id(self) -> int:
        return next(self._requests) & 0xFFFFFFFF

    def group(self, name: str) -> tuple[int, GroupProgress | None]:
        """Number and progress of the group ``name``; 0 and none for a request on its own."""
        if not name:
            return 0, None
        known = self._named.get(name)
        if known is None:
            known = self._named[name] = (next(self._groups) & 0xFFFFFFFF, GroupProgress())
        return known

    def keep_groups(self, live: Iterable[int]) -> None:
        """Forget all groups but ``live`` ones, once there are many."""
        if len(self._named) <= FEW_GROUPS:
            return  # at nearly every step
        kept = set(live)
        if len(self._named) > 2 * len(kept) + FEW_GROUPS:
            self._named = {name: known for name, known in self._named.items() if known[0] in kept}
