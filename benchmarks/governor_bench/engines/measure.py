"""Each number of engines against a controller of its own, or against several."""

from __future__ import annotations

import contextlib
import multiprocessing
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from governor_bench.engines.generator import Answers, Load, play
from governor_bench.processes import workspace
from governor_bench.servers import Controller

AIM_P99_MS = 5.0
AIM_LATE = 0.001
RESULT_WITHIN_S = 60.0
"""How long after its time the generator may take to report."""


class GeneratorFailed(RuntimeError):
    """The process that stands for the engines ended without a report."""


def measure(
    counts: Sequence[int],
    load: Load,
    policy: str,
    predictor: str,
    controllers: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Latency and lateness of decisions by number of engines.

    Args:
        load: of each engine; endpoints, process ids and the number of engines are filled in.
        controllers: how many share the engines.

    Raises:
        GeneratorFailed: the engines could not be introduced, or their process died.
    """
    task = progress.add_task("engines", total=len(counts))
    cells = []
    for engines in counts:
        progress.update(task, description=f"{engines} engines")
        cells.append(_one_count(engines, load, policy, predictor, controllers))
        progress.advance(task)
    return cells


def _one_count(
    engines: int, load: Load, policy: str, predictor: str, controllers: int
) -> dict[str, Any]:
    with workspace() as folder, contextlib.ExitStack() as running:
        started = [
            running.enter_context(
                Controller(folder / str(number), policy=policy, predictor=predictor)
            )
            for number in range(controllers)
        ]
        for controller in started:
            controller.wait_ready()
        asked = msgspec.structs.replace(
            load,
            engines=engines,
            endpoints=[controller.endpoint for controller in started],
            controller_pids=[controller.pid for controller in started],
        )
        answers = _play(asked)
        superseded = sum(_superseded(controller.url) for controller in started)
    return cell_of(asked, answers) | {"superseded": superseded}


def _play(load: Load) -> Answers:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=play, args=(msgspec.json.encode(load), theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is an end of file here
    try:
        if not mine.poll(load.warm_up_s + load.seconds + RESULT_WITHIN_S):
            raise GeneratorFailed("the engines' process does not report")
        return msgspec.json.decode(mine.recv_bytes(), type=Answers)
    except EOFError as error:
        process.join()
        raise GeneratorFailed(
            f"the engines' process ended with {process.exitcode}; its error is above"
        ) from error
    finally:
        process.kill()
        process.join()


def cell_of(load: Load, answers: Answers) -> dict[str, Any]:
    """The figures of one number of engines."""
    latency_ms = np.array(answers.latencies_ms or [np.nan])
    p50, p99, most = np.quantile(latency_ms, [0.5, 0.99, 1.0]).tolist()
    late = 1.0 - answers.on_time / answers.asked if answers.asked else 1.0
    seconds = answers.seconds
    lag_p99, lag_most = np.quantile(answers.send_lag_ms or [0.0], [0.99, 1.0]).tolist()
    others_s = answers.machine_cpu_s - answers.controller_cpu_s - answers.generator_cpu_s
    return {
        "engines": load.engines,
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "max_ms": round(most, 3),
        "late_share": round(late, 6),
        "asked": answers.asked,
        "answered": answers.answered,
        "asked_per_s": round(answers.asked / seconds, 1),
        "answered_per_s": round(answers.answered / seconds, 1),
        "unusable": answers.unusable,
        "controller_cpu": round(answers.controller_cpu_s / seconds, 3),
        "generator_cpu": round(answers.generator_cpu_s / seconds, 3),
        "others_cpu": round(max(0.0, others_s) / seconds, 3),
        "controller_us_per_decision": round(
            1e6 * answers.controller_cpu_s / max(1, answers.answered), 1
        ),
        "send_lag_p99_ms": round(lag_p99, 3),
        "send_lag_max_ms": round(lag_most, 3),
        "within_aim": bool(p99 < AIM_P99_MS and late < AIM_LATE),
    }


def most_within_aim(cells: Sequence[dict[str, Any]]) -> int:
    """The largest number of engines up to which all were within the aim; 0: none."""
    most = 0
    for cell in sorted(cells, key=lambda cell: int(cell["engines"])):
        if not cell["within_aim"]:
            break
        most = int(cell["engines"])
    return most


def _superseded(url: str) -> int:
    """Snapshots that gave way to newer ones of the same engine, the warm-up's among them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:  # noqa: S310 - our own URL
        text = reply.read(4 << 20).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "governor_superseded_snapshots_total":
                return int(sample.value)
    raise GeneratorFailed("the controller's metrics do not say how many snapshots gave way")
