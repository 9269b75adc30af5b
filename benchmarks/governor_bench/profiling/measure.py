"""One point on the live engine: its requests sent, others let through, its steps picked out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import aiohttp

from governor_bench.profiling.costs import Costs
from governor_bench.profiling.engine import ControllerApi, Engine, EngineFacts, ProfilingFailed
from governor_bench.profiling.pinning import last_step, visit_lengths
from governor_bench.profiling.point import PREFILL_REPEATS, TAIL_STEPS, Limits, Point
from governor_bench.profiling.policy import PolicyLoan
from governor_bench.profiling.probe import Batch, send
from governor_bench.profiling.prompts import Prompts
from governor_bench.profiling.steps import (
    DECODE,
    Step,
    joining_prefills,
    joining_steps,
    levels_measured,
    own_steps,
    steps_of,
)

FLUSH_TOKENS = 8
LOOK_EVERY_S = 0.25
GLANCE_S = 0.05
SETTLED_AFTER_S = 1.0
"""Until then what the engine reports may be our own requests that have just ended."""
LOOKS = 2
"""In a row at which others must be seen before a point makes way for them."""
LEAST_PATIENCE_S = 15.0
IMPATIENCE = 4.0
"""A point that takes this many times what it should is aborted."""
REPORTS_WITHIN_S = 1.0
SPARE_STEPS = 64
"""Read on top of what a point should take."""


class OthersCame(Exception):
    """A point was aborted to make way for requests of others."""


class Measurer:
    """Measures points, one at a time.

    Args:
        others: requests of others beside which a point goes on.
    """

    def __init__(
        self,
        engine: Engine,
        controller: ControllerApi,
        facts: EngineFacts,
        limits: Limits,
        prompts: Prompts,
        costs: Costs,
        others: int,
    ) -> None:
        self._engine, self._controller = engine, controller
        self._facts, self._limits = facts, limits
        self._prompts, self._costs, self._others = prompts, costs, others
        self._seen_any = False

    def measure(self, point: Point, loan: PolicyLoan, longest_s: float) -> list[Step]:
        """Send a point's requests; the steps that measure it, and what was learnt goes to costs.

        Args:
            loan: sets the draft lengths of a point of drafts.
            longest_s: after which it is aborted, however long it should take.

        Raises:
            ProfilingFailed: the engine refused them, or its steps reach another controller.
            OthersCame, PolicyTaken: nothing was measured.
        """
        since = last_step(self._controller, self._facts.engine_id)
        patience_s = max(LEAST_PATIENCE_S, IMPATIENCE * self._costs.seconds(point))
        patience_s = min(patience_s, longest_s)
        began_s = time.monotonic()
        # A point that takes far too long is aborted; what its steps took is learnt all the same.
        with suppress(TimeoutError):
            asyncio.run(self._serve(point, loan, patience_s))
        steps = self._reported(point, since)
        took_s = time.monotonic() - began_s
        self._check_known(steps)
        self._costs.learn(point, steps, joining_steps(point, steps), took_s)
        own = own_steps(point, steps)
        self._costs.recall(point, own)
        if point.kind == "decode" and self._is_free():
            own = [*joining_prefills(point, steps), *own]
        return own

    async def _serve(self, point: Point, loan: PolicyLoan, patience_s: float) -> None:
        no_limit = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(self._engine.url, timeout=no_limit) as session,
            asyncio.timeout(patience_s),
        ):
            sending = asyncio.create_task(self._send(session, point))
            watching = asyncio.create_task(self._others_came(point))
            tasks = [sending, watching]
            if point.kind == "draft":
                visits = visit_lengths(point, self._controller, self._facts.engine_id, loan)
                tasks.append(asyncio.create_task(visits))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                ended = [task for task in tasks if task.done()]
                if ended == [watching]:
                    raise OthersCame
                for task in ended:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, session: aiohttp.ClientSession, point: Point) -> None:
        prompts, rank = self._prompts, self._engine.dp_rank
        lead_steps = self._costs.lead_steps(point)
        rows = range(point.rows[0])
        batch = Batch.of(
            [prompts.of_row(row, point.context_tokens) for row in rows],
            [point.tokens_of_row(row, lead_steps) for row in rows],
            rank,
        )
        if point.kind != "prefill":
            await send(session, batch)
            return
        beside = asyncio.create_task(send(session, batch)) if batch.prompts else None
        try:
            if beside is not None:
                await asyncio.sleep(self._costs.joining_s(point))
            for _ in range(PREFILL_REPEATS):
                await send(session, Batch.of([prompts.fresh(point.prefill_tokens)], [1], rank))
            # The engine reports every eighth step at least: a few more bring out the last ones.
            await send(session, Batch.of([prompts.fresh(FLUSH_TOKENS)], [TAIL_STEPS], rank))
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    async def _others_came(self, point: Point) -> None:
        """Return once the engine holds more requests than ours and those that we put up with."""
        # Of two prompts in turn, the engine may still count the one before.
        ours = point.rows[0] + (2 if point.kind == "prefill" else 0)
        seen = 0
        while seen < LOOKS:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                load = await asyncio.to_thread(self._engine.load)
            except ProfilingFailed:
                continue  # whether the engine is gone, our own requests will tell
            seen = seen + 1 if load.requests > ours + self._others else 0

    def _reported(self, point: Point, since: int) -> list[Step]:
        """The steps after ``since``. Those of the end may take a moment to be reported."""
        chunks = point.rows[0] * (1 + point.context_tokens // self._limits.chunk_tokens)
        most = SPARE_STEPS + 2 * point.tokens_of_row(0) + chunks
        deadline_s = time.monotonic() + REPORTS_WITHIN_S
        while True:
            steps = steps_of(self._controller.steps(self._facts.engine_id, most), since)
            if is_whole(point, own_steps(point, steps)) or time.monotonic() >= deadline_s:
                return steps
            time.sleep(LOOK_EVERY_S)

    def _is_free(self) -> bool:
        """Whether nobody else is there, once our own requests have gone."""
        end_s = time.monotonic() + SETTLED_AFTER_S
        while self._engine.load().requests:
            if time.monotonic() > end_s:
                return False
            time.sleep(GLANCE_S)
        return True

    def _check_known(self, steps: Sequence[Step]) -> None:
        self._seen_any = self._seen_any or bool(steps)
        if not self._seen_any:
            raise ProfilingFailed(
                f"{self._engine.url} has served requests, but the controller saw no step of "
                f"{self._facts.engine_id}: give the --url of that engine, and see in 'governor "
                "status' that it is connected"
            )


def is_whole(point: Point, own: Sequence[Step]) -> bool:
    """Whether the point's own steps leave nothing to be measured."""
    if point.kind == "prefill":
        return sum(step.kind != DECODE for step in own) >= PREFILL_REPEATS - 1
    return len(levels_measured(point, own)) == len(point.draft_lengths or point.rows)
