"""Measured steps as samples, in one ``.npz`` file that ``governor fit`` takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from controller_service.learning.arrays import pack
from controller_service.learning.gather import Provenance
from controller_service.learning.samples import COLUMNS, Samples
from controller_service.predictors.base import StepSample
from governor_bench.profiling.steps import Step


def samples_of(steps: Iterable[Step]) -> Samples:
    """Measured steps as columns."""
    return Samples.of(
        StepSample(
            step.rows, step.context_tokens, step.prefill_tokens, step.latency_s, step.draft_tokens
        )
        for step in steps
    )


def write_samples(path: Path, samples: Samples, provenance: Provenance) -> None:
    """Write ``samples`` and whose they are; the file is whole or, if this fails, as it was."""
    arrays = {name: getattr(samples, name) for name in COLUMNS}
    arrays["engine"] = np.frombuffer(msgspec.json.encode(provenance), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(pack(arrays))
    temporary.replace(path)
