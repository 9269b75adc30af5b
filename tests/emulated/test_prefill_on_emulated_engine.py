"""One real engine that drafts on the emulated device and is told how much to prefill, in the
overlap loop and with little memory."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from emulated_requests import generate, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import (
    Band,
    Decision,
    EndReason,
    QueueFlag,
    RowFlag,
    Snapshot,
    StepKind,
)
from listening_controller import listening

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

LENGTHS = (0, 1, 2, 4)
CHUNK_TOKENS = 128
KV_TOKENS = 4096
PROFILE = {
    "name": "small",
    "source": "made up for this test",
    "measured": False,
    "fixed_s": 0.004,
    "row_s": 1e-5,
    "context_token_s": 1e-7,
    "prefill_token_s": 1e-5,
    "draft_token_s": 1e-5,
    "draft_step_s": 2e-4,
    "kv_tokens": KV_TOKENS,
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmulatedEngine]:
    profile = folder / "small.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    with EmulatedEngine(
        folder,
        profile,
        governor={
            "ENDPOINT": f"ipc://{folder}/controller.sock",
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, LENGTHS)),
        },
        arguments=(
            *("--enable-metrics", "--chunked-prefill-size", str(CHUNK_TOKENS)),
            # Rows are let in that will not fit for long, whatever the pace of their arrival.
            *("--schedule-conservativeness", "0.1"),
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(LENGTHS[-1])),
        ),
        environment={"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"},
    ) as started:
        started.wait_ready()
        yield started
        assert started.is_running()


def told(
    asked: Snapshot, tokens: int = -1, first: list[int] | None = None, **more: Any
) -> Decision:
    return Decision(
        asked.for_step,
        4,
        array("I", more.pop("park", [])).tobytes(),
        [Band(1 << 30, -1, -1, prefill_tokens=tokens)],
        *("test", 0.0, 0.0, 0.0, 0.0),
        prefill_tokens=tokens,
        prefill_first=array("I", first or []).tobytes(),
        **more,
    )


def at_random(seed: int) -> Callable[[Snapshot], Decision]:
    rng = random.Random(seed)

    def decide(asked: Snapshot) -> Decision:
        waiting = unpack("I", asked.queue.request_id)
        return told(
            asked,
            rng.choice((-1, 0, 0, 0, rng.randint(1, 16), rng.randint(1, CHUNK_TOKENS))),
            rng.sample(list(waiting), rng.randint(0, len(waiting))),
            park=[row for row in unpack("I", asked.rows.request_id) if rng.random() < 0.3],
            draft_length=rng.choice((-1, *LENGTHS)),
        )

    return decide


def abort(engine: EmulatedEngine, rid: str) -> None:
    request = urllib.request.Request(
        f"{engine.url}/abort_request",
        data=json.dumps({"rid": rid}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def assert_nothing_leaked(engine: EmulatedEngine) -> None:
    """SGLang ends an engine whose pools do not add up once it is idle."""
    time.sleep(1.0)
    assert generate(engine, [3, 4, 5], 5)["output_ids"] == continuation([3, 4, 5], 5)
    assert engine.is_running()


def test_tokens_are_the_references_whatever_is_ordered_when_memory_is_short(
    engine: EmulatedEngine, folder: Path
) -> None:
    rng = random.Random(5)
    work = [(prompt(20), 220, 24)]  # more than there is room for
    for _ in range(20):
        tokens, samples = rng.randint(20, 200), rng.choice((1, 1, 4))
        work.append((prompt(rng.choice((3, 60, 400, 900))), tokens, samples))
    name = "sglang:num_retracted_requests_total"
    before = metrics(engine).get(name, 0)
    with listening(folder, at_random(3)) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        futures = []
        for ids, tokens, samples in work:
            futures.append(pool.submit(generate, engine, ids, tokens, sampling={"n": samples}))
            time.sleep(rng.uniform(0, 0.05))
        answers = [future.result() for future in futures]
    for (ids, tokens, _), answer in zip(work, answers, strict=True):
        for one in answer if isinstance(answer, list) else [answer]:
            assert one["meta_info"]["finish_reason"]["type"] == "length"
            assert one["output_ids"] == continuation(ids, tokens)
    assert metrics(engine)[name] > before
    assert_nothing_leaked(engine)


class Holding:
    """Starts prompts by small chunks and then holds them for as long as anything decodes, which is
    without drafts and so takes a while."""

    def __init__(self) -> None:
        self.held: list[int] = []
        """Steps that were told to hold a prompt in its middle."""
        self.waited: set[int] = set()
        """Prompt tokens of those that waited, as they tell them apart."""
        self.rows = 0

    def __call__(self, asked: Snapshot) -> Decision:
        flags = unpack("B", asked.queue.flags)
        self.waited |= set(unpack("i", asked.queue.prompt_tokens))
        self.rows = sum(not flag & RowFlag.UNBORN for flag in unpack("B", asked.rows.flags))
        if not flags or not flags[0] & QueueFlag.STARTED:
            return told(asked, 32, draft_length=0)
        # It is a row as well.
        assert unpack("I", asked.queue.request_id)[0] in unpack("I", asked.rows.request_id)
        self.held += [asked.for_step] if self.rows else []
        return told(asked, 0, draft_length=0)


def test_a_held_prompt_keeps_its_room(engine: EmulatedEngine, folder: Path) -> None:
    """The rows take all memory if they may: 8 x 470 tokens. Then the prompt's rest would not fit,
    or all rows would have to go for it and the last be aborted."""
    holding, ids = Holding(), prompt(1500)
    with listening(folder, holding) as heard, ThreadPoolExecutor(2) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        beside = prompt(40)
        rows = pool.submit(generate, engine, beside, 430, sampling={"n": 8})
        heard.wait(lambda _: holding.rows == 8, "the rows did not start")
        assert generate(engine, ids, 20)["output_ids"] == continuation(ids, 20)
        answers = rows.result()
    assert [answer["output_ids"] for answer in answers] == [continuation(beside, 430)] * 8
    kinds = {step.step: step.kind for step in heard.feedback}
    held = [step for step in holding.held if kinds.get(step) == StepKind.DECODE]
    assert len(held) > 20
    assert len(held) < len(holding.held), "it was never let on, though memory was short"
    assert_nothing_leaked(engine)


def test_waiting_started_and_held_requests_can_be_aborted_and_their_ends_are_told(
    engine: EmulatedEngine, folder: Path
) -> None:
    holding, lengths = Holding(), (777, 78)
    with listening(folder, holding) as heard, ThreadPoolExecutor(3) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        beside = prompt(40)
        rows = pool.submit(generate, engine, beside, 900, sampling={"n": 2})
        heard.wait(lambda _: holding.rows == 2, "the rows did not start")
        held = pool.submit(generate, engine, prompt(lengths[0]), 20, rid="held")
        heard.wait(lambda _: len(holding.held) > 5, "nothing was held")
        waits = pool.submit(generate, engine, prompt(lengths[1]), 20, rid="waits")
        heard.wait(lambda _: lengths[1] in holding.waited, "nobody waited")
        abort(engine, "waits")
        abort(engine, "held")
        reasons = [one.result()["meta_info"]["finish_reason"]["type"] for one in (held, waits)]
        assert reasons == ["abort", "abort"]
        answers = rows.result()

        def ours() -> list[tuple[int, int]]:
            return sorted(
                (end.prompt_tokens, end.output_tokens)
                for end in heard.ended
                if end.prompt_tokens in lengths and end.reason == EndReason.ABORTED
            )

        generate(engine, prompt(7), 20)  # its snapshots carry what has ended before
        heard.wait(lambda _: len(ours()) >= 2, "ends are missing")
    assert ours() == [(78, 0), (777, 0)]
    assert [answer["output_ids"] for answer in answers] == [continuation(beside, 900)] * 2
    assert_nothing_leaked(engine)


def test_an_engine_that_is_always_told_to_decode_serves_all(
    engine: EmulatedEngine, folder: Path
) -> None:
    work = [(prompt(length), 25) for length in (5, 300, 9, 40)]
    asked_steps: list[int] = []

    def decide(asked: Snapshot) -> Decision:
        asked_steps.append(asked.for_step)
        return told(asked, 0)

    with listening(folder, decide) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = list(pool.map(lambda one: generate(engine, *one), work))
    for (ids, tokens), answer in zip(work, answers, strict=True):
        assert answer["output_ids"] == continuation(ids, tokens)
    assert all(later - step == 1 for step, later in pairwise(sorted(set(asked_steps))))
