"""How many draft tokens SGLang's n-gram engine has verified at a step.

SGLang looks the end of each row up in text that it has seen, which gives a tree of draft tokens.
Every tree has ``--speculative-num-draft-tokens`` nodes: the row's last token as the root, what was
found, and token 0 as a child of the root as often as it takes to fill the tree. All of it is
verified. The worker here cuts the trees to their first nodes before they are, so that a step costs
what was ordered, and has nothing accepted that was not found; where the attention can, the target
does not compute that either (``ragged``). Nothing else of a step changes, and the lookup is the
same at any width.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from governor_protos.limits import MAX_DRAFT_TOKENS
from governor_protos.messages import Drafting, DraftSource

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.seams.speculation.notes import Drafted, note
from sglang_patch.seams.speculation.ragged import can_verify_some, only

MOST_NODES = MAX_DRAFT_TOKENS + 1
"""Nodes of a tree, its root included, that the protocol can tell of."""

SWITCHES_TIMED = 25
"""Times that each width is switched to at the start: a switch takes microseconds."""

BUFFERS = (
    "draft_tokens_batch",
    "tree_mask_batch",
    "retrieve_indexes_batch",
    "retrieve_next_token_batch",
    "retrieve_next_sibling_batch",
    "positions_batch",
)
"""What SGLang's worker allocates for one width: views for each batch size."""

Ints = npt.NDArray[np.int64]


def is_asked_for(server_args: Any) -> bool:
    """Whether an engine of these arguments drafts from n-grams."""
    return str(getattr(server_args, "speculative_algorithm", None)).upper() == "NGRAM"


class NgramDrafts:
    """See :class:`.drafting.GovernedDrafts`.

    A width is told as a draft length, and trees as chains: the corpus decides their shape, and all
    that a controller can choose is how many nodes are verified.

    Args:
        worker: a ``GovernedNGRAMWorker``.
        widest: draft tokens of a row that a step can have verified.
    """

    def __init__(self, worker: Any, widest: int) -> None:
        self._worker = worker
        self.lengths = widths_up_to(widest)
        self.order: DraftOrder = STOCK

    def chosen(self) -> int:
        """The ordered width; where none is ordered the widest, as in stock SGLang."""
        return self.order.length if self.order.length in self.lengths else self.lengths[-1]

    def drafting(self) -> Drafting:
        """How the worker drafts."""
        return Drafting(
            source=DraftSource.NGRAM,
            most_tokens=self.lengths[-1],
            is_ragged=self._worker.is_ragged,
            switch_s=self._switch_s(),
        )

    def _switch_s(self) -> float:
        """What it takes to go from one width to another: the median of switches there and back."""
        taken: list[float] = []
        for width in self.lengths * SWITCHES_TIMED:
            start_s = time.perf_counter()
            self._worker.take_width(width)
            taken.append(time.perf_counter() - start_s)
        self._worker.take_width(self.lengths[-1])
        return statistics.median(taken)


def widths_up_to(widest: int) -> tuple[int, ...]:
    """0, 1, 3, 7 and so on, as a tree's worth grows with the logarithm of its size; the widest."""
    return (*(width for width in (2**k - 1 for k in range(8)) if width < widest), widest)


