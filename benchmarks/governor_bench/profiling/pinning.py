"""One batch taken through an engine's draft lengths while it decodes."""

from __future__ import annotations

import asyncio

from governor_bench.profiling.engine import ControllerApi
from governor_bench.profiling.point import DRAFT_STEPS, SPARE_DRAFT_STEPS, Point
from governor_bench.profiling.policy import PolicyLoan, pinned
from governor_bench.profiling.steps import DECODE, steps_of

GLANCE_S = 0.05
HOPE = 0.7
"""Share of the time that the missing steps should take after which to look again."""
READ_STEPS = DRAFT_STEPS + SPARE_DRAFT_STEPS
"""Newest steps that are read at each look: what is asked of the controller costs it time."""


class PolicyTaken(Exception):
    """Someone else has set a policy; theirs stays."""


async def visit_lengths(
    point: Point, controller: ControllerApi, engine_id: str, loan: PolicyLoan
) -> None:
    """Set one draft length after another, each until enough steps of the whole batch have run.

    Whether the rows last that long is the caller's business.

    Raises:
        PolicyTaken: nothing more can be measured.
        ProfilingFailed: the controller does not answer.
    """
    for length in point.visits:
        since = await asyncio.to_thread(last_step, controller, engine_id)
        if not await asyncio.to_thread(loan.take, pinned(length)):
            raise PolicyTaken
        missing, step_s = DRAFT_STEPS, 0.0
        while missing > 0:
            await asyncio.sleep(max(GLANCE_S, HOPE * missing * step_s))
            records = await asyncio.to_thread(controller.steps, engine_id, READ_STEPS)
            ran = [
                step.latency_s
                for step in steps_of(records, since)
                if (step.kind, step.rows, step.draft_length) == (DECODE, point.rows[0], length)
            ]
            missing, step_s = DRAFT_STEPS - len(ran), ran[-1] if ran else 0.0


def last_step(controller: ControllerApi, engine_id: str) -> int:
    """Number of the newest step that the controller knows of; -1 if it knows of none."""
    records = controller.steps(engine_id, 1)
    return int(records[-1]["step"]) if records else -1
