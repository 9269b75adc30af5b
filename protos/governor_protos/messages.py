"""The messages that an engine and a controller exchange.

One engine (a scheduler's rank 0) holds a DEALER socket to a controller's ROUTER. Every message is
one msgpack frame: an array that starts with the message's tag. Fields are only ever appended.
All times are durations in seconds relative to the moment the message was built: the clocks of two
machines never meet.

======== ================== ==============================================================
tag      direction          meaning
======== ================== ==============================================================
hello    engine->controller who I am, which knobs I have, my limits
welcome  controller->engine accepted; who I am, which policy runs
refusal  controller->engine not accepted, and why; the engine runs as stock
snapshot engine->controller the batch as of this step, and how the last steps went
decision controller->engine which rows sit the step out, and what to do when I am late
goodbye  both               I am leaving; forget me
======== ================== ==============================================================
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated

import msgspec
from msgspec import Meta

from governor_protos import limits
from governor_protos.columns import ITEM_BYTES, QUEUE_COLUMNS, ROW_COLUMNS

Text = Annotated[str, Meta(max_length=limits.MAX_TEXT)]
Message = Annotated[str, Meta(max_length=limits.MAX_MESSAGE)]
Count = Annotated[int, Meta(ge=0, le=limits.MAX_COUNT)]
Number = Annotated[int, Meta(ge=0, le=limits.MAX_NUMBER)]
"""What a request or a group is called on the wire."""
Step = Annotated[int, Meta(ge=0, le=limits.MAX_STEP)]
Duration = Annotated[float, Meta(ge=0, le=limits.MAX_DURATION_S)]
SignedDuration = Annotated[float, Meta(ge=-limits.MAX_DURATION_S, le=limits.MAX_DURATION_S)]
Cap = Annotated[int, Meta(ge=-1, le=limits.MAX_COUNT)]
"""A cap on a count; -1 means no cap."""

Price = Annotated[float, Meta(ge=0, le=limits.MAX_DRAFT_PRICE)]

Column1 = Annotated[bytes, Meta(max_length=1 * limits.MAX_ROWS)]
Column4 = Annotated[bytes, Meta(max_length=4 * limits.MAX_ROWS)]
QueueColumn1 = Annotated[bytes, Meta(max_length=1 * limits.MAX_QUEUED)]
QueueColumn4 = Annotated[bytes, Meta(max_length=4 * limits.MAX_QUEUED)]


class Role(IntEnum):
    """What a row is to its request."""

    SERIAL = 0
    """The only row of its request: never parked by admission."""
    TRUNK = 1
    """The row that its request cannot do without: never parked by admission."""
    OPPORTUNISTIC = 2
    """An extra branch: advances when the step can afford it."""


class RowFlag(IntFlag):
    """Facts about a row that forbid touching it this step."""

    PINNED = 1
    """The engine will not park this row (aborting, penalties, beam search, aged, ...)."""
    UNBORN = 2
    """Still in prefill: joins the decode batch after this step."""
    PROTECTED = 4
    """Never retracted for another's sake: its client asked that nobody takes its place, or the
    engine could not bring all of it back. It may be parked like any other. Since 1.6."""


class QueueFlag(IntFlag):
    """Facts about a waiting request."""

    STARTED = 1
    """In the middle of its prefill: chunks of it are in KV memory."""


class StepKind(IntEnum):
    DECODE = 0
    PREFILL = 1
    MIXED = 2


class Outcome(IntEnum):
    """What became of the controller's decision at one step."""

    APPLIED = 0
    """A decision made for this very step was applied."""
    LATE = 1
    """The newest decision was made for an earlier step; its standing orders were applied."""
    STALE = 2
    """The newest decision's lease had run out: stock behaviour."""
    INVALID = 3
    """The newest reply could not be used: stock behaviour."""
    NONE = 4
    """No decision was at hand: stock behaviour."""
    UNGOVERNED = 5
    """There was nothing to decide: no extra branch in the batch, no drafts, nobody's prefill that
    the engine could be told about."""


class EndReason(IntEnum):
    """Why a request has left the engine."""

    STOPPED = 0
    """It said all it had to: a stop token, a stop string."""
    LENGTH = 1
    """It reached its limit; how long it would have gone on is not known."""
    ABORTED = 2
    """Its client left or an error ended it; how long it would have gone on is not known."""


