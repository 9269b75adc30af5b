"""A seeded mix of requests that exercises everything parking could upset."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from governor_bench.load.spec import RequestSpec

VOCABULARY = 2000
"""Token ids are drawn below this; the tiny models' vocabulary is a little larger."""


def mixed_requests(
    count: int,
    seed: int,
    *,
    penalties: bool,
    max_tokens: int = 48,
    spread_s: float = 4.0,
) -> list[RequestSpec]:
    """Requests of every kind, arriving over ``spread_s`` seconds.

    Serial ones, ``n > 1``, tagged groups of four, aborts in flight, penalties, stop tokens,
    a minimum length: drawn with fixed shares, so that any ``count`` of at least 16 has them all.

    Args:
        penalties: give some requests penalties. Leave them out under the overlap loop: there stock
            SGLang 0.5.17 applies a penalty one step late or not, depending on what else runs, so
            that stock does not equal stock.
    """
    rng = random.Random(seed)
    specs: list[RequestSpec] = []
    while len(specs) < count:
        arrival_s = rng.uniform(0.0, spread_s)
        for spec in _one_kind(len(specs) % 16, rng, arrival_s, max_tokens, penalties):
            if len(specs) < count:
                specs.append(replace(spec, index=len(specs)))
    return sorted(specs, key=lambda spec: spec.arrival_s)


def _one_kind(
    kind: int, rng: random.Random, arrival_s: float, max_tokens: int, penalties: bool
) -> list[RequestSpec]:
    base = RequestSpec(
        index=0,
        arrival_s=arrival_s,
        input_ids=_prompt(rng),
        max_new_tokens=rng.randrange(max_tokens // 4, max_tokens),
        tpot_slo_ms=rng.choice([None, 5.0, 20.0, 100.0]),
    )
    abort_after_s = rng.uniform(0.05, 0.4)
    if kind in (8, 9):
        return _tagged_group(base, rng, f"tree-{arrival_s:.9f}")
    if kind in (0, 1, 2):
        return [replace(base, n=rng.choice([2, 3, 4, 8]))]
    changes: dict[int, dict[str, Any]] = {
        3: {"n": 4, "abort_after_s": abort_after_s},
        4: {"abort_after_s": abort_after_s},
        # Additive penalties only: SGLang 0.5.17 applies an additive and a scaling one in an order
        # that changes from process to process, so that stock would not equal stock.
        5: {
            "n": 2,
            "sampling": {"frequency_penalty": 0.5, "presence_penalty": 0.25} if penalties else {},
        },
        6: {"sampling": {"min_new_tokens": 4}, "ignore_eos": False},
        7: {
            "n": 3,
            "sampling": {"stop_token_ids": rng.sample(range(3, VOCABULARY), 200)},
            "ignore_eos": False,
        },
    }
    return [replace(base, **changes.get(kind, {}))]


def _tagged_group(base: RequestSpec, rng: random.Random, group: str) -> list[RequestSpec]:
    """Sibling requests over one prompt, the first of them the trunk."""
    return [
        replace(
            base,
            group=group,
            role="trunk" if sibling == 0 else "opportunistic",
            input_ids=base.input_ids + _prompt(rng, 1, 6),
            arrival_s=base.arrival_s + 0.02 * sibling,
        )
        for sibling in range(4)
    ]


def _prompt(rng: random.Random, low: int = 4, high: int = 96) -> tuple[int, ...]:
    return tuple(rng.randrange(3, VOCABULARY) for _ in range(rng.randrange(low, high)))
