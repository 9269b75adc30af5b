"""What the server tests share: governed engines, and runs of the mixed requests."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.equality.check import run
from governor_bench.equality.workload import mixed_requests
from governor_bench.load.client import RequestResult
from governor_bench.servers import Controller, CpuEngine

REQUESTS = 72
SEED = 5
STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
QUIET = ("--sleep-on-idle", "--enable-metrics")

Results = dict[int, RequestResult]


@dataclass
class GovernedEngine:
    """An engine with the folder that its controller's socket lives in."""

    engine: CpuEngine
    folder: Path

    @property
    def url(self) -> str:
        return self.engine.url

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.folder}/controller.sock"

    @contextlib.contextmanager
    def controller(self, policy: str) -> Iterator[Controller]:
        """Run a real controller at the engine's endpoint and wait until the engine has found it."""
        with Controller(self.folder, policy=policy) as controller:
            controller.wait_ready()
            until(lambda: len(controller.status()["engines"]) > 0, "the engine did not connect")
            yield controller


def until(holds: Callable[[], bool], complaint: str, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, complaint
        time.sleep(0.05)


@dataclass
class EmbeddedEngine:
    """An engine that started its own controller."""

    engine: CpuEngine
    controller_url: str

    @property
    def url(self) -> str:
        return self.engine.url


def run_counted(url: str, *, penalties: bool) -> tuple[Results, GovernorCounters]:
    before = read_counters(url)
    results = run(url, mixed_requests(REQUESTS, SEED, penalties=penalties))
    time.sleep(1.5)  # the engine publishes its counters twice a second
    return results, read_counters(url).since(before)


def assert_sound_at_idle(url: str) -> None:
    """Nothing leaked: SGLang checks its pools whenever it has nothing to do, and ends an engine
    whose pools do not add up. Between the two requests it has nothing to do."""
    for _ in range(2):
        time.sleep(0.3)
        with urllib.request.urlopen(f"{url}/health_generate", timeout=30) as reply:
            assert reply.status == 200
