"""Steps of a made-up engine whose times jump and bend, for the tests of what learns them."""

from __future__ import annotations

import numpy as np

from controller_service.learning.model import EngineKey
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

ENGINE = EngineKey("model", "device", 1, "0.5.17")
GRAPHS = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64)


def straight(rows: Floats, context: Floats) -> Floats:
    return 0.015 + 6e-5 * rows + 5e-8 * context


def bent(rows: Floats, context: Floats) -> Floats:
    """Padded to captured graphs, in tiles of 64 rows, and steeper beyond 60,000 tokens."""
    sizes = np.array(GRAPHS)
    computed = np.where(rows <= 64, sizes[np.minimum(sizes.searchsorted(rows), 11)], rows)
    tiles = np.ceil(computed / 64)
    knee = np.maximum(context - 60_000, 0)
    return 0.015 + 3e-5 * computed + 2e-3 * tiles + 5e-8 * context + 5e-8 * knee


def roofline(rows: Floats, context: Floats) -> Floats:
    """As long as the slower of compute and memory takes."""
    return 0.005 + np.maximum(1e-3 + 4e-5 * rows, 2e-3 + 6e-8 * context)


def steps(truth, count: int, seed: int, noise: float = 0.01, most_rows: int = 192) -> Samples:
    """Steps of decode alone, evenly over powers of two."""
    random = np.random.default_rng(seed)
    rows = np.rint(np.exp2(random.uniform(0, np.log2(most_rows), count)))
    context = np.rint(np.minimum(rows * np.exp2(random.uniform(5, 12, count)), 150_000))
    factor = 1 + noise * np.clip(random.standard_normal(count), -4, 4)
    zeros = np.zeros(count)
    return Samples(rows, context, zeros, zeros, truth(rows, context) * factor)


def with_prefill(decode: Samples, token_s: float, seed: int) -> Samples:
    """The same steps, each with some prompt tokens on top."""
    tokens = np.rint(np.exp2(np.random.default_rng(seed).uniform(4, 12, len(decode))))
    latency = decode.latency_s + token_s * tokens
    return Samples(decode.rows, decode.context_tokens, tokens, decode.draft_tokens, latency)


def with_drafts(decode: Samples, token_s: float, seed: int) -> Samples:
    """The same steps, each verifying draft tokens."""
    tokens = decode.rows * np.random.default_rng(seed).integers(1, 5, len(decode))
    latency = decode.latency_s + token_s * tokens
    return Samples(decode.rows, decode.context_tokens, decode.prefill_tokens, tokens, latency)
