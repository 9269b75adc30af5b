"""Steps of a batcher by hand: the normal loop without a device."""

from __future__ import annotations

from governor_sim.batching import Batcher, EngineLimits, PrefillBatch
from governor_sim.kv import KvMemory
from governor_sim.rows import SimRow

from sglang_patch.apply.prefill import STOCK, PrefillOrder


def batcher(
    kv_tokens: int = 10_000, running: int = 100, chunk: int = 8192, *, mixed: bool = False
) -> Batcher:
    limits = EngineLimits(
        max_running_requests=running, chunked_prefill_size=chunk, mixed_chunk=mixed
    )
    return Batcher(limits, KvMemory(kv_tokens))


def turn(engine: Batcher, order: PrefillOrder = STOCK) -> PrefillBatch | None:
    """One step; None if nothing was prefilled."""
    engine.drop_finished()
    batch = engine.next_prefill(order)
    if batch is not None:
        _end_prefill(engine, batch)
    elif engine.running:
        _decode(engine)
    return batch


def _end_prefill(engine: Batcher, batch: PrefillBatch) -> None:
    """The step's results are in: rows whose prompt is complete run."""
    for item in batch.rows:
        if item is not engine.chunked:
            engine.kv.share(item)
            _take_token(engine, item)
            engine.running.append(item)
    for item in batch.decoding:
        _take_token(engine, item)
        engine.running.append(item)


def _decode(engine: Batcher) -> None:
    engine.make_room()
    engine.kv.take_one_each(engine.running)
    for item in engine.running:
        _take_token(engine, item)


def _take_token(engine: Batcher, item: SimRow) -> None:
    item.output_tokens += 1
    if item.output_tokens >= item.max_new_tokens:
        item.finished = True
        engine.kv.finish(item)
