"""Times between the tokens that users see: the only step times that a stock engine shows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from itertools import pairwise

import aiohttp
import msgspec
import numpy as np

from governor_bench.gpu.figures import Quantiles
from governor_bench.load.sender import JSON, MAX_LINE_BYTES

TIMEOUT_S = 300.0
SETTLED_TOKENS = 8
"""First tokens of a stream that do not count: others still join the batch."""


def intervals_s(url: str, streams: int, tokens: int, seed: int) -> list[float]:
    """Serve ``streams`` serial requests at once, and time every chunk.

    Returns:
        Seconds between two chunks of a stream, over all streams.

    Raises:
        RuntimeError: the server refuses one.
    """
    rng = random.Random(seed)
    prompts = [[rng.randrange(3, 2000) for _ in range(32)] for _ in range(streams)]
    return asyncio.run(_all(url, prompts, tokens))


def quantiles(gaps_s: Sequence[float]) -> Quantiles:
    """In ms; of no gap at all, 0."""
    if not gaps_s:
        return Quantiles(0.0, 0.0, 0)
    p50_s, p99_s = np.quantile(gaps_s, (0.5, 0.99))
    return Quantiles(1e3 * float(p50_s), 1e3 * float(p99_s), len(gaps_s))


async def _all(url: str, prompts: list[list[int]], tokens: int) -> list[float]:
    async with aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        read_bufsize=MAX_LINE_BYTES,
    ) as session:
        found = await asyncio.gather(*(_one(session, prompt, tokens) for prompt in prompts))
    return [gap_s for gaps in found for gap_s in gaps]


async def _one(session: aiohttp.ClientSession, prompt: list[int], tokens: int) -> list[float]:
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    body = {"input_ids": prompt, "sampling_params": sampling, "stream": True}
    times_s = []
    data = msgspec.json.encode(body)
    async with session.post("/generate", data=data, headers=JSON) as reply:
        if reply.status != 200:
            text = (await reply.content.read(500)).decode(errors="replace")
            raise RuntimeError(f"/generate: HTTP {reply.status}: {text}")
        async for line in reply.content:
            if line.startswith(b"data: {"):
                times_s.append(time.perf_counter())
    settled = times_s[SETTLED_TOKENS:]
    return [late - early for early, late in pairwise(settled)]
