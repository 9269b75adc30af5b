"""References of verification above temperature 0, with SGLang's signatures."""

from __future__ import annotations

from typing import Any

from governor_kernels.chain_sampling import verify_chain_by_rejection
from governor_kernels.greedy_verify import Verified
from governor_kernels.renormalise import top_k_renormalise, top_p_renormalise
from governor_kernels.tree_links import TreeLinks
from governor_kernels.tree_sampling import verify_by_sampling


def top_k_renorm_prob(probs: Any, top_k: Any) -> Any:
    """Top-k with one k a row."""
    return top_k_renormalise(probs, top_k)


def top_p_renorm_prob(probs: Any, top_p: Any) -> Any:
    """Top-p with one p a row."""
    return top_p_renormalise(probs, top_p)


def tree_speculative_sampling_target_only(
    predicts: Any,
    accept_index: Any,
    accept_token_num: Any,
    candidates: Any,
    retrive_index: Any,
    retrive_next_token: Any,
    retrive_next_sibling: Any,
    uniform_samples: Any,
    uniform_samples_for_final_sampling: Any,
    target_probs: Any,
    draft_probs: Any,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    deterministic: bool = True,
) -> None:
    """Verify trees by the target's distribution alone; `draft_probs` is scratch of the kernel."""
    verified = verify_by_sampling(
        candidates,
        TreeLinks(retrive_index, retrive_next_token, retrive_next_sibling),
        target_probs,
        uniform_samples,
        uniform_samples_for_final_sampling,
        accept_index.shape[1],
        threshold_single=threshold_single,
        threshold_acc=threshold_acc,
    )
    _write(verified, predicts, accept_index, accept_token_num)


def chain_speculative_sampling_triton(
    predicts: Any,
    accept_index: Any,
    accept_token_num: Any,
    candidates: Any,
    retrive_index: Any,
    retrive_next_token: Any,
    retrive_next_sibling: Any,
    uniform_samples: Any,
    uniform_samples_for_final_sampling: Any,
    target_probs: Any,
    draft_probs: Any,
    threshold_single: float,
    threshold_acc: float,
    deterministic: bool,
) -> None:
    """Rejection sampling of chains; the thresholds have no part in it."""
    verified = verify_chain_by_rejection(
        candidates,
        retrive_index,
        target_probs,
        draft_probs,
        uniform_samples,
        uniform_samples_for_final_sampling,
    )
    _write(verified, predicts, accept_index, accept_token_num)


def _write(verified: Verified, predicts: Any, accept_index: Any, accept_token_num: Any) -> None:
    predicts.copy_(verified.predicts)
    accept_index.copy_(verified.accept_index)
    accept_token_num.copy_(verified.correct_drafts)
