"""How long a worker drafts: as ordered, or else as it would without a controller."""

from __future__ import annotations

import logging
from typing import Any

from sglang_patch.apply.speculation import OWN_CHOICE, STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError

SWITCHED = "Switch adaptive runtime state"
"""How the line starts that SGLang logs at each switch."""


def chain_lengths(steps: int, config_path: str | None) -> Any:
    """What SGLang's worker asks for the length of its chains.

    Args:
        steps: ``--speculative-num-steps``.
        config_path: ``--speculative-adaptive-config``, which names the lengths.
    """
    from sglang.srt.speculative.adaptive_spec_params import AdaptiveSpeculativeParams

    class ChainLengths(AdaptiveSpeculativeParams):  # type: ignore[misc]
        """The ordered draft length, or that of SGLang's own rule where nothing is ordered."""

        order: DraftOrder = STOCK

        def get_steps_for_batch(self, batch_size: int) -> int:
            if self.order.length in self.candidate_steps:
                return self.order.length
            own: int = super().get_steps_for_batch(batch_size)
            return own

        def on_verify_complete(
            self, num_correct_drafts_per_req: list[int], batch_size: int
        ) -> int | None:
            """The rule learns from steps that it chose itself: it takes what it would have chosen
            for the length of the step."""
            if self.order.length != OWN_CHOICE:
                return None
            chosen: int | None = super().on_verify_complete(num_correct_drafts_per_req, batch_size)
            return chosen

        def cuda_graph_bs_for_step(self, step: int) -> list[int] | None:
            """Any length may be ordered for any batch, whatever the rule could reach."""
            sizes: list[int] | None = self._cuda_graph_bs
            return sizes

    return ChainLengths(steps, config_path)


class TreeLengths:
    """Likewise for trees, for which SGLang has no rule: where nothing is ordered they are as deep
    as the engine was started with.

    Args:
        steps: ``--speculative-num-steps``; KV is sized for it.
        config_path: ``--speculative-adaptive-config``, whose lengths are taken; None: only 0.

    Raises:
        ConfigurationError: it names trees that are deeper.
    """

    def __init__(self, steps: int, config_path: str | None) -> None:
        from sglang.srt.speculative.adaptive_spec_params import resolve_candidate_steps_from_config

        named = [0] if config_path is None else resolve_candidate_steps_from_config(config_path)
        if max(named) > steps:
            raise ConfigurationError(
                f"--speculative-adaptive-config: candidate_steps names {max(named)}, and trees are "
                f"at most {steps} deep: raise --speculative-num-steps"
            )
        self.order: DraftOrder = STOCK
        self.candidate_steps: list[int] = sorted({*named, steps})
        self._graph_rows: list[int] | None = None

    def get_steps_for_batch(self, batch_size: int) -> int:
        is_known = self.order.length in self.candidate_steps
        return self.order.length if is_known else self.candidate_steps[-1]

    def on_verify_complete(
        self, num_correct_drafts_per_req: list[int], batch_size: int
    ) -> int | None:
        return None

    def set_cuda_graph_bs(self, cuda_graph_bs: list[int] | None) -> None:
        self._graph_rows = cuda_graph_bs

    def cuda_graph_bs_for_step(self, step: int) -> list[int] | None:
        return self._graph_rows


def tree_nodes(topk: int, steps: int, most: int) -> int:
    """Nodes of a tree, its root included: ``most``, or as many as so many steps can draft."""
    drafted = topk + (steps - 1) * topk * topk if steps else 0
    return min(most, 1 + drafted)


def silence_switches() -> None:
    """At one switch a step, SGLang's line about it says nothing."""
    logger = logging.getLogger("sglang.srt.speculative.eagle_worker_v2")
    logger.addFilter(lambda record: not record.getMessage().startswith(SWITCHED))


def forget_all_but_last(log: list[tuple[str, Any]]) -> None:
    """SGLang keeps a record of every switch for ever; at one a step they would fill memory."""
    if len(log) > 1 and log[-1][0] == log[-2][0]:
        del log[-2]