def governed(worker: Any) -> Any:
    """A subclass of SGLang's ``NGRAMWorker`` that takes orders."""
    from sglang.srt.speculative.ngram_info import NgramVerifyInput

    class GovernedNGRAMWorker(worker):  # type: ignore[misc]
        draft_token_num: int
        """Nodes of a tree, its root included, as elsewhere in SGLang's n-gram code."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.governor_drafts = NgramDrafts(self, self.draft_token_num - 1)
            self._most_nodes = self.draft_token_num
            self._buffers: dict[int, dict[str, Any]] = {}
            self._limits: Ints = np.zeros(0, dtype=np.int64)

        @property
        def is_ragged(self) -> bool:
            """Whether a row with fewer draft tokens than others costs less to verify."""
            return can_verify_some(self.model_runner)

        def _init_preallocated_tensors(self) -> None:
            for width in self.governor_drafts.lengths:
                self.draft_token_num = width + 1
                super()._init_preallocated_tensors()
                self._buffers[width] = {name: self.__dict__[name] for name in BUFFERS}
            self.take_width(self._most_nodes - 1)

        def take_width(self, width: int) -> None:
            self.draft_token_num = self.speculative_num_draft_tokens = width + 1
            self.__dict__.update(self._buffers[width])

        def forward_batch_generation(self, batch: Any, on_publish: Any = None) -> Any:
            if not batch.forward_mode.is_decode():
                return super().forward_batch_generation(batch, on_publish)
            width = self.governor_drafts.chosen()
            self.take_width(width)
            try:
                with contextlib.ExitStack() as self._verification:
                    result = super().forward_batch_generation(batch, on_publish)
            finally:
                self.take_width(self._most_nodes - 1)
            given = result.next_draft_input
            # Rows leave this batch and meet others, so what is relayed has one stride.
            result.next_draft_input = NgramVerifyInput(
                draft_token_num=self._most_nodes,
                new_seq_lens=given.new_seq_lens,
                accept_tokens=at_stride(given.accept_tokens, width + 1, self._most_nodes),
                accept_lens=given.accept_lens,
            )
            limits = zip(batch.reqs, self._limits.tolist(), strict=True)
            caps = {req.rid: limit for req, limit in limits if limit < width}
            note(result, Drafted(width, caps, is_ragged=self.is_ragged))
            return result

        def _prepare_for_speculative_decoding(self, batch: Any) -> None:
            decodes = batch.forward_mode.is_decode()
            super()._prepare_for_speculative_decoding(batch)
            if not decodes:
                return
            # SGLang writes both anew at every step.
            cut_trees(batch.spec_info.retrieve_next_token, self._limits)
            cut_trees(batch.spec_info.retrieve_next_sibling, self._limits)
            if self.is_ragged and self._limits.min() < self.draft_token_num - 1:
                kept = first_nodes(self._limits, self.draft_token_num)
                self._verification.enter_context(only(self.model_runner, kept))

        def _prepare_draft_tokens(self, batch: Any) -> tuple[Any, Any]:
            nodes, most = self.draft_token_num, self._most_nodes
            self.draft_token_num = most  # the corpus, and what is relayed
            try:
                tokens, mask = super()._prepare_draft_tokens(batch)
            finally:
                self.draft_token_num = nodes
            rows = len(batch.reqs)
            tokens, mask = tokens.reshape(rows, most), mask.reshape(rows, most, most)
            caps = dict(self.governor_drafts.order.caps)
            allowed = [min(nodes - 1, caps.get(req.rid, nodes)) for req in batch.reqs]
            self._limits = np.minimum(found(tokens, mask), np.array(allowed, dtype=np.int64))
            # Parents come before their children, so the first nodes of a tree are a tree.
            return tokens[:, :nodes].ravel(), mask[:, :nodes, :nodes].ravel()

        def _update_ngram_corpus(self, batch: Any) -> None:
            nodes, self.draft_token_num = self.draft_token_num, self._most_nodes
            try:
                super()._update_ngram_corpus(batch)
            finally:
                self.draft_token_num = nodes

    return GovernedNGRAMWorker


def found(tokens: npt.NDArray[Any], mask: npt.NDArray[Any]) -> Ints:
    """How many draft tokens of each tree were found, and do not just fill it.

    Args:
        tokens: (rows, nodes), the root first.
        mask: (rows, nodes, nodes), non-zero where node j is node i or an ancestor of it.

    Returns:
        (rows,). A found token 0 counts as filling where it is right under the root and nothing
        comes after it.
    """
    fills = (tokens == 0) & (np.count_nonzero(mask, axis=2) == 2)
    fills[:, 0] = False
    counts: Ints = tokens.shape[1] - 1 - np.cumprod(fills[:, ::-1], axis=1).sum(axis=1)
    return counts


def first_nodes(limits: Ints, nodes: int) -> Any:
    """The nodes that may be accepted: (rows, nodes) bool, the root and ``limits`` more of each."""
    import torch

    return torch.from_numpy(np.arange(nodes) <= limits[:, None])


def cut_trees(links: Any, limits: Ints) -> None:
    """End trees at rows' own limits, in place.

    Args:
        links: (rows, nodes) int64; each node's first child, or next sibling, -1 for none.
        limits: (rows,) draft tokens of each row that may be accepted: its first nodes.
    """
    last = links.new_tensor(limits.tolist()).unsqueeze(1)
    links.masked_fill_(links > last, -1)


def at_stride(tokens: Any, stride: int, wanted: int) -> Any:
    """The same tokens with ``wanted`` places a row in place of ``stride``; flat, as SGLang's."""
    if stride == wanted:
        return tokens
    rows = tokens.view(-1, stride)
    wider = rows.new_zeros(len(rows), wanted)
    wider[:, :stride] = rows
    return wider.flatten()
