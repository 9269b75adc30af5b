"""``governor check clients``: SGLang's own benchmark client against a governed engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.engine_metrics import read_counters
from governor_bench.processes import run, workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

BACKENDS = ("sglang", "sglang-oai")
"""SGLang's names for its client of ``/generate`` and its client of the OpenAI route."""
TIMEOUT_S = 300.0
MAX_REPORT_BYTES = 16 << 20
FIGURES = (
    "duration",
    "request_throughput",
    "output_throughput",
    "total_output_tokens",
    "median_ttft_ms",
    "median_tpot_ms",
    "median_itl_ms",
)
"""Of the client's own report."""


class ClientFailed(RuntimeError):
    """The client ended with an error; the message holds the end of its output."""


def check(requests: int, backends: Sequence[str], *, progress: Progress) -> dict[str, Any]:
    """Start a governed engine and let the client of each backend send ``requests`` requests.

    Args:
        backends: SGLang's names for its clients, such as those in ``BACKENDS``.

    Returns:
        ``completed`` and ``expected`` (summed over the clients), ``connected`` (the controller
        answered the engine throughout), ``clients`` (each with its own figures).

    Raises:
        ClientFailed: a client ended with an error.
    """
    model = tiny_models().target
    task = progress.add_task("starting the controller and the engine", total=1 + len(backends))
    with workspace() as folder, Controller(folder) as controller:
        controller.wait_ready()
        with CpuEngine(
            folder,
            model,
            governor={"ENDPOINT": controller.endpoint},
            arguments=["--enable-metrics", "--sleep-on-idle"],
        ) as engine:
            engine.wait_ready()
            progress.advance(task)
            clients = []
            for backend in backends:
                progress.update(task, description=f"bench_serving, backend {backend}")
                clients.append(run_client(engine.url, model, folder, backend, requests))
                progress.advance(task)
            connected = read_counters(engine.url).connected
    return {
        "completed": sum(client["completed"] for client in clients),
        "expected": requests * len(clients),
        "connected": connected,
        "clients": clients,
    }


def run_client(url: str, model: Path, folder: Path, backend: str, requests: int) -> dict[str, Any]:
    """Run ``sglang.bench_serving`` once; it needs no network but ``url``.

    Returns:
        ``backend``, ``completed``, and the client's figures under its own names.

    Raises:
        ClientFailed: it ended with an error, hung, or wrote no report.
    """
    output = folder / f"bench-{backend}.jsonl"
    command = _command(url, model, backend, requests, output)
    try:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = run(command, TIMEOUT_S, environment)
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"backend {backend}: not done after {TIMEOUT_S:.0f} s") from None
    if done.returncode or not output.is_file():
        tail = (done.stderr or done.stdout).strip()[-1500:]
        raise ClientFailed(f"backend {backend} ended with {done.returncode}:\n{tail}")
    with output.open("rb") as file:
        report: dict[str, Any] = msgspec.json.decode(file.read(MAX_REPORT_BYTES), type=dict)
    figures = {name: report[name] for name in FIGURES if name in report}
    return {"backend": backend, "completed": int(report["completed"]), **figures}


def _command(url: str, model: Path, backend: str, requests: int, output: Path) -> Sequence[str]:
    return [
        *(sys.executable, "-m", "sglang.bench_serving"),
        *("--backend", backend, "--base-url", url),
        *("--model", str(model), "--tokenizer", str(model)),
        *("--dataset-name", "random-ids", "--num-prompts", str(requests)),
        *("--random-input-len", "32", "--random-output-len", "16", "--random-range-ratio", "0.5"),
        *("--request-rate", "16", "--seed", "1", "--disable-tqdm"),
        *("--output-file", str(output)),
    ]
