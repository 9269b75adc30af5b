"""An engine that drafts: what a row's draft tokens come to, and what a step may draft.

A row's luck was drawn before the run (:mod:`governor_workloads.acceptance`) and is only looked up.
A chain is accepted up to the first token that was not the draft's first choice. A tree holds the
likeliest paths by the draft's own chances, and is accepted along the path of right choices for as
long as that is in it.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np
from governor_protos.limits import MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting, DraftSource
from governor_workloads.acceptance import Acceptance
from msgspec import Meta

from controller_service.speculation.trees import bucket_of, node_chances
from governor_sim.rows import SimRow
from sglang_patch.apply.speculation import DraftOrder, nearest
from sglang_patch.emulated.speculation.luck import RowLuck, chains_shared_out, shared_out

_Length = Annotated[int, Meta(ge=0, le=64)]
_TREE_LEVELS = 64
"""Levels for which trees are worked out; a draft's chances are rounded to one of them."""


class DraftingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the simulated engine speculates."""

    lengths: Annotated[tuple[_Length, ...], Meta(min_length=1, max_length=64)] = (0, 1, 3, 5, 7)
    """Draft lengths that it can take, ascending."""
    own_length: int = 3
    """What it drafts when nobody tells it anything."""
    width: Annotated[int, Meta(ge=1, le=16)] = 1
    """Candidates per position: 1 drafts chains."""
    most_tokens: Annotated[int, Meta(ge=1, le=MAX_DRAFT_TOKENS)] = 7
    """Draft tokens that one row can have verified in one step."""
    is_ragged: bool = True
    """Whether a row with fewer draft tokens costs less to verify."""
    takes_budget: bool = True
    """Whether it shares out a budget over all rows by its draft's own chances."""
    switch_s: Annotated[float, Meta(ge=0, le=60)] = 0.0005
    """What changing the length between two steps takes."""

    def __post_init__(self) -> None:
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"drafting.lengths must rise, got {list(self.lengths)}")

    def told(self) -> Drafting:
        """As the engine introduces itself."""
        return Drafting(
            DraftSource.MODEL,
            self.width,
            self.most_tokens,
            self.is_ragged,
            self.takes_budget,
            self.switch_s,
        )


class Drafts(msgspec.Struct, frozen=True):
    """What one step drafts. Lists run along the rows of the step."""

    length: int = 0
    verified: list[int] = []
    """Draft tokens verified for each row."""
    accepted: list[int] = []
    held: list[int] = []
    """KV slots that each row's draft takes until it is verified."""

    @property
    def verified_tokens(self) -> int:
        return sum(self.verified)


NO_DRAFTS = Drafts()


