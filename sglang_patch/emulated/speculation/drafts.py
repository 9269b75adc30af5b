"""What a step of the emulated engine drafts, ordered or not, and what is accepted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from governor_protos.messages import Drafting, DraftSource

from sglang_patch.apply.speculation import STOCK, DraftOrder, nearest
from sglang_patch.emulated.speculation.luck import RowLuck, chains_shared_out


class StepDrafts(NamedTuple):
    """What one step drafts. Lists run along its rows."""

    length: int
    """Draft steps; 0: nothing is drafted."""
    verified: list[int]
    """Draft tokens verified for each row, and paid for."""
    accepted: list[int]


class EmulatedDrafts:
    """Drafts chains; each row pays for its own.

    Args:
        lengths: draft lengths that it can take, ascending. The last is what it drafts when nobody
            tells it anything.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths
        self.order: DraftOrder = STOCK
        """What the coming step is to draft."""

    def drafting(self) -> Drafting:
        """As the engine introduces itself. Switching the length takes no time."""
        return Drafting(
            source=DraftSource.MODEL,
            width=1,
            most_tokens=self.lengths[-1],
            is_ragged=True,
            takes_budget=True,
            switch_s=0.0,
        )

    def step(
        self, rids: Sequence[str], lucks: Sequence[RowLuck], positions: Sequence[int]
    ) -> StepDrafts:
        """Carry out the order.

        Args:
            rids: the rows, by request id.
            lucks: of the rows.
            positions: in each row's output, of its first drafted token.
        """
        order = self.order
        wanted = self.lengths[-1] if order.length < 0 else order.length
        length = nearest(wanted, self.lengths)
        if not length:
            return StepDrafts(0, [0] * len(rids), [0] * len(rids))
        verified = [length] * len(rids)
        if order.caps:
            caps = dict(order.caps)
            verified = [min(caps.get(rid, length), length) for rid in rids]
        if order.budget >= 0:
            verified = chains_shared_out(lucks, positions, verified, order)
        accepted = [
            luck.chain(at, cap) for luck, at, cap in zip(lucks, positions, verified, strict=True)
        ]
        for luck, drafted, right in zip(lucks, verified, accepted, strict=True):
            luck.note(drafted, right)
        return StepDrafts(length, verified, accepted)
