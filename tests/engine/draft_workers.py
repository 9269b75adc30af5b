"""What the seam of speculation needs of SGLang's workers, and schedulers with governed ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sglang_patch.seams import speculation

RULE = {"1": {"candidate_steps": [3, 5]}, "8": {"candidate_steps": [0, 1]}}
VOCABULARY = 7


class Target:
    """What the seam needs of SGLang's ModelRunner."""

    def __init__(self) -> None:
        self.attn_backend = SimpleNamespace()
        self.server_args = SimpleNamespace(enable_lora=False)
        self.computed: list[Any] = []

    def forward(self, batch: Any) -> Any:
        """Logits that say which token they are for."""
        import torch

        self.computed.append(batch)
        logits = torch.nn.functional.one_hot(batch.input_ids, VOCABULARY).float()
        output = SimpleNamespace(next_token_logits=logits, hidden_states=None)
        return SimpleNamespace(logits_output=output)


class StockDraftWorker:
    """Likewise of the worker that drafts: chains of 2, each token less likely than the last."""

    def __init__(self, topk: int) -> None:
        self.topk = topk
        self.draft_runner = SimpleNamespace(forward=self.model)

    def model(self, chances: Any) -> Any:
        return SimpleNamespace(logits_output=SimpleNamespace(next_token_logits=chances.log()))

    def draft(self, batch: Any) -> Any:
        batch.run(self.draft_runner)
        return batch.spec_info.verification

    def _draft_extend_for_decode(self, batch: Any, batch_result: Any) -> None:
        import torch

        output = self.draft_runner.forward(batch.next_chances).logits_output
        output.next_token_logits = output.next_token_logits[batch.last_of_rows]
        batch_result.next_draft_input.topk_p = torch.ones(len(batch.last_of_rows), 1)


class StockWorker:
    """Likewise of the worker that SGLang's scheduler has."""

    has_controller = True

    def __init__(self, server_args: Any) -> None:
        from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController

        self.server_args = server_args
        self.topk = server_args.speculative_eagle_topk
        self.speculative_num_steps = 3
        self.speculative_num_draft_tokens = 8 if self.topk > 1 else 4
        self._draft_worker = StockDraftWorker(self.topk)
        self._target_worker = SimpleNamespace(model_runner=Target())
        self.adaptive_controller: Any = None
        if self.has_controller:
            path = server_args.speculative_adaptive_config
            self.adaptive_controller = AdaptiveController(self, config_path=path)  # type: ignore

    def build_adaptive_runtime_state(
        self,
        speculative_num_steps: int,
        speculative_num_draft_tokens: int,
        cuda_graph_bs: Any = None,
    ) -> Any:
        return SimpleNamespace(
            speculative_num_steps=speculative_num_steps,
            speculative_num_draft_tokens=speculative_num_draft_tokens,
        )

    def apply_runtime_state(self, state: Any) -> None:
        from sglang.srt.runtime_context import get_context

        logging.getLogger("sglang.srt.speculative.eagle_worker_v2").info(
            "%s: steps %d", speculation.SWITCHED, state.speculative_num_steps
        )
        get_context()._overrides_log.append(("adaptive_spec.restore", {}))
        self.speculative_num_steps = state.speculative_num_steps

    def activate_step_by_batch(self, batch_size: int) -> None:
        self.adaptive_controller.activate_step_by_batch(batch_size)

    def verify(self, batch: Any, grammar_barrier: Any = None) -> Any:
        """Every row accepts what its links lead to; of a tree, as many nodes as have a child."""
        links = batch.spec_info.retrieve_next_token
        is_linked = (links >= 0).long()
        reached = is_linked.cumprod(dim=1) if self.topk == 1 else is_linked
        self._target_worker.model_runner.forward(batch.verification)
        return SimpleNamespace(
            links=links.tolist(),
            accept_lens=reached.sum(dim=1) + 1,
            speculative_num_draft_tokens=links.shape[1],
        )


class WithoutController(StockWorker):
    """SGLang's worker for draft models leaves its controller out."""

    has_controller = False


def governed_chains(stock: type, folder: Path) -> Any:
    """A scheduler whose worker, a governed ``stock``, drafts chains by ``RULE``."""
    rule = folder / "rule.json"
    rule.write_text(json.dumps(RULE))
    args = SimpleNamespace(
        device="cpu",
        speculative_algorithm="EAGLE",
        speculative_adaptive=True,
        speculative_adaptive_config=str(rule),
        speculative_eagle_topk=1,
    )
    kind = speculation.around_create_worker(lambda _, __: stock, None, args)
    worker = kind(server_args=args)
    worker.adaptive_controller.init_states(cuda_graph_bs=[1, 2, 8, 16])
    return SimpleNamespace(draft_worker=worker)


def governed_trees() -> Any:
    """Likewise trees 3 deep, of at most 8 nodes, 2 candidates a place."""
    args = SimpleNamespace(
        device="cpu",
        speculative_algorithm="STANDALONE",
        speculative_adaptive=False,
        speculative_adaptive_config=None,
        speculative_eagle_topk=2,
    )
    kind = speculation.around_create_worker(lambda _, __: WithoutController, None, args)
    worker = kind(server_args=args)
    controller = worker.adaptive_controller
    controller.register(worker.build_adaptive_runtime_state(3, 8))
    controller.init_states()
    return SimpleNamespace(draft_worker=worker)
