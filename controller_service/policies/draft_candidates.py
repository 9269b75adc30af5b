"""Drafts to choose from, and what each is worth: whose nodes are verified, at which draft length.

A request is served by a row of the batch. In a step of time T with N rows, of which each draft
token that is verified takes c, the row's own share of the device is

    tau = T / N + c * (d - mean of d)

for d draft tokens of its own: the rest of the step is shared by all. It is given e tokens for that,
so that the device spends tau / e on each of its tokens. How many tokens per second the engine gives
in the long run, over requests as they come, is the reciprocal of the mean of tau / e over tokens,
which every row can make small on its own (``value="rate"``). The best n nodes of a row's draft are
those for which ``(1 + price * n) / e(n)`` is least, where the price is c over the row's share of
everything else; it rises with load, and candidates are what different prices lead to.

Spending a budget on the likeliest nodes of all rows instead gives most tokens in this step
(``value="sum"``), but not in the long run: requests that are guessed well leave, and the batch
fills up with the others, which were given little.

Requests are looked at by level of acceptance (:data:`..speculation.trees.BUCKETS` of them; fewer,
of two kinds, where drafts are looked up), so that the work does not grow with the batch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from controller_service.columns import U1, Mask
from controller_service.groups import Index
from controller_service.policies.drafting import Batch
from controller_service.predictors.base import Floats
from controller_service.speculation.drafting import DraftState
from controller_service.speculation.trees import BUCKETS, bucket_of, levels, node_chances

Value = Literal["rate", "sum"]

PRICES: Floats = np.geomspace(1 / 512, 4.0, 32)
"""Of a draft token, over the rest of a row's share."""
LEAST_CHANCES: Floats = np.geomspace(0.95, 0.02, 32)
"""Likewise for ``sum``: the chance from which a node is verified."""
SPENT = 0.9
"""Share of the most that any length can spend of a budget, from which it counts as spent."""
COARSE = 16
"""Levels of a draft's start, and of what follows, where drafts are looked up."""
COARSER = BUCKETS // COARSE
POSITION_UNIT = 0.02
"""Factors by position are rounded to it, so that tables can be kept."""


