"""Weights that change under retracted rows: they go on with the tokens that stock SGLang writes.

``pause_generation`` with ``mode="retract"`` and an update of the weights without a flush is how
reinforcement learning changes weights under running requests. SGLang keeps the KV of prompts, and
computes what they have written again by the new weights.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from drafting_controller import deciding, decision
from engines import GovernedEngine, assert_sound_at_idle, until
from governor_bench.equality.workload import VOCABULARY
from governor_bench.processes import workspace
from governor_protos.columns import unpack
from governor_protos.messages import Decision, Snapshot

pytestmark = pytest.mark.engine

TOKENS = 60
SAID_BEFORE = 12
PROMPT_TOKENS = 23


class RetractsOne:
    """Retracts the row with so many prompt tokens once it has said enough, and holds it then."""

    def __init__(self) -> None:
        self.waits_with = 0
        """Tokens that it has said by then."""

    def __call__(self, asked: Snapshot, lengths: tuple[int, ...]) -> Decision:
        queue, rows = asked.queue, asked.rows
        waiting = zip(
            unpack("i", queue.prompt_tokens), unpack("i", queue.output_tokens), strict=True
        )
        for length, said in waiting:
            if length == PROMPT_TOKENS and said:
                self.waits_with = said
                return decision(asked, prefill=0)
        named = [
            row
            for row, context, said in zip(
                unpack("I", rows.request_id),
                unpack("i", rows.context_tokens),
                unpack("i", rows.output_tokens),
                strict=True,
            )
            if context - said == PROMPT_TOKENS and said > SAID_BEFORE and not self.waits_with
        ]
        return decision(asked, retract=named)


@pytest.fixture(scope="module")
def other_weights(model: Path) -> Iterator[Path]:
    """The same model, with weights that say something else."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    with workspace() as folder:
        changed = folder / "model"
        shutil.copytree(model, changed)
        weights = safetensors.load_file(changed / "model.safetensors")
        torch.manual_seed(3)
        for name, weight in weights.items():
            if "layers" in name and weight.ndim > 1:
                weights[name] = weight + torch.randn_like(weight) * weight.std()
        safetensors.save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
        yield changed


def post(url: str, route: str, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/{route}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as reply:
        text = reply.read()
    try:
        return json.loads(text)
    except ValueError:
        return text


def say(url: str, ids: list[int], tokens: int) -> list[int]:
    said: list[int] = samples(url, ids, tokens, 1)["output_ids"]
    return said


def samples(url: str, ids: list[int], tokens: int, n: int) -> Any:
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True, "n": n}
    return post(url, "generate", input_ids=ids, sampling_params=sampling)


def take_weights(url: str, model: Path, *, flush: bool) -> None:
    answer = post(url, "update_weights_from_disk", model_path=str(model), flush_cache=flush)
    assert answer["success"], answer


def test_a_row_that_was_retracted_before_goes_on_as_one_that_was_not(
    normal_engine: GovernedEngine, model: Path, other_weights: Path
) -> None:
    url = normal_engine.url
    rng = Random(9)
    ids = [rng.randrange(3, VOCABULARY) for _ in range(PROMPT_TOKENS)]
    beside = [rng.randrange(3, VOCABULARY) for _ in range(9)]
    retracts = RetractsOne()
    try:
        take_weights(url, model, flush=True)
        with deciding(normal_engine.endpoint, retracts) as heard, ThreadPoolExecutor(2) as pool:
            assert heard.hello is not None
            assert "retract" in heard.hello.knobs
            # With rows that decode somebody can be held; with an extra branch every step is asked
            # about.
            decodes = pool.submit(samples, url, beside, 200, 2)
            answer = pool.submit(say, url, ids, TOKENS)
            until(lambda: retracts.waits_with > 0, "it was not retracted", timeout_s=120)
            post(url, "pause_generation", mode="retract")
            take_weights(url, other_weights, flush=False)
            post(url, "continue_generation")
        said = answer.result()
        assert [len(one["output_ids"]) for one in decodes.result()] == [200, 200]
        before, after = said[: retracts.waits_with], said[retracts.waits_with :]
        rest = len(after)

        def continued(known: int) -> list[int]:
            """By the new weights, with the KV of the prompt and so much more by the old ones."""
            take_weights(url, model, flush=True)
            assert say(url, ids, known + 1)[:known] == before[:known]
            take_weights(url, other_weights, flush=False)
            return say(url, ids + before, rest)

        assert after == continued(0)
        assert after != continued(len(before))  # or it would show nothing
    finally:
        take_weights(url, model, flush=True)
    assert_sound_at_idle(url)
