"""The servers of a run: started when a stage first needs them, shared by those that follow."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from governor_bench.eval.simulated import NO_AGEING
from governor_bench.gpu.target import Target, sizes_of
from governor_bench.processes import ManagedProcess, StartFailed
from governor_bench.profiling.engine import ControllerApi, EngineFacts
from governor_bench.servers import Controller, CpuEngine, CudaEngine
from governor_bench.tiny_models import tiny_models

DRAIN_S = 60.0
DRAFT_LENGTHS = (0, 1, 2, 3, 5)
ACCEPT_TOKENS = 2.5
"""Tokens a step that SGLang is told to accept: with dummy weights no draft would be right."""
_DRAFT_MODEL = "qwen3-0.6b"

Engine = CpuEngine | CudaEngine


class Governed(NamedTuple):
    """An engine and the controller that governs it."""

    engine: Engine
    controller: Controller
    ready_s: float
    """What the engine's start took."""

    def facts(self) -> EngineFacts:
        """What the engine told of itself."""
        return ControllerApi(self.controller.url).engine("")


class Rig:
    """Servers of one target. A context manager: they end with it.

    Where two engines do not fit, asking for one ends the other.

    Args:
        models: folder with a folder for each model.
        sockets: a short path, as sockets need.
        logs: where the servers' logs go.
        tell: told what is going on.
    """

    def __init__(
        self, target: Target, models: Path, sockets: Path, logs: Path, tell: Callable[[str], None]
    ) -> None:
        self._target, self._models, self._sockets = target, models, sockets
        self._logs, self._tell = logs, tell
        self._sizes = sizes_of(target)
        self._stack = contextlib.ExitStack()
        self._governed: Governed | None = None
        self._stock: Engine | None = None
        self._drafts = False
        """Whether the engine that drafts runs. It leaves room for no other."""
        self._broken: dict[str, StartFailed] = {}

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> frozenset[str]:
        """Which of the shared servers run."""
        held = {"governed": self._governed, "stock": self._stock}
        return frozenset(name for name, server in held.items() if server is not None)

    def governed(self) -> Governed:
        """The governed engine.

        Raises:
            StartFailed: it does not start; a second call in the same run does not try again.
        """
        if self._governed is None:
            if self._drafts or not self._sizes.beside:
                self.close()
            self._governed = self._start_governed("governed", "eager")
        return self._governed

    def stock(self) -> Engine:
        """The stock engine.

        Raises:
            StartFailed: as for :meth:`governed`.
        """
        if self._stock is None:
            if self._drafts or not self._sizes.beside:
                self.close()
            self._tell("starting a stock engine")
            self._stock, _ = self._started("stock", {})
        return self._stock

    def drafting(self) -> Governed:
        """A governed engine that drafts with a smaller model. It has the device for itself.

        Raises:
            StartFailed: as for :meth:`governed`.
        """
        self.close()
        lengths = self._logs / "draft-lengths.json"
        lengths.parent.mkdir(parents=True, exist_ok=True)
        lengths.write_text(json.dumps({"1": {"candidate_steps": DRAFT_LENGTHS}}))
        arguments = (
            *("--speculative-algorithm", "STANDALONE", "--speculative-eagle-topk", "1"),
            *("--speculative-draft-model-path", str(self._draft_model())),
            *("--speculative-num-steps", "3", "--speculative-num-draft-tokens", "4"),
            *("--speculative-adaptive", "--speculative-adaptive-config", str(lengths)),
            *(
                ("--speculative-draft-load-format", "dummy")
                if self._target.device == "cuda"
                else ()
            ),
        )
        environment = {"SGLANG_SIMULATE_ACC_LEN": f"{ACCEPT_TOKENS:g}"}
        drafting = self._start_governed("drafting", "fixed_draft:0", arguments, environment)
        self._drafts = True
        return drafting

    def close(self) -> None:
        """End all servers."""
        self._stack.close()
        self._governed = self._stock = None
        self._drafts = False

    def settle(self) -> None:
        """After a failure: keep the shared servers if they can be made idle, else end them."""
        held = [self._stock, *([self._governed.engine] if self._governed is not None else [])]
        try:
            for engine in held:
                if engine is not None:
                    flush(engine, engine.url)
        except (StartFailed, OSError):  # an HTTP error is one
            self.close()

    def log_tails(self) -> dict[str, str]:
        """Ends of the logs there are, by name."""
        tails = {}
        for path in sorted(self._logs.glob("*.log")):
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - 6000))
                tails[path.name] = log.read(6000).decode(errors="replace")
        return tails

    def _start_governed(
        self,
        name: str,
        policy: str,
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> Governed:
        self._tell(f"starting a controller and the {name} engine")
        controller = self._stack.enter_context(
            Controller(self._sockets, policy=policy, log_name=str(self._logs / f"{name}-ctl.log"))
        )
        controller.wait_ready()
        governor = {
            "ENDPOINT": controller.endpoint,
            "MAX_PARKED_STEPS": str(NO_AGEING.max_parked_steps),
            "ALLOW_UNTRIED_DEVICE": "1",
        }
        engine, ready_s = self._started(name, governor, arguments, environment or {})
        return Governed(engine, controller, ready_s)

    def _started(
        self,
        name: str,
        governor: dict[str, str],
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> tuple[Engine, float]:
        if name in self._broken:
            raise self._broken[name]
        more = ("--enable-metrics", *arguments, *self._target.engine_arguments)
        log_name = str(self._logs / f"{name}.log")
        began_s = time.monotonic()
        engine: Engine
        if self._target.device == "cpu":
            engine = CpuEngine(
                self._sockets,
                tiny_models(progress=False).target,
                governor=governor,
                overlap=True,
                arguments=("--sleep-on-idle", *more),
                environment=environment or {},
                log_name=log_name,
            )
        else:
            engine = CudaEngine(
                self._sockets,
                _model_folder(self._models, f"qwen3-{self._target.model}"),
                memory_share=self._memory_share(name),
                graph_rows=self._sizes.graph_rows,
                governor=governor,
                arguments=more,
                environment=environment or {},
                log_name=log_name,
            )
        self._stack.enter_context(engine)
        try:
            engine.wait_ready()
        except StartFailed as error:
            self._broken[name] = error
            raise
        return engine, time.monotonic() - began_s

    def _memory_share(self, name: str) -> float:
        sizes = self._sizes
        shared = sizes.beside and name != "drafting"
        return sizes.memory_share_beside if shared else sizes.memory_share

    def _draft_model(self) -> Path:
        if self._target.device == "cpu":
            return tiny_models(progress=False).draft
        return _model_folder(self._models, _DRAFT_MODEL)


def flush(engine: ManagedProcess, url: str) -> None:
    """Wait until nothing runs, and empty the prefix cache, so that every run prefills alike.

    Raises:
        StartFailed: the engine has ended.
        urllib.error.HTTPError: it still works long after the load has ended.
    """
    if not engine.is_running():
        raise StartFailed(f"the engine has ended:\n{engine.log_tail()}")
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{url}/flush_cache?timeout={DRAIN_S:g}", method="POST"
    )
    with urllib.request.urlopen(request, timeout=2 * DRAIN_S):  # noqa: S310 - our own URL
        pass


def _model_folder(models: Path, name: str) -> Path:
    folder = models / name
    if not (folder / "config.json").is_file():
        raise StartFailed(f"{folder}/config.json is missing: name its parent with --models")
    return folder