class Drafts(msgspec.Struct, frozen=True, eq=False):
    """What rows of each level would draft. The first is no draft at all.

    Columns have shape ``(candidates,)``, what depends on the level ``(candidates, levels)``, and
    the sums to be taken over levels are stacked: ``(levels, n * candidates)``.
    """

    length: Floats
    each: U1
    """Draft tokens that a row of each level has verified."""
    given: Floats
    """Tokens that it can expect of the step."""
    is_equal: Mask
    """All of it for every row. To be chosen where it costs to leave some out, and where the best of
    the others hurts somebody: of those who are hurt by what others draft, some are not if they are
    given as much."""
    totals: Floats
    """``each``, ``given`` and the logarithm of ``given``."""
    per_token: Floats
    """``each`` and 1, both over ``given``."""

    @classmethod
    def of(cls, length: Floats, each: U1, given: Floats, is_equal: Mask) -> Drafts:
        """With what is summed worked out."""
        totals = np.concatenate([each, given, np.log(given)]).T.copy()
        per_token = np.concatenate([each / given, 1.0 / given]).T.copy()
        return cls(length, each, given, is_equal, totals, per_token)


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """Drafts to choose from, for the rows of one step. Columns of shape ``(candidates,)``."""

    drafts: Drafts
    counts: Floats
    """Rows of each level, shape ``(levels,)``."""
    level_of_row: Index
    is_possible: Mask
    """The first always is."""
    draft_tokens: Floats
    tokens: Floats
    log_given: Floats
    """Of the tokens that rows can expect, the sum of the logarithms."""

    @classmethod
    def of(
        cls, drafts: Drafts, counts: Floats, level_of_row: Index, room_tokens: float
    ) -> Candidates:
        """
        Args:
            room_tokens: the most draft tokens that are possible.
        """
        draft_tokens, tokens, log_given = (counts @ drafts.totals).reshape(3, -1)
        # Draft steps of which nothing is verified would be for nothing.
        is_possible = (draft_tokens > 0) & (draft_tokens <= room_tokens)
        is_possible[0] = True
        return cls(drafts, counts, level_of_row, is_possible, draft_tokens, tokens, log_given)

    @property
    def length(self) -> Floats:
        return self.drafts.length

    @property
    def is_equal(self) -> Mask:
        return self.drafts.is_equal

    def caps(self, which: int) -> U1:
        """Draft tokens of each row that advances, shape ``(rows,)``."""
        caps: U1 = self.drafts.each[which][self.level_of_row]
        return caps

    def given_rows(self, which: int | Index) -> Floats:
        """Tokens that each row that advances can expect, shape ``(rows,)``; of several candidates,
        ``(candidates, rows)``."""
        given: Floats = self.drafts.given[which][..., self.level_of_row]
        return given

    def rates(self, batch: Batch, step_s: Floats, value: Value) -> Floats:
        """Tokens per second: in the long run, or of this very step.

        Args:
            step_s: predicted time of each candidate's step.
        """
        if value == "sum":
            of_step: Floats = self.tokens / step_s
            return of_step
        count = len(self.level_of_row)
        token_s = self._token_s(batch, step_s)
        whole_s = step_s + batch.between_s
        rest_s = (whole_s - token_s * self.draft_tokens) / count
        # Requests come in the proportion in which they leave, which is the rows' under the drafts
        # in use; the candidate that is best for this mix of rows stands for those.
        worth = np.where(self.is_possible, self.log_given - count * np.log(whole_s), -np.inf)
        share = self.counts * self.drafts.given[int(worth.argmax())]
        drafted, each = (share @ self.drafts.per_token).reshape(2, -1)
        in_long_run: Floats = share.sum() / (token_s * drafted + rest_s * each)
        return in_long_run

    def price(self, batch: Batch, which: int, step_s: float) -> float:
        """What a draft token costs in a candidate's step, over the rest of a row's share.

        Args:
            step_s: predicted time of that step.
        """
        tokens, count = float(self.draft_tokens[which]), len(self.level_of_row)
        length = float(self.length[which])
        drafting_s = batch.drafts.cost.before_verifying(length, float(count), tokens)
        verify_s = max(step_s - batch.plain_s - drafting_s, 0.0)
        token_s = verify_s / max(tokens, 1.0)
        return token_s * count / (step_s + batch.between_s - token_s * tokens)

    def _token_s(self, batch: Batch, step_s: Floats) -> Floats:
        """What each draft token that is verified adds to the step, on average."""
        rows = float(len(self.level_of_row))
        drafting_s = batch.drafts.cost.before_verifying(self.length, rows, self.draft_tokens)
        verify_s = np.maximum(step_s - batch.plain_s - drafting_s, 0.0)
        each_s: Floats = verify_s / np.maximum(self.draft_tokens, 1.0)
        return each_s


def own_candidates(batch: Batch, value: Value) -> Candidates:
    """For every draft length and price, each row its own draft; and for every length all of it for
    everybody."""
    drafts = batch.drafts
    table = _table(
        drafts.lengths,
        drafts.width,
        drafts.most_tokens,
        _rounded(drafts.by_position),
        value,
        is_looked_up=drafts.later_acceptance is not None,
    )
    level_of_row = _levels_of(drafts, batch.rows)
    counts = np.bincount(level_of_row, minlength=table.given.shape[1]).astype(np.float64)
    return Candidates.of(table, counts, level_of_row, batch.room_tokens)


def equal_candidates(batch: Batch, survival: Floats) -> Candidates:
    """For every draft length, all of it for every row.

    Args:
        survival: chance that a row's first j draft tokens are all accepted; shape
            ``(rows, longest)``.
    """
    drafts, count = batch.drafts, len(batch.rows)
    lengths = np.array([k for k in drafts.lengths if k <= drafts.most_tokens], dtype=np.uint8)
    tokens = np.concatenate([np.ones((count, 1)), 1.0 + survival.cumsum(axis=1)], axis=1)
    alike = Drafts.of(
        lengths.astype(np.float64),
        np.repeat(lengths[:, None], count, axis=1),
        tokens.T[lengths.astype(np.intp)],
        np.zeros(len(lengths), dtype=np.bool_),
    )
    return Candidates.of(alike, np.ones(count), np.arange(count), batch.room_tokens)