class Wire(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Base of all messages: an array, first item the tag, unknown trailing items ignored."""


class DraftSource(IntEnum):
    """Where draft tokens come from."""

    MODEL = 0
    """A draft model or a head: each draft step costs a pass of it."""
    NGRAM = 1
    """Text seen before: drafting costs next to nothing, and only some rows find a match. A draft
    length is how many draft tokens of each row are verified; the engine keeps trees to itself."""


class Drafting(msgspec.Struct, array_like=True, frozen=True):
    """How an engine drafts, and what it can vary. Since 1.3."""

    source: Annotated[int, Meta(ge=0, le=255)]
    """A :class:`DraftSource`."""
    width: Annotated[int, Meta(ge=1, le=limits.MAX_DRAFT_TOKENS)] = 1
    """Candidates per position: 1 drafts chains, more draft trees."""
    most_tokens: Annotated[int, Meta(ge=0, le=limits.MAX_DRAFT_TOKENS)] = 0
    """Draft tokens that one row can have verified in one step."""
    is_ragged: bool = False
    """Whether a row with fewer draft tokens than others costs less to verify. Otherwise a cap cuts
    what may be accepted, and each row pays for as much as the batch's draft length allows."""
    takes_budget: bool = False
    """Whether it can share out a budget of draft tokens over all rows itself
    (:attr:`Decision.draft_budget`)."""
    switch_s: Duration = 0.0
    """What it takes to go from one draft length to another between two steps."""


class Hello(Wire, frozen=True, tag="hello"):
    protocol_major: Count
    protocol_minor: Count
    engine_id: Text
    """Name of this engine (host, port, data-parallel rank): the same after a restart."""
    incarnation: Text
    """Changes at every start, so that a restarted engine is told from a reconnecting one."""
    plugin_version: Text
    sglang_version: Text
    model: Message
    tp_size: Count
    dp_rank: Count
    overlap: bool
    """Whether the engine plans a step while the one before still runs."""
    max_running_requests: Count
    max_total_tokens: Count
    """KV capacity in tokens."""
    max_context_tokens: Count
    page_size: Count
    chunked_prefill_tokens: Cap
    """Start-up value of the prefill budget; -1 when chunking is off."""
    speculative_algorithm: Text
    draft_lengths: Annotated[list[Count], Meta(max_length=limits.MAX_DRAFT_LENGTHS)]
    """Draft lengths that a step can take, ascending; 0 among them if it can do without drafts.
    Empty without speculation."""
    knobs: Annotated[list[Text], Meta(max_length=16)]
    """Actuators this engine has: ``branches``; ``drafts`` if it can be told how many tokens to
    draft, without which a draft length in a decision means nothing to it; ``prefill`` (since
    1.5) if it can be told how many prompt tokens to prefill, and whose first; and ``retract``
    (since 1.6) if it can be told whose KV memory to free."""
    device: Text = ""
    """What it computes on, such as ``NVIDIA H200``. Since 1.2: empty from an older engine."""
    graph_rows: Annotated[list[Count], Meta(max_length=limits.MAX_GRAPHS)] = []
    """Batch sizes that it has captured graphs for, ascending: a step of fewer rows takes as long as
    the next of these. Empty without graphs, and from an engine before 1.2."""
    drafting: Drafting | None = None
    """How it drafts. Since 1.3: absent without speculation, and from an older engine."""
    mixes_chunks: bool = False
    """Whether decode rows advance in a step that prefills. Otherwise they wait for its end. Since
    1.5."""
    url: Text = ""
    """Where its clients reach it, such as ``http://gpu-7:30000``. Since 1.8: empty from an older
    engine, and from one that serves no HTTP."""


class Welcome(Wire, frozen=True, tag="welcome"):
    protocol_major: Count
    protocol_minor: Count
    controller_id: Text
    controller_version: Text
    policy: Text
    max_rows: Count
    """Largest snapshot, in rows, that this controller decides for."""


class Refusal(Wire, frozen=True, tag="refusal"):
    protocol_major: Count
    protocol_minor: Count
    reason: Text
    """Machine-readable: ``incompatible_version``, ``unknown_engine``, ``name_taken``,
    ``too_many_engines``, ``invalid_message``; engines treat one they do not know as final."""
    message: Message


class StepFeedback(msgspec.Struct, array_like=True, frozen=True):
    """One finished step: what ran, how long it took, what became of its decision."""

    step: Step
    kind: Annotated[int, Meta(ge=0, le=255)]
    rows: Count
    """Rows that advanced."""
    context_tokens: Count
    """KV tokens that those rows attended to, summed."""
    prefill_tokens: Count
    latency_s: Duration
    outcome: Annotated[int, Meta(ge=0, le=255)]
    parked_rows: Count
    draft_tokens: Count = 0
    """Draft tokens verified beyond the one token of each row, summed. Since 1.2."""
    accepted_tokens: Count = 0
    """How many of them were accepted: tokens that the step gave beyond one a row. Since 1.3."""
    draft_length: Count = 0
    """Draft steps before it: the length of the longest draft. Since 1.3."""


class RequestEnd(msgspec.Struct, array_like=True, frozen=True):
    """One row that has left the engine for good. Since 1.2."""

    request_id: Number
    """As in :class:`Rows`."""
    group_id: Number
    """As in :class:`Rows`."""
    prompt_tokens: Count
    output_tokens: Count
    max_new_tokens: Count
    reason: Annotated[int, Meta(ge=0, le=255)]
    """An :class:`EndReason`; one that is not known counts as ``ABORTED``."""
    age_s: Duration
    """From its arrival to its end."""
    draft_tokens: Count = 0
    """Draft tokens proposed for it over its life."""
    accepted_tokens: Count = 0
    """How many of them were accepted."""
    expected_tokens: Count = 0
    """As in :class:`Rows`. Since 1.7."""


class Rows(msgspec.Struct, array_like=True, frozen=True):
    """The rows of a batch, one packed column per fact (see :mod:`governor_protos.columns`)."""

    request_id: Column4 = b""
    group_id: Column4 = b""
    """0: the request is on its own; equal numbers are branches of one request."""
    role: Column1 = b""
    flags: Column1 = b""
    context_tokens: Column4 = b""
    output_tokens: Column4 = b""
    max_new_tokens: Column4 = b""
    priority: Column4 = b""
    """Higher is more urgent, whichever sign the engine was started with."""
    parked_steps: Column4 = b""
    """Steps in a row that this row has sat out."""
    age_s: Column4 = b""
    since_first_token_s: Column4 = b""
    """Negative before the first token."""
    since_last_token_s: Column4 = b""
    """Since the last token, or since the row returned from parking if that was later; negative
    before the first token."""
    ttft_slo_s: Column4 = b""
    tpot_slo_s: Column4 = b""
    """Seconds per token promised; ``limits.MAX_DURATION_S`` without a promise."""
    group_output_tokens: Column4 = b""
    """Tokens of all branches of the row's group so far, finished ones included; 0 for a row on its
    own. Since 1.1: empty from an older engine."""
    draft_tokens: Column4 = b""
    """Draft tokens that were verified for the row since it came. Since 1.3: empty from an older
    engine and from one that does not speculate."""
    accepted_tokens: Column4 = b""
    """How many of them were accepted. Since 1.3, likewise."""
    expected_tokens: Column4 = b""
    """Output that its client expects, in tokens; 0: it said nothing. A hint: ``max_new_tokens``
    holds whatever it says. Since 1.7: empty from an older engine and where nobody said anything."""

    def __len__(self) -> int:
        return len(self.request_id) // 4


class Queue(msgspec.Struct, array_like=True, frozen=True):
    """Requests that wait for their prefill, in the order in which the engine would take them, one
    packed column per fact. Since 1.5.

    One that is in the middle of its prefill comes first; it is among the rows as well, ``UNBORN``.
    """

    request_id: QueueColumn4 = b""
    """As in :class:`Rows`: a request keeps it when it starts to run."""
    group_id: QueueColumn4 = b""
    """As in :class:`Rows`."""
    flags: QueueColumn1 = b""
    """:class:`QueueFlag` bits."""
    missing_tokens: QueueColumn4 = b""
    """Tokens that its prefill has to compute still: what the prefix cache holds is done."""
    prompt_tokens: QueueColumn4 = b""
    output_tokens: QueueColumn4 = b""
    """Of a request that was retracted; it prefills them again."""
    max_new_tokens: QueueColumn4 = b""
    priority: QueueColumn4 = b""
    """Higher is more urgent."""
    age_s: QueueColumn4 = b""
    ttft_slo_s: QueueColumn4 = b""
    """``limits.MAX_DURATION_S`` without a promise; so for the next."""
    tpot_slo_s: QueueColumn4 = b""
    draft_tokens: QueueColumn4 = b""
    """As in :class:`Rows`, of a request that has run before. Since 1.6: empty from an older engine
    and from one that does not speculate."""
    accepted_tokens: QueueColumn4 = b""
    """Likewise."""
    expected_tokens: QueueColumn4 = b""
    """As in :class:`Rows`. Since 1.7, likewise."""

    def __len__(self) -> int:
        return len(self.request_id) // 4


class Snapshot(Wire, frozen=True, tag="snapshot"):
    for_step: Step
    """The step that is to be decided."""
    rows: Rows
    kv_used_tokens: Count
    kv_total_tokens: Count
    waiting_requests: Count
    waiting_prefill_tokens: Count
    feedback: Annotated[list[StepFeedback], Meta(max_length=limits.MAX_FEEDBACK)]
    falls: Count
    """Governed steps since start that ran without a fresh decision."""
    ended: Annotated[list[RequestEnd], Meta(max_length=limits.MAX_ENDED)] = []
    """Rows that have left since the last snapshot. Since 1.2: empty from an older engine."""
    queue: Queue = Queue()
    """The first ``limits.MAX_QUEUED`` of the waiting requests. Since 1.5: empty from an older
    engine, and from one without the knob ``prefill``."""


class Band(msgspec.Struct, array_like=True, frozen=True):
    """Standing orders for batches of up to ``max_rows`` mandatory rows."""

    max_rows: Count
    branch_width: Cap
    """Rows of one branching request that may advance, its trunk included."""
    extra_rows: Cap
    """Opportunistic rows that may advance in the whole batch."""
    draft_tokens: Cap = -1
    """Draft length: tokens that may be drafted for a row; -1: the engine's own choice."""
    prefill_tokens: Cap = -1
    """Prompt tokens that a step may prefill; -1: the engine's own choice. Ignored before 1.5."""


class Decision(Wire, frozen=True, tag="decision"):
    """What to do at ``for_step``; every row that is not named advances.

    A decision names the rows that sit the step *out*, never those that run, so an empty, short or
    outdated decision can only fall back towards stock behaviour.
    """

    for_step: Step
    lease_steps: Annotated[int, Meta(ge=1, le=limits.MAX_LEASE_STEPS)]
    """Steps from ``for_step`` on for which ``orders`` may stand in for a late decision."""
    park: Column4
    """Packed uint32 request ids."""
    orders: Annotated[list[Band], Meta(max_length=limits.MAX_BANDS)]
    """Ascending in ``max_rows``; the last band covers everything larger."""
    policy: Text
    predicted_step_s: Duration
    """Predicted time of the step as decided; 0 while nothing is fitted."""
    baseline_step_s: Duration
    """Predicted time of the step with mandatory rows alone."""
    budget_s: Duration
    slack_s: SignedDuration
    draft_length: Cap = -1
    """Draft steps before the step, one of ``Hello.draft_lengths``; 0: no drafts; -1: the engine's
    own choice. An engine takes the longest of its lengths that is no longer. Since 1.3."""
    capped: Column4 = b""
    """Packed uint32 ids of the requests that may have fewer draft tokens verified. Since 1.3."""
    caps: Column1 = b""
    """Packed uint8, as many as ``capped``: draft tokens that may be verified for each of them. Of a
    chain, its first ones; of a tree, the likeliest, parents before children. Rows that are not
    named may have ``draft_length`` of a chain, ``Drafting.most_tokens`` of a tree. Since 1.3."""
    draft_budget: Cap = -1
    """Draft tokens that may be verified over all rows; -1: as many as lengths and caps allow. The
    engine spends them, within lengths and caps, on the nodes that are worth most (``draft_price``).
    Since 1.3."""
    draft_price: Price = 0.0
    """What a node must be worth to be verified by an engine that shares a budget out; 0: anything.
    A node is worth p / (e - p * d), without bound where e <= p * d: p is the chance of its path by
    the draft itself, e the tokens a step that the row is given on average, d the draft tokens that
    are verified for it. The price is what a draft token adds to a step, over the rest of a row's
    share of the step. Since 1.4."""
    prefill_tokens: Cap = -1
    """Prompt tokens that the step may prefill; 0: it decodes, if there is anything to decode; -1:
    the engine's own choice. Never more than the engine was started with. Since 1.5."""
    prefill_first: QueueColumn4 = b""
    """Packed uint32 ids of the waiting requests that are prefilled first, in this order; others
    follow in the engine's own. A request in the middle of its prefill comes before all, unless it
    is named: those named before it then pass it, as far as their whole prompts fit the budget.
    Since 1.5."""
    retract: Column4 = b""
    """Packed uint32 ids of the rows whose KV memory is freed before the step. They go back to the
    waiting queue with what they have written, and are prefilled again when their turn comes. Never
    a pinned or protected row, never all of a batch. Since 1.6."""


class Goodbye(Wire, frozen=True, tag="goodbye"):
    reason: Message


ToController = Hello | Snapshot | Goodbye
ToEngine = Welcome | Refusal | Decision | Goodbye

assert set(ROW_COLUMNS) == set(Rows.__struct_fields__)  # noqa: S101 - the table and the struct
assert set(ITEM_BYTES) >= set(ROW_COLUMNS.values())  # noqa: S101 - are one definition
assert set(QUEUE_COLUMNS) == set(Queue.__struct_fields__)  # noqa: S101
