"""Run the same requests through a stock and a governed engine and compare every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from governor_bench.load.client import LoadClient
from governor_bench.load.result import RequestResult
from governor_bench.load.spec import RequestSpec


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One output that differs from stock."""

    index: int
    branch: int
    position: int
    """First token that differs; -1 if the request failed."""
    detail: str


def run(url: str, specs: Sequence[RequestSpec]) -> dict[int, RequestResult]:
    """Send all requests; results by request index."""
    return {result.spec.index: result for result in LoadClient(url, token_ids=True).run_open(specs)}


def compare(stock: dict[int, RequestResult], governed: dict[int, RequestResult]) -> list[Mismatch]:
    """All differences. An aborted request must have produced a prefix of stock's tokens, or the
    other way round: when it ends is a matter of time, what it says is not."""
    found: list[Mismatch] = []
    for index, expected in stock.items():
        got = governed[index]
        aborted = expected.spec.abort_after_s is not None
        if not aborted and (expected.error or got.error):
            found.append(Mismatch(index, 0, -1, expected.error or got.error))
            continue
        for number, (want, have) in enumerate(zip(expected.branches, got.branches, strict=True)):
            length = min(len(want.output_ids), len(have.output_ids))
            pairs = zip(want.output_ids[:length], have.output_ids[:length], strict=True)
            position = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
            if position is None and not aborted and len(want.output_ids) != len(have.output_ids):
                position = length
            if position is not None:
                detail = (
                    f"stock {want.output_ids[position:][:4]}, got {have.output_ids[position:][:4]}"
                )
                found.append(Mismatch(index, number, position, detail))
    return found
