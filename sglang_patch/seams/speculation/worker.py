"""SGLang's EAGLE and STANDALONE workers, made to take orders."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from sglang_patch.seams.speculation import ngram
from sglang_patch.seams.speculation.calibration import Calibration
from sglang_patch.seams.speculation.chances import note_chances, tell_chances
from sglang_patch.seams.speculation.choosing import choose, note_paces
from sglang_patch.seams.speculation.lengths import (
    TreeLengths,
    chain_lengths,
    forget_all_but_last,
    silence_switches,
    tree_nodes,
)
from sglang_patch.seams.speculation.model_drafts import ModelDrafts
from sglang_patch.seams.speculation.notes import Drafted, note
from sglang_patch.seams.speculation.ragged import can_verify_some, only

ALGORITHMS = ("EAGLE", "EAGLE3", "STANDALONE")
"""As SGLang calls them by then; all of them run one worker's code."""


def around_create_worker(
    original: Callable[[Any, Any], Any], algorithm: Any, server_args: Any
) -> Any:
    """The class of SGLang's worker, made to take orders if what it drafts can change."""
    worker = original(algorithm, server_args)
    if ngram.is_asked_for(server_args):
        return ngram.governed(worker)
    if server_args.speculative_algorithm not in ALGORITHMS:
        return worker
    # SGLang itself adapts chains alone; of trees at least the verified nodes can change.
    can_change = server_args.speculative_adaptive or (server_args.speculative_eagle_topk or 1) > 1
    return governed(worker) if can_change else worker


def around_adaptive_unsupported_reason(original: Callable[[Any], Any], server_args: Any) -> Any:
    """Let chains of a draft model (STANDALONE) change their length as EAGLE's do.

    They run the same worker; SGLang 0.5.17 leaves out its controller, which :func:`governed` adds.
    """
    if server_args.speculative_algorithm != "STANDALONE":
        return original(server_args)
    as_eagle = copy.copy(server_args)
    as_eagle.speculative_algorithm = "EAGLE"
    return original(as_eagle)


def governed(worker: Any) -> Any:
    """A subclass of SGLang's ``EAGLEWorkerV2`` or ``StandaloneWorkerV2`` that takes orders."""
    from sglang.srt.runtime_context import get_context
    from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController

    silence_switches()

    class GovernedWorker(worker):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            config_path = self.server_args.speculative_adaptive_config
            controller = self.adaptive_controller
            if controller is None:
                controller = AdaptiveController(self, config_path=config_path)
            lengths = chain_lengths if self.topk == 1 else TreeLengths
            controller.params = lengths(self.speculative_num_steps, config_path)
            self.adaptive_controller: Any = controller
            self.governor_drafts = ModelDrafts(self)
            self._calibration = Calibration()
            self._most_nodes: int = self.speculative_num_draft_tokens
            # Of chains nothing is chosen unless a budget can be spent, and listening takes time.
            if self.topk > 1 or self.server_args.device == "cpu":
                tell_chances(self._draft_worker, self._calibration)

        @property
        def is_ragged(self) -> bool:
            """Whether a row with fewer draft tokens than others costs less to verify."""
            return can_verify_some(self._target_worker.model_runner)

        @property
        def most_draft_tokens(self) -> int:
            """Draft tokens that one row can have verified in one step."""
            if self.topk == 1:
                return int(self.adaptive_controller.params.candidate_steps[-1])
            return self._most_nodes - 1

        def build_adaptive_runtime_state(
            self,
            speculative_num_steps: int,
            speculative_num_draft_tokens: int,
            cuda_graph_bs: list[int] | None = None,
        ) -> Any:
            nodes = speculative_num_draft_tokens
            if self.topk > 1:
                # SGLang asks for a chain of that length.
                nodes = tree_nodes(self.topk, speculative_num_steps, self._most_nodes)
            return super().build_adaptive_runtime_state(
                speculative_num_steps=speculative_num_steps,
                speculative_num_draft_tokens=nodes,
                cuda_graph_bs=cuda_graph_bs,
            )

        def apply_runtime_state(self, state: Any) -> None:
            super().apply_runtime_state(state)
            forget_all_but_last(get_context()._overrides_log)

        def verify(self, batch: Any, grammar_barrier: Any = None) -> Any:
            if batch.forward_mode.is_idle():
                return super().verify(batch, grammar_barrier=grammar_barrier)
            order, verification = self.governor_drafts.order, batch.spec_info
            most = verification.retrieve_next_token.shape[1] - 1
            ragged = self.is_ragged
            chosen = choose(order, batch.reqs, verification, ragged=ragged)
            kept = None if chosen is None else chosen.kept
            runner = self._target_worker.model_runner
            with contextlib.nullcontext() if kept is None else only(runner, kept):
                result = super().verify(batch, grammar_barrier=grammar_barrier)
            caps = {} if chosen is None else chosen.caps
            step = Drafted(self.speculative_num_steps, caps, most, ragged)
            note(result, step)
            if ragged and most:
                note_paces(batch.reqs, result.accept_lens.tolist(), step)
                note_chances(self._calibration, verification, batch.reqs, result.accept_lens, step)
            return result

    GovernedWorker.__name__ = f"Governed{worker.__name__}"
    return GovernedWorker
