"""The algorithm as SGLang knows it; importing this needs SGLang."""

from __future__ import annotations

from typing import Any

from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo, get_spec

from sglang_patch.emulated.speculation.arguments import NAME, fill_in


class EmulatedAlgorithm(CustomSpecAlgo):  # type: ignore[misc]
    """What SGLang asks an algorithm about itself."""

    def is_ngram(self) -> bool:
        """SGLang's word for: no draft model, no KV of drafts, and the next step's input comes from
        the batch itself."""
        return True

    def has_draft_kv(self) -> bool:
        return False

    # SGLang 0.5.17 asks for these, and its class for registered algorithms lacks them.
    def need_topk(self) -> bool:
        return False

    def carries_draft_hidden_states(self) -> bool:
        return False

    def create_future_map(
        self,
        device: Any,
        req_to_token_pool: Any,
        needs_cpu_seq_lens: bool = True,
        needs_confidence_relay: bool = False,
    ) -> Any:
        from sglang.srt.managers.overlap_utils import FutureMap

        return FutureMap(
            device, self, req_to_token_pool, needs_cpu_seq_lens, needs_confidence_relay
        )

    def handle_server_args(self, server_args: Any) -> None:
        fill_in(server_args)

    def create_worker(self, server_args: Any) -> type:
        from sglang_patch.emulated.speculation.kv_table import enter_slots_without_kernels
        from sglang_patch.emulated.speculation.worker import EmulatedWorker

        enter_slots_without_kernels()
        return EmulatedWorker


def register() -> None:
    """Make the algorithm known to SGLang in this process. Calling it again changes nothing."""
    if get_spec(NAME) is None:
        SpeculativeAlgorithm.register(NAME, supports_overlap=True, spec_class=EmulatedAlgorithm)(
            _no_factory
        )


def _no_factory(server_args: Any) -> type:
    raise NotImplementedError("EmulatedAlgorithm.create_worker hands out the worker")
