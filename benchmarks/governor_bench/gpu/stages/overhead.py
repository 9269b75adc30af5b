"""What being governed costs when nothing is parked."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import msgspec
from governor_workloads.report import summarise

from governor_bench.gpu.figures import Overhead, Round
from governor_bench.gpu.intervals import intervals_s, quantiles
from governor_bench.gpu.pairs import Pair, Side, compare
from governor_bench.gpu.stage import Context, Stage
from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec

STREAMS = 8
WARM_UP = 0
"""The first round warms both engines up and does not count."""


class Half(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One round on one engine."""

    tok_s: float
    gaps_s: list[float]


def half(context: Context, side: Side, number: int) -> Half:
    """A closed loop of serial and branching requests, then a few streams timed token by token.

    Raises:
        RuntimeError: a request failed.
    """
    if side.controller is not None:
        side.controller.set_policy("eager")
    sizes = context.sizes
    specs = iter(_specs(sizes.round_requests, sizes.output_tokens, number))
    results = LoadClient(side.engine.url).run_closed(lambda: next(specs, None), sizes.concurrency)
    failed = [result.error for result in results if result.error]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed, the first with {failed[0]}")
    tok_s = summarise([result.served() for result in results]).throughput_tok_s
    streams = min(STREAMS, sizes.concurrency)
    return Half(tok_s, intervals_s(side.engine.url, streams, 2 * sizes.output_tokens, number))


def join(context: Context, stock: Sequence[Half], governed: Sequence[Half]) -> Overhead:
    """The median over the rounds but the first."""
    pairs = list(zip(stock, governed, strict=True))[WARM_UP + 1 :]
    ratios = [after.tok_s / before.tok_s for before, after in pairs]
    return Overhead(
        beside=context.sizes.beside,
        throughput_ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        rounds=tuple(Round(before.tok_s, after.tok_s) for before, after in pairs),
        stock=quantiles([gap_s for before, _ in pairs for gap_s in before.gaps_s]),
        governed=quantiles([gap_s for _, after in pairs for gap_s in after.gaps_s]),
    )


def _specs(requests: int, tokens: int, seed: int) -> list[RequestSpec]:
    rng = random.Random(seed)
    return [
        RequestSpec(
            index=index,
            arrival_s=0.0,
            input_ids=tuple(rng.randrange(3, 2000) for _ in range(rng.randrange(8, 64))),
            max_new_tokens=tokens,
            n=2 if index % 2 else 1,
        )
        for index in range(requests)
    ]


PAIR = Pair("overhead", Half, lambda sizes: sizes.rounds + 1, half, join)
STAGE = Stage(
    "overhead",
    "throughput and token intervals, governed without parking beside stock",
    lambda sizes: 2 * (sizes.rounds + 1) * 8.0,
    ("governed",),
    lambda context: compare(PAIR, context),
)
