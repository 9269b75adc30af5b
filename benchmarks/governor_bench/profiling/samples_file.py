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
from controller_service.predictors.base import LEAST_LATENCY_S, StepSample
from governor_bench.profiling.draft_costs import DraftCosts
from governor_bench.profiling.steps import Step


def samples_of(steps: Iterable[Step], drafting: DraftCosts | None = None) -> Samples:
    """Measured steps as columns.

    Predictors know what verifies drafts, not what makes them: draft steps are taken out, as a
    controller does. Where their cost is not known, steps with drafts are left out.
    """
    return Samples.of(
        StepSample(
            step.rows,
            step.context_tokens,
            step.prefill_tokens,
            max(step.latency_s - _drafting_s(step, drafting), LEAST_LATENCY_S),
            step.draft_tokens,
        )
        for step in steps
        if drafting is not None or not step.draft_length
    )


def _drafting_s(step: Step, drafting: DraftCosts | None) -> float:
    return 0.0 if drafting is None else drafting.drafting_s(step.draft_length, step.rows)


def write_samples(path: Path, samples: Samples, provenance: Provenance) -> None:
    """Write ``samples`` and whose they are; the file is whole or, if this fails, as it was."""
    arrays = {name: getattr(samples, name) for name in COLUMNS}
    arrays["engine"] = np.frombuffer(msgspec.json.encode(provenance), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(pack(arrays))
    temporary.replace(path)
