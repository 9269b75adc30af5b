"""The loop that an operator goes through, in one run, while users are served."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from governor_workloads.served import Served

from controller_service.learning.gather import Provenance
from controller_service.learning.samples import Samples
from controller_service.logbook.reading import read_samples
from governor_bench.engine_metrics import read_counters
from governor_bench.eval.workloads import STEADY, workload_of
from governor_bench.learning.api import fit, predicts_by, promote
from governor_bench.learning.damage import DAMAGES
from governor_bench.load.client import LoadClient
from governor_bench.processes import get_json, workspace
from governor_bench.profiling.samples_file import write_samples
from governor_bench.servers import Controller, EmulatedEngine

PROFILE = "qwen3-32b-h200-bent"
NOISE = 0.01
USERS = 24
SLO_MS = 75.0
LOG_FLUSHED_AFTER_S = 7.0
"""The log writes what is five seconds old."""
SETTLED_AFTER_S = 10.0
"""Until the mean error of the last 512 steps is that of what predicts now."""
ROLLED_BACK_WITHIN_S = 90.0
MOST_S = 600.0
PUBLISHED_AFTER_S = 1.5

Stage = Callable[[str], None]


def run(learn_s: float, on_stage: Stage) -> dict[str, Any]:
    """Serve users on an emulated engine, and meanwhile: log, fit, refuse, promote, roll back.

    Args:
        learn_s: time for which steps are logged before the first fit.
        on_stage: told what comes next.

    Returns:
        What is documented in ``docs/models.md``.
    """
    with workspace() as folder:
        on_stage("starting controller and engine")
        with (
            Controller(folder, arguments=("--log-dir", str(folder / "log"))) as controller,
            EmulatedEngine(
                folder,
                PROFILE,
                governor={
                    "ENDPOINT": controller.endpoint,
                    "ENGINE_ID": "emulated",
                    "EMULATED_NOISE": str(NOISE),
                },
                arguments=("--enable-metrics",),
            ) as engine,
        ):
            controller.wait_ready()
            engine.wait_ready()
            with _Users(engine.url) as users:
                report = _loop(folder, controller, learn_s, on_stage)
            time.sleep(PUBLISHED_AFTER_S)
            counters = read_counters(engine.url)
            governed = counters.governed_steps
            return {
                **report,
                "requests": len(users.served),
                "failed_requests": sum(bool(one.error) for one in users.served),
                "governed_steps": governed,
                "late_share": 1 - counters.outcomes.get("applied", 0) / governed if governed else 0,
                "falls": {name: count for name, count in counters.falls.items() if count},
            }


def _loop(folder: Path, controller: Controller, learn_s: float, on_stage: Stage) -> dict[str, Any]:
    on_stage(f"logging steps for {learn_s:g} s")
    time.sleep(learn_s + LOG_FLUSHED_AFTER_S)
    error_before = _error(controller)
    on_stage("fitting while users are served")
    model = folder / "model"
    fitted = fit([folder / "log"], model, "--family", "boosted")["manifest"]
    on_stage("offering damaged models")
    refused = {name: _offer_damaged(folder, model, name, controller) for name in DAMAGES}
    untouched = predicts_by(controller.url) == ""
    on_stage("promoting")
    status, reply = promote(controller.url, model)
    judged = "promoted" if status == 200 else str(reply["error"]["message"])
    if status != 200:
        promote(controller.url, model, force=True)
    time.sleep(SETTLED_AFTER_S)
    installed = predicts_by(controller.url) == fitted["model_id"]
    error_after = _error(controller)
    on_stage("forcing a bad model in, and waiting for the controller to take it out")
    bad = folder / "bad"
    bad_id = _fit_bad(folder, bad)
    status, _ = promote(controller.url, bad, force=True)
    rolled_back_s = _wait_until_gone(controller, bad_id) if status == 200 else None
    return {
        "logged_samples": fitted["data"]["offered"],
        "fitted_ends": fitted["data"]["ends"],
        "holdout_step_mape": fitted["holdout"]["step_mape"],
        "step_mape_of_line": error_before,
        "step_mape_of_model": error_after,
        "judgement": judged,
        "installed": installed,
        "refused": refused,
        "undisturbed_by_damaged": untouched,
        "rolled_back_after_s": rolled_back_s,
    }


def _offer_damaged(folder: Path, model: Path, name: str, controller: Controller) -> str:
    """The reason for which a damaged copy is refused; empty if it is not."""
    copy = folder / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    DAMAGES[name](copy)
    status, reply = promote(controller.url, copy)
    return "" if status == 200 else f"{status}: {reply['error']['message']}"


def _fit_bad(folder: Path, model: Path) -> str:
    """A sound model of a machine that does not exist: the more rows, the further off, so that no
    common factor puts it right. Returns its id."""
    origins, parts = zip(*read_samples([str(folder / "log")]), strict=True)
    steps = Samples.join(parts)
    wrong_s = steps.latency_s * (1.0 + steps.rows % 7)
    source = folder / "bad.npz"
    wrong = msgspec.structs.replace(steps, latency_s=wrong_s)
    write_samples(source, wrong, Provenance(origins[0].engine, origins[0].graph_rows))
    return str(fit([source], model, "--family", "measured")["manifest"]["model_id"])


def _wait_until_gone(controller: Controller, model_id: str) -> float | None:
    """Seconds until ``model_id`` predicts no more; None if it does not go.

    What was before it predicts then, which need not be the model that was fitted first: where the
    machine is busy with other things, that one may have been taken out by then as well.
    """
    started_s = time.monotonic()
    while time.monotonic() - started_s < ROLLED_BACK_WITHIN_S:
        if predicts_by(controller.url) != model_id:
            return round(time.monotonic() - started_s, 1)
        time.sleep(0.5)
    return None


def _error(controller: Controller) -> float | None:
    (engine,) = get_json(f"{controller.url}/v1/status")["engines"]
    error = engine["predictor"]["mape_recent"]
    return None if error is None else float(error)


class _Users:
    """Keeps users coming for as long as the block runs; then lets what runs finish."""

    def __init__(self, url: str) -> None:
        self.served: list[Served] = []
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="users", daemon=True)

    def _serve(self) -> None:
        round_s, number = 20.0, 1
        until_s = time.monotonic() + MOST_S
        while not self._ended.is_set() and time.monotonic() < until_s:
            workload = workload_of(STEADY, USERS, SLO_MS, number, round_s)
            client = LoadClient(self._url)
            self.served += client.run_workload(workload, duration_s=round_s, stream=False)
            number += 1

    def __enter__(self) -> _Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
