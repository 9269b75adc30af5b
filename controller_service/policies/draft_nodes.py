"""One verification budget spent over the draft nodes of all requests.

The nodes of a request's draft, best first, each add their path's chance to the tokens that are
expected. Those of all requests together, best first, are the best way to spend any budget, and hold
every node's parents, since a path's chance never rises with depth.

What is best for the step is not best for long, though. Nodes for the requests that are guessed best
give most tokens now; those requests leave soon, and the batch fills up with the others, which are
slow. What counts in the end is how long requests take, the mean of T / e over requests that are
given e tokens a step. A request is in the batch for a time in proportion to 1 / e, so the least mean
is found where the sum of log(e) over the rows in the batch, less their number times log(T), is
greatest. A node is then worth what it adds to the logarithm of its row's tokens (``value="log"``);
that falls from node to node, too, so parents still come before children.

Requests are looked at by level of acceptance (:data:`..speculation.trees.BUCKETS` of them), so that
the work does not grow with the batch.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from controller_service.policies.drafting import Batch
from controller_service.predictors.base import Floats
from controller_service.speculation.drafting import DraftState
from controller_service.speculation.trees import BUCKETS, bucket_of, levels, node_chances
from controller_service.state import U1

Value = Literal["log", "sum"]

CUTS = 24
"""Budgets that are weighed for each draft length."""
LEAST_CHANCE = 0.02
"""Nodes that are less likely than this are not worth a place in any budget that pays."""


class Ranking(msgspec.Struct, frozen=True, eq=False):
    """All nodes of drafts of one length, best first. Columns of shape ``(entries,)``; an entry
    stands for one node of each row of its level."""

    length: int
    level: np.ndarray[tuple[int], np.dtype[np.intp]]
    nodes: Floats
    """Nodes up to and including this entry, of all rows."""
    tokens: Floats
    """Tokens that they are expected to add."""
    worth: Floats
    """What they add to the sum over rows of the logarithm of their tokens."""


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """Drafts to choose from. Columns of shape ``(candidates,)``; the first is no draft at all."""

    length: Floats
    draft_tokens: Floats
    tokens: Floats
    """Tokens that the step is expected to give."""
    merit: Floats
    """What is to be divided by the step's time: the tokens, or as many as there would be if each
    row were given the geometric mean."""
    cut: np.ndarray[tuple[int], np.dtype[np.intp]]
    """Entries of the ranking that are taken."""
    ranking: np.ndarray[tuple[int], np.dtype[np.intp]]
    rankings: tuple[Ranking, ...]
    level_of_row: np.ndarray[tuple[int], np.dtype[np.intp]]

    def caps(self, which: int) -> U1:
        """Draft tokens of each row that advances, shape ``(rows,)``."""
        if not self.length[which]:
            return np.zeros(len(self.level_of_row), dtype=np.uint8)
        ranking = self.rankings[self.ranking[which]]
        taken = np.bincount(ranking.level[: self.cut[which]], minlength=BUCKETS)
        caps: U1 = taken[self.level_of_row].astype(np.uint8)
        return caps


def ragged_candidates(batch: Batch, value: Value, budget: int | None = None) -> Candidates:
    """Budgets of every draft length, each spent on the best nodes of all rows.

    Args:
        value: what a node is worth, see the module's docstring.
        budget: nodes that are to be spent, all of them; None: as many as there are.
    """
    drafts = batch.drafts
    level_of_row = bucket_of(drafts.acceptance[batch.rows])
    counts = np.bincount(level_of_row, minlength=BUCKETS).astype(np.float64)
    rankings = tuple(_rank(drafts, length, counts, value) for length in drafts.lengths if length)
    most = min(batch.room_tokens, np.inf if budget is None else budget)
    count = float(len(batch.rows))
    nothing = np.zeros(1)
    none_taken = np.zeros(1, dtype=np.intp)
    parts = [(nothing, nothing, np.full(1, count), np.full(1, count), none_taken, none_taken)]
    for index, ranking in enumerate(rankings):
        cuts = _cuts(ranking, most, only_last=budget is not None)
        if cuts.size:
            parts.append(
                (
                    np.full(len(cuts), float(ranking.length)),
                    ranking.nodes[cuts - 1],
                    (tokens := count + ranking.tokens[cuts - 1]),
                    tokens if value == "sum" else count * np.exp(ranking.worth[cuts - 1] / count),
                    cuts,
                    np.full(len(cuts), index, dtype=np.intp),
                )
            )
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Candidates(*columns, rankings, level_of_row)


def _rank(drafts: DraftState, length: int, counts: Floats, value: Value) -> Ranking:
    most = drafts.most_tokens if drafts.width > 1 else min(length, drafts.most_tokens)
    chances = _chances(drafts, length, most)
    given = 1.0 + chances.cumsum(axis=1)
    worth = np.log(given / (given - chances)).ravel()
    chances = chances.ravel()
    present = np.flatnonzero((counts > 0).repeat(most) & (chances >= LEAST_CHANCE))
    ranked_by = chances if value == "sum" else worth
    order = present[np.argsort(-ranked_by[present], kind="stable")]
    level = order // most
    weight = counts[level]
    return Ranking(
        length,
        level,
        weight.cumsum(),
        (weight * chances[order]).cumsum(),
        (weight * worth[order]).cumsum(),
    )


def _chances(drafts: DraftState, length: int, most: int) -> Floats:
    """Chance of each node, best first, by level; shape ``(BUCKETS, most)``."""
    if drafts.width > 1:
        return node_chances(drafts.width, length, most)
    chain = np.minimum(levels()[:, None] * drafts.by_position[:most], 1.0)
    chances: Floats = chain.cumprod(axis=1)
    return chances


def _cuts(
    ranking: Ranking, most: float, *, only_last: bool
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """How many entries to take: budgets of up to ``most`` nodes, closer together when small."""
    fitting = int(ranking.nodes.searchsorted(most, side="right"))
    if not fitting:
        return np.zeros(0, dtype=np.intp)
    if only_last:
        return np.array([fitting], dtype=np.intp)
    if fitting <= CUTS:
        return np.arange(1, fitting + 1)
    return np.unique(np.geomspace(1, fitting, CUTS).round().astype(np.intp))
