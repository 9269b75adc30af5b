"""The worker: every decode step drafts, is verified and paid for without a model running.

The emulated model's tokens are known beforehand, so neither draft nor target compute anything. A
step hands the device its cost, and SGLang the tokens that each row's luck gives it. Decode steps
have no logits: tokens are those of the emulated language at any sampling parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.spec_info import SpecInput, SpecInputType

from sglang_patch.emulated import config, runtime
from sglang_patch.emulated.speculation import arguments
from sglang_patch.emulated.speculation.drafts import EmulatedDrafts, StepDrafts
from sglang_patch.emulated.speculation.fields import luck_of
from sglang_patch.emulated.speculation.luck import RowLuck, drawn
from sglang_patch.emulated.tokens import next_token
from sglang_patch.seams.speculation import Drafted, note

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch

Numbers = npt.NDArray[np.int64]


class NewestTokens(SpecInput):  # type: ignore[misc]
    """Each row's newest token, on its way to the next step with the batch.

    SGLang from 0.5.23 on takes what an algorithm without a draft model has accepted through its
    future map in the overlap loop, by these names; here that is one token a row.

    NOTE: batches are copied shallowly when rows are parked: tensors are replaced, never written.
    """

    draft_token_num = 1

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__(SpecInputType.NGRAM_VERIFY)
        self.accept_tokens = tokens
        self.accept_lens = torch.ones(len(tokens), dtype=torch.int32)
        self.future_indices: torch.Tensor | None = None
        """Where the overlap loop keeps the rows' lengths; it sets this."""

    def filter_batch(self, new_indices: torch.Tensor, new_indices_cpu: Any = None) -> None:
        self.accept_tokens = self.accept_tokens[new_indices]
        self.accept_lens = self.accept_lens[new_indices]
        if self.future_indices is not None:
            self.future_indices = self.future_indices[new_indices]

    def merge_batch(self, other: Self) -> None:
        self.accept_tokens = torch.cat([self.accept_tokens, other.accept_tokens])
        self.accept_lens = torch.cat([self.accept_lens, other.accept_lens])
        if self.future_indices is not None:
            self.future_indices = torch.cat([self.future_indices, other.future_indices])


class EmulatedWorker(BaseSpecWorker):  # type: ignore[misc]
    """Takes the place of SGLang's workers for drafts."""

    def __init__(
        self, server_args: Any, gpu_id: int, nccl_port: int, target_worker: Any, ps: Any = None
    ) -> None:
        """As SGLang calls it.

        Args:
            ps: ranks; not given in 0.5.23.
        """
        super().__init__()
        self.server_args = server_args
        self.speculative_num_steps: int = server_args.speculative_num_steps
        self.speculative_num_draft_tokens: int = server_args.speculative_num_draft_tokens
        self.model_runner = target_worker.model_runner
        self.governor_drafts = EmulatedDrafts(arguments.lengths(self.speculative_num_steps))
        """See :class:`sglang_patch.seams.speculation.drafting.GovernedDrafts`."""
        self._target_worker = target_worker
        self._draft_worker = None
        self._emulation = runtime.current()
        self._settings = config.load()

    def update_weights_from_tensor(self, request: Any) -> Any:
        return self.target_worker.update_weights_from_tensor(request)

    def forward_batch_generation(
        self, batch: ScheduleBatch, on_publish: Any = None, pp_proxy_tensors: Any = None
    ) -> Any:
        """Run a step.

        Args:
            on_publish: told the rows' new lengths, for the overlap loop.
            pp_proxy_tensors: always None, as there is one pipeline stage.
        """
        result = (self._decode if batch.forward_mode.is_decode() else self._prefill)(batch)
        if on_publish is not None:
            on_publish(result.new_seq_lens)
        return result

    def _prefill(self, batch: ScheduleBatch) -> Any:
        result = self.target_worker.forward_batch_generation(batch)
        result.new_seq_lens = batch.seq_lens.clone()
        result.accept_lens = torch.ones(len(batch.reqs), dtype=torch.int32)
        result.next_draft_input = NewestTokens(result.next_token_ids.long())
        result.speculative_num_draft_tokens = 1
        return result

    def _decode(self, batch: ScheduleBatch) -> Any:
        rows = len(batch.reqs)
        committed: Numbers = batch.seq_lens.numpy()
        step = self._drafts(batch.reqs, committed.tolist())
        # A row's context holds the token that the step brings, as in a step without drafts.
        context_tokens = int(committed.sum()) + rows
        self._emulation.launch(rows, context_tokens, 0, sum(step.verified), step.length)
        accepted = np.array(step.accepted)
        tokens = written(batch.spec_info.accept_tokens.numpy(), committed, int(accepted.max()) + 1)
        stride = step.length + 1
        padded = np.zeros((rows, stride), dtype=np.int64)
        padded[:, : tokens.shape[1]] = tokens
        result = GenerationBatchResult(
            logits_output=LogitsProcessorOutput(
                next_token_logits=None,
                # Every token was certain.
                next_token_logprobs=torch.zeros(rows, stride) if batch.return_logprob else None,
            ),
            next_token_ids=torch.from_numpy(padded.ravel()),
            accept_lens=torch.from_numpy((accepted + 1).astype(np.int32)),
            new_seq_lens=torch.from_numpy(committed + accepted + 1),
            next_draft_input=NewestTokens(torch.from_numpy(tokens[np.arange(rows), accepted])),
            speculative_num_draft_tokens=stride,
        )
        note(result, _told(batch.reqs, step))
        return result

    def _drafts(self, reqs: list[Req], committed: list[int]) -> StepDrafts:
        # Committed are the prompt and the output but for its newest token.
        positions = [
            length - len(req.origin_input_ids) + 1
            for req, length in zip(reqs, committed, strict=True)
        ]
        lucks = [self._luck(req) for req in reqs]
        return self.governor_drafts.step([req.rid for req in reqs], lucks, positions)

    def _luck(self, req: Req) -> RowLuck:
        known: RowLuck | None = getattr(req, "governor_luck", None)
        if known is None:
            known = luck_of(req.sampling_params.custom_params)
            if known is None:
                settings, tokens = self._settings, req.sampling_params.max_new_tokens + 1
                known = drawn(settings.acceptance, settings.seed, req.origin_input_ids, tokens)
            req.governor_luck = known
        return known


def written(last: Numbers, positions: Numbers, count: int) -> Numbers:
    """The next ``count`` tokens of every row.

    Args:
        last: newest tokens, shape ``(rows,)``.
        positions: theirs, counted from 0 in prompt and output.

    Returns:
        Shape ``(rows, count)``.
    """
    tokens = np.empty((len(last), count), dtype=np.int64)
    for ahead in range(count):
        last = tokens[:, ahead] = next_token(last, positions + ahead)
    return tokens


def _told(reqs: list[Req], step: StepDrafts) -> Drafted:
    """What the step drafts, for the governor."""
    short = {
        req.rid: count
        for req, count in zip(reqs, step.verified, strict=True)
        if count < step.length
    }
    return Drafted(step.length, short, is_ragged=True)
