"""Requests to the emulated engine, and what its metrics say."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from random import Random
from typing import Any

from governor_bench.servers import EmulatedEngine

from sglang_patch.emulated.tokens import VOCAB_SIZE

RANDOM = Random(11)


def prompt(tokens: int) -> list[int]:
    return [RANDOM.randrange(VOCAB_SIZE) for _ in range(tokens)]


def generate(engine: EmulatedEngine, ids: list[int], tokens: int, **more: Any) -> Any:
    """One answer, or a list of them for ``n`` above 1."""
    with _post(engine, ids, tokens, **more) as reply:
        return json.load(reply)


def begin(engine: EmulatedEngine, ids: list[int], tokens: int) -> HTTPResponse:
    """An answer that has begun to stream. Its client leaves when it is closed."""
    reply = _post(engine, ids, tokens, stream=True)
    reply.readline()
    return reply


def _post(engine: EmulatedEngine, ids: list[int], tokens: int, **more: Any) -> HTTPResponse:
    sampling = {"temperature": 0, "max_new_tokens": tokens, **more.pop("sampling", {})}
    request = urllib.request.Request(
        f"{engine.url}/generate",
        data=json.dumps({"input_ids": ids, "sampling_params": sampling, **more}).encode(),
        headers={"content-type": "application/json"},
    )
    reply: HTTPResponse = urllib.request.urlopen(request, timeout=120)
    return reply


def generate_all(
    engine: EmulatedEngine, prompts: list[list[int]], tokens: int, **more: Any
) -> list[Any]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda ids: generate(engine, ids, tokens, **more), prompts))


def metrics(engine: EmulatedEngine) -> dict[str, float]:
    """Values of the engine's metrics by name, summed over labels, once they are up to date."""
    time.sleep(1.2)
    with urllib.request.urlopen(f"{engine.url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    found: dict[str, float] = {}
    for name, value in re.findall(r"^([\w:]+)\{[^}]*\} (\S+)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found
