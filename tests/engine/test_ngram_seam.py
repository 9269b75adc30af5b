"""The seam of n-gram speculation, without an engine: widths, cut trees, and accounts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from governor_protos.messages import DraftSource
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.seams import speculation
from sglang_patch.seams.speculation import ngram

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

NODES = 8
VOCABULARY = 4


@st.composite
def corpus_trees(draw: st.DrawFn, nodes: int = NODES) -> tuple[list[int], list[int], int]:
    """A tree as SGLang's corpus gives it: tokens, parents, and how many draft tokens it found.

    Breadth first, siblings with different tokens, and filled up with token 0 under the root.
    """
    tokens, parents = [draw(st.integers(0, VOCABULARY - 1))], [-1]
    free = {0: list(range(VOCABULARY))}
    for node in range(1, draw(st.integers(1, nodes))):
        parent = draw(st.integers(max(0, parents[-1]), node - 1).filter(lambda p: bool(free[p])))
        token = draw(st.sampled_from(free[parent]))
        free[parent].remove(token)
        tokens.append(token)
        parents.append(parent)
        free[node] = list(range(VOCABULARY))
    found = len(tokens) - 1
    filling = nodes - len(tokens)
    if found and (tokens[-1], parents[-1]) == (0, 0):
        found -= 1  # looks like what fills the tree
    return tokens + [0] * filling, parents + [0] * filling, found


def mask_of(parents: list[int]) -> np.ndarray:
    mask = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


@given(st.lists(corpus_trees(), min_size=1, max_size=4))
def test_what_was_found_is_told_from_what_fills_a_tree(
    trees: list[tuple[list[int], list[int], int]],
) -> None:
    tokens = np.array([tree[0] for tree in trees])
    mask = np.stack([mask_of(tree[1]) for tree in trees])
    assert ngram.found(tokens, mask).tolist() == [tree[2] for tree in trees]


@given(corpus_trees(), st.integers(0, NODES - 1), st.data())
@settings(max_examples=200)
def test_a_limited_row_accepts_what_it_would_of_a_tree_of_its_first_nodes(
    tree: tuple[list[int], list[int], int], limit: int, data: st.DataObject
) -> None:
    from governor_kernels.greedy_verify import verify_greedy
    from governor_kernels.tree_links import TreeLinks, links_from_parents

    tokens, parents, _ = tree
    target = data.draw(st.lists(st.integers(0, 3), min_size=NODES, max_size=NODES))
    links = links_from_parents(torch.tensor([parents]))
    for part in (links.first_child, links.next_sibling):
        ngram.cut_trees(part, np.array([limit]))
    limited = verify_greedy(torch.tensor([tokens]), links, torch.tensor([target]), NODES)
    first = limit + 1
    small: TreeLinks = links_from_parents(torch.tensor([parents[:first]]))
    alone = verify_greedy(
        torch.tensor([tokens[:first]]), small, torch.tensor([target[:first]]), first
    )
    kept = int(alone.correct_drafts[0])
    assert int(limited.correct_drafts[0]) == kept
    path = limited.accept_index[0, : kept + 1].tolist()
    assert path == alone.accept_index[0, : kept + 1].tolist()
    assert limited.predicts[path].tolist() == alone.predicts[path].tolist()


def test_the_first_nodes_are_the_root_and_as_many_as_may_be_accepted() -> None:
    kept = ngram.first_nodes(np.array([0, 2]), 3)
    assert kept.tolist() == [[True, False, False], [True, True, True]]


def test_widths_are_few_and_end_with_the_widest() -> None:
    assert ngram.widths_up_to(0) == (0,)
    assert ngram.widths_up_to(1) == (0, 1)
    assert ngram.widths_up_to(11) == (0, 1, 3, 7, 11)
    assert ngram.widths_up_to(15) == (0, 1, 3, 7, 15)
    assert ngram.widths_up_to(255)[-2:] == (127, 255)


def test_relayed_tokens_keep_their_rows_at_another_stride() -> None:
    tokens = torch.arange(1, 7)
    assert ngram.at_stride(tokens, 3, 3) is tokens
    assert ngram.at_stride(tokens, 3, 5).tolist() == [1, 2, 3, 0, 0, 4, 5, 6, 0, 0]


def forward_all(*args: Any) -> None:
    """The target's pass over all nodes."""


