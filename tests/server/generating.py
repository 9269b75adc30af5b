"""Requests to an engine, and texts that the tiny models continue as they were trained to."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from governor_bench.equality.workload import mixed_requests
from governor_bench.load.spec import RequestSpec
from governor_bench.tiny_models import Recipe
from governor_bench.tiny_models.corpus import functions


def generate(url: str, prompt: str, tokens: int = 40, **more: Any) -> Any:
    """The answer of ``/generate``; greedy unless ``sampling`` says otherwise."""
    sampling = {"temperature": 0, "max_new_tokens": tokens, **more.pop("sampling", {})}
    request = urllib.request.Request(
        f"{url}/generate",
        data=json.dumps({"text": prompt, "sampling_params": sampling, **more}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


def generate_all(url: str, texts: Sequence[str], tokens: int = 40, **more: Any) -> list[Any]:
    """Answers in the order of the prompts, four at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda prompt: generate(url, prompt, tokens, **more), texts))


def prompts() -> list[str]:
    """Beginnings of what the models were trained on, which they continue alike."""
    return [text[: len(text) // 3] for text in functions(Recipe())[::25]]


def speculated_requests(count: int, seed: int) -> list[RequestSpec]:
    """Requests of every kind that comes out the same under speculation: without a minimum length,
    towards which SGLang then counts steps and not tokens."""
    specs = mixed_requests(count, seed, penalties=False)
    return [
        replace(spec, sampling={}) if "min_new_tokens" in spec.sampling else spec for spec in specs
    ]
