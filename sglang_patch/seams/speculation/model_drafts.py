"""Drafts of a worker of the EAGLE family, as the governor sees them."""

from __future__ import annotations

import statistics
import time
from typing import Any

from governor_protos.limits import MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting, DraftSource

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError

SWITCHES_TIMED = 5
"""Times that each length is switched to at the start, to see what a switch costs."""


class ModelDrafts:
    """See :class:`.drafting.GovernedDrafts`.

    Args:
        worker: a ``GovernedWorker``; its ``adaptive_controller.params`` holds lengths and order.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    @property
    def _params(self) -> Any:
        return self._worker.adaptive_controller.params

    @property
    def order(self) -> DraftOrder:
        """What the coming step is to draft."""
        order: DraftOrder = self._params.order
        return order

    @order.setter
    def order(self, order: DraftOrder) -> None:
        self._params.order = order

    @property
    def lengths(self) -> tuple[int, ...]:
        """Draft lengths that a step can take, ascending."""
        return tuple(self._params.candidate_steps)

    def drafting(self) -> Drafting:
        """How the worker drafts.

        Raises:
            ConfigurationError: its trees are larger than the protocol carries.
        """
        worker = self._worker
        if worker.most_draft_tokens > MAX_DRAFT_TOKENS:
            raise ConfigurationError(
                f"--speculative-num-draft-tokens: {worker.most_draft_tokens} beside the root; "
                f"Governor takes at most {MAX_DRAFT_TOKENS}"
            )
        return Drafting(
            source=DraftSource.MODEL,
            width=worker.topk,
            most_tokens=worker.most_draft_tokens,
            is_ragged=worker.is_ragged,
            takes_budget=worker.is_ragged,
            switch_s=self._switch_s(),
        )

    def _switch_s(self) -> float:
        """What it takes to go from one length to another: the median of a few switches, there and
        back.

        Host time: a switch launches no work on the device that a step would wait for.
        """
        first: int = self._worker.speculative_num_steps
        others = [length for length in self.lengths if length != first]
        taken: list[float] = []
        for length in [*others, first] * (SWITCHES_TIMED if others else 0):
            self.order = DraftOrder(length)
            start_s = time.perf_counter()
            self._worker.adaptive_controller.activate_step_by_batch(1)
            taken.append(time.perf_counter() - start_s)
        self.order = STOCK
        return statistics.median(taken) if taken else 0.0
