"""A row's luck with drafts: drawn before it runs and only looked up. Pure.

The simulator's chains are these too, so that both tiers meet the same luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sglang_patch.apply.speculation import DraftOrder, Pace, worth

FIRST_CHOICE = 1
LEAST_WORTH = 1e-9
"""Below it a node cannot be accepted."""


class RowLuck:
    """What a row's drafts come to, by position of its output.

    Args:
        choices: shape ``(tokens,)``; which of the draft's choices for a position is right, given
            that the text so far is: 1 is its first.
        levels: shape ``(tokens,)``; the chance that it is the first. A draft knows it.
    """

    __slots__ = ("_levels", "_runs", "pace")

    def __init__(self, choices: npt.NDArray[np.integer], levels: npt.NDArray[np.float64]) -> None:
        self._levels: list[float] = levels.tolist()
        places = np.arange(len(choices))
        wrong = np.where(choices == FIRST_CHOICE, len(choices), places)
        next_wrong = np.minimum.accumulate(wrong[::-1])[::-1]
        self._runs: list[int] = (next_wrong - places).tolist()
        self.pace = Pace()

    def levels(self, at: int, count: int) -> list[float]:
        """Chances at ``count`` positions from ``at`` on; 0 past the end."""
        found = self._levels[at : at + count]
        return found + [0.0] * (count - len(found))

    def chain(self, at: int, cap: int) -> int:
        """Accepted tokens of a chain of ``cap`` from position ``at`` on; none past the end."""
        return min(cap, self._runs[at]) if at < len(self._runs) else 0

    def note(self, verified: int, accepted: int) -> None:
        """Take note of the row's draft tokens at a step."""
        self.pace = self.pace.after(1 + accepted, verified)


def drawn(level: float, seed: int, prompt: Sequence[int], tokens: int) -> RowLuck:
    """The luck of a request that brought none: one level all along.

    A position's draw depends on seed, prompt and position alone.
    """
    digest = hashlib.sha256(np.asarray(prompt, dtype=np.int64).tobytes()).digest()
    source = np.random.SeedSequence([seed, int.from_bytes(digest[:16], "little")])
    uniform = np.random.Generator(np.random.PCG64(source)).random(tokens)
    return RowLuck(
        np.where(uniform < level, FIRST_CHOICE, FIRST_CHOICE + 1), np.full(tokens, level)
    )


def shared_out(
    chances: npt.NDArray[np.float64],
    lucks: Sequence[RowLuck],
    caps: list[int],
    order: DraftOrder,
) -> list[int]:
    """Spend an order's budget where the draft's own chances say that nodes are worth most, and at
    least its price (``Decision.draft_price``).

    The draft is taken to know how likely it is to be right: confidence of EAGLE drafts follows
    acceptance closely (EAGLE-2, arXiv 2406.16858).

    Args:
        chances: shape ``(rows, nodes)``; that a row's best node, its second best, ... is accepted.
        caps: the most draft tokens for each row.

    Returns:
        Draft tokens of each row.
    """
    most = chances.shape[1]
    paces = np.array([luck.pace for luck in lucks])
    value = worth(chances, paces[:, :1], paces[:, 1:])
    value = np.where(np.arange(most) < np.array(caps)[:, None], value, 0.0).ravel()
    worthwhile = int(np.count_nonzero(value >= max(order.price, LEAST_WORTH)))
    budget = min(order.budget, worthwhile)
    if not budget:
        return [0] * len(caps)
    spent = np.argpartition(-value, budget - 1)[:budget]
    shared: list[int] = np.bincount(spent // most, minlength=len(caps)).tolist()
    return [min(mine, cap) for mine, cap in zip(shared, caps, strict=True)]


def chains_shared_out(
    lucks: Sequence[RowLuck], positions: Sequence[int], caps: list[int], order: DraftOrder
) -> list[int]:
    """:func:`shared_out` over chains.

    Args:
        positions: in each row's output, of its first drafted token.
    """
    most = max(caps)
    if not most:
        return caps
    levels = [luck.levels(at, most) for luck, at in zip(lucks, positions, strict=True)]
    return shared_out(np.array(levels).cumprod(axis=1), lucks, caps, order)
