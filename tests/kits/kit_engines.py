"""The engines that kits run on: stock ones, and governed ones that park half of all branches."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from governor_bench.engine_metrics import read_counters
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_eagle_head, tiny_models
from kit_table import Server

POLICY = "random:0.5"
COMMON = ("--sleep-on-idle", "--enable-metrics")
STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
DRAFTING = (
    *("--speculative-algorithm", "EAGLE", "--speculative-eagle-topk", "1"),
    *("--speculative-num-steps", "3", "--speculative-adaptive"),
)
LENGTHS = {"1": {"candidate_steps": [1, 3, 5]}, "4": {"candidate_steps": [0, 1, 2]}}
WIDE = {
    "vocab_size": 32_768,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "initializer_range": 0.2,  # so large that what a token is depends on those before it
}
PUBLISHED_S = 1.5
"""The engine publishes its counters twice a second."""
CONNECT_S = 60.0


@dataclass(frozen=True)
class Stage:
    """How an engine runs, whatever kits need of it."""

    governed: bool
    overlap: bool

    @property
    def name(self) -> str:
        return f"{'overlap' if self.overlap else 'normal'}, {self.role}"

    @property
    def role(self) -> str:
        return "governed" if self.governed else "stock"


@dataclass(frozen=True)
class KitEngine:
    engine: CpuEngine
    model: Path
    stage: Stage

    def parked_row_steps(self) -> int:
        """Row-steps that Governor has parked since the engine's start; waits for the count."""
        if not self.stage.governed:
            return 0
        time.sleep(PUBLISHED_S)
        return read_counters(self.engine.url).parked_row_steps


@contextlib.contextmanager
def kit_engine(server: Server, stage: Stage) -> Iterator[KitEngine]:
    """Start the engine that ``server`` describes, and its controller where it is governed."""
    with workspace() as folder, contextlib.ExitStack() as running:
        model = tiny_models().target if server.model == "trained" else _wide_model(folder)
        drafting = _drafting(folder) if server.drafts else ()
        controller = Controller(folder, policy=POLICY) if stage.governed else None
        if controller:
            running.enter_context(controller).wait_ready()
        engine = running.enter_context(
            CpuEngine(
                folder,
                model,
                governor={"ENDPOINT": controller.endpoint} if controller else None,
                overlap=stage.overlap,
                arguments=(
                    *COMMON,
                    *server.arguments,
                    *drafting,
                ),
                environment={**STRICT, **server.environment},
            )
        )
        engine.wait_ready()
        if controller:
            _wait_connected(engine)
        yield KitEngine(engine, model, stage)


def _wait_connected(engine: CpuEngine) -> None:
    deadline_s = time.monotonic() + CONNECT_S
    while not read_counters(engine.url).connected:
        assert time.monotonic() < deadline_s, "the engine did not find its controller"
        time.sleep(0.1)


def _drafting(folder: Path) -> tuple[str, ...]:
    lengths = folder / "lengths.json"
    lengths.write_text(json.dumps(LENGTHS))
    return (
        *DRAFTING,
        *("--speculative-adaptive-config", str(lengths)),
        *("--speculative-draft-model-path", str(tiny_eagle_head())),
    )


def _wide_model(folder: Path) -> Path:
    """A model with the tiny model's tokenizer, random weights and more tokens than that knows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trained, wide = tiny_models().target, folder / "wide-model"
    shutil.copytree(trained, wide, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = json.loads((trained / "config.json").read_text())
    config["layer_types"] = config["layer_types"][: WIDE["num_hidden_layers"]]
    (wide / "config.json").write_text(json.dumps(config | WIDE))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(wide)).save_pretrained(wide)
    return wide
