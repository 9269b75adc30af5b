"""Requests with prompts long and short: many chunks, or none; a part of them known already."""

from __future__ import annotations

import random
from dataclasses import replace

from governor_bench.equality.workload import VOCABULARY
from governor_bench.load.spec import RequestSpec


def prefill_requests(
    count: int, seed: int, *, longest: int, spread_s: float = 1.5
) -> list[RequestSpec]:
    """Serial ones, samples, and requests that are aborted in the queue, in prefill or after it.

    Args:
        longest: prompt tokens at most; every fourth prompt is longer than half of it.
        spread_s: over which they arrive.
    """
    rng = random.Random(seed)
    common = _ids(rng, longest // 4)
    specs = []
    for index in range(count):
        kind = index % 8
        long = kind in (0, 5)
        prompt = _ids(rng, rng.randint(longest // 2, longest) if long else rng.randint(2, 60))
        if kind in (2, 3):
            prompt = common[: rng.randint(8, len(common))] + prompt
        spec = RequestSpec(
            index=index,
            arrival_s=rng.uniform(0.0, spread_s),
            input_ids=prompt,
            max_new_tokens=rng.randint(2, 30),
        )
        if kind in (4, 5, 7):  # a long one of them, in the middle of its prefill
            spec = replace(spec, abort_after_s=rng.uniform(0.01, 0.6))
        if kind in (3, 6):
            spec = replace(spec, n=rng.choice((2, 4)))
        specs.append(spec)
    return sorted(specs, key=lambda spec: spec.arrival_s)


def _ids(rng: random.Random, tokens: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, VOCABULARY) for _ in range(tokens))
