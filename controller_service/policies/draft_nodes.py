"""One verification budget spent over the draft nodes of all requests.

The nodes of a request's draft, best first, each add their path's chance to the tokens that are
expected. Those of all requests together, best first, are the best way to spend any budget, and hold
every node's parents, since a path's chance never rises with depth.

What is best for the step is not best for long, though. Nodes for the requests that are guessed
best give most tokens now; those requests leave soon, and the batch fills up with the others, which
are slow. What counts in the end is how long requests take, the mean of T / e over requests that
are given e tokens a step. A request is in the batch for a time in proportion to 1 / e, so the
least mean is found where the sum of log(e) over the rows in the batch, less their number times
log(T), is greatest. A node is then worth what it adds to the logarithm of its row's tokens
(``value="log"``); that falls from node to node, too, so parents still come before children.

Requests are looked at by level of acceptance (:data:`..speculation.trees.BUCKETS` of them), so that
the work does not grow with the batch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from controller_service.groups import Index
from controller_service.policies.drafting import Batch
from controller_service.predictors.base import Floats
from controller_service.speculation.drafting import DraftState
from controller_service.speculation.trees import BUCKETS, bucket_of, levels, node_chances
from controller_service.state import U1, Mask

Value = Literal["log", "sum"]

SPENT = 0.9
"""Share of a budget that counts as spent; rows of one level are given theirs together."""
CUTS = 24
"""Budgets that are weighed for each draft length."""
LEAST_CHANCE = 0.02
"""Nodes that are less likely than this are not worth a place in any budget that pays."""


class Ranking(msgspec.Struct, frozen=True, eq=False):
    """All nodes of drafts of one length, best first. Columns of shape ``(entries,)``; an entry
    stands for one node of each row of its level."""

    length: int
    level: Index
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
    cut: Index
    """Entries of the ranking that are taken."""
    ranking: Index
    rankings: tuple[Ranking, ...]
    level_of_row: Index

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
    rankings = _rankings(drafts, counts, value)
    most = min(batch.room_tokens, np.inf if budget is None else budget)
    count = float(len(batch.rows))
    # Lengths at which there are not enough nodes for a given budget would save some of it.
    reached = [min(most, float(ranking.nodes[-1])) for ranking in rankings if ranking.nodes.size]
    enough = SPENT * max(reached, default=0.0)
    nothing = np.zeros(1)
    none_taken = np.zeros(1, dtype=np.intp)
    parts = [(nothing, nothing, np.full(1, count), np.full(1, count), none_taken, none_taken)]
    for index, ranking in enumerate(rankings):
        cuts = _cuts(ranking, most, only_last=budget is not None)
        if cuts.size and (budget is None or ranking.nodes[cuts[-1] - 1] >= enough):
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
    length, draft_tokens, tokens, merit, cut, which = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Candidates(length, draft_tokens, tokens, merit, cut, which, rankings, level_of_row)


class _Nodes(NamedTuple):
    """Nodes of drafts at every level, best first. Columns of shape ``(nodes,)``."""

    level: Index
    place: Index
    """How many nodes of the same draft are better."""
    chance: Floats
    worth: Floats
    """What it adds to the logarithm of a row's tokens."""


def _rankings(drafts: DraftState, counts: Floats, value: Value) -> tuple[Ranking, ...]:
    lengths = [length for length in drafts.lengths if length]
    if drafts.width > 1:
        trees = (_tree_nodes(drafts.width, length, drafts.most_tokens, value) for length in lengths)
        return tuple(
            _ranking(length, nodes, counts[nodes.level] > 0, counts)
            for length, nodes in zip(lengths, trees, strict=True)
        )
    longest = min(drafts.longest, drafts.most_tokens)
    chances = np.minimum(levels()[:, None] * drafts.by_position[:longest], 1.0).cumprod(axis=1)
    nodes = _best_first(chances, value)
    present = counts[nodes.level] > 0
    return tuple(
        _ranking(length, nodes, present & (nodes.place < length), counts) for length in lengths
    )


@lru_cache(maxsize=256)
def _tree_nodes(width: int, depth: int, most: int, value: Value) -> _Nodes:
    return _best_first(node_chances(width, depth, most), value)


def _best_first(chances: Floats, value: Value) -> _Nodes:
    """
    Args:
        chances: of each node, best first, by level; shape ``(BUCKETS, nodes)``.
    """
    given = 1.0 + chances.cumsum(axis=1)
    worth = np.log(given / (given - chances)).ravel()
    flat = chances.ravel()
    likely = np.flatnonzero(flat >= LEAST_CHANCE)
    ranked_by = flat if value == "sum" else worth
    order = likely[np.argsort(-ranked_by[likely], kind="stable")]
    each = chances.shape[1]
    return _Nodes(order // each, order % each, flat[order], worth[order])


def _ranking(length: int, nodes: _Nodes, taken: Mask, counts: Floats) -> Ranking:
    level = nodes.level[taken]
    weight = counts[level]
    return Ranking(
        length,
        level,
        weight.cumsum(),
        (weight * nodes.chance[taken]).cumsum(),
        (weight * nodes.worth[taken]).cumsum(),
    )


def _cuts(ranking: Ranking, most: float, *, only_last: bool) -> Index:
    """How many entries to take: budgets of up to ``most`` nodes, closer together when small."""
    fitting = int(ranking.nodes.searchsorted(most, side="right"))
    if not fitting:
        return np.zeros(0, dtype=np.intp)
    if only_last:
        return np.array([fitting], dtype=np.intp)
    return _spread(fitting)


@lru_cache(maxsize=4096)
def _spread(fitting: int) -> Index:
    """Up to ``CUTS`` numbers from 1 to ``fitting``; read only."""
    if fitting <= CUTS:
        cuts = np.arange(1, fitting + 1)
    else:
        cuts = np.unique(np.geomspace(1, fitting, CUTS).round().astype(np.intp))
    cuts.flags.writeable = False
    return cuts
