"""Run by test_speculation_kernels.py: the references beside SGLang's own Triton kernels.

Triton's interpreter (`TRITON_INTERPRET=1`, set before the kernels are imported) runs them on CPU
tensors. Prints one line a comparison, `NAME rounds`, and fails on the first difference.
"""

from __future__ import annotations

import numpy as np
import torch
from sglang.kernels.ops.speculative import cache_locs, eagle, reject_sampling
from sglang.srt.mem_cache import allocation
from sglang.srt.speculative import eagle_utils
from sglang.srt.speculative.spec_utils import select_top_k_tokens

from sglang_patch.platforms.speculation import cache_ops, sampling_ops, tree_ops
from sglang_patch.platforms.speculation.kernel_package import reference_kernels

ROUNDS = 6


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.dtype == wanted.dtype, (found.dtype, wanted.dtype)
    assert torch.equal(found, wanted), f"{found.tolist()} is not {wanted.tolist()}"


def results(rows: int, nodes: int, width: int) -> list[torch.Tensor]:
    """Buffers that a verification writes: predictions, the accepted path, its length."""
    return [
        torch.zeros(rows * nodes, dtype=torch.int32),
        torch.full((rows, width), -1, dtype=torch.int32),
        torch.zeros(rows, dtype=torch.int32),
    ]


