"""Fitting a model to what an engine showed lately, and whether it may replace what predicts now.

A fit takes seconds and the memory of its library, so it runs in a process of its own
(:mod:`.background`), niced, one at a time for the whole controller. What comes back is an artifact
folder, which passes the same checks as any other. Simulations, where time stands still, fit in
place (:class:`InlineRefits`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from controller_service.learning.child import TIME_LIMIT_S, ChildFits
from controller_service.learning.model import EngineKey, StepModel
from controller_service.learning.sample_file import save_samples
from controller_service.learning.samples import Samples
from controller_service.predictors.candidate import Candidate, prepare

LEAST_HELD_OUT = 64
"""Held-out steps without which nothing is compared."""
SEED = 7


class RefitJob(msgspec.Struct, frozen=True, eq=False):
    """What to fit, and what it has to beat."""

    family: str
    train: Samples
    held_out: Samples
    engine: EngineKey
    graph_rows: tuple[int, ...]
    incumbent: StepModel


class RefitOutcome(msgspec.Struct, frozen=True, eq=False):
    """What became of a job."""

    result: Literal["promoted", "refused", "failed"]
    reason: str
    candidate: Candidate | None = None


class Refits(Protocol):
    """Where models are fitted."""

    def start(self, job: RefitJob) -> Future[RefitOutcome] | None:
        """``None`` when another fit is running."""
        ...


class InlineRefits:
    """Fits at once, in the calling thread; the same samples give the same model."""

    def start(self, job: RefitJob) -> Future[RefitOutcome]:
        future: Future[RefitOutcome] = Future()
        future.set_result(_outcome(lambda: _fit_here(job), job))
        return future


class BackgroundRefits:
    """Fits in a process of its own, watched by a thread; one at a time."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._fits = ChildFits("governor-refit", time_limit_s)

    def start(self, job: RefitJob) -> Future[RefitOutcome] | None:
        return self._fits.start(lambda: _outcome(lambda: self._fit_elsewhere(job), job))

    def close(self) -> None:
        """End the process that fits, if there is one, and wait for its files to be gone."""
        self._fits.close()

    def _fit_elsewhere(self, job: RefitJob) -> tuple[StepModel, str]:
        from controller_service.learning.artifact import load_model  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="governor-refit-") as folder:
            samples, out = Path(folder) / "samples.npz", Path(folder) / "model"
            save_samples(samples, job.train)
            self._fits.run(_command(job, samples, out))
            loaded = load_model(out, job.engine)
        return loaded.model, loaded.manifest.model_id


class RefitFailed(RuntimeError):
    """No model came of it; says why."""


def better(candidate: StepModel, incumbent: StepModel, held_out: Samples) -> tuple[bool, str]:
    """Whether ``candidate`` may replace ``incumbent``, by their errors on steps held out, and why.

    Raises:
        RefitFailed: too few steps were held out to tell.
    """
    from controller_service.learning.evaluate import evaluate  # noqa: PLC0415 - see the module
    from controller_service.learning.promotion import judge  # noqa: PLC0415

    held_out = held_out.usable()
    if len(held_out) < LEAST_HELD_OUT:
        raise RefitFailed(
            f"too few measured steps to compare models: {len(held_out)}, needed {LEAST_HELD_OUT}"
        )
    verdict = judge(evaluate(candidate, held_out), evaluate(incumbent, held_out))
    return verdict.promote, verdict.reason


def _outcome(fit: Callable[[], tuple[StepModel, str]], job: RefitJob) -> RefitOutcome:
    try:
        model, model_id = fit()
        promote, reason = better(model, job.incumbent, job.held_out)
        candidate = prepare(model, model_id)
    # A model is never worth the controller: whatever goes wrong in a library is told, not raised.
    except Exception as error:  # noqa: BLE001
        return RefitOutcome("failed", f"{type(error).__name__}: {error}")
    return RefitOutcome("promoted" if promote else "refused", reason, candidate)


def _fit_here(job: RefitJob) -> tuple[StepModel, str]:
    from controller_service.learning.fit import fit  # noqa: PLC0415 - see the module

    result = fit(job.train, job.engine, (job.family,), job.graph_rows, SEED)
    return result.model, result.manifest.model_id


def _command(job: RefitJob, samples: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "controller_service.learning.background"),
        *(str(samples), str(out), "--family", job.family, "--seed", str(SEED)),
        *("--engine", msgspec.json.encode(job.engine).decode()),
        *("--graph-rows", ",".join(map(str, job.graph_rows))),
    ]
