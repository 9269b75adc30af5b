"""Tier C: an engine that drafts with a trained head on the CPU, and a controller that knows the
baselines."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from governor_bench.eval.running_engine import last_step
from governor_bench.eval.speculation.baselines import FIRST_LENGTH, TIERS
from governor_bench.eval.speculation.controller import MODULE
from governor_bench.eval.speculation.cpu.plan import LENGTHS
from governor_bench.eval.speculation.cpu.texts import Texts, accept_lengths, prompts_of
from governor_bench.eval.speculation.recorded import decode_steps, late_share, step_figures
from governor_bench.eval.speculation.setting import (
    NO_TARGET_MS,
    Outcome,
    Setting,
    judge,
    judged_requests,
)
from governor_bench.load.client import LoadClient
from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_eagle_head, tiny_models

DRAIN_S = 60.0
SORTED_UNDER = "fixed_draft:5"
NO_BATCH = 100_000
"""A batch size that is never reached."""


def own_rule() -> dict[str, Any]:
    """SGLang's own tiers, and one for batches that never are, which names the other lengths: so
    that its rule is what it would be without them."""
    tiers: dict[str, Any] = {
        str(rows): {
            "candidate_steps": lengths,
            "up_hysteresis": 0.0,
            "down_hysteresis": down,
            "ceiling_coeff": 0,
        }
        for rows, lengths, down in TIERS
    }
    return tiers | {str(NO_BATCH): {"candidate_steps": LENGTHS}}


class Drafts(NamedTuple):
    """How an engine drafts."""

    lengths: dict[str, Any]
    """For ``--speculative-adaptive-config``."""
    arguments: tuple[str, ...]


CHAINS = Drafts(
    own_rule(),
    (
        "--speculative-adaptive",
        *("--speculative-eagle-topk", "1", "--speculative-num-steps", str(FIRST_LENGTH)),
    ),
)
TREES = Drafts(
    {"1": {"candidate_steps": [0, 1, 2, 3]}},
    (
        *("--speculative-eagle-topk", "3", "--speculative-num-steps", "3"),
        *("--speculative-num-draft-tokens", "12"),
    ),
)


class Run(NamedTuple):
    """One run."""

    outcome: Outcome
    outputs: dict[int, list[int]]
    """Token ids by request, of those that were served to their end."""


class CpuRig:
    """Runs settings one after the other; engine and controller keep what they learn."""

    def __init__(self, engine: CpuEngine, controller: Controller, model: Path) -> None:
        self._engine = engine
        self._controller = controller
        self._model = model

    def sorted_texts(self, most: int) -> Texts:
        """The two ends of all texts, once the engine has continued them.

        Args:
            most: of each origin (:func:`..texts.prompts_of`).
        """
        prompts = prompts_of(self._model, most)
        self._controller.set_policy(SORTED_UNDER)
        texts = Texts.of(prompts, accept_lengths(self._engine.url, prompts))
        make_idle(self._engine.url)
        return texts

    def run(self, setting: Setting, texts: Texts) -> Run:
        """Run ``setting``.

        Raises:
            RunFailed: not all requests were served.
        """
        self._controller.set_policy(setting.policy)
        since = last_step(self._controller)
        specs = iter(texts.requests(setting))
        results = LoadClient(self._engine.url, token_ids=True).run_closed(
            lambda: next(specs, None),
            setting.load,
            enough=setting.load + judged_requests(setting),
        )
        make_idle(self._engine.url)
        records = decode_steps(self._controller, since)
        steps = step_figures(records, 1.0, times_real_time=1.0)
        served = [result.served() for result in results]
        return Run(
            judge(
                setting,
                served,
                msgspec.structs.replace(steps, late_share=round(late_share(records), 4)),
            ),
            {
                result.spec.index: result.branches[0].output_ids
                for result, one in zip(results, served, strict=True)
                if one.finished
            },
        )


def make_idle(url: str) -> None:
    """Wait until nothing runs, and empty the prefix cache: the same prompts come again under the
    next policy, and must not find themselves cached.

    Raises:
        urllib.error.HTTPError: the engine still works long after the load was cut off.
    """
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{url}/flush_cache?timeout={DRAIN_S:g}", method="POST"
    )
    with urllib.request.urlopen(request, timeout=2 * DRAIN_S):  # noqa: S310 - our own URL
        pass


@contextlib.contextmanager
def cpu_rig(on_stage: Callable[[str], None], drafts: Drafts) -> Iterator[CpuRig]:
    """Start controller and engine; both end with the block."""
    with workspace() as folder:
        on_stage("the models: trained once, then cached")
        models, head = tiny_models(progress=False), tiny_eagle_head(progress=False)
        on_stage("starting controller and engine")
        lengths = folder / "lengths.json"
        lengths.write_text(json.dumps(drafts.lengths))
        with (
            Controller(folder, policy="fixed_draft:0", program=(MODULE,)) as controller,
            CpuEngine(
                folder,
                models.target,
                governor={
                    "ENDPOINT": controller.endpoint,
                    "DEFAULT_TPOT_SLO_MS": str(NO_TARGET_MS),
                },
                arguments=(
                    *("--sleep-on-idle", "--enable-metrics", "--speculative-algorithm", "EAGLE"),
                    *("--speculative-draft-model-path", str(head)),
                    *("--speculative-adaptive-config", str(lengths)),
                    *drafts.arguments,
                ),
            ) as engine,
        ):
            controller.wait_ready()
            engine.wait_ready()
            yield CpuRig(engine, controller, models.target)
