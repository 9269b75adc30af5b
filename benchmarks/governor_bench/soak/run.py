"""``governor check soak``: users, policies and engines come and go around one engine for long.

The engine is stock SGLang on the emulated device, in the overlap loop, with drafts and little
memory, so that it preempts and evicts. The controller keeps a decision log that is full after some
minutes, learns output lengths, and fits a model to the steps again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from governor_bench.eval.running_engine import make_idle
from governor_bench.processes import get_json, workspace
from governor_bench.servers import Controller, EmulatedEngine
from governor_bench.soak.churn import Churn
from governor_bench.soak.judge import judge
from governor_bench.soak.watch import Reading, Watch

PROFILE = "qwen3-32b-h200-bent"
PREDICTOR = "corrected-boosted"
KV_TOKENS = 8192
DRAFT_LENGTHS = (0, 1, 2, 4)
LOG_MB = 8
READINGS = 360
LEAST_PAUSE_S = 1.0
"""Between two readings, of short runs; long ones are read :data:`READINGS` times."""

Told = Callable[[float], None]


def soak(seconds: float, seed: int, told: Told) -> tuple[dict[str, Any], list[Reading]]:
    """Churn for ``seconds``.

    Args:
        told: how many seconds are over.

    Returns:
        What :func:`~governor_bench.soak.judge.judge` says of the readings; ``missed_readings``:
        how many the engine did not answer in time; ``churn``: how often what happened; ``errors``
        and the first of them; ``leaked_tokens``: KV memory in use once everybody has left, -1 if
        the engine is not there to ask; whether both processes are ``alive``; and the readings.
    """
    with (
        workspace() as folder,
        Controller(
            folder,
            predictor=PREDICTOR,
            arguments=("--log-dir", str(folder / "log"), "--log-max-mb", str(LOG_MB)),
        ) as controller,
        _engine(folder, controller) as engine,
    ):
        controller.wait_ready()
        engine.wait_ready()
        watch = Watch(engine, controller)
        readings, missed = [], 0
        with Churn(engine, controller, seed) as churn:
            started_s = time.monotonic()
            while (over_s := time.monotonic() - started_s) < seconds:
                try:
                    readings.append(watch.read(over_s))
                except TimeoutError:  # the machine is busy elsewhere; the next one will tell
                    missed += 1
                told(over_s)
                if not (engine.is_running() and controller.is_running()):
                    break
                time.sleep(max(LEAST_PAUSE_S, seconds / READINGS))
        alive = engine.is_running() and controller.is_running()
        report = {
            **judge(readings),
            "missed_readings": missed,
            "churn": dict(churn.counts),
            "errors": len(churn.errors),
            "first_error": churn.errors[0] if churn.errors else "",
            "leaked_tokens": _used_tokens(engine) if alive else -1,
            "alive": alive and engine.is_running(),
        }
    return report, readings


def _engine(folder: Path, controller: Controller) -> EmulatedEngine:
    return EmulatedEngine(
        folder,
        PROFILE,
        governor={
            "ENDPOINT": controller.endpoint,
            "ENGINE_ID": "soak",
            "EMULATED_NOISE": "0.01",
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, DRAFT_LENGTHS)),
        },
        arguments=(
            *("--enable-metrics", "--max-total-tokens", str(KV_TOKENS)),
            *("--chunked-prefill-size", "512", "--schedule-conservativeness", "0.3"),
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(DRAFT_LENGTHS[-1])),
        ),
        environment={"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"},
    )


def _used_tokens(engine: EmulatedEngine) -> int:
    """KV tokens that are neither free nor in the prefix cache, when nobody is there."""
    make_idle(engine)
    (load,) = get_json(f"{engine.url}/v1/loads")["loads"]
    return int(load["num_used_tokens"])
