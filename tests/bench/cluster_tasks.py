"""Functions that the cluster's tests send away."""

from __future__ import annotations

import os

import numpy as np

from controller_service.learning.samples import Samples


def double_latency(samples: Samples) -> Samples:
    return Samples(
        samples.rows,
        samples.context_tokens,
        samples.prefill_tokens,
        samples.draft_tokens,
        2 * samples.latency_s,
    )


def where(number: int) -> tuple[int, int]:
    return number, os.getpid()


def fail_on_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def die(number: int) -> int:
    os._exit(1)


def total(values: np.ndarray) -> float:
    return float(values.sum())
