"""Difference: where a scheduler's ranks are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler


class Ranks(NamedTuple):
    """A scheduler's place among all."""

    leads: bool
    """Whether it takes requests in for its replica."""
    dp_rank: int
    """Number of its replica; 0 if it is the only one."""
    tp_size: int


def ranks_of(scheduler: Scheduler) -> Ranks:
    """Read them.

    A scheduler carries them as ``ps`` up to 0.5.17; in 0.5.23 its process has them.
    """
    found = getattr(scheduler, "ps", None)
    if found is None:
        from sglang.srt.runtime_context import get_parallel

        found = get_parallel()
    return Ranks(
        leads=found.attn_tp_rank == 0 and found.attn_cp_rank == 0,
        dp_rank=found.dp_rank or 0,
        tp_size=found.tp_size,
    )