class Drafter:
    """Drafts for the rows of one engine.

    Args:
        acceptance: the workload's; None: no draft is ever right.
        seed: of the workload.
    """

    def __init__(self, config: DraftingConfig, acceptance: Acceptance | None, seed: int) -> None:
        self._config = config
        self._acceptance = acceptance
        self._seed = seed
        self._length = -1
        self.refused_steps = 0
        """Steps whose drafts KV memory had no room for."""

    def draft(self, rows: list[SimRow], order: DraftOrder, room_tokens: int) -> Drafts:
        """What a step of ``rows`` drafts, and what of it will be accepted.

        Args:
            order: what the governor says.
            room_tokens: KV slots that are free beside one for each row.
        """
        config = self._config
        wanted = config.own_length if order.length < 0 else order.length
        length = nearest(wanted, config.lengths)
        if not length:
            return NO_DRAFTS
        most = min(length, config.most_tokens) if config.width == 1 else config.most_tokens
        caps = dict(order.caps)
        mine = [min(caps.get(row.rid, most), most) for row in rows]
        if order.budget >= 0 and config.takes_budget:
            mine = self._shared_out(rows, mine, length, order)
        verified = mine if config.is_ragged else [most] * len(rows)
        if sum(verified) > room_tokens:
            self.refused_steps += 1
            return NO_DRAFTS
        accepted = [self._accepted(row, cap, length) for row, cap in zip(rows, mine, strict=True)]
        return Drafts(length, verified, accepted, verified)

    def switched_s(self, drafts: Drafts) -> float:
        """Time that going to the length of ``drafts`` takes; call once a step."""
        before, self._length = self._length, drafts.length
        return self._config.switch_s if before not in (-1, drafts.length) else 0.0

    def _accepted(self, row: SimRow, cap: int, length: int) -> int:
        luck = self._luck(row)
        if luck is None:
            return 0
        if self._config.width == 1:
            accepted = luck.chain(_position(row), cap)
        else:
            accepted = luck.tree(_position(row), cap, length, self._config.width)
        luck.note(cap, accepted)
        return accepted

    def _luck(self, row: SimRow) -> Fortune | None:
        if row.luck is None and self._acceptance is not None:
            row.luck = Fortune(self._acceptance, self._seed, row)
        return row.luck

    def _shared_out(
        self, rows: list[SimRow], caps: list[int], length: int, order: DraftOrder
    ) -> list[int]:
        most = max(caps)
        lucks = [luck for luck in map(self._luck, rows) if luck is not None]
        if not most or not lucks:
            return caps
        positions = [_position(row) for row in rows]
        if self._config.width == 1:
            return chains_shared_out(lucks, positions, caps, order)
        first = [luck.levels(at, 1)[0] for luck, at in zip(lucks, positions, strict=True)]
        chances = node_chances(self._config.width, length, most)[bucket_of(np.array(first))]
        return shared_out(chances, lucks, caps, order)


def _position(row: SimRow) -> int:
    """Of the first drafted token in the row's output: the step brings the one before it."""
    return row.context_tokens - row.prompt_tokens


class Fortune(RowLuck):
    """One row's luck, as its workload has it."""

    __slots__ = ("_choice",)

    def __init__(self, acceptance: Acceptance, seed: int, row: SimRow) -> None:
        branch = int(row.rid.rpartition("-")[2]) if row.rid[-1].isdigit() else 0
        luck = acceptance.luck(seed, row.request.index, branch, row.max_new_tokens + 1)
        super().__init__(luck.choice, luck.level)
        self._choice: list[int] = luck.choice.tolist()

    def tree(self, at: int, nodes: int, depth: int, width: int) -> int:
        """Accepted tokens of the best tree of so many nodes from position ``at`` on."""
        choice = self._choice
        if at >= len(choice):
            return 0
        level = min(int(self._levels[at] * _TREE_LEVELS), _TREE_LEVELS - 1)
        rank = best_tree((level + 0.5) / _TREE_LEVELS, width, depth, nodes)
        path: tuple[int, ...] = ()
        for right in choice[at : at + depth]:
            path = (*path, right)
            if path not in rank:
                break
        else:
            return len(path)
        return len(path) - 1


@lru_cache(maxsize=8192)
def best_tree(level: float, width: int, depth: int, nodes: int) -> frozenset[tuple[int, ...]]:
    """The likeliest ``nodes`` paths of choices of at most ``depth`` positions.

    The r-th choice for a position is right with chance ``level * (1 - level) ** (r - 1)``.
    """
    found: set[tuple[int, ...]] = set()
    # Ties go to the shorter path: a parent before its child.
    open_nodes: list[tuple[float, int, tuple[int, ...]]] = [(-level, 1, (1,))]
    while open_nodes and len(found) < nodes:
        chance, length, path = heapq.heappop(open_nodes)
        found.add(path)
        if path[-1] < width:
            heapq.heappush(open_nodes, (chance * (1.0 - level), length, (*path[:-1], path[-1] + 1)))
        if length < depth:
            heapq.heappush(open_nodes, (chance * level, length + 1, (*path, 1)))
    return frozenset(found)