def within_budget(candidates: Candidates, budget: float) -> Candidates:
    """Of every draft length the candidate that spends most of ``budget``; lengths whose drafts
    leave more of it over than others are left out."""
    fits = candidates.is_possible & (candidates.draft_tokens <= budget) & ~candidates.is_equal
    spent = np.where(fits, candidates.draft_tokens, 0.0)
    keep = (spent > 0) & (spent >= SPENT * spent.max())
    for length in np.unique(candidates.length[keep]):
        mine = np.flatnonzero(keep & (candidates.length == length))
        keep[mine] = mine == mine[np.argmax(spent[mine])]
    keep[0] = True
    return msgspec.structs.replace(candidates, is_possible=keep)


def _levels_of(drafts: DraftState, rows: Index) -> Index:
    first = bucket_of(drafts.acceptance[rows])
    if drafts.later_acceptance is None:
        return first
    return (first // COARSER) * COARSE + bucket_of(drafts.later_acceptance[rows]) // COARSER


def _rounded(by_position: Floats) -> tuple[float, ...]:
    return tuple((np.round(by_position / POSITION_UNIT) * POSITION_UNIT).tolist())


@lru_cache(maxsize=256)
def _table(
    lengths: tuple[int, ...],
    width: int,
    most_tokens: int,
    by_position: tuple[float, ...],
    value: Value,
    *,
    is_looked_up: bool,
) -> Drafts:
    known = COARSE**2 if is_looked_up else BUCKETS
    is_equal = [False]
    length = [np.zeros(1)]
    each = [np.zeros((1, known), dtype=np.uint8)]
    given = [np.ones((1, known))]
    for depth in (k for k in lengths if k):
        factors = np.array(by_position[: min(depth, most_tokens)])
        if is_looked_up:
            chances = _looked_up(factors)
        elif width > 1:
            chances = node_chances(width, depth, most_tokens)
        else:
            chances = np.minimum(levels()[:, None] * factors, 1.0).cumprod(axis=1)
        own = _by_price(chances) if value == "rate" else _by_chance(chances)
        nodes = np.concatenate([own, np.full((1, known), chances.shape[1])])
        is_equal += [False] * len(own) + [True]
        tokens = _given(chances)
        length.append(np.full(len(nodes), float(depth)))
        each.append(nodes.astype(np.uint8))
        given.append(tokens[np.arange(known), nodes])
    every = np.column_stack([np.concatenate(length), is_equal, np.concatenate(each)])
    # Prices near one another often come to the same drafts.
    some = np.sort(np.unique(every, axis=0, return_index=True)[1])
    return Drafts.of(
        every[some, 0],
        np.concatenate(each)[some],
        np.concatenate(given)[some],
        np.array(is_equal)[some],
    )


def _looked_up(factors: Floats) -> Floats:
    """Chances of the nodes of drafts that start right and go on at chances of their own.

    Returns:
        Shape ``(COARSE ** 2, nodes)``; levels of the start, each with all levels of what follows.
    """
    level = (np.arange(COARSE) + 0.5) / COARSE
    each = np.minimum(level[:, None] * factors, 1.0)
    first = np.repeat(level, COARSE)
    chances: Floats = np.tile(each, (COARSE, 1))
    chances[:, 0] = first
    return chances.cumprod(axis=1)


def _given(chances: Floats) -> Floats:
    """Tokens that the best n nodes give, from none of them on; shape ``(levels, nodes + 1)``."""
    tokens = 1.0 + chances.cumsum(axis=1)
    return np.concatenate([np.ones((len(chances), 1)), tokens], axis=1)


def _by_price(chances: Floats) -> Index:
    """Nodes of each level at each price, shape ``(prices, levels)``.

    Args:
        chances: of each node of a draft, best first, by level; shape ``(levels, nodes)``.
    """
    tokens = _given(chances)
    spent = 1.0 + PRICES[:, None, None] * np.arange(tokens.shape[1])
    nodes: Index = (spent / tokens).argmin(axis=2)
    return nodes


def _by_chance(chances: Floats) -> Index:
    """Nodes of each level that are at least so likely, shape ``(chances, levels)``."""
    nodes: Index = (chances >= LEAST_CHANCES[:, None, None]).sum(axis=2)
    return nodes
