"""An emulated engine and the controller that governs it, as evaluations of tier E run them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from governor_workloads.served import Served
from governor_workloads.spec import Workload

from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.eval.running_engine import (
    PUBLISHED_AFTER_S,
    device_counters,
    host_share,
    last_step,
    make_idle,
    since_then,
)
from governor_bench.eval.simulated import LIMITS
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine


class Observed(NamedTuple):
    """One run, and what engine and controller counted meanwhile."""

    served: list[Served]
    counted: GovernorCounters
    device: dict[str, float]
    """Totals of the emulated device, by metric."""
    steps: list[dict[str, Any]]
    """The controller's records, oldest first, as far as it remembers them."""
    took_s: float
    """Of the wall clock."""

    @property
    def host_limited_share(self) -> float:
        """Share of its time for which the device waited for the host."""
        return round(host_share(self.device), 4)

    @property
    def late_share(self) -> float:
        """Governed steps without a fresh decision."""
        governed = self.counted.governed_steps
        if not governed:
            return 0.0
        return round(1.0 - self.counted.outcomes.get("applied", 0) / governed, 4)


class EmulatedPair:
    """Runs workloads one after the other; the predictor keeps what it learns."""

    def __init__(self, engine: EmulatedEngine, controller: Controller) -> None:
        self._engine = engine
        self._controller = controller

    @property
    def scale(self) -> float:
        return self._engine.scale

    def turnaround_us(self) -> dict[str, float]:
        """Controller's receipt of a snapshot to its reply, of recent ones: p50 and p99."""
        turnaround: dict[str, float] = self._controller.status()["engines"][0]["turnaround_us"]
        return turnaround

    def serve(
        self,
        policy: str,
        workload: Workload,
        *,
        duration_s: float | None = None,
        enough: int | None = None,
        keep_cache: bool = False,
    ) -> list[Served]:
        """Serve ``workload`` under ``policy``, then wait until the engine is idle.

        Args:
            keep_cache: leave the prefix cache as it is; otherwise it is emptied.

        The further arguments are those of :meth:`LoadClient.run_workload`.
        """
        self._controller.set_policy(policy)
        served = LoadClient(self._engine.url).run_workload(
            workload,
            time_scale=self._engine.scale,
            duration_s=duration_s,
            stream=False,
            enough=enough,
        )
        make_idle(self._engine, keep_cache=keep_cache)
        return served

    def observe(
        self,
        policy: str,
        workload: Workload,
        *,
        duration_s: float | None = None,
        enough: int | None = None,
        keep_cache: bool = False,
    ) -> Observed:
        """The same, and what was counted meanwhile."""
        url = self._engine.url
        counters, device = read_counters(url), device_counters(url)
        since, began_s = last_step(self._controller), time.perf_counter()
        served = self.serve(
            policy, workload, duration_s=duration_s, enough=enough, keep_cache=keep_cache
        )
        took_s = time.perf_counter() - began_s
        time.sleep(PUBLISHED_AFTER_S)
        return Observed(
            served=served,
            counted=read_counters(url).since(counters),
            device=since_then(device, device_counters(url)),
            steps=[item for item in self._controller.steps() if item["step"] > since],
            took_s=took_s,
        )


@contextlib.contextmanager
def emulated_pair(
    profile: str,
    predictor: str,
    scale: float,
    on_stage: Callable[[str], None],
    *,
    policy: str = "eager",
    controller: Sequence[str] = (),
    governor: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    overlap: bool = True,
    most_rows: int = LIMITS.max_running_requests,
) -> Iterator[EmulatedPair]:
    """Start controller and engine; both end with the block.

    Args:
        on_stage: told what is going on.
        policy: to start with.
        controller: the module that serves, if not Governor's own.
        governor: settings of the engine side, without ``GOVERNOR_``.
        arguments: further ones of the server.
        overlap: which of SGLang's loops.
        most_rows: that a batch may hold.
    """
    program: dict[str, Any] = {"program": tuple(controller)} if controller else {}
    with workspace() as folder:
        on_stage(
            f"starting the emulated engine ({profile}, time x{scale:g}): its processes load SGLang"
        )
        with (
            Controller(folder, policy=policy, predictor=predictor, **program) as serving,
            EmulatedEngine(
                Path(folder),
                profile,
                scale=scale,
                governor={"ENDPOINT": serving.endpoint, **(governor or {})},
                overlap=overlap,
                max_running_requests=most_rows,
                arguments=(
                    "--enable-metrics",
                    *("--chunked-prefill-size", str(LIMITS.chunked_prefill_size)),
                    *("--max-prefill-tokens", str(LIMITS.max_prefill_tokens)),
                    *arguments,
                ),
            ) as engine,
        ):
            serving.wait_ready(on_wait=lambda state: on_stage(f"controller: {state}"))
            engine.wait_ready(on_wait=lambda state: on_stage(f"emulated engine: {state}"))
            yield EmulatedPair(engine, serving)
