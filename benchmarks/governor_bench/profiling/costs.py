"""How long a point is going to take, from what was measured so far. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from governor_bench.profiling.cells import Cell, cells_of
from governor_bench.profiling.nonnegative import nonnegative
from governor_bench.profiling.point import (
    DRAFT_STEPS,
    LEAD_STEPS,
    PREFILL_REPEATS,
    TAIL_STEPS,
    Point,
)
from governor_bench.profiling.steps import DECODE, Step

PRIOR_STEP_S = 0.05
PRIOR_PREFILL_TOKEN_S = 1e-4
PRIOR_OVERHEAD_S = 0.3
PRIOR_DRAFT_SHARE = 0.3
"""What a draft step and its token add to a step, as a share of it."""
MEMORY = 0.3
"""Weight of the newest point in what points cost beside their steps."""
FIRST_LEAD_STEPS = 6
PRIOR_ROWS = 256.0
PRIOR_CONTEXT_TOKENS = 200_000.0
PRIOR_WEIGHT = 0.05


class Prefixes:
    """How much of each row's prompt the engine's prefix cache should still hold.

    The rows of all points take their prompts from the same texts, so that a longer context costs
    only what it adds. The cache gives up what was used longest ago, and keeps outputs as well.
    """

    def __init__(self, kv_tokens: int) -> None:
        self._kv_tokens = kv_tokens
        self._used: dict[int, list[tuple[int, int]]] = {}
        """Of each row: a depth and the point that used it last; rising depth, falling point."""
        self._outputs: list[tuple[int, int]] = []
        """Points, oldest first, and the tokens that they left behind beside their rows' prompts."""
        self._points = 0
        self.works = True
        """Whether the engine caches prefixes at all."""

    def missing(self, point: Point) -> int:
        """Prompt tokens that the rows of ``point`` have to prefill."""
        return sum(
            max(1, point.context_tokens - (self._depth(row) if self.works else 0))
            for row in range(point.rows[0])
        )

    def sent(self, point: Point) -> None:
        """The point has run."""
        self._points += 1
        count = point.rows[0]
        for row in range(count):
            deeper = [mark for mark in self._used.get(row, []) if mark[0] > point.context_tokens]
            self._used[row] = [(point.context_tokens, self._points), *deeper]
        left = sum(point.tokens_of_row(row, FIRST_LEAD_STEPS) for row in range(count))
        self._outputs.append((self._points, left + PREFILL_REPEATS * point.prefill_tokens))
        held = sum(map(self._depth, self._used)) + sum(tokens for _, tokens in self._outputs)
        while held > self._kv_tokens:
            held -= self._give_up_oldest()

    def _depth(self, row: int) -> int:
        marks = self._used.get(row)
        return marks[-1][0] if marks else 0

    def _give_up_oldest(self) -> int:
        """Tokens that are gone with what was used longest ago."""
        oldest = min(self._used, key=lambda row: self._used[row][-1][1], default=None)
        if oldest is None or (self._outputs and self._outputs[0][0] <= self._used[oldest][-1][1]):
            return self._outputs.pop(0)[1]
        depth = self._depth(oldest)
        self._used[oldest].pop()
        if not self._used[oldest]:
            del self._used[oldest]
        return depth - self._depth(oldest)


