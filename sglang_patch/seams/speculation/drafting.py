"""How the engine drafts, as the controller is told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from governor_protos.limits import MAX_DRAFT_LENGTHS, MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting, DraftSource

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError
from sglang_patch.seams.speculation import ngram
from sglang_patch.seams.speculation.lengths import ordered_lengths

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler

SWITCHES_TIMED = 5
"""Times that each length is switched to at the start, to see what a switch costs."""


def draft_lengths(scheduler: Scheduler) -> tuple[int, ...]:
    """Draft lengths that the engine was set up for, ascending; none without speculation.

    Raises:
        ConfigurationError: there are more, or longer ones, than the protocol carries.
    """
    lengths = ordered_lengths(scheduler)
    if lengths is None:
        return ()
    found = tuple(lengths.candidate_steps)
    if len(found) > MAX_DRAFT_LENGTHS or found[-1] > MAX_DRAFT_TOKENS:
        raise ConfigurationError(
            f"--speculative-adaptive-config: {len(found)} lengths up to {found[-1]}; Governor "
            f"takes at most {MAX_DRAFT_LENGTHS}, up to {MAX_DRAFT_TOKENS}"
        )
    return found


def drafting(scheduler: Scheduler) -> Drafting | None:
    """How the engine drafts; None without speculation.

    Raises:
        ConfigurationError: its drafts are larger than the protocol carries.
    """
    lengths = draft_lengths(scheduler)
    if not lengths:
        return None
    worker: Any = scheduler.draft_worker
    if hasattr(worker, "governor_widths"):
        return ngram.drafting(worker)
    if worker.most_draft_tokens > MAX_DRAFT_TOKENS:
        raise ConfigurationError(
            f"--speculative-num-draft-tokens: {worker.most_draft_tokens} beside the root; Governor "
            f"takes at most {MAX_DRAFT_TOKENS}"
        )
    return Drafting(
        source=DraftSource.MODEL,
        width=worker.topk,
        most_tokens=worker.most_draft_tokens,
        is_ragged=worker.is_ragged,
        takes_budget=worker.is_ragged,
        switch_s=switch_s(worker, lengths),
    )


def switch_s(worker: Any, lengths: Sequence[int]) -> float:
    """What it takes to go from one length to another: the median of a few switches, there and back.

    Host time: a switch launches no work on the device that a step would wait for.
    """
    controller = worker.adaptive_controller
    first: int = worker.speculative_num_steps
    others = [length for length in lengths if length != first]
    taken: list[float] = []
    for length in [*others, first] * (SWITCHES_TIMED if others else 0):
        controller.params.order = DraftOrder(length)
        start_s = time.perf_counter()
        controller.activate_step_by_batch(1)
        taken.append(time.perf_counter() - start_s)
    controller.params.order = STOCK
    return statistics.median(taken) if taken else 0.0
