"""Speculation on the reference CPU platform changes when tokens come, never which.

Three engines: n-grams, trees of a draft model, and chains of an EAGLE head, whose length SGLang's
own rule changes as it goes. Chains of a draft model run the code of the other two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engines import QUIET, STRICT, Results, assert_sound_at_idle
from generating import generate, generate_all, prompts, speculated_requests
from governor_bench.equality.check import compare, run
from governor_bench.processes import workspace
from governor_bench.servers import CpuEngine
from governor_bench.tiny_models import tiny_eagle_head, tiny_models

pytestmark = pytest.mark.engine

REQUESTS, SEED = 32, 5
CHAIN_LENGTHS = {"1": {"candidate_steps": [1, 3]}, "6": {"candidate_steps": [0, 1, 3]}}
"""By batch size, as SGLang's `--speculative-adaptive-config` has it."""


@dataclass(frozen=True)
class Speculating:
    """An engine that speculates, and how many tokens it may draft a step."""

    url: str
    algorithm: str
    steps: int


def arguments(algorithm: str, folder: Path) -> tuple[str, ...]:
    if algorithm == "NGRAM":
        return ("--speculative-num-draft-tokens", "8")
    if algorithm == "STANDALONE":
        draft, steps, topk, nodes = tiny_models().draft, 3, 3, 8
        changing: tuple[str, ...] = ()
    else:
        draft, steps, topk, nodes = tiny_eagle_head(), 3, 1, 4
        lengths = folder / "lengths.json"
        lengths.write_text(json.dumps(CHAIN_LENGTHS))
        changing = ("--speculative-adaptive", "--speculative-adaptive-config", str(lengths))
    return (
        *("--speculative-draft-model-path", str(draft)),
        *("--speculative-num-steps", str(steps)),
        *("--speculative-eagle-topk", str(topk)),
        *("--speculative-num-draft-tokens", str(nodes)),
        *changing,
    )


@pytest.fixture(scope="module", params=["NGRAM", "STANDALONE", "EAGLE"])
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[Speculating]:
    algorithm = request.param
    with (
        workspace() as folder,
        CpuEngine(
            folder,
            model,
            overlap=True,  # SGLang switches it off
            arguments=(*QUIET, "--speculative-algorithm", algorithm, *arguments(algorithm, folder)),
            environment=STRICT,
        ) as server,
    ):
        server.wait_ready()
        yield Speculating(server.url, algorithm, 7 if algorithm == "NGRAM" else 3)
        assert server.is_running()
        assert (algorithm == "EAGLE") == ("Built adaptive" in server.log.read_text())


@pytest.fixture(scope="module")
def expected(stock_engine: CpuEngine) -> Results:
    return run(stock_engine.url, speculated_requests(REQUESTS, SEED))


def test_greedy_tokens_are_those_of_stock(engine: Speculating, expected: Results) -> None:
    found = run(engine.url, speculated_requests(REQUESTS, SEED))
    assert compare(expected, found) == []
    assert any(result.spec.abort_after_s is not None for result in found.values())
    assert any(len(result.branches) > 1 for result in found.values())


def test_more_than_one_token_a_step_is_accepted(engine: Speculating) -> None:
    """Once unknown text and once, at the end of the run, text that an n-gram corpus has seen."""
    for _ in range(2):
        replies = generate_all(engine.url, prompts())
    details = [reply["meta_info"] for reply in replies]
    verifications = sum(detail["spec_verify_ct"] for detail in details)
    accepted = sum(detail["spec_num_correct_drafts"] for detail in details)
    assert 1.2 < 1 + accepted / verifications <= 1 + engine.steps
    assert max(detail["spec_accept_length"] for detail in details) > 1.5


def test_log_probabilities_are_those_of_stock(engine: Speculating, stock_engine: CpuEngine) -> None:
    wanted, found = (
        generate(url, prompts()[0], return_logprob=True, top_logprobs_num=2)["meta_info"]
        for url in (stock_engine.url, engine.url)
    )
    assert len(found["output_token_logprobs"]) == found["completion_tokens"]
    assert len(found["output_top_logprobs"]) == found["completion_tokens"]
    for mine, theirs in zip(
        found["output_token_logprobs"], wanted["output_token_logprobs"], strict=True
    ):
        assert mine[1] == theirs[1]
        assert mine[0] == pytest.approx(theirs[0], abs=1e-3)


def test_stop_strings_end_where_stock_ends(engine: Speculating, stock_engine: CpuEngine) -> None:
    """Also in the middle of what a step accepts."""
    for prompt in prompts()[:4]:
        whole = generate(stock_engine.url, prompt)["text"]
        stop = whole[len(whole) // 2 :][:3]
        wanted, found = (
            generate(url, prompt, sampling={"stop": [stop]})
            for url in (stock_engine.url, engine.url)
        )
        assert found["text"] == wanted["text"]
        assert stop not in found["text"]
        assert found["meta_info"]["finish_reason"]["matched"] == stop


def test_sampling_varies_and_follows_its_limits(engine: Speculating) -> None:
    """That the distribution is the target's, tests/kernels shows."""
    prompt = prompts()[0]
    hot = {"n": 8, "temperature": 1.0, "top_p": 0.95, "ignore_eos": True}
    replies = generate(engine.url, prompt, 24, sampling=hot)
    assert [reply["meta_info"]["completion_tokens"] for reply in replies] == [24] * 8
    assert len({reply["text"] for reply in replies}) > 2
    greedy = generate(engine.url, prompt, 24)["text"]
    only = generate(engine.url, prompt, 24, sampling={"temperature": 1.0, "top_k": 1})["text"]
    assert only == greedy


def test_nothing_is_left_at_idle(engine: Speculating) -> None:
    assert_sound_at_idle(engine.url)
