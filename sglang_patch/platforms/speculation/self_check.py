"""Whether the replaced operations really are in place: asked of SGLang's own names, by result.

Two of them fail silently in stock SGLang on a CPU. The slots of a verification come back as None,
and KV is then written nowhere; the result of greedy verification comes back as it was allocated,
and rows then advance by whatever memory held.
"""

from __future__ import annotations

from typing import Any

import torch

from sglang_patch.platforms.speculation.replacing import not_in_place


def require_in_place() -> None:
    """Call the operations as the workers do, on a case with a known answer.

    Raises:
        RuntimeError: naming what is not in place.
    """
    from sglang.kernels.ops.speculative import cache_locs
    from sglang.srt.speculative import eagle_utils

    wrong = [f"{name} is not the reference" for name in not_in_place()]
    if not _finds_slots(cache_locs):
        wrong.append(f"{cache_locs.__name__}.assign_extend_cache_locs_func finds no slots")
    if not _verifies(eagle_utils):
        wrong.append(f"{eagle_utils.__name__}.verify_tree_greedy_func does not verify")
    if wrong:
        raise RuntimeError(
            "Speculation on the reference CPU platform is not in place, and tokens would be "
            f"wrong: {'; '.join(wrong)}. Another plugin may have replaced it: name the plugins "
            "to load in SGLANG_PLUGINS, or leave out --speculative-algorithm."
        )


def _finds_slots(cache_locs: Any) -> bool:
    starts = torch.tensor([2, 0])
    slots = cache_locs.assign_extend_cache_locs_func(
        req_pool_indices=torch.tensor([1, 0]),
        req_to_token=torch.arange(10, dtype=torch.int32).view(2, 5),
        start_offset=starts,
        end_offset=starts + 2,
        batch_size=2,
        draft_token_num=2,
        device="cpu",
    )
    return isinstance(slots, torch.Tensor) and slots.tolist() == [7, 8, 0, 1]


def _verifies(eagle_utils: Any) -> bool:
    """A root with two children, the second of which the target chose."""
    counts = torch.full((1,), -7, dtype=torch.int32)
    predicts, accepted, counts = eagle_utils.verify_tree_greedy_func(
        predicts=torch.zeros(3, dtype=torch.int32),
        accept_index=torch.full((1, 2), -1, dtype=torch.int32),
        accept_token_num=counts,
        candidates=torch.tensor([[5, 6, 7]]),
        retrieve_index=torch.tensor([[0, 1, 2]]),
        retrieve_next_token=torch.tensor([[1, -1, -1]]),
        retrieve_next_sibling=torch.tensor([[-1, 2, -1]]),
        target_predict=torch.tensor([[7, 8, 9]]),
        topk=2,
    )
    found = [tensor.tolist() for tensor in (predicts, accepted, counts)]
    return bool(found == [[7, 0, 9], [[0, 2]], [1]])
