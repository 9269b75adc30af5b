"""Rows that are told to give up their memory, on an engine that drafts on the emulated device."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cramped_engine import LENGTHS, abort, assert_nothing_leaked, told
from emulated_requests import begin, generate, metrics, prompt
from governor_bench.servers import EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, EndReason, RowFlag, Snapshot
from listening_controller import listening

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

RETRACTED = "governor_retracted_rows_total"
PROTECTED = {"custom_params": {"protected": True}}


def test_tokens_are_the_references_whoever_is_retracted_when_memory_is_short(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    rng = random.Random(5)
    work: list[tuple[list[int], int, dict[str, Any]]] = []
    for _ in range(24):
        samples, spared = rng.choice((1, 1, 4)), rng.random() < 0.2
        sampling = {"n": samples} | (PROTECTED if spared else {})
        work.append((prompt(rng.choice((3, 60, 400, 900))), rng.randint(20, 200), sampling))

    def decide(asked: Snapshot) -> Decision:
        rows = unpack("I", asked.rows.request_id)
        return told(
            asked,
            rng.choice((-1, 32, 500)),
            park=[row for row in rows if rng.random() < 0.3],
            retract=[row for row in rows if rng.random() < 0.05],
            draft_length=rng.choice((-1, *LENGTHS)),
        )

    before = metrics(cramped)
    with listening(cramped_folder, decide) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        futures = []
        for ids, tokens, sampling in work:
            futures.append(pool.submit(generate, cramped, ids, tokens, sampling=sampling))
            time.sleep(rng.uniform(0, 0.03))
        answers = [future.result() for future in futures]
    assert heard.hello is not None
    assert "retract" in heard.hello.knobs
    for (ids, tokens, _), answer in zip(work, answers, strict=True):
        for one in answer if isinstance(answer, list) else [answer]:
            assert one["meta_info"]["finish_reason"] == {"type": "length", "length": tokens}
            assert one["output_ids"] == continuation(ids, tokens)
    after = metrics(cramped)
    ordered = after[RETRACTED] - before.get(RETRACTED, 0)
    name = "sglang:num_retracted_requests_total"
    assert 0 < ordered <= after[name] - before.get(name, 0)
    assert_nothing_leaked(cramped)


class Retracting:
    """Retracts whoever came with so many prompt tokens, and has it wait for as long as told."""

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.hold = True
        self.waits_with = 0
        """Output tokens with which it waits."""
        self.protected = 0
        """Times that it was seen as protected."""

    def __call__(self, asked: Snapshot) -> Decision:
        rows, queue = asked.rows, asked.queue
        lengths = unpack("i", queue.prompt_tokens)
        for length, said in zip(lengths, unpack("i", queue.output_tokens), strict=True):
            if length == self.prompt_tokens and said:
                self.waits_with = said
                return told(asked, 0 if self.hold else -1)
        named = []
        for row, flags, context, said in zip(
            unpack("I", rows.request_id),
            unpack("B", rows.flags),
            unpack("i", rows.context_tokens),
            unpack("i", rows.output_tokens),
            strict=True,
        ):
            if context - said == self.prompt_tokens and said > 20 and not self.waits_with:
                self.protected += bool(flags & RowFlag.PROTECTED)
                named.append(row)
        return told(asked, -1 if named or self.waits_with else 500, retract=named)


@pytest.mark.parametrize("ends", ["aborted", "resumed"])
def test_a_retracted_request_waits_with_what_it_has_written(
    cramped: EmulatedEngine, cramped_folder: Path, ends: str
) -> None:
    retracting = Retracting(55 if ends == "aborted" else 56)
    ids, beside = prompt(retracting.prompt_tokens), prompt(40)
    with listening(cramped_folder, retracting) as heard, ThreadPoolExecutor(2) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        rows = pool.submit(generate, cramped, beside, 900, sampling={"n": 2})
        time.sleep(0.2)
        one = pool.submit(generate, cramped, ids, 300, rid="one")
        heard.wait(lambda _: retracting.waits_with > 0, "it does not wait")
        if ends == "aborted":
            abort(cramped, "one")
            one.result()  # it has ended before it may come back
        retracting.hold = False
        answer, answers = one.result(), rows.result()
        if ends == "aborted":
            generate(cramped, prompt(7), 20)  # its snapshots carry what has ended before
            heard.wait(
                lambda it: (
                    (55, EndReason.ABORTED, retracting.waits_with)
                    in {(end.prompt_tokens, end.reason, end.output_tokens) for end in it.ended}
                ),
                "its end was not told",
            )
    assert [item["output_ids"] for item in answers] == [continuation(beside, 900)] * 2
    if ends == "aborted":
        assert answer["meta_info"]["finish_reason"]["type"] == "abort"
    else:
        assert answer["meta_info"]["num_retractions"] == 1
        assert answer["output_ids"] == continuation(ids, 300)
    assert_nothing_leaked(cramped)


def test_a_client_that_leaves_while_its_request_waits_leaves_nothing_behind(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    retracting, beside = Retracting(58), prompt(40)
    with listening(cramped_folder, retracting) as heard, ThreadPoolExecutor(1) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        rows = pool.submit(generate, cramped, beside, 900, sampling={"n": 2})
        time.sleep(0.2)
        with begin(cramped, prompt(58), 300):
            heard.wait(lambda _: retracting.waits_with > 0, "it does not wait")
        heard.wait(
            lambda it: (
                (58, EndReason.ABORTED) in {(end.prompt_tokens, end.reason) for end in it.ended}
            ),
            "its end was not told",
        )
        retracting.hold = False
        answers = rows.result()
    assert [item["output_ids"] for item in answers] == [continuation(beside, 900)] * 2
    assert_nothing_leaked(cramped)


def test_protected_requests_keep_their_memory(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    retracting, ids, beside = Retracting(57), prompt(57), prompt(40)
    with listening(cramped_folder, retracting) as heard, ThreadPoolExecutor(1) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        rows = pool.submit(generate, cramped, beside, 300, sampling={"n": 2})
        answer = generate(cramped, ids, 200, sampling=PROTECTED)
        rows.result()
    assert retracting.protected > 5
    assert retracting.waits_with == answer["meta_info"]["num_retractions"] == 0
    assert answer["output_ids"] == continuation(ids, 200)


def test_an_engine_that_is_told_to_retract_all_at_every_step_serves_all(
    cramped: EmulatedEngine, cramped_folder: Path
) -> None:
    work = [(prompt(length), 30) for length in (5, 300, 9, 40)]

    def decide(asked: Snapshot) -> Decision:
        return told(asked, 500, retract=list(unpack("I", asked.rows.request_id)))

    with listening(cramped_folder, decide) as heard, ThreadPoolExecutor(len(work)) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = list(pool.map(lambda one: generate(cramped, *one), work))
    for (ids, tokens), answer in zip(work, answers, strict=True):
        assert answer["output_ids"] == continuation(ids, tokens)
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) > 20
    assert_nothing_leaked(cramped)
