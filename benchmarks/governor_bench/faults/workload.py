"""What is asked of the engines under attack, and what they must answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from governor_bench.equality.workload import mixed_requests
from governor_bench.load.result import Branch, RequestResult
from governor_bench.load.spec import RequestSpec
from sglang_patch.emulated.tokens import FIRST_TOKEN, VOCAB_SIZE, continuation

Answers = dict[int, RequestResult]
"""By index of the request."""


def cpu_requests(count: int, seed: int, spread_s: float) -> list[RequestSpec]:
    """Requests of every kind, for the engine that computes its tokens."""
    return mixed_requests(count, seed, penalties=False, spread_s=spread_s)


def emulated_requests(count: int, seed: int, spread_s: float) -> list[RequestSpec]:
    """Serial ones, samples, groups, long prompts, aborts, for the emulated engine."""
    rng = random.Random(seed)
    specs: list[RequestSpec] = []
    while len(specs) < count:
        base = RequestSpec(
            index=len(specs),
            arrival_s=rng.uniform(0.0, spread_s),
            input_ids=_prompt(rng, rng.choice((3, 40, 200, 500))),
            max_new_tokens=rng.randrange(20, 120),
            tpot_slo_ms=rng.choice((None, 5.0, 50.0)),
        )
        kind = rng.randrange(6)
        if kind == 0:
            specs.append(replace(base, n=rng.choice((2, 4, 8))))
        elif kind == 1:
            specs.append(replace(base, abort_after_s=rng.uniform(0.05, 0.5)))
        elif kind == 2:
            roles = ("trunk", "opportunistic", "opportunistic")
            specs += [
                replace(
                    base,
                    index=len(specs) + at,
                    group=f"tree-{base.index}",
                    role=role,
                    input_ids=base.input_ids + _prompt(rng, 3),
                )
                for at, role in enumerate(roles)
            ]
        else:
            specs.append(base)
    return specs


def emulated_answers(specs: Sequence[RequestSpec]) -> Answers:
    """What the emulated model writes, from its rule."""
    return {
        spec.index: RequestResult(
            spec,
            0.0,
            branches=[
                Branch(
                    spec.max_new_tokens,
                    continuation(list(spec.input_ids), spec.max_new_tokens),
                    "length",
                )
                for _ in range(spec.n)
            ],
        )
        for spec in specs
    }


def _prompt(rng: random.Random, tokens: int) -> tuple[int, ...]:
    return tuple(rng.randrange(FIRST_TOKEN, VOCAB_SIZE) for _ in range(tokens))
