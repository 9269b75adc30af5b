"""A row of the simulated engine: one request of SGLang's scheduler."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from governor_workloads.spec import WorkRequest

from sglang_patch.rows import RowRecord

if TYPE_CHECKING:
    from governor_sim.drafting import Fortune

UNKNOWN = -1

Segment = tuple[Hashable, int]
"""A stretch of text: what it holds, and its tokens. Equal keys are equal text."""


class SimRow:
    """One sequence, from its arrival in the waiting queue to its last token."""

    __slots__ = (
        "context_tokens",
        "finished",
        "hit_segments",
        "hit_tokens",
        "is_warm_up",
        "luck",
        "max_new_tokens",
        "missing_tokens",
        "output_tokens",
        "own_tokens",
        "prefilled_tokens",
        "prompt_tokens",
        "record",
        "request",
        "retracted",
        "rid",
        "segments",
        "sent_s",
    )

    def __init__(
        self,
        rid: str,
        request: WorkRequest,
        segments: tuple[Segment, ...],
        sent_s: float,
        *,
        is_warm_up: bool = False,
    ) -> None:
        self.rid = rid
        self.request = request
        self.segments = segments
        self.sent_s = sent_s
        self.is_warm_up = is_warm_up
        """SGLang fills the prefix cache with one prefill before it sends n > 1 samples."""
        self.prompt_tokens = request.prompt_tokens
        self.max_new_tokens = 0 if is_warm_up else request.output_tokens
        self.record: RowRecord | None = None
        self.luck: Fortune | None = None
        """What its drafts come to, once one was made."""
        self.output_tokens = 0
        """Tokens whose results are in."""
        self.context_tokens = 0
        """Tokens in the KV cache, those of the step that is running included."""
        self.hit_segments = 0
        self.hit_tokens = 0
        """Tokens found in the prefix cache when it was admitted."""
        self.missing_tokens = UNKNOWN
        """While it waits: what the prefix cache lacked when it was last looked up."""
        self.prefilled_tokens = 0
        """Tokens of the prompt (and of retracted output) that are in the KV cache."""
        self.own_tokens = 0
        """KV slots that it shares with nobody."""
        self.finished = False
        self.retracted = False
        """Lost its memory and waits again; what a step still computes for it is thrown away."""

    @property
    def length(self) -> int:
        """Tokens that a prefill has to bring into the KV cache."""
        return self.prompt_tokens + self.output_tokens


def segments_of(request: WorkRequest, block_tokens: int) -> tuple[Segment, ...]:
    """A prompt as the prefix cache sees it: shared blocks, then text of its own."""
    segments: list[Segment] = []
    left = request.prompt_tokens
    for block in request.prefix_blocks:
        tokens = min(block_tokens, left)
        if tokens <= 0:
            break
        # A cut block is not the whole one, though it bears its id.
        segments.append((block if tokens == block_tokens else (block, tokens), tokens))
        left -= tokens
    if left:
        segments.append((("request", request.index), left))
    return tuple(segments)
