"""Prompts of a workload as token ids, the same for equal seeds on every machine."""

from __future__ import annotations

import numpy as np
from governor_workloads.spec import Workload, WorkRequest

FIRST_ID = 3
"""Lower ids are special tokens in most vocabularies."""
OWN, SHARED = 0, 1


def prompt_ids(workload: Workload, request: WorkRequest, vocabulary: int) -> list[int]:
    """Ids below ``vocabulary``. Prompts differ between requests; equal prefix blocks are equal."""
    parts: list[int] = []
    for block in request.prefix_blocks:
        if len(parts) < request.prompt_tokens:
            size = workload.prefix_block_tokens
            parts += _ids((workload.seed, SHARED, block), size, vocabulary)
    missing = request.prompt_tokens - len(parts)
    if missing > 0:
        parts += _ids((workload.seed, OWN, request.index), missing, vocabulary)
    return parts[: request.prompt_tokens]


def check_vocabulary(vocabulary: int) -> None:
    """Raise a ValueError if there is no id to draw from."""
    if vocabulary <= FIRST_ID:
        raise ValueError(f"vocabulary: {vocabulary} ids are too few; use more than {FIRST_ID}")


def _ids(seed: tuple[int, int, int], count: int, vocabulary: int) -> list[int]:
    rng = np.random.Generator(np.random.PCG64(seed))
    ids: list[int] = rng.integers(FIRST_ID, vocabulary, count).tolist()
    return ids