class Costs:
    """Estimates that get better with every point."""

    def __init__(self, kv_tokens: int) -> None:
        self._cells: list[Cell] = []
        self._line = np.array([PRIOR_STEP_S, 0.0, 0.0])
        self._prefill_token_s = PRIOR_PREFILL_TOKEN_S
        self._overhead_s = PRIOR_OVERHEAD_S
        self._lead_per_row = 0.0
        self._draft_shares: list[float] = []
        self.prefixes = Prefixes(kv_tokens)

    def step_s(self, rows: float, context_tokens: float) -> float:
        """Time of a decode step, s."""
        return float(self._line @ (1.0, rows, context_tokens))

    def lead_steps(self, point: Point) -> int:
        """Steps that the first rows of a point should wait for the last."""
        return min(LEAD_STEPS, FIRST_LEAD_STEPS + int(1.5 * self._lead_per_row * point.rows[0]))

    def seconds(self, point: Point) -> float:
        """What a point should take, s."""
        return self._overhead_s + self._work_s(point)

    def joining_s(self, point: Point) -> float:
        """Until all rows of a point decode, s."""
        prefill_s = self._prefill_token_s * self.prefixes.missing(point)
        return (
            self._overhead_s
            + prefill_s
            + self.lead_steps(point)
            * self.step_s(point.rows[0], point.rows[0] * point.context_tokens)
        )

    def recall(self, point: Point, own: Sequence[Step]) -> None:
        """Take in the steps that measure a point, from this run or an earlier one."""
        cells = cells_of(point, own)
        self._cells += [cell for cell in cells if not cell.draft_length]
        if point.kind == "draft":
            self._learn_drafts(cells)
        if not self._cells:
            return
        # Steps of one row alone do not tell what rows and context add: until others come, twice the
        # step for this many rows, and for this much context.
        times = np.array([cell.step_s for cell in self._cells])
        matrix = [(1.0, float(cell.rows), cell.context_tokens) for cell in self._cells]
        prior = np.array([(1.0, PRIOR_ROWS, 0.0), (1.0, 1.0, PRIOR_CONTEXT_TOKENS)])
        relative = np.array(matrix) / times[:, None]
        assumed = PRIOR_WEIGHT * prior / (2.0 * np.median(times))
        self._line = nonnegative(
            np.concatenate([relative, assumed]),
            np.concatenate([np.ones(len(times)), np.full(len(prior), PRIOR_WEIGHT)]),
        )

    def learn(self, point: Point, steps: Sequence[Step], joining_steps: int, took_s: float) -> None:
        """Take in what a point that has run cost beside the steps that measure it.

        Args:
            steps: all of its steps, those that are not used included.
            joining_steps: decode steps before all rows had joined.
            took_s: wall-clock time.
        """
        prefill = [step for step in steps if step.kind != DECODE and step.prefill_tokens]
        tokens = sum(step.prefill_tokens for step in prefill)
        if point.kind != "prefill":
            self._learn_reuse(point, tokens)
            self._lead_per_row = max(
                (1 - MEMORY) * self._lead_per_row, joining_steps / point.rows[0]
            )
        if tokens > 256:
            spent_s = sum(step.latency_s for step in prefill)
            known_s = sum(self.step_s(step.rows, 0.0) for step in prefill)
            self._prefill_token_s = max(spent_s - known_s, 0.1 * spent_s) / tokens
        over_s = max(0.0, took_s - sum(step.latency_s for step in steps))
        self._overhead_s += MEMORY * (over_s - self._overhead_s)
        self.prefixes.sent(point)

    def _work_s(self, point: Point) -> float:
        lead = self.lead_steps(point)
        count = point.rows[0]
        prefill_s = self._prefill_token_s * self.prefixes.missing(point) if count else 0.0
        if point.kind == "prefill":
            each_s = self._prefill_token_s * point.prefill_tokens + self.step_s(1 + count, 0.0)
            beside_s = self.step_s(count, count * point.context_tokens) if count else 0.0
            between = point.tokens_of_row(0, lead) * beside_s
            tail_s = TAIL_STEPS * self.step_s(1 + count, 0.0)
            return prefill_s + PREFILL_REPEATS * (each_s + self._overhead_s) + between + tail_s
        if point.kind == "draft":
            share = max(self._draft_shares, default=PRIOR_DRAFT_SHARE)
            steps = sum(DRAFT_STEPS * (1 + share * length) for length in point.visits)
            tokens = point.context_tokens + point.tokens_of_row(0, lead) / 2
            return prefill_s + (lead + steps) * self.step_s(count, count * tokens)
        ends = [point.tokens_of_row(rows - 1, lead) for rows in point.rows]  # rising
        spent_s, begun = 0.0, 0
        for rows, end in zip(point.rows, ends, strict=True):
            tokens = point.context_tokens + (begun + end) / 2
            spent_s += (end - begun) * self.step_s(rows, rows * tokens)
            begun = end
        return prefill_s + spent_s

    def _learn_drafts(self, cells: Sequence[Cell]) -> None:
        for plain in [cell for cell in cells if not cell.draft_length]:
            self._draft_shares += [
                max(0.0, cell.step_s / plain.step_s - 1.0) / cell.draft_length
                for cell in cells
                if cell.draft_length
            ]

    def _learn_reuse(self, point: Point, prefilled_tokens: int) -> None:
        whole = point.rows[0] * point.context_tokens
        if self.prefixes.missing(point) < 0.5 * whole and prefilled_tokens > 0.9 * whole:
            self.prefixes.works = False