def tables(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A table of slots, the requests of the rows, and how long they are."""
    table = torch.randperm(7 * 64).view(7, 64).to(torch.int32)
    return table, torch.randperm(7)[:rows], torch.randint(0, 30, (rows,))


def drafted(rows: int, topk: int, steps: int, nodes: int) -> tuple[torch.Tensor, ...]:
    """What SGLang's own draft loop makes of random scores: tokens, parents and the selection."""
    scores = None
    found: list[tuple[torch.Tensor, ...]] = []
    for step in range(steps):
        width = topk if step == 0 else topk * topk
        chances = torch.rand(rows, width).view(-1, topk).softmax(-1)
        tokens = torch.randint(0, 99, chances.shape)
        _, _, scores, tree = select_top_k_tokens(step, chances, tokens, None, scores, topk)
        found.append(tree)
    parents, selected, tokens = eagle_utils.organize_draft_results(
        *(list(column) for column in zip(*found, strict=True)), nodes
    )
    return tokens, parents, selected


def check_cache_locations(rows: int) -> None:
    table, owners, starts = tables(rows)
    ends = starts + torch.randint(0, 9, (rows,))
    count = int((ends - starts).sum())
    wanted, found = torch.zeros(99, dtype=torch.int64), torch.zeros(99, dtype=torch.int64)
    arguments = (owners, table, starts, ends)
    cache_locs.assign_extend_cache_locs[(rows,)](*arguments, wanted, 64, 8)
    cache_ops.assign_extend_cache_locs(*arguments, found, 64, 8)
    same(found, wanted)

    wanted, found = torch.zeros(rows * 6, dtype=torch.int64), torch.zeros(rows * 6).long()
    cache_locs.assign_draft_cache_locs_contiguous[(rows,)](owners, table, starts, wanted, 64, 2, 3)
    cache_ops.assign_draft_cache_locs_contiguous(owners, table, starts, found, 64, 2, 3)
    same(found, wanted)

    fresh = torch.arange(1000, 1000 + count)
    wanted_table, found_table = table.clone(), table.clone()
    allocation.assign_req_to_token_pool[(rows,)](owners, wanted_table, starts, ends, fresh, 64, 8)
    cache_ops.assign_req_to_token_pool_func(owners, found_table, starts, ends, fresh, rows)
    same(found_table, wanted_table)


def check_accepted(rows: int) -> None:
    index = torch.randint(0, 20, (rows, 4), dtype=torch.int32)
    lens = torch.randint(1, 5, (rows,), dtype=torch.int32)
    index[torch.arange(4) >= lens.unsqueeze(1)] = -1
    slots = torch.randperm(20)
    wanted, found = torch.zeros(rows * 4).long(), torch.zeros(rows * 4).long()
    eagle.fill_accept_out_cache_loc[(rows * 4,)](index, slots, wanted, 32)
    cache_ops.fill_accept_out_cache_loc_func(index, slots, found, rows * 4)
    same(found, wanted)

    tokens = torch.randint(0, 99, (rows, 4), dtype=torch.int32)
    wanted, found = torch.zeros(rows, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
    eagle.fill_bonus_tokens[(rows,)](tokens, lens, wanted, 4)
    cache_ops.fill_bonus_tokens_func(tokens, lens, found, 4, rows)
    same(found, wanted)


def check_trees(rows: int) -> None:
    topk, steps = int(torch.randint(1, 4, ())), int(torch.randint(1, 4, ()))
    most = topk + (steps - 1) * topk * topk
    nodes = 1 + int(torch.randint(1, min(most, 9) + 1, ()))
    tokens, parents, selected = drafted(rows, topk, steps, nodes)
    lens, bonus = torch.randint(1, 6, (rows,)), torch.randint(0, 99, (rows,))
    total = int(lens.sum())
    found = tree_ops.build_tree_kernel_efficient(
        bonus, parents, selected, tokens, lens, total, topk, steps, nodes
    )
    mask = torch.ones(nodes * (total + nodes * rows), dtype=torch.bool)
    positions = torch.zeros(rows * nodes, dtype=torch.int64)
    links = [torch.full((rows, nodes), -1) for _ in range(3)]
    eagle_utils.sgl_build_tree_kernel_triton(
        parents, selected, lens, mask, positions, *links, topk, steps, nodes
    )
    for mine, theirs in zip(found, (mask, positions, *links), strict=False):
        same(mine, theirs)

    candidates = found[5].view(rows, nodes)
    # Now and then the target says what one of the children says.
    said = torch.randint(0, 99, (rows, nodes))
    for row in range(rows):
        for node in range(nodes):
            if int(links[1][row, node]) >= 0 and torch.rand(()) < 0.8:
                said[row, node] = candidates[row, links[1][row, node]]
    buffers = [results(rows, nodes, steps + 1) for _ in range(2)]
    eagle_utils.verify_tree_greedy_triton(*buffers[0], candidates, *links, said)
    tree_ops.verify_tree_greedy_func(*buffers[1], candidates, *links, said, topk=topk)
    for mine, theirs in zip(buffers[1], buffers[0], strict=True):
        same(mine, theirs)


def check_rejection(rows: int) -> None:
    nodes, vocabulary = 4, 40
    candidates = torch.randint(0, vocabulary, (rows, nodes))
    flat = torch.arange(rows * nodes).view(rows, nodes)
    coins, final = torch.rand(rows, nodes), torch.rand(rows)
    target = (3 * torch.randn(rows, nodes, vocabulary)).softmax(-1)
    drafts = (target[:, :-1] + 0.01 * torch.rand(rows, nodes - 1, vocabulary)).clone()
    drafts /= drafts.sum(-1, keepdim=True)
    buffers = [results(rows, nodes, nodes) for _ in range(2)]
    for run, out in (
        (reject_sampling.chain_speculative_sampling_triton, buffers[0]),
        (sampling_ops.chain_speculative_sampling_triton, buffers[1]),
    ):
        run(*out, candidates, flat, None, None, coins, final, target, drafts, 1.0, 1.0, True)
    for mine, theirs in zip(buffers[1], buffers[0], strict=True):
        same(mine, theirs)


def check_ngram(rows: int) -> None:
    with reference_kernels():
        from sglang.srt.speculative import ngram_worker
    nodes = 7
    masks = np.zeros((rows, nodes, nodes), dtype=np.int64)
    for row in masks:
        row[0, 0] = 1
        for node in range(1, nodes):
            row[node, node] = 1
            if node < nodes - 2 or np.random.rand() < 0.5:  # else not part of the tree
                row[node] |= row[np.random.randint(0, node)]
    lens = torch.randint(1, 30, (rows,))
    positions = torch.zeros(rows * nodes, dtype=torch.int64)
    links = [torch.zeros((rows, nodes), dtype=torch.int64) for _ in range(3)]
    flat = torch.from_numpy(masks).to(torch.bool).flatten()
    tree_ops.reconstruct_indices_from_tree_mask(flat, lens, positions, *links, rows, nodes)
    wanted = ngram_worker._derive_tree_links(masks, rows, nodes)
    same(links[1], wanted[0])
    same(links[2], wanted[1])
    depths = torch.from_numpy(masks.sum(-1) - 1)
    same(positions, (depths + lens.unsqueeze(1)).flatten())


def main() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    for check in (
        check_cache_locations,
        check_accepted,
        check_trees,
        check_rejection,
        check_ngram,
    ):
        for turn in range(ROUNDS):
            check(1 + turn % 4)
        print(check.__name__, ROUNDS)


if __name__ == "__main__":
    main()
