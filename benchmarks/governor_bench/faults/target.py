"""An engine under attack: what it is asked, what it says of itself, and what is left in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.equality.check import run
from governor_bench.faults.judge import Verdict
from governor_bench.faults.workload import Answers
from governor_bench.load.spec import RequestSpec
from governor_bench.processes import ManagedProcess, get_json
from governor_bench.servers import Controller, CpuEngine, EmulatedEngine

IDLE_WITHIN_S = 20.0
PUBLISHED_AFTER_S = 1.2
"""Engine metrics, and the engine's own account of its memory, are a second old at most."""
CONNECTED_WITHIN_S = 30.0
ENDED_WITHIN_S = 10.0

STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
"""SGLang checks its own memory accounting after every step, and ends on a difference."""


class FaultBenchError(RuntimeError):
    """The bench could not do what it meant to; says what."""


def wait_until(holds: Callable[[], bool], complaint: str, within_s: float) -> None:
    """
    Raises:
        FaultBenchError: with ``complaint``, once the time is up.
    """
    end_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            raise FaultBenchError(complaint)
        time.sleep(0.05)


@dataclass
class Target:
    """A governed engine in a folder of its own, and the requests that it is to serve.

    Its endpoint is ``controller.sock`` in the folder, where either a controller is or something
    that stands before one.
    """

    name: str
    """Such as ``CPU, normal loop``."""
    engine: CpuEngine | EmulatedEngine
    folder: Path
    specs: list[RequestSpec]
    expected: Answers
    policy: str
    logs: list[Path] = field(default_factory=list)
    """Of every process that it has had to do with."""
    ended_by_themselves: list[str] = field(default_factory=list)
    """Names of the logs of processes that nobody ended."""
    _ended: set[int] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.logs.append(self.engine.log)

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.folder}/controller.sock"

    @contextlib.contextmanager
    def controller(
        self,
        *,
        behind: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Controller]:
        """A controller that is ready. One that ends within the block and was not ended by
        :meth:`end` has ended by itself.

        Args:
            behind: in a folder below, so that something can stand before it.
        """
        folder = self.folder / "c" if behind else self.folder
        with Controller(
            folder,
            policy=self.policy,
            arguments=arguments,
            log_name=f"controller-{next(self._numbers)}.log",
            environment=environment,
        ) as started:
            self.logs.append(started.log)
            started.wait_ready()
            yield started
            if not started.is_running() and not self.was_ended(started):
                self.ended_by_themselves.append(started.log.name)

    def end(self, process: ManagedProcess, number: signal.Signals) -> None:
        """End a process on purpose: SIGKILL, or politely."""
        self._ended.add(process.pid)
        if number is signal.SIGKILL:
            os.killpg(process.pid, signal.SIGKILL)
            wait_until(lambda: not process.is_running(), "it survived SIGKILL", ENDED_WITHIN_S)
        else:
            process.stop()

    def may_end(self, process: ManagedProcess) -> None:
        """What is done to it can end it, so that it counts as ended on purpose."""
        self._ended.add(process.pid)

    def was_ended(self, process: ManagedProcess) -> bool:
        """On purpose."""
        return process.pid in self._ended

    def wait_connected(self, controller: Controller) -> None:
        """Wait until the engine has found its controller."""
        wait_until(
            lambda: bool(controller.status()["engines"]),
            f"{self.name}: the engine did not find its controller",
            CONNECTED_WITHIN_S,
        )

    def counters(self) -> GovernorCounters:
        return read_counters(self.engine.url)

    def used_pages(self) -> int:
        """KV pages that are neither free nor evictable (pages here hold one token)."""
        loads = get_json(f"{self.engine.url}/v1/loads")["loads"]
        return sum(int(load["num_used_tokens"]) for load in loads)

    def wait_idle(self) -> None:
        """Until nobody runs or waits; what is still used then is leaked."""

        def idle() -> bool:
            loads = get_json(f"{self.engine.url}/v1/loads")["loads"]
            return not any(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)

        wait_until(idle, f"{self.name}: still busy though all was answered", IDLE_WITHIN_S)
        time.sleep(PUBLISHED_AFTER_S)

    def flush(self) -> None:
        """Empty the prefix cache, so that the next run prefills alike."""
        url = f"{self.engine.url}/flush_cache"
        request = urllib.request.Request(url, method="POST")  # noqa: S310 - our own URL
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310
            pass


class Load:
    """While entered, sends a target's requests over and over; at the end the run that is under way
    is finished, and there is at least one.

    Args:
        verdict: every run is judged by it.
    """

    def __init__(self, target: Target, verdict: Verdict) -> None:
        self._target = target
        self._verdict = verdict
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-load")
        self._failure: Exception | None = None
        self.runs = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        target = self._target
        try:
            while not self._enough.is_set() or not self.runs:
                answers = run(target.engine.url, target.specs)
                self._verdict.judge_answers(target.expected, answers)
                self.runs += 1
        except (OSError, LookupError, ValueError) as error:
            self._failure = error  # raised where the load ends
