"""References of building and verifying draft trees, with SGLang's signatures."""

from __future__ import annotations

from typing import Any

import torch
from governor_kernels.draft_tree import build_draft_tree
from governor_kernels.greedy_verify import verify_greedy
from governor_kernels.tree_links import TreeLinks, links_from_parents, parents_from_mask
from governor_kernels.tree_mask import flatten_full_mask
from sglang.srt.speculative.eagle_utils import TreeMaskMode


def reconstruct_indices_from_tree_mask(
    tree_mask: Any,
    verified_seq_len: Any,
    positions: Any,
    retrive_index: Any,
    retrive_next_token: Any,
    retrive_next_sibling: Any,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """Positions and links of n-gram trees, out of who sees whom."""
    mask = tree_mask.view(batch_size, draft_token_num, draft_token_num)
    parents, depths = parents_from_mask(mask)
    links = links_from_parents(parents)
    positions.copy_((depths + verified_seq_len.unsqueeze(1)).flatten())
    retrive_index.copy_(links.flat_index)
    retrive_next_token.copy_(links.first_child)
    retrive_next_sibling.copy_(links.next_sibling)


def build_tree_kernel_efficient(
    bonus_tokens: Any,
    parent_list: Any,
    top_scores_index: Any,
    draft_tokens: Any,
    seq_lens: Any,
    seq_lens_sum: int,
    topk: int,
    spec_steps: int,
    num_verify_tokens: int,
    tree_mask_mode: TreeMaskMode = TreeMaskMode.FULL_MASK,
    tree_mask_buf: Any = None,
    fill_prefix_mask: bool = True,
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Draft trees for the EAGLE family, with everything that verifying them takes.

    Raises:
        ValueError: a mask is asked for that the platform's attention does not read.
    """
    if tree_mask_mode != TreeMaskMode.FULL_MASK or tree_mask_buf is not None:
        raise ValueError(
            f"the reference CPU platform's attention reads {TreeMaskMode.FULL_MASK!r} from a "
            f"tensor of its own, not {tree_mask_mode!r}: use --attention-backend torch_native"
        )
    tree = build_draft_tree(parent_list, top_scores_index, topk)
    return (
        flatten_full_mask(tree.visible, seq_lens.tolist()),
        (tree.depths + seq_lens.unsqueeze(1)).flatten(),
        tree.links.flat_index,
        tree.links.first_child,
        tree.links.next_sibling,
        torch.cat((bonus_tokens.unsqueeze(1), draft_tokens), dim=1).flatten(),
    )


def verify_tree_greedy_func(
    predicts: Any,
    accept_index: Any,
    accept_token_num: Any,
    candidates: Any,
    retrieve_index: Any,
    retrieve_next_token: Any,
    retrieve_next_sibling: Any,
    target_predict: Any,
    topk: int = -1,
) -> tuple[Any, Any, Any]:
    """Accept what the target would have said. Stock SGLang returns what was in the buffers."""
    links = TreeLinks(retrieve_index, retrieve_next_token, retrieve_next_sibling)
    verified = verify_greedy(candidates, links, target_predict, accept_index.shape[1])
    predicts.copy_(verified.predicts)
    accept_index.copy_(verified.accept_index)
    accept_token_num.copy_(verified.correct_drafts)
    return predicts, accept_index, accept_token_num
