"""Stand-ins for a scheduler, its requests and its batch, as far as prefill is concerned."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any


class Request:
    """A request that waits; compares by identity, as SGLang's do."""

    def __init__(self, rid: str, tokens: Any = 10, *, said: int = 0, max_new_tokens: int = 8):
        ids = range(tokens) if isinstance(tokens, int) else tokens
        self.rid = rid
        self.origin_input_ids = array("q", ids)
        self.output_ids = array("q", range(said))
        self.sampling_params = SimpleNamespace(
            max_new_tokens=max_new_tokens,
            custom_params=None,
            frequency_penalty=0.0,
            presence_penalty=0.0,
            repetition_penalty=1.0,
            min_new_tokens=0,
        )
        self.extra_key = None
        self.positional_embed_overrides = None
        self.time_stats = SimpleNamespace(
            scheduler_recv_time=1.0, forward_entry_time=0.0, wait_queue_entry_time=0.0
        )
        self.priority = None
        self.grammar = None
        self.return_hidden_states = False
        self.to_finish = None
        self.input_embeds = None
        self.multimodal_inputs = None
        self.session = None
        self.return_routed_experts = False
        self.return_indexer_topk = False
        self.cache_salt = None
        self.kv = SimpleNamespace(holds_kv=False, cache_protected_len=0, kv_allocated_len=0)
        self.cache_protected_len = 0
        self.prefilled = 0
        """Tokens that chunks have covered; the versions of SGLang name it otherwise."""
        self.ended = False

    @property
    def extend_range(self) -> SimpleNamespace:
        return SimpleNamespace(end=self.prefilled)

    @property
    def extend_end(self) -> int:
        return self.prefilled

    @property
    def seqlen(self) -> int:
        return len(self.origin_input_ids) + len(self.output_ids)

    def finished(self) -> bool:
        return self.ended

    def _compute_max_prefix_len(self, length: int) -> int:
        return max(0, length - 1)


class Batch:
    def __init__(self, reqs: list[Request]) -> None:
        self.reqs = reqs
        self.is_prefill_only = False
        self.batch_is_full = False

    def new_tokens_required_next_decode(self, selected_indices: list[int]) -> int:
        assert not any(self.reqs[index].finished() for index in selected_indices)
        return len(selected_indices)


def scheduler_of(
    waiting: list[Request], tree: Any, *, free: int = 10_000, **changes: Any
) -> SimpleNamespace:
    """A scheduler with a chunk of 64 tokens, pages of one, and ``free`` KV tokens."""
    facts: dict[str, Any] = {
        "forward_ct": 0,
        "waiting_queue": waiting,
        "chunked_req": None,
        "chunked_prefill_size": 64,
        "max_prefill_tokens": 1000,
        "page_size": 1,
        "is_mixed_chunk": False,
        "is_hybrid_swa": False,
        "is_hybrid_ssm": False,
        "truncation_align_size": None,
        "enable_lora": False,
        "enable_hierarchical_cache": False,
        "enable_priority_scheduling": False,
        "policy": SimpleNamespace(policy=SimpleNamespace(value="fcfs")),
        "tree_cache": tree,
        "token_to_kv_pool_allocator": SimpleNamespace(available_size=lambda: free),
        "new_token_ratio_tracker": SimpleNamespace(current=0.5),
        "grammar_manager": SimpleNamespace(has_waiting_grammars=lambda: False),
        "get_num_allocatable_reqs": lambda rows: 100 - rows,
    }
    scheduler = SimpleNamespace(**(facts | changes))

    def pending_tokens() -> int:
        started = scheduler.chunked_req
        rest = 0 if started is None else started.seqlen - started.prefilled
        return rest + sum(req.seqlen for req in scheduler.waiting_queue)

    scheduler.load_inquirer = SimpleNamespace(_get_num_pending_tokens=pending_tokens)
    return scheduler