class StockWorker:
    """What the seam needs of SGLang's worker. Its corpus finds a chain of 1, 2, 3 and so on, as
    long as each row's ``known``."""

    def __init__(self, nodes: int, verifies_kept_nodes: bool) -> None:
        self.model_runner = SimpleNamespace(
            attn_backend=SimpleNamespace(verifies_kept_nodes=verifies_kept_nodes),
            server_args=SimpleNamespace(enable_lora=False),
            forward=forward_all,
        )
        self.computes_all = True
        self.draft_token_num = self.speculative_num_draft_tokens = nodes
        self.strides: list[int] = []
        self.allocated = 0

    def alloc_memory_pool(self) -> None:
        self._init_preallocated_tensors()

    def _init_preallocated_tensors(self) -> None:
        self.allocated += 1
        for name in ngram.BUFFERS:
            setattr(self, name, [self.draft_token_num])

    def _prepare_draft_tokens(self, batch: Any) -> tuple[Any, Any]:
        self.strides.append(self.draft_token_num)
        trees = []
        for req in batch.reqs:
            filling = self.draft_token_num - 1 - req.known
            trees.append(([*range(req.known + 1), *[0] * filling], req.known, filling))
        tokens = np.array([tree[0] for tree in trees])
        mask = np.stack([mask_of([*range(-1, known), *[0] * fill]) for _, known, fill in trees])
        return tokens.ravel(), mask.ravel()

    def _prepare_for_speculative_decoding(self, batch: Any) -> None:
        from governor_kernels.tree_links import links_from_parents, parents_from_mask

        tokens, mask = self._prepare_draft_tokens(batch)
        nodes = self.draft_token_num
        assert tokens.shape == (len(batch.reqs) * nodes,)
        assert self.tree_mask_batch == [nodes]  # type: ignore[attr-defined]
        parents, _ = parents_from_mask(torch.tensor(mask.reshape(-1, nodes, nodes)))
        links = links_from_parents(parents)
        batch.spec_info = SimpleNamespace(
            retrieve_next_token=links.first_child, retrieve_next_sibling=links.next_sibling
        )

    def _update_ngram_corpus(self, batch: Any) -> None:
        self.strides.append(self.draft_token_num)

    def forward_batch_generation(self, batch: Any, on_publish: Any = None) -> Any:
        if batch.fails:
            raise RuntimeError("out of memory")
        if batch.forward_mode.is_decode():
            self._prepare_for_speculative_decoding(batch)
            self.computes_all = self.model_runner.forward is forward_all
            self._update_ngram_corpus(batch)
        rows = len(batch.reqs)
        return SimpleNamespace(
            speculative_num_draft_tokens=self.speculative_num_draft_tokens,
            next_draft_input=SimpleNamespace(
                accept_tokens=torch.ones(rows * self.draft_token_num, dtype=torch.int32),
                accept_lens=torch.ones(rows, dtype=torch.int32),
                new_seq_lens=torch.ones(rows, dtype=torch.int64),
            ),
        )


@pytest.fixture(params=[False, True], ids=["one width", "ragged"])
def scheduler(request: pytest.FixtureRequest) -> Any:
    args = SimpleNamespace(speculative_algorithm="NGRAM")
    kind = speculation.around_create_worker(lambda _, __: StockWorker, None, args)
    worker = kind(NODES, request.param)
    worker.alloc_memory_pool()
    return SimpleNamespace(draft_worker=worker)


def batch_of(known: dict[str, int], *, decodes: bool = True, fails: bool = False) -> Any:
    return SimpleNamespace(
        reqs=[SimpleNamespace(rid=rid, known=count) for rid, count in known.items()],
        forward_mode=SimpleNamespace(is_decode=lambda: decodes),
        spec_info=None,
        fails=fails,
    )


def test_the_engine_says_how_it_drafts(scheduler: Any) -> None:
    assert speculation.draft_lengths(scheduler) == (0, 1, 3, 7)
    told = speculation.drafting(scheduler)
    assert told is not None
    assert (told.source, told.width, told.most_tokens) == (DraftSource.NGRAM, 1, 7)
    assert told.switch_s > 0
    assert told.is_ragged == scheduler.draft_worker.is_ragged
    assert not told.takes_budget
    assert scheduler.draft_worker.draft_token_num == NODES, "left as it was"


@pytest.mark.parametrize("order", [STOCK, *(DraftOrder(n) for n in (0, 1, 3, 7, 5))])
def test_a_step_has_the_width_that_was_ordered_or_else_the_widest(
    scheduler: Any, order: DraftOrder
) -> None:
    speculation.tell(scheduler, order)
    batch = batch_of({"a": 0, "b": 2, "c": 7})
    result = scheduler.draft_worker.forward_batch_generation(batch)
    width = order.length if order.length in (0, 1, 3, 7) else 7
    step = speculation.drafted(result)
    assert step is not None
    assert step.length == width
    assert [step.verified(rid) for rid in "abc"] == [0, min(2, width), width]
    assert speculation.drafted(result) == step
    is_ragged = scheduler.draft_worker.is_ragged
    assert step.computed(3) == (min(2, width) + width if is_ragged else 3 * width)
    assert scheduler.draft_worker.computes_all == (not is_ragged or width == 0)
    assert scheduler.draft_worker.model_runner.forward is forward_all, "afterwards"
    relayed = result.next_draft_input
    assert relayed.draft_token_num == relayed.num_tokens_per_req == NODES
    assert len(relayed.accept_tokens) == 3 * NODES
    assert scheduler.draft_worker.strides == [NODES, NODES], "the corpus knows one width"
    assert scheduler.draft_worker.draft_token_num == NODES


def test_caps_end_trees_and_so_does_what_was_not_found(scheduler: Any) -> None:
    speculation.tell(scheduler, DraftOrder(3, (("c", 1), ("b", 3), ("gone", 0))))
    batch = batch_of({"a": 0, "b": 2, "c": 7})
    result = scheduler.draft_worker.forward_batch_generation(batch)
    assert batch.spec_info.retrieve_next_token.tolist() == [
        [-1, -1, -1, -1],
        [1, 2, -1, -1],
        [1, -1, -1, -1],
    ]
    assert batch.spec_info.retrieve_next_sibling.max() == -1
    step = speculation.drafted(result)
    assert step is not None
    assert [step.verified(rid) for rid in "abc"] == [0, 2, 1]


def test_steps_that_do_not_decode_or_that_fail_leave_the_widest(scheduler: Any) -> None:
    speculation.tell(scheduler, DraftOrder(1))
    worker = scheduler.draft_worker
    result = worker.forward_batch_generation(batch_of({"a": 1}, decodes=False))
    assert result.speculative_num_draft_tokens == NODES
    with pytest.raises(RuntimeError, match="out of memory"):
        worker.forward_batch_generation(batch_of({"a": 1}, fails=True))
    assert worker.draft_token_num == worker.speculative_num_draft_tokens == NODES
    assert worker.tree_mask_batch == [NODES]
    assert worker.allocated == len(speculation.draft_lengths(scheduler)), "once, at the start"
