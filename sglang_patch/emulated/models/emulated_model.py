"""The emulated model: a launch on the emulated device, and logits with one peak a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from torch import nn

from sglang_patch.emulated import runtime
from sglang_patch.emulated.tokens import VOCAB_SIZE, next_token

FLOOR = -1e4
"""Logit of every token but the next: its probability is 0 at any temperature in use."""


class EmulatedForCausalLM(nn.Module):  # type: ignore[misc]
    """Knows the next token of every row without computing anything; takes a GPU's time for it."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        self._emulation = runtime.current()
        # SGLang asks the first parameter of a model for its device and type.
        self.anchor = nn.Parameter(torch.zeros(1), requires_grad=False)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """There are none."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: torch.Tensor | None = None,
        pp_proxy_tensors: Any = None,
    ) -> LogitsProcessorOutput:
        """Launch the step and tell each row's next token.

        Args:
            input_ids: shape (tokens,), of all rows one after the other.
            positions: shape (tokens,), of ``input_ids``.
            forward_batch: SGLang's description of the batch.

        Returns:
            Logits of shape (rows, VOCAB_SIZE): 0 for the next token, FLOOR for all others.
        """
        prefill_tokens = 0
        if forward_batch.forward_mode.is_extend():
            # One token is a decode row of a mixed step, or a prompt whose prefix is cached: a row.
            lengths = forward_batch.extend_seq_lens_cpu
            prefill_tokens = sum(length for length in lengths if length > 1)
            last = torch.cumsum(forward_batch.extend_seq_lens, 0) - 1
            input_ids, positions = input_ids[last], positions[last]
        rows = forward_batch.batch_size
        self._emulation.launch(rows, forward_batch.seq_lens_sum, prefill_tokens)
        successors = next_token(input_ids.long(), positions.long())
        logits = torch.full((rows, VOCAB_SIZE), FLOOR)
        logits.scatter_(1, successors[:, None], 0.0)
        return LogitsProcessorOutput(next_token_logits=logits)


EntryClass = EmulatedForCausalLM
