"""Widths and caps of an n-gram engine that change at every step change when tokens come, never
which."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drafting_controller import Heard, at_random, deciding, decision
from engines import QUIET, STRICT, GovernedEngine, Results, assert_sound_at_idle, until
from generating import generate, generate_all, prompts, speculated_requests
from governor_bench.engine_metrics import read_counters
from governor_bench.equality.check import compare, run
from governor_bench.processes import workspace
from governor_bench.servers import CpuEngine
from governor_protos.messages import Band, Decision, DraftSource, Outcome, RequestEnd, Snapshot

pytestmark = pytest.mark.engine

REQUESTS, SEED = 32, 5
WIDTHS = (0, 1, 3, 6)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[GovernedEngine]:
    with (
        workspace() as folder,
        CpuEngine(
            folder,
            model,
            governor={"ENDPOINT": f"ipc://{folder}/controller.sock"},
            arguments=(
                *QUIET,
                *("--speculative-algorithm", "NGRAM"),
                *("--speculative-num-draft-tokens", str(WIDTHS[-1] + 1)),
            ),
            environment=STRICT,
        ) as server,
    ):
        server.wait_ready()
        yield GovernedEngine(server, folder)
        assert server.is_running()


@pytest.fixture(scope="module")
def expected(stock_engine: CpuEngine) -> Results:
    return run(stock_engine.url, speculated_requests(REQUESTS, SEED))


def three_wide(asked: Snapshot, _: tuple[int, ...]) -> Decision:
    """Also where it comes late."""
    return decision(asked, length=4, orders=[Band(64, -1, -1, 4)])


def end_of(reply: Any, heard: Heard) -> RequestEnd | None:
    """What was told of a request's end; ends of requests before it may come along."""
    details = reply["meta_info"]
    lengths = (details["prompt_tokens"], details["completion_tokens"])
    found = [end for end in heard.ended if (end.prompt_tokens, end.output_tokens) == lengths]
    return found[-1] if found else None


def test_greedy_tokens_are_those_of_stock(engine: GovernedEngine, expected: Results) -> None:
    with deciding(engine.endpoint, at_random(1)) as heard:
        found = run(engine.url, speculated_requests(REQUESTS, SEED))
        assert compare(expected, found) == []
    assert heard.hello is not None
    assert tuple(heard.hello.draft_lengths) == WIDTHS
    drafting = heard.hello.drafting
    assert drafting is not None
    assert (drafting.source, drafting.width, drafting.most_tokens) == (DraftSource.NGRAM, 1, 6)
    assert 0 < drafting.switch_s < 1e-3
    assert any(result.spec.abort_after_s is not None for result in found.values())
    assert {step.draft_length for step in heard.decode_steps} == set(WIDTHS)
    assert sum(step.parked_rows for step in heard.decode_steps) > 0
    assert_sound_at_idle(engine.url)


def test_only_what_was_found_is_told_as_drafted(
    engine: GovernedEngine, stock_engine: CpuEngine
) -> None:
    """Twice the same: at first nothing has been seen, and then the whole answer."""
    prompt = prompts()[3]
    wanted = generate(stock_engine.url, prompt)["text"]
    forget = urllib.request.Request(f"{engine.url}/flush_cache", method="POST")
    with urllib.request.urlopen(forget, timeout=30) as reply:
        assert reply.status == 200
    told = []
    for _ in range(2):
        with deciding(engine.endpoint, three_wide) as heard:
            reply = generate(engine.url, prompt)
            generate(engine.url, "x", 24)  # keeps reports coming
            until(lambda: end_of(reply, heard) is not None, "its end was not told")  # noqa: B023
        assert reply["text"] == wanted
        end = end_of(reply, heard)
        assert end is not None
        assert end.accepted_tokens == reply["meta_info"]["spec_num_correct_drafts"]
        steps = heard.decode_steps[: end.output_tokens - 1 - end.accepted_tokens]
        assert {step.draft_length for step in steps} == {3}, "the longest that is no longer than 4"
        assert sum(step.draft_tokens for step in steps) == end.draft_tokens, "the target's work too"
        assert sum(step.accepted_tokens for step in steps) == end.accepted_tokens
        told.append((end.draft_tokens / (3 * len(steps)), end.accepted_tokens / len(steps)))
    (found, accepted), (found_again, accepted_again) = told
    assert found < found_again <= 1
    assert accepted < accepted_again <= 3


def test_a_row_accepts_no_more_than_its_cap(
    engine: GovernedEngine, stock_engine: CpuEngine
) -> None:
    def one_each(asked: Snapshot, _: tuple[int, ...]) -> Decision:
        rows = memoryview(asked.rows.request_id).cast("I")
        return decision(asked, length=6, caps=dict.fromkeys(rows, 1))

    texts = prompts()
    wanted = [reply["text"] for reply in generate_all(stock_engine.url, texts)]
    with deciding(engine.endpoint, one_each) as heard:
        assert [reply["text"] for reply in generate_all(engine.url, texts)] == wanted
    steps = [step for step in heard.decode_steps if step.outcome == Outcome.APPLIED]
    assert {step.draft_length for step in steps} == {6}
    assert all(step.accepted_tokens <= step.rows for step in steps)
    assert sum(step.accepted_tokens for step in steps) > 20


def test_requests_with_more_to_say_are_answered_as_by_stock(
    engine: GovernedEngine, stock_engine: CpuEngine
) -> None:
    """Log-probabilities, stop strings and sampling."""
    prompt = prompts()[0]
    asked = {"return_logprob": True, "top_logprobs_num": 2}
    hot = {"n": 6, "temperature": 1.0, "top_p": 0.95, "ignore_eos": True}
    whole = generate(stock_engine.url, prompt, **asked)
    stop = {"stop": [whole["text"][len(whole["text"]) // 2 :][:3]]}
    stopped = generate(stock_engine.url, prompt, sampling=stop)
    with deciding(engine.endpoint, at_random(4)):
        details = generate(engine.url, prompt, **asked)["meta_info"]
        assert generate(engine.url, prompt, sampling=stop)["text"] == stopped["text"]
        replies = generate(engine.url, prompt, 24, sampling=hot)
        only = generate(engine.url, prompt, sampling={"temperature": 1.0, "top_k": 1})["text"]
    for mine, theirs in zip(
        details["output_token_logprobs"], whole["meta_info"]["output_token_logprobs"], strict=True
    ):
        assert mine[1] == theirs[1]
        assert mine[0] == pytest.approx(theirs[0], abs=1e-3)
    assert [reply["meta_info"]["completion_tokens"] for reply in replies] == [24] * 6
    assert len({reply["text"] for reply in replies}) > 2
    assert only == whole["text"]


def test_a_policy_decides_and_without_a_controller_the_engine_verifies_all(
    engine: GovernedEngine, expected: Results
) -> None:
    before = read_counters(engine.url)
    with engine.controller("random:0.5+turbospec"):
        assert compare(expected, run(engine.url, speculated_requests(REQUESTS, SEED))) == []
        assert_sound_at_idle(engine.url)
    governed = read_counters(engine.url)
    assert governed.since(before).outcomes["applied"] > 0
    assert compare(expected, run(engine.url, speculated_requests(REQUESTS, SEED))) == []
    assert_sound_at_idle(engine.url)
    assert read_counters(engine.url).since(governed).outcomes["applied"] == 0
