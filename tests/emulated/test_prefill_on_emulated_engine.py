"""An engine that drafts on the emulated device and is told how much to prefill, in the overlap
loop and with little memory."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from cramped_engine import CHUNK_TOKENS, LENGTHS, abort, assert_nothing_leaked, told
from emulated_requests import generate, metrics, prompt
from governor_bench.servers import EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, EndReason, QueueFlag, RowFlag, Snapshot, StepKind
from listening_controller import listening

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine


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


def test_tokens_are_the_references_whatever_is_ordered_when_memory_is_short(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    rng = random.Random(5)
    work = [(prompt(20), 220, 24)]  # more than there is room for
    for _ in range(20):
        tokens, samples = rng.randint(20, 200), rng.choice((1, 1, 4))
        work.append((prompt(rng.choice((3, 60, 400, 900))), tokens, samples))
    name = "sglang:num_retracted_requests_total"
    before = metrics(cramped).get(name, 0)
    with listening(cramped_folder, at_random(3)) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        futures = []
        for ids, tokens, samples in work:
            futures.append(pool.submit(generate, cramped, ids, tokens, sampling={"n": samples}))
            time.sleep(rng.uniform(0, 0.05))
        answers = [future.result() for future in futures]
    for (ids, tokens, _), answer in zip(work, answers, strict=True):
        for one in answer if isinstance(answer, list) else [answer]:
            assert one["meta_info"]["finish_reason"]["type"] == "length"
            assert one["output_ids"] == continuation(ids, tokens)
    assert metrics(cramped)[name] > before
    assert_nothing_leaked(cramped)


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


def test_a_held_prompt_keeps_its_room(cramped: EmulatedEngine, cramped_folder: Path) -> None:
    """The rows take all memory if they may: 8 x 470 tokens. Then the prompt's rest would not fit,
    or all rows would have to go for it and the last be aborted."""
    holding, ids = Holding(), prompt(1500)
    with listening(cramped_folder, holding) as heard, ThreadPoolExecutor(2) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        beside = prompt(40)
        rows = pool.submit(generate, cramped, beside, 430, sampling={"n": 8})
        heard.wait(lambda _: holding.rows == 8, "the rows did not start")
        assert generate(cramped, ids, 20)["output_ids"] == continuation(ids, 20)
        answers = rows.result()
    assert [answer["output_ids"] for answer in answers] == [continuation(beside, 430)] * 8
    kinds = {step.step: step.kind for step in heard.feedback}
    held = [step for step in holding.held if kinds.get(step) == StepKind.DECODE]
    assert len(held) > 20
    assert len(held) < len(holding.held), "it was never let on, though memory was short"
    assert_nothing_leaked(cramped)


def test_waiting_started_and_held_requests_can_be_aborted_and_their_ends_are_told(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    holding, lengths = Holding(), (777, 78)
    with listening(cramped_folder, holding) as heard, ThreadPoolExecutor(3) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        beside = prompt(40)
        rows = pool.submit(generate, cramped, beside, 900, sampling={"n": 2})
        heard.wait(lambda _: holding.rows == 2, "the rows did not start")
        held = pool.submit(generate, cramped, prompt(lengths[0]), 20, rid="held")
        heard.wait(lambda _: len(holding.held) > 5, "nothing was held")
        waits = pool.submit(generate, cramped, prompt(lengths[1]), 20, rid="waits")
        heard.wait(lambda _: lengths[1] in holding.waited, "nobody waited")
        abort(cramped, "waits")
        abort(cramped, "held")
        reasons = [one.result()["meta_info"]["finish_reason"]["type"] for one in (held, waits)]
        assert reasons == ["abort", "abort"]
        answers = rows.result()

        def ours() -> list[tuple[int, int]]:
            return sorted(
                (end.prompt_tokens, end.output_tokens)
                for end in heard.ended
                if end.prompt_tokens in lengths and end.reason == EndReason.ABORTED
            )

        generate(cramped, prompt(7), 20)  # its snapshots carry what has ended before
        heard.wait(lambda _: len(ours()) >= 2, "ends are missing")
    assert ours() == [(78, 0), (777, 0)]
    assert [answer["output_ids"] for answer in answers] == [continuation(beside, 900)] * 2
    assert_nothing_leaked(cramped)


def test_an_engine_that_is_always_told_to_decode_serves_all(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    work = [(prompt(length), 25) for length in (5, 300, 9, 40)]
    asked_steps: list[int] = []

    def decide(asked: Snapshot) -> Decision:
        asked_steps.append(asked.for_step)
        return told(asked, 0)

    with listening(cramped_folder, decide) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = list(pool.map(lambda one: generate(cramped, *one), work))
    for (ids, tokens), answer in zip(work, answers, strict=True):
        assert answer["output_ids"] == continuation(ids, tokens)
    assert all(later - step == 1 for step, later in pairwise(sorted(set(asked_steps))))
